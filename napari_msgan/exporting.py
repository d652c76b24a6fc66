"""What an export contains: a scale of a store, on its own grid or on that of the source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from napari_msgan.config import INEXACT_NOTE
from napari_msgan.errors import GeometryError
from napari_msgan.geometry import Box
from napari_msgan.pyramid import view_volume
from napari_msgan.resampling import corner_aligned_first, resample
from napari_msgan.volume import LazyArray, Volume, turn

if TYPE_CHECKING:
    from napari_msgan.pyramid import PyramidStore

Grid = Literal["store", "source"]


def grid_volumes(store: PyramidStore, scale: int, region: Box, grid: Grid) -> list[Volume]:
    """Return the volumes to export, that of `scale` first, then the coarser ones; read when sliced.

    Parameters
    ----------
    region : box in voxels of the finest scale.
    grid : "store", or "source" for a single volume on the voxel grid and in the orientation of the
        source.

    Raises
    ------
    GeometryError
        If `grid` is neither.
    """
    if grid not in get_args(Grid):
        raise GeometryError(f"grid {grid!r} is not one of {', '.join(get_args(Grid))}")
    if grid == "source":
        return [_on_source_grid(store, scale, region)]
    return [view_volume(store, s, region) for s in range(scale, -1, -1)]


def _on_source_grid(store: PyramidStore, scale: int, region: Box) -> Volume:
    source, geometry = store.info.source, store.geometry
    orientation = source.orientation
    turned_shape = tuple(source.shape[i] for i in orientation.order)
    turned_affine = orientation.apply_to_affine(source.to_affine(), source.shape)
    # voxel i of the finest scale lies at first + step * i of the turned source
    ratio = zip(geometry.affine.spacing, turned_affine.spacing, strict=True)
    step = tuple(own / theirs for own, theirs in ratio)
    first = corner_aligned_first(step)
    ends = [
        (
            min(n - 1, max(0, round(f + s * (a - 0.5) + 0.5))),
            min(n, round(f + s * (b - 0.5) + 0.5)),
        )
        for f, s, a, b, n in zip(first, step, region.start, region.stop, turned_shape, strict=True)
    ]
    box = Box(tuple(a for a, _ in ends), tuple(max(b, a + 1) for a, b in ends))
    total = geometry.total_factor(scale)
    back = tuple(1 / (s * f) for s, f in zip(step, total, strict=True))
    start = tuple(
        ((j - f0) / s + 0.5) / f - 0.5
        for j, f0, s, f in zip(box.start, first, step, total, strict=True)
    )
    view = view_volume(store, scale).data

    def read(part: Box) -> npt.NDArray[Any]:
        values = resample(view, back, start, part)
        return (np.rint(values) if view.dtype.kind in "iu" else values).astype(view.dtype)

    data = LazyArray(box.shape, view.dtype, read, store.info.tile_shape)
    affine = turned_affine.rescaled((1,) * box.ndim, box.start)
    return turn(Volume(data, affine, source.unit), orientation.inverse)


def provenance(store: PyramidStore, scale: int, box: Box, grid: Grid) -> dict[str, Any]:
    """Return the description stored in every exported file: what it is, and how it was made.

    box : exported part, in voxels of `scale`.
    """
    info = store.info
    thresholds = info.sketch.thresholds
    return {
        "synthetic": True,
        "notice": (
            "Made by a generative model from a sketch; not for diagnosis. If the sketch was "
            "made from a patient's image, this is that patient's data."
        ),
        "software": f"napari-msgan {info.version}",
        "model": info.model_name,
        "model_sha256": info.model_sha256,
        "modality": info.modality,
        "exact": info.exact,
        "tiles": "equal to the whole image" if info.exact else INEXACT_NOTE,
        "seed": info.seed,
        "scale": scale,
        "n_scales": store.n_scales,
        "region": str(store.geometry.region_of(scale, box)),
        "grid": grid,
        "refined_fraction": store.refined_fraction(scale, box),
        "honest_scale": info.source.honest_scale,
        "source_sha256": info.source.sha256,
        "source_name": info.source.name,
        "sketch_sha256": info.sketch.sha256,
        "sketch_edited": info.sketch.edited is not None,
        "sketch_density": thresholds[scale].density if thresholds else None,
        "fingerprint": info.fingerprint.model_dump(mode="json") if info.fingerprint else None,
    }
