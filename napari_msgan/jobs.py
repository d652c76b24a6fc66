"""The use cases that terminal, plugin and Python share: generate, refine, export, sketch.

Every job is a generator of `Progress`; who consumes it cancels by closing it, and what was
finished stays. The plain verbs run to completion.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from napari_msgan.config import Precision, SketchSettings
from napari_msgan.creating import check_same_job, describe_store, iter_make_sketch
from napari_msgan.errors import GeometryError, JobError, StoreError
from napari_msgan.exporting import Grid, grid_volumes, provenance
from napari_msgan.geometry import Box
from napari_msgan.io import format_of, iter_read_volume, write_volume
from napari_msgan.model import Model, find_by_identity, load_folder, load_model
from napari_msgan.pyramid import (
    PyramidStore,
    create_pyramid,
    open_pyramid,
)
from napari_msgan.refiner import TileContext, TileReport, in_threads, iter_refine_tiles
from napari_msgan.scale_out import Cluster, filled_by, joined_cluster, on_cluster
from napari_msgan.sketch import lazy_sketch
from napari_msgan.source import (
    plan_source,
)
from napari_msgan.steps import changed, run_to_end
from napari_msgan.verifying import Verification, iter_verify_store
from napari_msgan.volume import Volume

Stage = Literal["unpacking", "sketch", "tiles", "export", "verify", "compare"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is; `report` comes with each finished tile."""

    stage: Stage
    done: float
    total: float
    remaining_s: float | None = None
    report: TileReport | None = None
    store: PyramidStore | None = None


OnProgress = Callable[[Progress], None]


def resolve_device(device: str) -> str:
    """Return "cpu" or "cuda" for "auto", "cpu" or "cuda".

    Raises
    ------
    JobError
        If a GPU is asked for and torch sees none.
    """
    if device == "cpu":
        return device
    if device not in ("auto", "cuda"):
        raise JobError(f"device {device!r} is not one of auto, cpu, cuda")
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise JobError("device 'cuda' was asked for, but torch sees no GPU. Use the CPU instead.")
    return "cpu"


def default_workers(device: str) -> int:
    """Return one worker per core on the CPU, two on a GPU (one reads while the other computes)."""
    if device != "cpu":
        return 2
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def generate(
    source: Volume | Path | str,
    out: Path | str,
    model: Model | Path | str,
    *,
    progress: OnProgress | None = None,
    **options: Any,
) -> PyramidStore:
    """Make a store from an image and compute the tiles asked for; see `iter_generate`."""
    return run_to_end(iter_generate(source, out, model, **options), progress)


def iter_generate(
    source: Volume | Path | str,
    out: Path | str,
    model: Model | Path | str,
    *,
    scale: int | None = None,
    finest: int | None = None,
    region: Box | str | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: Precision = "fp32",
    input_is_sketch: bool = False,
    name: str | None = None,
    workers: int | None = None,
    focus: Box | None = None,
    cluster: Cluster | str | None = None,
) -> Generator[Progress, None, PyramidStore]:
    """Make the sketch pyramid, scale 0, and every tile of a region up to a scale.

    An existing store of the same source, model, seed, sketch and precision is gone on with.

    Parameters
    ----------
    out : folder of the store, ending in ``.ome.zarr``.
    scale : last scale to compute; None for the finest that the source supports.
    finest : last scale that a new store declares, so that it can be refined to; None for
        `scale`, or for what the source supports where that is finer.
    region : box of the finest scale (or its text form); None for everything.
    input_is_sketch : the source is a sketch: integers / type maximum, or floats in [0, 1].
    name : of the source, kept in the store; None keeps none, because file names name patients.
    cluster : whose workers make the tiles: "local:4", the address of a Dask scheduler, or one that
        is open; None for `workers` threads of this process, which always make the sketch.

    Raises
    ------
    MsganError
        A subclass that says what does not fit.
    """
    with joined_cluster(cluster) as joined:
        yield Progress("sketch", 0, 1)
        volume = source if isinstance(source, Volume) else (yield from _unpacked(source))
        if device != "auto" and joined is None:
            resolve_device(device)
        model = model if isinstance(model, Model) else load_model(model)
        if seed and not model.spec.stochastic:
            warnings.warn(
                f"model {model.spec.name!r} has no random part: seed {seed} changes nothing",
                stacklevel=2,
            )
        out = Path(out)
        if out.is_dir():
            store = open_pyramid(out, writable=True)
            check_same_job(store, volume, model, seed, input_is_sketch=input_is_sketch)
        else:
            plan = plan_source(volume, model.spec, scale if finest is None else finest)
            info = describe_store(
                plan, volume, model, seed, input_is_sketch=input_is_sketch, name=name
            )
            box = _region(info.to_geometry().shape, plan.geometry.axes, region)
            plan.geometry.box_at(0, box)
            with create_pyramid(out, info) as builder:
                steps = iter_make_sketch(plan, builder, workers or default_workers("cpu"))
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


def _unpacked(source: Path | str) -> Generator[Progress, None, Volume]:
    steps = iter_read_volume(source)
    return (yield from changed(steps, lambda fraction: Progress("unpacking", fraction, 1.0)))


def _region(shape: tuple[int, ...], axes: tuple[str, ...], region: Box | str | None) -> Box:
    if region is None:
        return Box.of_shape(shape)
    return Box.parse(region, axes) if isinstance(region, str) else region


def refine(
    store: PyramidStore | Path | str,
    *,
    progress: OnProgress | None = None,
    **options: Any,
) -> PyramidStore:
    """Compute more tiles of a store; see `iter_refine`."""
    return run_to_end(iter_refine(store, **options), progress)


def iter_refine(
    store: PyramidStore | Path | str,
    *,
    region: Box | str | None = None,
    scale: int | None = None,
    model: Model | Path | str | None = None,
    device: str = "auto",
    precision: Precision | None = None,
    workers: int | None = None,
    focus: Box | None = None,
    cluster: Cluster | str | None = None,
) -> Generator[Progress, None, PyramidStore]:
    """Compute the tiles of a region up to a scale that are not in the store yet.

    Parameters
    ----------
    region : box of the finest scale (or its text form); None for everything.
    scale : None for the finest.
    model : None to find it by the hash in the store.
    precision : None for that of the store, or fp32.
    focus : box of the finest scale that is looked at: its tiles come first.
    cluster : as in `iter_generate`.

    Raises
    ------
    MsganError
        A subclass that says what does not fit.
    """
    if not isinstance(store, PyramidStore):
        store = open_pyramid(store, writable=True)
    info, geometry = store.info, store.geometry
    scale = geometry.finest_scale if scale is None else scale
    if not 0 <= scale < geometry.n_scales:
        raise GeometryError(
            f"scale {scale} does not exist: this store has the scales 0 to "
            f"{geometry.finest_scale}. A finer one needs a new store, generated up to it."
        )
    box = _region(geometry.shape, geometry.axes, region)
    geometry.box_at(scale, box)
    if info.fingerprint and device == "auto":  # a store keeps to one kind of device
        device = info.fingerprint.device
    if precision is None:
        precision = info.fingerprint.precision if info.fingerprint else "fp32"
    model = _model_of(store, model)
    with joined_cluster(cluster) as joined:
        if joined is None:
            device = resolve_device(device)
            drive = in_threads(workers or default_workers(device))
        else:
            device = joined.device(device)
            drive = on_cluster(joined)
        context = TileContext(store, model, device, precision)
        with closing(iter_refine_tiles(context, box, scale, drive=drive, focus=focus)) as reports:
            for report in reports:
                done, total, left_s = report.done, report.total, report.remaining_s
                yield Progress("tiles", done, total, left_s, report, store)
    return store


def _model_of(store: PyramidStore, model: Model | Path | str | None) -> Model:
    info = store.info
    if model is None:
        return load_folder(find_by_identity(info.model_sha256, info.model_path))
    model = model if isinstance(model, Model) else load_model(model)
    if model.spec.identity != info.model_sha256:
        raise StoreError(
            f"{store.path} was made by model {info.model_name!r} ({info.model_sha256[:12]}), "
            f"not by {model.spec.name!r} ({model.spec.identity[:12]}): their tiles would not fit "
            "together"
        )
    return model


def export(
    store: PyramidStore | Path | str,
    out: Path | str,
    *,
    progress: OnProgress | None = None,
    scale: int | None = None,
    region: Box | str | None = None,
    grid: Grid = "store",
    overwrite: bool = False,
    cluster: Cluster | str | None = None,
) -> Path:
    """Write a scale of a store, or a region of it, as TIFF, NIfTI or dense OME-Zarr.

    What is not refined is upsampled from the coarser scale; the file says how much that is.

    Parameters
    ----------
    out : ``.tif``, ``.ome.tif``, ``.nii``, ``.nii.gz`` or ``.ome.zarr``.
    region : box of the finest scale (or its text form).
    grid : "store", or "source" for the voxels and orientation of the source.
    progress : may raise to cancel; nothing is left behind then.
    cluster : as in `iter_generate`, only for OME-Zarr: the other formats are one file, which one
        process has to write.

    Raises
    ------
    MsganError
        A subclass that says what does not fit.
    """
    if not isinstance(store, PyramidStore):
        store = open_pyramid(store)
    geometry = store.geometry
    scale = geometry.finest_scale if scale is None else scale
    geometry.check_scale(scale)
    box = _region(geometry.shape, geometry.axes, region)
    levels = grid_volumes(store, scale, box, grid)
    description = provenance(store, scale, geometry.box_at(scale, box), grid)

    def report(fraction: float) -> None:
        if progress is not None:
            progress(Progress("export", fraction, 1.0))

    if cluster is not None and format_of(out) != "ome_zarr":
        raise JobError(
            f"{out} is one file, which one process has to write: leave the cluster out, or export "
            "to .ome.zarr"
        )
    with joined_cluster(cluster) as joined:
        fill = None if joined is None else filled_by(joined, store, scale, box, grid)
        write_volume(
            Path(out),
            levels,
            description=description,
            progress=report,
            overwrite=overwrite,
            fill=fill,
        )
    return Path(out)


def verify(
    store: Path | str, *, progress: OnProgress | None = None, **options: Any
) -> Verification:
    """Check whether a store can be trusted; see `iter_verify`."""
    return run_to_end(iter_verify(store, **options), progress)


def iter_verify(
    store: Path | str,
    *,
    repair: bool = False,
    sample: int | Literal["all"] = 8,
    model: Model | Path | str | None = None,
) -> Generator[Progress, None, Verification]:
    """Check metadata, files, chunks and sketch of a store, and make some tiles again.

    Parameters
    ----------
    repair : remove what cannot be trusted and all that was made from it; refining makes it again.
    sample : how many tiles are made again and compared bit for bit.
    model : None to find it by the hash in the store; if it is not found, no tile is compared.

    Raises
    ------
    StoreError
        If there is no store, the model is not its own, or another process is writing to it when
        it is to be repaired.
    """
    given = load_model(model) if isinstance(model, (Path, str)) else model
    steps = iter_verify_store(
        Path(store).absolute(),
        lambda opened: _model_of(opened, given),
        sample=None if sample == "all" else sample,
        repair=repair,
    )
    return (yield from changed(steps, lambda step: Progress(step.stage, step.done, step.total)))


def make_sketch(
    source: Volume | Path | str,
    out: Path | str,
    *,
    settings: SketchSettings | None = None,
    progress: OnProgress | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the edge map of an image at its own resolution, uint8.

    Such a file can be drawn on and given to `generate` with ``input_is_sketch=True``.
    """

    def report(stage: Stage, fraction: float) -> None:
        if progress is not None:
            progress(Progress(stage, fraction, 1.0))

    if not isinstance(source, Volume):
        source = run_to_end(iter_read_volume(source), partial(report, "unpacking"))
    volume = source
    settings = settings or SketchSettings.of_ndim(len(volume.shape))

    sketch = replace(volume, data=lazy_sketch(volume.data, settings))
    description = {"content": "sketch", "settings": settings.model_dump(mode="json")}
    write_volume(
        Path(out),
        [sketch],
        description=description,
        progress=partial(report, "sketch"),
        overwrite=overwrite,
    )
    return Path(out)
