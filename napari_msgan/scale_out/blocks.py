"""OME-Zarr exports whose blocks are written by the workers of a cluster."""

from __future__ import annotations

import math
import uuid
from itertools import islice
from typing import TYPE_CHECKING

from napari_msgan import __version__
from napari_msgan.exporting import grid_volumes
from napari_msgan.geometry import Box
from napari_msgan.scale_out import worker
from napari_msgan.scale_out.calls import Calls, failure
from napari_msgan.scale_out.worker import ExportJob, info_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_msgan.exporting import Grid
    from napari_msgan.geometry import Ints
    from napari_msgan.io import Fill
    from napari_msgan.pyramid import PyramidStore
    from napari_msgan.scale_out.cluster import Cluster

#: Chunks per axis of a block, chosen so that a call takes long compared with sending it.
_CHUNKS_PER_BLOCK = {2: 4, 3: 2}


def filled_by(cluster: Cluster, store: PyramidStore, scale: int, region: Box, grid: Grid) -> Fill:
    """Return a function that has a cluster fill an export; parameters as for `grid_volumes`."""

    def fill(target: Path, progress: Callable[[float], None]) -> None:
        mark = target / f".{uuid.uuid4().hex}.partial"
        mark.touch()
        job = ExportJob(
            mark.name,
            store.address,
            info_hash(store),
            str(target.absolute()),
            scale,
            region.start,
            region.stop,
            grid,
            __version__,
        )
        shapes = [volume.shape for volume in grid_volumes(store, scale, region, grid)]
        _write_levels(cluster, job, shapes, progress)
        mark.unlink()
        for leftover in target.rglob("*.partial"):  # from workers that were killed
            leftover.unlink(missing_ok=True)

    return fill


def _write_levels(
    cluster: Cluster, job: ExportJob, shapes: list[Ints], progress: Callable[[float], None]
) -> None:
    waiting = _blocks(shapes)
    done, total = 0, sum(math.prod(shape) for shape in shapes)
    calls: Calls[tuple[int, Box]] = Calls(cluster, _note)
    try:
        for _, outcome in [*cluster.ask_all(worker.check_export, tuple(job))]:
            if outcome is not None:
                raise failure(outcome)
        while True:
            # Asked for each time, because workers may leave while calls run.
            for level, box in islice(waiting, max(0, calls.capacity - len(calls))):
                calls.begin(
                    (level, box), worker.write_block, tuple(job), level, box.start, box.stop
                )
            if not calls:
                return
            for block, outcome in calls.finished():
                if outcome is not None:
                    raise failure(outcome, _note(block))
                done += block[1].size
            progress(done / total)
    finally:
        calls.abandon(job.token)


def _blocks(shapes: list[Ints]) -> Iterator[tuple[int, Box]]:
    from napari_msgan.io.ome_zarr import export_chunks

    for level, shape in enumerate(shapes):
        chunks = tuple(_CHUNKS_PER_BLOCK[len(shape)] * n for n in export_chunks(shape))
        for box in Box.of_shape(shape).blocks(chunks):
            yield level, box


def _note(block: tuple[int, Box]) -> str:
    return f"while writing box {block[1]} of level {block[0]}"
