"""Several regions of a store, refined as one job."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np

from napari_msgan.geometry import Box
from napari_msgan.jobs import Progress, iter_refine
from napari_msgan.model import find_by_identity, load_folder
from napari_msgan.pyramid import PyramidStore
from napari_msgan.scale_out import joined_cluster
from napari_msgan.scheduling import plan_tiles
from napari_msgan.tiling import Tile


def missing_tiles(store: PyramidStore, boxes: Sequence[Box], scale: int) -> set[Tile]:
    """Return the tiles up to a scale that boxes of the finest scale still need, each once."""
    tiling = store.tiling

    def is_refined(tile: Tile) -> bool:
        return store.is_refined(tile.scale, tiling.core(tile))

    return {tile for box in boxes for tile in plan_tiles(tiling, box, scale, is_refined)}


def seen_first(boxes: Sequence[Box], focus: Box | None) -> list[Box]:
    """Return in which order boxes are refined: all that is looked at, then the nearest box first.

    What an earlier box has in common with a later one is done by then.
    """
    if focus is None:
        return list(boxes)
    middle = np.add(focus.start, focus.stop) / 2

    def distance(box: Box) -> float:
        nearest = np.clip(middle, box.start, box.stop)
        return float(((nearest - middle) ** 2).sum())

    ordered = sorted(boxes, key=distance)
    seen = [box.intersect(focus) for box in ordered]
    return [*(box for box in seen if box.size), *ordered]


def iter_refine_boxes(
    store: PyramidStore,
    boxes: Sequence[Box],
    scale: int,
    *,
    device: str,
    focus: Box | None,
    cluster: str | None = None,
) -> Generator[Progress, None, PyramidStore]:
    """Refine boxes of the finest scale; done, total and time left are those of all together.

    cluster : whose workers make the tiles, as in `iter_generate`.

    Raises
    ------
    MsganError
        A subclass that says what does not fit.
    """
    if len(boxes) == 1:
        return (
            yield from iter_refine(
                store, region=boxes[0], scale=scale, device=device, focus=focus, cluster=cluster
            )
        )
    info = store.info
    model = load_folder(find_by_identity(info.model_sha256, info.model_path))
    # The lock is held so that nobody else makes tiles that are counted here.
    with joined_cluster(cluster) as joined, store.writing():
        total, done = len(missing_tiles(store, boxes, scale)), 0
        left_s: float | None = None
        started = time.monotonic()
        for box in seen_first(boxes, focus):
            steps = iter_refine(
                store,
                region=box,
                scale=scale,
                model=model,
                device=device,
                focus=focus,
                cluster=joined,
            )
            with closing(steps):
                for step in steps:
                    report = step.report
                    if report is not None:
                        done += 1
                        elapsed = time.monotonic() - started
                        report = replace(report, done=done, total=total, elapsed_s=elapsed)
                        left_s = report.remaining_s
                    yield Progress("tiles", done, total, left_s, report, store)
    return store
