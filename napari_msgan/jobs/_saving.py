"""Write a store or a sketch to common image formats."""

from __future__ import annotations

import json
import os
import warnings
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_msgan.config import SKETCH_DESCRIPTION
from napari_msgan.errors import JobError
from napari_msgan.exporting import Grid, grid_volumes, provenance
from napari_msgan.folders import is_url
from napari_msgan.io import format_of, iter_read_volume, write_volume
from napari_msgan.jobs._common import (
    OnProgress,
    Progress,
    Stage,
    checked_scale,
    region_box,
    said_of_sketch,
)
from napari_msgan.pyramid import PyramidStore, is_store, open_pyramid
from napari_msgan.scale_out import Cluster, filled_by, joined_cluster
from napari_msgan.sketch import lazy_sketch
from napari_msgan.sketch_settings import SketchSettings
from napari_msgan.source import hash_pixels, warn_of_unknown
from napari_msgan.steps import run_to_end
from napari_msgan.volume import LazyArray, Volume, with_spacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from napari_msgan.geometry import Box


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
    """Export a scale of a store, or a region of it, to TIFF, NIfTI, OME-Zarr (dense) or 2-D PNG.

    Parts that are not refined are upsampled from the coarser scale; the file records the refined
    fraction.

    Parameters
    ----------
    store : the store, or its folder or URL.
    out : file to write: ``.tif``, ``.ome.tif``, ``.nii``, ``.nii.gz``, ``.ome.zarr`` or ``.png``.
    progress : called with each `Progress`; raise an exception in it to cancel, which leaves nothing
        behind.
    scale : scale to export; None for the finest.
    region : box in voxels of the finest scale, or its text form; None for the whole image.
    grid : "store", or "source" for the voxel grid and orientation of the source.
    overwrite : whether `out` may be replaced if it exists; a store is never replaced.
    cluster : see `iter_generate`; for OME-Zarr only, because the other formats are a single file,
        which one process has to write.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    MsganError
        A subclass that says what does not fit.
    """
    if not isinstance(store, PyramidStore):
        store = open_pyramid(store)
    geometry = store.geometry
    scale = geometry.finest_scale if scale is None else checked_scale(scale)
    geometry.check_scale(scale)
    box = region_box(geometry.shape, geometry.axes, region)
    levels = grid_volumes(store, scale, box, grid)
    description = provenance(store, scale, geometry.box_at(scale, box), grid)

    _check_target(out, store.address, overwrite=overwrite)

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


def make_sketch(
    source: Volume | Path | str,
    out: Path | str,
    *,
    settings: SketchSettings | None = None,
    spacing: float | Sequence[float] | None = None,
    progress: OnProgress | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the sketch (edge map) of an image at its own resolution, as uint8.

    The file can be edited and passed to `generate` with ``input_is_sketch=True``. If the source is
    a file that declares itself a sketch, e.g. ``a.ome.zarr/sketch`` of a store, its edges are
    copied as they are; pass the edited copy to `generate` with ``edited_from="a.ome.zarr"``.

    Parameters
    ----------
    source : image, shape (Z, Y, X) or (Y, X), or its file.
    out : file to write; for the formats see `export`.
    settings : how edges are found; None for the defaults for 2-D or 3-D images. Those of a model
        are ``load_model(name).spec.sketch``.
    spacing : voxel size of the source, see `iter_generate`; the sketch gets it too.
    progress : called with each `Progress`; raise an exception in it to cancel, which leaves nothing
        behind.
    overwrite : whether `out` may be replaced if it exists; a store is never replaced.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    MsganError
        A subclass that says what does not fit.
    """

    def report(stage: Stage, fraction: float) -> None:
        if progress is not None:
            progress(Progress(stage, fraction, 1.0))

    given = None if isinstance(source, Volume) else source
    _check_target(out, given, overwrite=overwrite)
    said = None if given is None else said_of_sketch(given)
    if not isinstance(source, Volume):
        source = run_to_end(iter_read_volume(source), partial(report, "unpacking"))
    volume = with_spacing(source, spacing)
    warn_of_unknown(volume)
    settings = settings or SketchSettings.of_ndim(len(volume.shape))

    edges = lazy_sketch(volume.data, settings) if said is None else volume.data
    has_edges = False

    def watched(box: Box) -> npt.NDArray[Any]:
        nonlocal has_edges
        block = np.asarray(edges[box.slices])
        has_edges |= bool(block.any())
        return block

    sketch = replace(volume, data=LazyArray(edges.shape, edges.dtype, watched))
    description = said or {
        **SKETCH_DESCRIPTION,
        "source_sha256": hash_pixels(volume),
        "settings": settings.model_dump(mode="json"),
    }
    write_volume(
        Path(out),
        [sketch],
        description=description,
        progress=partial(report, "sketch"),
        overwrite=overwrite,
    )
    if not has_edges:
        warnings.warn(f"the sketch {out} is empty: is the image constant?", stacklevel=2)
    return Path(out)


def _check_target(out: Path | str, source: Path | str | None, *, overwrite: bool) -> None:
    """Refuse a target that would damage the source or replace a store, which nothing could restore.

    Raises
    ------
    JobError
        If `out` is a URL, is or contains `source`, lies inside it, or would replace a store.
    """
    if is_url(out):
        raise JobError(
            f"{out} is a URL, and only stores can be at a URL: give a path on this computer"
        )
    out = Path(out)
    given = None if source is None or is_url(source) else Path(source)
    if given is not None and given.exists():
        if any(_is_same(out, folder) for folder in (given, *given.resolve().parents)):
            raise JobError(f"{out} is, or holds, {given}, which is read: choose another name")
        if given.is_dir() and any(_is_same(given, folder) for folder in out.resolve().parents):
            raise JobError(f"{out} lies inside {given}, which is read: choose another place")
    for store in _stores_in(out) if overwrite else ():
        where = "is a store" if store == out else f"holds the store {store}"
        raise JobError(
            f"{out} {where}, with its sketch and what was refined: choose another name, or "
            "delete it yourself"
        )


def _is_same(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)


def _stores_in(folder: Path) -> Iterator[Path]:
    """Yield the stores in a folder, without walking through the chunks of arrays."""
    for name, folders, files in os.walk(folder):
        here = Path(name)
        if ".zarray" in files:
            folders.clear()
        elif is_store(here):
            yield here
        elif "zarr.json" in files and _is_array(here / "zarr.json"):
            folders.clear()


def _is_array(metadata: Path) -> bool:
    with suppress(OSError, ValueError, AttributeError, RecursionError):
        return bool(json.loads(metadata.read_bytes()).get("node_type") == "array")
    return False
