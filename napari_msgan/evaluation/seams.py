"""Whether tiles are visible: an image is made on two tile grids, and the results are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_msgan.computing import autocast, tile_inputs
from napari_msgan.geometry import Box
from napari_msgan.intensity import Float32Array
from napari_msgan.networks.patchwork import MARGIN, PATCH, STRIDE, patch_starts
from napari_msgan.tiling import TileWindows, coarse_window

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_msgan.computing import TileContext
    from napari_msgan.geometry import Ints
    from napari_msgan.networks.generator import Generator
    from napari_msgan.networks.megan import MeganPatchGenerator

#: Makes a tile with a generator, float32; the box may extend past the image.
MakeTile = Callable[[Box], Float32Array]

#: Voxels on each side of a tile border that count as near it.
_NEAR = 4
#: Voxels over which gradients are averaged to get that of the neighbourhood.
_BACKGROUND = 16


@dataclass(frozen=True, slots=True)
class SeamCertificate:
    """Difference between an image and the one made on a tile grid shifted by half a tile.

    Near means within 4 voxels of a tile border of either grid. Values are in the unit of the tiles.
    All are NaN if no border lies in the region: both grids then give the same image, which says
    nothing about seams.
    """

    mean_near: float
    max_near: float
    mean_off: float
    max_off: float


def tile_maker(context: TileContext, scale: int, generator: Generator | None = None) -> MakeTile:
    """Return a function that makes a box of a scale with its generator, without rounding.

    Parameters
    ----------
    context : with the generator of the scale prepared, and the coarser scale in its store.
    generator : the generator to use; None for that of the scale.

    Returns
    -------
    function of a box of the scale
        It returns float32 in [-1, 1], starting at the first voxel of the box. The box must start
        inside the image, at a multiple of the factor; it may end outside.
    """
    import torch

    network = generator or context.generator(scale)
    geometry, halo = context.store.geometry, context.store.tiling.halos[scale]
    image, factor = geometry.shape_at(scale), geometry.factor(scale)

    def make_tile(box: Box) -> Float32Array:
        coarse = coarse_window(box, factor, halo)
        inside = box.intersect(Box.of_shape(image))
        windows = TileWindows(image, inside, coarse.multiply(factor), coarse)
        inputs = tile_inputs(context, scale, windows)
        with torch.inference_mode(), autocast(context, scale):
            tensors = [torch.from_numpy(a[None, None]).to(context.device) for a in inputs]
            made: Float32Array = network.tile(windows, *tensors)[0, 0].float().cpu().numpy()
        return made

    return make_tile


def certify_seams(
    make_tile: MakeTile, shape: Ints, tile_shape: Ints, factor: Ints
) -> SeamCertificate:
    """Measure how much an image changes when the tile grid is shifted by half a tile.

    Two tiles per axis in the middle of the image are made on both grids. If the output of a
    generator depends only on its receptive field, and the halo covers that, they differ by rounding
    alone (1e-6 of the window). Anything that depends on the tile shows: too small a halo near the
    borders, statistics over the tile everywhere.

    Parameters
    ----------
    make_tile : see `tile_maker`.
    shape : of the image.
    factor : the shift is half a tile, rounded down to whole coarse voxels.
    """
    shift = tuple(t // 2 // f * f for t, f in zip(tile_shape, factor, strict=True))
    region = middle_tiles(shape, tile_shape)
    whole = _assemble(make_tile, region, tile_shape, (0,) * len(shape))
    whole -= _assemble(make_tile, region, tile_shape, shift)
    borders = [
        {*range(s, n, t), *range(t, n, t)} - {0}  # 0 is where the image begins
        for n, t, s in zip(shape, tile_shape, shift, strict=True)
    ]
    return _certificate(np.abs(whole), region, borders)


def certify_patches(
    context: TileContext, scale: int, generator: MeganPatchGenerator
) -> SeamCertificate:
    """Measure how much an image changes when the patches of its patchwork shift by half a stride.

    Tiles of such a generator are all cut from the same patchwork, so shifting them shows nothing:
    its seams are those of the patches. Two strides per axis in the middle of the image are made.

    Parameters
    ----------
    context : see `tile_maker`.
    """
    shape = context.store.geometry.shape_at(scale)
    region = middle_tiles(shape, (STRIDE,) * len(shape))
    other = generator.with_shifted_patches()
    made, again = (tile_maker(context, scale, g)(region) for g in (generator, other))
    borders = [_patch_borders(n, (0, other.patch_shift)) for n in shape]
    return _certificate(np.abs(made - again), region, borders)


def _patch_borders(size: int, shifts: Iterable[int]) -> set[int]:
    """Return where the counting part of a patch begins or ends; nothing with only one patch."""
    starts = [start for shift in shifts for start in patch_starts(size, shift)]
    if len(set(starts)) == 1:
        return set()
    return {start + away for start in starts for away in (MARGIN, PATCH - MARGIN)}


def _certificate(
    difference: Float32Array, region: Box, borders: Sequence[set[int]]
) -> SeamCertificate:
    """Return the figures of a region; `borders` are the first voxels past a border, per axis."""
    near = np.zeros(region.shape, bool)
    for axis, (start, stop) in enumerate(zip(region.start, region.stop, strict=True)):
        along = [-1 if i == axis else 1 for i in range(region.ndim)]
        close = {i for border in borders[axis] for i in range(border - _NEAR, border + _NEAR)}
        near |= np.array([i in close for i in range(start, stop)]).reshape(along)
    if not near.any():
        return SeamCertificate(*(float("nan"),) * 4)
    return SeamCertificate(*_mean_and_max(difference[near]), *_mean_and_max(difference[~near]))


def middle_tiles(shape: Ints, tile_shape: Ints) -> Box:
    """Return the two tiles per axis around the tile border nearest to the middle of the image."""
    centre = tuple(max(1, round(n / 2 / t)) * t for n, t in zip(shape, tile_shape, strict=True))
    return Box(centre, centre).grow(tile_shape).intersect(Box.of_shape(shape))


def _assemble(make_tile: MakeTile, region: Box, tile_shape: Ints, shift: Ints) -> Float32Array:
    """Make a region on the tile grid whose borders lie at `shift` + n tiles."""
    made = np.empty(region.shape, np.float32)
    shifted = region.relative_to(shift)
    for index in shifted.cover(tile_shape).indices():
        tile = Box.of_cell(index, tile_shape).shift(shift)
        # Tiles start inside the image, so those of a shifted grid are smaller at its border.
        tile = Box(tuple(max(0, a) for a in tile.start), tile.stop)
        values = make_tile(tile)
        part = tile.intersect(region)
        made[part.relative_to(region.start).slices] = values[part.relative_to(tile.start).slices]
    return made


def _mean_and_max(values: Float32Array) -> tuple[float, float]:
    if values.size == 0:
        return float("nan"), float("nan")
    return float(values.mean(dtype=np.float64)), float(values.max())


def tile_phase_share(image: Float32Array, tile_shape: Ints, factor: Ints, first: int = 0) -> float:
    """Rank the gradient at tile borders among all other grids of the same period.

    For every phase p, the mean gradient between voxels i - 1 and i with i = p (modulo the tile) is
    divided by that of the neighbourhood. The share of an axis is that of the phases whose gradient
    is at least that of the tile borders (p = `first`): visible borders have the smallest possible
    share. Phases inside a coarse voxel are left out, because in every image made from a coarse one
    the gradient there differs from that at the borders between coarse voxels.

    Parameters
    ----------
    factor : of the scale, the number of its voxels per coarse voxel.
    first : voxel of the first border on every axis, a multiple of the factor.

    Returns
    -------
    float
        The smallest share of any axis times the number of axes (Bonferroni correction), at most 1;
        NaN if no axis has a tile border. Of images without visible borders, a share of p has a
        value of p or less. It is at least axes x factor / tile: if that exceeds 0.05 (patches of
        the authors' models: 0.2, volumes 0.3), one image proves nothing, and several are needed.
    """
    shares = []
    for axis, (tile, step) in enumerate(zip(tile_shape, factor, strict=True)):
        if image.shape[axis] <= tile:
            continue
        others = tuple(i for i in range(image.ndim) if i != axis)
        steps = np.abs(np.diff(image, axis=axis)).mean(axis=others, dtype=np.float64)
        around = ndimage.uniform_filter1d(steps, _BACKGROUND)
        index = steps / np.maximum(around, steps.mean() * 1e-3 + 1e-12)
        phase = (np.arange(1, image.shape[axis]) - first) % tile
        means = np.bincount(phase, index, tile) / np.maximum(np.bincount(phase, None, tile), 1)
        seen = means[np.unique(phase[phase % step == 0])]
        shares.append(float((seen >= means[0]).mean()))
    return min(1.0, len(shares) * min(shares)) if shares else float("nan")
