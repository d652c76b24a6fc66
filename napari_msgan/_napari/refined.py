"""Which boxes of a volume are refined: the 3-D display shows each at its own resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy import ndimage

from napari_msgan.geometry import Box
from napari_msgan.pyramid import PyramidStore
from napari_msgan.scheduling import plan_tiles

#: No more boxes than this are found: each is a layer, and is read as a whole.
MAX_FOUND = 8


@dataclass(frozen=True)
class ShownBox:
    """A refined region in voxels of the finest scale, shown separately in the 3-D display."""

    scale: int
    region: Box


def refined_boxes(store: PyramidStore, known: Sequence[ShownBox] = ()) -> list[ShownBox]:
    """Return the known boxes, then boxes around everything else that is refined, finest first.

    Coarser tiles made for a finer box count as part of it, and so does whatever touches a known
    box: its frame, which was requested, says enough. The whole image is a box only if all of it
    is refined.
    """
    geometry, tiling = store.geometry, store.tiling
    rest = [store.refined_chunks(scale).copy() for scale in range(geometry.n_scales)]
    chunk_shape = store.info.chunk_shape

    def take_coarser(box: ShownBox) -> None:
        for tile in plan_tiles(tiling, [box.region], box.scale, lambda tile: False):
            if tile.scale < box.scale:
                rest[tile.scale][tiling.core(tile).cover(chunk_shape).slices] = False

    for box in known:
        take_coarser(box)
    found: list[ShownBox] = []
    for scale in range(geometry.finest_scale, 0, -1):
        parts, _ = ndimage.label(rest[scale])
        regions = [
            geometry.region_of(scale, _box_of(part).multiply(chunk_shape))
            for part in ndimage.find_objects(parts)
        ]
        whole = None if store.refined_chunks(scale).all() else Box.of_shape(geometry.shape)
        for region in sorted(regions, key=lambda region: region.size, reverse=True):
            is_drawn = any(
                box.scale >= scale and box.region.intersect(region).size for box in known
            )
            is_shown = any(box.region.contains(region) for box in found)
            if is_drawn:
                take_coarser(ShownBox(scale, region))
            elif len(found) < MAX_FOUND and region != whole and not is_shown:
                found.append(ShownBox(scale, region))
                take_coarser(found[-1])
    return [*known, *found]


def _box_of(part: tuple[slice, ...]) -> Box:
    return Box(tuple(axis.start for axis in part), tuple(axis.stop for axis in part))
