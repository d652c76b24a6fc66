"""The fixed tile grid of each scale, and what each tile reads; integers only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_msgan.geometry import Box, Ints, PyramidGeometry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """A cell of the tile grid of a scale."""

    scale: int
    index: Ints


@dataclass(frozen=True, slots=True)
class TileWindows:
    """Where a tile lies in its image, and what it reads; windows may extend beyond the image.

    image : shape of the image at the tile's scale.
    core : box that the tile writes.
    sketch : window that it reads from the sketch of its scale (scale 0: of scale 1).
    coarse : window that it reads from the image of the previous scale; None at scale 0.
    """

    image: Ints
    core: Box
    sketch: Box
    coarse: Box | None

    def coarse_image(self, factor: Ints) -> Ints:
        """Return the shape of the image at the previous scale."""
        return Box.of_shape(self.image).cover(factor).shape


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Cells of `tile_shape` anchored at voxel 0 of an image of `shape`."""

    shape: Ints
    tile_shape: Ints

    def full_box(self, index: Sequence[int]) -> Box:
        """Return the box that the network computes: all of `tile_shape`, even beyond the image."""
        return Box.of_cell(index, self.tile_shape)

    def core(self, index: Sequence[int]) -> Box:
        """Return the box that a tile writes: its cell, clipped to the image."""
        return self.full_box(index).intersect(Box.of_shape(self.shape))

    def cells(self, box: Box) -> Box:
        """Return the cells that a box of voxels touches, as a box of cell indices."""
        return box.intersect(Box.of_shape(self.shape)).cover(self.tile_shape)


def coarse_window(full_box: Box, factor: Ints, halo: Ints) -> Box:
    """Return the window a tile reads at the previous scale: ``[o / f - halo, (o + t) / f + halo)``.

    The tile has origin ``o`` and shape ``t``; its scale is ``f`` times finer than the previous one.
    """
    return full_box.cover(factor).grow(halo)


@dataclass(frozen=True)
class Tiling:
    """The tile grids of all scales of a pyramid, and how tiles depend on each other.

    halos : ``halos[s]`` is the halo of a tile of scale s in coarse voxels; scale 0 is a single tile
        without halo.
    """

    geometry: PyramidGeometry
    tile_shape: Ints
    halos: tuple[Ints, ...]

    def grid(self, scale: int) -> TileGrid:
        shape = self.geometry.shape_at(scale)
        return TileGrid(shape, shape if scale == 0 else self.tile_shape)

    def core(self, tile: Tile) -> Box:
        return self.grid(tile.scale).core(tile.index)

    def coarse_window(self, tile: Tile) -> Box:
        """Return what a tile reads of the previous scale, which may extend beyond the image."""
        full = self.grid(tile.scale).full_box(tile.index)
        return coarse_window(full, self.geometry.factor(tile.scale), self.halos[tile.scale])

    def sketch_window(self, tile: Tile) -> Box:
        """Return what a tile reads of the sketch of its scale (scale 0: that of scale 1, whole)."""
        if tile.scale == 0:
            return Box.of_shape(self.geometry.shape_at(0)).multiply(self.geometry.factor(1))
        return self.coarse_window(tile).multiply(self.geometry.factor(tile.scale))

    def windows(self, tile: Tile) -> TileWindows:
        return TileWindows(
            self.geometry.shape_at(tile.scale),
            self.core(tile),
            self.sketch_window(tile),
            self.coarse_window(tile) if tile.scale else None,
        )

    def tiles(self, scale: int, box: Box) -> list[Tile]:
        """Return the tiles of `scale` that touch a box of that scale."""
        return [Tile(scale, index) for index in self.grid(scale).cells(box).indices()]

    def dependencies(self, tile: Tile) -> list[Tile]:
        """Return the tiles of the previous scale that a tile reads."""
        if tile.scale == 0:
            return []
        return self.tiles(tile.scale - 1, self.coarse_window(tile))

    def dependents(self, tile: Tile) -> list[Tile]:
        """Return the tiles of the next scale that read from a tile."""
        if tile.scale == self.geometry.finest_scale:
            return []
        scale = tile.scale + 1
        reach = self.core(tile).grow(self.halos[scale])
        near = reach.intersect(Box.of_shape(self.geometry.shape_at(tile.scale)))
        fine = near.multiply(self.geometry.factor(scale))
        return self.tiles(scale, fine)

    def with_dependents(self, tiles: Iterable[Tile]) -> list[set[Tile]]:
        """Return the given tiles and all finer tiles made from them, as one set per scale."""
        found: list[set[Tile]] = [set() for _ in range(self.geometry.n_scales)]
        for tile in tiles:
            found[tile.scale].add(tile)
        for scale in range(self.geometry.finest_scale):
            found[scale + 1].update(d for t in found[scale] for d in self.dependents(t))
        return found
