"""Describe a new store and make its sketch; check that an existing one fits a job."""

from __future__ import annotations

import hashlib
import warnings
from typing import TYPE_CHECKING

import numpy as np

from napari_msgan import __version__
from napari_msgan.errors import GeometryError, StoreError
from napari_msgan.geometry import Box
from napari_msgan.model import bundled_folder, user_folder
from napari_msgan.pyramid import (
    GeometryInfo,
    SketchInfo,
    SketchView,
    SourceInfo,
    StoreInfo,
    check_sizes,
)
from napari_msgan.source import (
    hash_pixels,
    iter_sketch_edited,
    iter_sketch_given,
    iter_sketch_image,
    plan_edited,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_msgan.geometry import Ints
    from napari_msgan.model import Model
    from napari_msgan.pyramid import PyramidBuilder, PyramidStore
    from napari_msgan.sketch import Uint8Array
    from napari_msgan.source import SourcePlan
    from napari_msgan.volume import Volume


def checked_halos(plan: SourcePlan, model: Model) -> tuple[Ints, ...]:
    """Return the halo of each scale of a new store, after checking the size of the store.

    Raises
    ------
    GeometryError
        If the store would exceed the largest sizes allowed.
    """
    geometry, spec = plan.geometry, model.spec
    halos = tuple(model.halo(scale) for scale in range(geometry.n_scales))
    try:
        check_sizes(geometry, spec.tile_shape, spec.chunk_shape, halos)
    except ValueError as error:
        spacing = geometry.spacing_at(geometry.finest_scale)
        sides = (f"{n * s:.0f}" for n, s in zip(geometry.shape, spacing, strict=True))
        raise GeometryError(
            f"the image is too large for a store: {error}. It would be {' x '.join(sides)} "
            f"{'mm' if geometry.unit == 'millimeter' else 'pixels'} large: is its voxel size in mm?"
        ) from error
    return halos


def describe_store(
    plan: SourcePlan,
    volume: Volume,
    model: Model,
    seed: int,
    *,
    input_is_sketch: bool,
    name: str | None,
) -> StoreInfo:
    """Return the metadata of a new store.

    volume : the source as it was given, before it was permuted and flipped.

    Raises
    ------
    GeometryError
        See `checked_halos`.
    """
    spec, folder = model.spec, model.folder.absolute()
    # models in the catalogue are found without a path, which might tell the user's name
    is_known = folder.parent in (bundled_folder(), user_folder().absolute())
    halos = checked_halos(plan, model)
    return StoreInfo(
        version=__version__,
        model_name=spec.name,
        model_sha256=spec.identity,
        model_path=None if is_known else str(folder),
        modality=spec.modality,
        kind=spec.kind,
        window=spec.window,
        dtype=spec.dtype,
        exact=spec.exact,
        stochastic=spec.stochastic,
        seed=seed,
        tile_shape=spec.tile_shape,
        chunk_shape=spec.chunk_shape,
        halos=halos,
        extra_scales=plan.extra_scales,
        geometry=GeometryInfo.from_geometry(plan.geometry),
        source=SourceInfo(
            shape=volume.shape,
            affine=tuple(tuple(float(v) for v in row) for row in volume.affine.matrix),
            unit=volume.unit,
            order=plan.orientation.order,
            flipped=plan.orientation.flipped,
            sha256=hash_pixels(volume),
            name=name,
            honest_scale=plan.honest_scale,
            is_sketch=input_is_sketch,
        ),
        sketch=SketchInfo(settings=spec.sketch, given=input_is_sketch),
    )


def describe_edited(
    volume: Volume, model: Model, seed: int, original: PyramidStore, *, name: str | None
) -> tuple[SourcePlan, StoreInfo]:
    """Return the plan and the metadata of a store made from the edited sketch of another one.

    Its recorded source is that of the original, except for the name.

    Raises
    ------
    GeometryError
        See `napari_msgan.source.plan_edited`.
    """
    known = original.info
    plan = plan_edited(volume, model.spec, known)
    new = describe_store(plan, volume, model, seed, input_is_sketch=True, name=None)
    source = known.source.model_copy(update={"name": name})
    sketch = known.sketch.model_copy(update={"sha256": None, "edited": _hash_edited(volume, known)})
    return plan, new.model_copy(update={"source": source, "sketch": sketch})


def iter_make_sketch(
    plan: SourcePlan,
    builder: PyramidBuilder,
    workers: int,
    original: PyramidStore | None = None,
) -> Generator[tuple[int, int], None, SketchInfo]:
    """Write the sketch of every scale; yield (done, total), and return the metadata of the sketch.

    original : store whose sketch the source is an edited copy of; None for any other source.
    """
    info = builder.info
    blocks: dict[tuple[int, tuple[int, ...]], tuple[bytes, int]] = {}

    def write(scale: int, box: Box, block: Uint8Array) -> None:
        builder.write_sketch(scale, box, block)
        digest = hashlib.sha256(block.tobytes()).digest()
        blocks[scale, box.start] = digest, int(np.count_nonzero(block))

    if original is not None:
        scales = range(original.n_scales)
        before = [SketchView(original, scale, whole=True) for scale in scales]
        steps = iter_sketch_edited(plan, original.info.sketch, before, builder.read_sketch, write)
    elif info.sketch.given:
        steps = iter_sketch_given(plan, info.sketch.settings, builder.read_sketch, write)
    else:
        steps = iter_sketch_image(plan, info.sketch.settings, write, workers, builder.scratch)
    thresholds = yield from steps
    if not any(count for _, count in blocks.values()):
        is_image = original is None and not info.sketch.given
        kind = "image has no edges (is it constant?)" if is_image else "given sketch is empty"
        warnings.warn(
            f"the {kind}: the result shows nothing of it, only what the model knows",
            stacklevel=2,
        )
    whole = hashlib.sha256(b"".join(blocks[key][0] for key in sorted(blocks))).hexdigest()
    measured = []
    for scale, threshold in enumerate(thresholds):
        edges = sum(count for (s, _), (_, count) in blocks.items() if s == scale)
        density = edges / Box.of_shape(plan.geometry.shape_at(scale)).size
        measured.append(threshold.model_copy(update={"density": density}))
    return info.sketch.model_copy(update={"thresholds": tuple(measured) or None, "sha256": whole})


def check_same_job(
    store: PyramidStore,
    volume: Volume,
    model: Model,
    seed: int,
    *,
    input_is_sketch: bool,
    original: PyramidStore | None = None,
) -> None:
    """Check that a store was made from this source, by this model, seed and kind of sketch.

    original : store whose sketch the source is an edited copy of; None for any other source.

    Raises
    ------
    StoreError
        If it was not; the message names what differs.
    """
    info = store.info
    seen = {
        "with another model": info.model_sha256 == model.spec.identity,
        f"with another seed ({info.seed})": info.seed == seed or not info.stochastic,
        "with other settings of the sketch": info.sketch.settings == model.spec.sketch,
    }
    if original is None:
        seen |= _same_source(info, volume, input_is_sketch=input_is_sketch)
    else:
        seen |= _same_edited_sketch(info, volume, original.info)
    for what, is_same in seen.items():
        if not is_same:
            raise StoreError(
                f"{store.address} belongs to another job: it was made {what}. Choose another name."
            )


def _same_source(info: StoreInfo, volume: Volume, *, input_is_sketch: bool) -> dict[str, bool]:
    source = info.source
    return {
        "from an edited sketch": info.sketch.edited is None,
        "from an image" if input_is_sketch else "from a sketch": source.is_sketch
        == input_is_sketch,
        "with another voxel size (give --spacing as before)": source.unit == volume.unit
        and source.to_affine().spacing == volume.affine.spacing,
        "from a source that lies elsewhere": source.to_affine() == volume.affine,
        "from a source with other pixels": source.sha256 == hash_pixels(volume),
    }


def _same_edited_sketch(info: StoreInfo, volume: Volume, original: StoreInfo) -> dict[str, bool]:
    return {
        "from a sketch that was not edited": info.sketch.edited is not None,
        "from the sketch of another image": info.source.model_copy(update={"name": None})
        == original.source.model_copy(update={"name": None})
        and info.geometry == original.geometry,
        "from a sketch with other edits, or of another store": info.sketch.edited
        == _hash_edited(volume, original),
    }


def _hash_edited(volume: Volume, original: StoreInfo) -> str:
    """Return a hash of an edited sketch and of the original, which may itself have been edited."""
    return hashlib.sha256(f"{original.sketch.sha256} {hash_pixels(volume)}".encode()).hexdigest()
