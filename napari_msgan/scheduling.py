"""Plan which tiles a region needs, and start them in order; deals with no voxels."""

from __future__ import annotations

import heapq
from collections import defaultdict
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_msgan.geometry import Box
    from napari_msgan.tiling import Tile, Tiling


def plan_tiles(
    tiling: Tiling,
    regions: Sequence[Box],
    scale: int,
    is_refined: Callable[[Tile], bool],
    focus: Box | None = None,
) -> list[Tile]:
    """Return the missing tiles that regions need, each after the tiles that it reads.

    Tiles of `scale` are ordered by their distance to the centre of `focus`; without one, region by
    region and slice by slice along the longest axis, so that chunks shared by neighbours are read
    once. Each comes right after the coarser tiles that it needs, so that the first ones are
    finished early.

    Parameters
    ----------
    regions, focus : boxes in voxels of the finest scale.
    is_refined : function that tells whether a tile is in the store.
    """
    targets: list[Tile] = []
    for region in regions:
        axes = sorted(range(tiling.geometry.ndim), key=lambda axis: -region.shape[axis])
        tiles = tiling.tiles(scale, tiling.geometry.box_at(scale, region))
        targets += sorted(tiles, key=lambda tile: [tile.index[axis] for axis in axes])
    if focus is not None:
        middle = np.add(focus.start, focus.stop) / 2
        factor = np.array(tiling.geometry.total_factor(scale))

        def distance(tile: Tile) -> float:
            core = tiling.core(tile)
            centre = np.add(core.start, core.stop) / 2 * factor
            return float(((centre - middle) ** 2).sum())

        targets.sort(key=distance)
    plan: dict[Tile, None] = {}

    def visit(tile: Tile) -> None:
        if tile in plan or is_refined(tile):
            return
        for needed in tiling.dependencies(tile):
            visit(needed)
        plan[tile] = None

    for tile in targets:
        visit(tile)
    return list(plan)


class TileDriver(Protocol):
    """Where tiles are made: threads of this process, or workers elsewhere."""

    @property
    def capacity(self) -> int:
        """Return how many tiles may be in progress at a time."""

    def begin(self, tile: Tile) -> None:
        """Start a tile; everything it reads is in the store already."""

    def finished(self) -> list[Tile]:
        """Wait for a tile, and return all that were written to the store since the last call.

        If waiting may take long, an empty list is returned from time to time.

        Raises
        ------
        MsganError
            If a tile could not be made; a note names it.
        """


def run_in_order(tiling: Tiling, plan: Sequence[Tile], driver: TileDriver) -> Iterator[Tile | None]:
    """Start each tile once what it reads is there; yield finished tiles, or None while waiting."""
    rank = {tile: number for number, tile in enumerate(plan)}
    missing = {tile: {d for d in tiling.dependencies(tile) if d in rank} for tile in plan}
    readers: dict[Tile, list[Tile]] = defaultdict(list)
    for tile, needed in missing.items():
        for other in needed:
            readers[other].append(tile)
    ready = [rank[tile] for tile in plan if not missing[tile]]  # in order, so already a heap
    running = 0
    while ready or running:
        while ready and running < driver.capacity:
            driver.begin(plan[heapq.heappop(ready)])
            running += 1
        finished = driver.finished()
        if not finished:
            yield None
        for tile in finished:
            running -= 1
            for reader in readers[tile]:
                missing[reader].discard(tile)
                if not missing[reader]:
                    heapq.heappush(ready, rank[reader])
            yield tile
