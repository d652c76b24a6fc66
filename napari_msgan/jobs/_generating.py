"""Create a store and compute its tiles."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import closing
from inspect import signature
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, get_args

from napari_msgan.computing import TileContext
from napari_msgan.config import Precision
from napari_msgan.creating import (
    check_same_job,
    describe_edited,
    describe_store,
    iter_make_sketch,
)
from napari_msgan.errors import GeometryError, JobError
from napari_msgan.io import iter_read_volume
from napari_msgan.jobs._common import (
    OnProgress,
    Progress,
    checked_scale,
    default_workers,
    gpu_name,
    model_of,
    region_box,
    resolve_device,
    said_of_sketch,
)
from napari_msgan.model import Model, load_model
from napari_msgan.pyramid import PyramidStore, create_pyramid, open_pyramid, place_of
from napari_msgan.refiner import TileReport, in_threads, iter_refine_tiles
from napari_msgan.scale_out import Cluster, joined_cluster, on_cluster
from napari_msgan.source import plan_source
from napari_msgan.steps import changed, cpu_threads, run_to_end
from napari_msgan.volume import Volume, with_spacing

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from napari_msgan.geometry import Box


class _TileOptions(TypedDict, total=False):
    scale: int | None
    device: str
    workers: int | None
    focus: Box | None
    cluster: Cluster | str | None


class GenerateOptions(_TileOptions, total=False):
    """Keyword arguments of `iter_generate`."""

    region: Box | str | None
    finest: int | None
    seed: int | None
    precision: Precision | None
    input_is_sketch: bool
    edited_from: PyramidStore | Path | str | None
    spacing: float | Sequence[float] | None
    name: str | None


class RefineOptions(_TileOptions, total=False):
    """Keyword arguments of `iter_refine`."""

    region: Box | str | Sequence[Box] | None
    model: Model | Path | str | None
    precision: Precision | None


def generate(
    source: Volume | Path | str,
    out: Path | str,
    model: Model | Path | str,
    *,
    progress: OnProgress | None = None,
    **options: Unpack[GenerateOptions],
) -> PyramidStore:
    """Generate an image from a source image and return its store.

    Parameters
    ----------
    progress : called with each `Progress`; raise an exception in it to stop the job. Finished
        tiles are kept.
    source, out, model, options : see `iter_generate`, also for the exceptions raised.
    """
    return run_to_end(iter_generate(source, out, model, **options), progress)


def iter_generate(
    source: Volume | Path | str,
    out: Path | str,
    model: Model | Path | str,
    *,
    scale: int | None = None,
    finest: int | None = None,
    region: Box | str | None = None,
    seed: int | None = None,
    device: str = "auto",
    precision: Precision | None = None,
    input_is_sketch: bool = False,
    edited_from: PyramidStore | Path | str | None = None,
    spacing: float | Sequence[float] | None = None,
    name: str | None = None,
    workers: int | None = None,
    focus: Box | None = None,
    cluster: Cluster | str | None = None,
) -> Generator[Progress, None, PyramidStore]:
    """Generate an image: its sketch at every scale, scale 0, and a region up to a given scale.

    If `out` is an existing store of the same source, model, seed, sketch and precision, the job
    continues there.

    Parameters
    ----------
    source : image, shape (Z, Y, X) or (Y, X), or its file; see `napari_msgan.read_volume`.
    out : folder of the store, or a URL that fsspec can open; it ends in ``.ome.zarr``.
    model : name in the catalogue, model folder, or a model returned by `napari_msgan.load_model`.
    scale : last scale to compute; None for the finest scale of the store.
    finest : finest scale declared by a new store, up to which it can be refined later; None for
        `scale`. It is never coarser than the source supports. With a model without voxel sizes
        (chest-xray) it is always the source's own pixel grid.
    region : box in voxels of the finest scale, or its text form; None for the whole image.
    seed : for models with a random part (chest-xray): another seed gives other textures. None for
        the seed of `edited_from`, else 0.
    device : "cpu", "cuda", or "auto" for the GPU if torch sees one.
    precision : "fp32", or "bf16" for faster mixed precision; fixed for the store. None for the
        precision of `edited_from`, else "fp32".
    input_is_sketch : whether the source is a sketch: integers, where the maximum of the type is the
        strongest edge, or floats in [0, 1].
    edited_from : store of this model if the source is an edited copy of its sketch at the finest
        scale. Coarser scales keep their own edges where the copy was not edited, so that the images
        differ by what was edited. The new store gets the scales of this one.
    spacing : voxel size of the source in mm, as (z, y, x), (y, x) or one number for all axes, if
        the file has none or a wrong one; None for that of the source.
    name : name of the source, stored with the result; None stores no name, because file names may
        identify patients.
    workers : number of tiles computed at a time, each in its own thread; None for one per core, or
        two on a GPU. On the CPU the sketch uses as many threads; with a GPU, one per core.
    focus : box in voxels of the finest scale, usually what is in view: tiles near its centre are
        computed first.
    cluster : cluster whose workers compute the tiles: "local:4", the address of a Dask scheduler,
        or a cluster from `napari_msgan.scale_out.open_cluster`; None for `workers` threads of this
        process. The sketch is always made in this process.

    Raises
    ------
    MsganError
        A subclass that says what does not fit.
    """
    _check_options(precision, workers, scale, finest)
    with joined_cluster(cluster) as joined:
        yield Progress("sketch", 0, 1)
        if isinstance(source, Volume):
            volume = source
        else:
            if not input_is_sketch and edited_from is None:
                _check_is_image(source)  # before it is unpacked
            volume = yield from _unpacked(source)
        volume = with_spacing(volume, spacing)
        # with a cluster, its workers compute the tiles, and the sketch is made here on the CPU
        computed_by = resolve_device(device) if joined is None else "cpu"
        model = load_model(model)
        original = edited_from
        if original is not None:
            if not isinstance(original, PyramidStore):
                original = open_pyramid(original)
            model_of(original, model)  # refuses a different model
            made = original.info.fingerprint
            seed = original.info.seed if seed is None else seed
            precision = made.precision if precision is None and made is not None else precision
        precision = precision or "fp32"
        seed = _taken_seed(0 if seed is None else seed, model)
        if place_of(out).is_there():
            store = open_pyramid(out, writable=True)
            check_same_job(
                store, volume, model, seed, input_is_sketch=input_is_sketch, original=original
            )
        else:
            if original is None:
                plan = plan_source(volume, model.spec, scale if finest is None else finest)
                info = describe_store(
                    plan, volume, model, seed, input_is_sketch=input_is_sketch, name=name
                )
            else:
                plan, info = describe_edited(volume, model, seed, original, name=name)
                plan.geometry.check_scale(scale or 0)
            box = region_box(info.to_geometry().shape, plan.geometry.axes, region)
            plan.geometry.box_at(0, box)
            with create_pyramid(out, info) as builder:
                steps = iter_make_sketch(plan, builder, cpu_threads(computed_by, workers), original)
                sketch = yield from changed(steps, lambda step: Progress("sketch", *step))
                store = builder.finish(sketch)
        yield from iter_refine(
            store,
            model=model,
            scale=scale,
            region=region,
            device=device,
            precision=precision,
            workers=workers,
            focus=focus,
            cluster=joined,
        )
        return store


def _check_options(precision: Precision | None, workers: int | None, *scales: int | None) -> None:
    """Refuse invalid options, which would otherwise be noticed only after the sketch was made."""
    if precision is not None and precision not in get_args(Precision):
        raise JobError(f"precision {precision!r} is not one of {', '.join(get_args(Precision))}")
    for scale in scales:
        if scale is not None:
            checked_scale(scale)
    if workers is not None and not (isinstance(workers, Integral) and workers >= 1):
        raise JobError(f"workers {workers!r} is not a whole number of 1 or more")


def _taken_seed(seed: int, model: Model) -> int:
    """Return the seed to record in a store: 0 if the model has no random part."""
    if not isinstance(seed, Integral):
        raise JobError(f"seed {seed!r} is not a whole number")
    if seed and not model.spec.stochastic:
        warnings.warn(
            f"model {model.spec.name!r} has no random part: seed {seed} changes nothing",
            stacklevel=2,
        )
        return 0
    return int(seed)


def refine(
    store: PyramidStore | Path | str,
    *,
    progress: OnProgress | None = None,
    **options: Unpack[RefineOptions],
) -> PyramidStore:
    """Compute more tiles of a store and return it.

    Parameters
    ----------
    progress : see `generate`.
    store, options : see `iter_refine`, also for the exceptions raised.
    """
    return run_to_end(iter_refine(store, **options), progress)


def iter_refine(
    store: PyramidStore | Path | str,
    *,
    region: Box | str | Sequence[Box] | None = None,
    scale: int | None = None,
    model: Model | Path | str | None = None,
    device: str = "auto",
    precision: Precision | None = None,
    workers: int | None = None,
    focus: Box | None = None,
    cluster: Cluster | str | None = None,
) -> Generator[Progress, None, PyramidStore]:
    """Compute the missing tiles of a region, up to a given scale.

    Parameters
    ----------
    store : folder or URL of the store, or a store opened with ``open_pyramid(..., writable=True)``.
    scale : last scale to compute; None for the finest.
    model : model of the store, as in `iter_generate`; None to find it by the hash in the store.
    device, precision : those that the store was started with; others are accepted only while it has
        no tiles. Otherwise as in `iter_generate`; `precision` None then means "fp32".
    region : as in `iter_generate`, or several boxes; a tile that several of them need is computed
        once.
    workers, focus, cluster : see `iter_generate`.

    Raises
    ------
    MsganError
        A subclass that says what does not fit.
    """
    _check_options(precision, workers, scale)
    if not isinstance(store, PyramidStore):
        store = open_pyramid(store, writable=True)
    made, geometry = store.info.fingerprint, store.geometry
    scale = geometry.finest_scale if scale is None else scale
    if not 0 <= scale < geometry.n_scales:
        raise GeometryError(
            f"scale {scale} does not exist: this store has the scales 0 to "
            f"{geometry.finest_scale}. A finer one needs a new store, generated up to it."
        )
    parts: Sequence[Box | str | None] = [region]  # type: ignore[list-item]
    if isinstance(region, Sequence) and not isinstance(region, str):
        parts = region
    boxes = [region_box(geometry.shape, geometry.axes, part) for part in parts]
    for box in boxes:
        geometry.box_at(scale, box)
    if focus is not None:
        focus = region_box(geometry.shape, geometry.axes, focus)
    if made and device == "auto":  # all tiles of a store are made on one kind of device
        device = made.device
    if precision is None:
        precision = made.precision if made else "fp32"
    model = model_of(store, model)
    with joined_cluster(cluster) as joined:
        if joined is None:
            device = resolve_device(device)
            gpu, machine = gpu_name(device), None
            drive = in_threads(workers or default_workers(device))
        else:
            device, gpu, machine = joined.device(device)
            drive = on_cluster(joined)
        context = TileContext(store, model, device, precision, gpu, machine)
        with closing(iter_refine_tiles(context, boxes, scale, drive=drive, focus=focus)) as reports:
            left_s = None
            for step in reports:
                report = step if isinstance(step, TileReport) else None
                left_s = report.remaining_s if report is not None else left_s
                yield Progress("tiles", step.done, step.total, left_s, report, store)
    return store


def _check_is_image(source: Path | str) -> None:
    if said_of_sketch(source) is not None:
        raise JobError(
            f"{source} says that it is a sketch: add --input-is-sketch (in Python "
            "input_is_sketch=True), else the edges of its edges would be taken"
        )


def _unpacked(source: Path | str) -> Generator[Progress, None, Volume]:
    steps = iter_read_volume(source)
    return (yield from changed(steps, lambda fraction: Progress("unpacking", fraction, 1.0)))


def _show_options(function: Any, steps: Callable[..., object]) -> None:
    """Make `help` and notebooks list the keyword arguments of `steps` as options of `function`."""
    own, taken = signature(function), signature(steps).parameters.values()
    kept = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = [p for p in taken if p.kind is p.KEYWORD_ONLY]
    function.__signature__ = own.replace(parameters=[*kept, *options])


_show_options(generate, iter_generate)
_show_options(refine, iter_refine)
