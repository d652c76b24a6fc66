"""Resample a source to the grid of the finest scale, and reduce that from scale to scale.

Images are read block by block, so memory does not grow with them.
"""

from __future__ import annotations

import math
from functools import partial, reduce
from itertools import product
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_msgan.geometry import Box
from napari_msgan.volume import ArrayLike, LazyArray, read_padded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_msgan.geometry import Floats, Ints
    from napari_msgan.intensity import Float32Array


#: Most voxels of the source to read at once; a block that needs more is made in halves.
_MOST_READ = 1 << 23
#: For a grid coarser by more than this, blocks of the source are averaged first.
_LONGEST_STEP = 16.0
_LONGEST_BLOCK = 128
#: Up to this many values NumPy sums one by one: then sums of slices, which are faster, are equal.
_LONGEST_PLAIN_SUM = 7
#: Largest sigma of a Gaussian, in sides of the source: by then only the border is left.
_WIDEST = 10.0

_Part = TypeVar("_Part", bound=npt.NDArray[Any])


def corner_aligned_first(step: Sequence[float]) -> Floats:
    """Return the index in the old grid of voxel 0 of a new one with the same outer corners."""
    return tuple(0.5 * s - 0.5 for s in step)


def resample(
    source: ArrayLike, step: Sequence[float], first: Sequence[float], box: Box
) -> Float32Array:
    """Resample a block of a grid whose voxel i lies at index ``first + step * i`` of `source`.

    Values are interpolated linearly. If the new grid is coarser, a Gaussian first removes the
    detail that it could not show (its variance makes a voxel of the source as wide as a new one).
    Beyond the source its border voxel is repeated.

    Parameters
    ----------
    step : source voxels per new voxel, per axis.
    first : index in the source of voxel 0 of the new grid.
    box : block of the new grid.

    Returns
    -------
    array, float32, shape ``box.shape``
    """
    blocks = [_block_side(s, n) for s, n in zip(step, source.shape, strict=True)]
    if max(blocks) > 1:
        source = _block_means(source, tuple(blocks))
        first = [(f - 0.5 * (k - 1)) / k for f, k in zip(first, blocks, strict=True)]
        step = [s / k for s, k in zip(step, blocks, strict=True)]
    return _in_parts(partial(_resample, source, step, first), step, box)


def _block_side(step: float, n_voxels: int) -> int:
    """Return the side of the blocks whose means replace the source, 1 for the source itself.

    They are an eighth of a new voxel, which makes the variance of the Gaussian 1 % smaller.
    """
    return 1 if step <= _LONGEST_STEP else min(int(step / 8), n_voxels, _LONGEST_BLOCK)


def _block_means(source: ArrayLike, sides: Ints) -> LazyArray:
    """Return the means of blocks of the source, computed as they are read."""
    shape = tuple(-(-n // k) for n, k in zip(source.shape, sides, strict=True))
    at_once = max(1, int((_MOST_READ / math.prod(sides)) ** (1 / len(sides))))

    def read(box: Box) -> Float32Array:
        fine = box.multiply(sides)
        return reduce_mean(read_padded(source, fine.start, fine.stop), sides)

    return LazyArray(shape, np.float32, read, (at_once,) * len(sides))


def _resample(
    source: ArrayLike, step: Sequence[float], first: Sequence[float], box: Box
) -> Float32Array:
    sigmas = [
        min(0.5 * max(s * s - 1.0, 0.0) ** 0.5, _WIDEST * n)
        for s, n in zip(step, source.shape, strict=True)
    ]
    positions = [
        f + s * np.arange(a, b, dtype=float)
        for f, s, a, b in zip(first, step, box.start, box.stop, strict=True)
    ]
    margins = [int(np.ceil(3 * sigma)) for sigma in sigmas]
    start, stop = [], []
    for position, margin, n in zip(positions, margins, source.shape, strict=True):
        np.clip(position, -margin - 1, n + margin, out=position)  # beyond, all is border
        below, above = int(np.floor(position[0])), int(np.floor(position[-1])) + 2
        # the filter itself repeats the border, however far it reaches
        start.append(max(below - margin, min(0, below)))
        stop.append(min(above + margin, max(n, above)))
    block: Float32Array = read_padded(source, start, stop).astype(np.float32, copy=False)
    if any(sigmas):
        block = ndimage.gaussian_filter(block, sigmas, mode="nearest", truncate=3.0)
    return _interpolate(block, start, positions)


def interpolate(
    source: ArrayLike, step: Sequence[float], first: Sequence[float], box: Box
) -> Float32Array:
    """Resample a block by linear interpolation alone; parameters and result as in `resample`."""
    positions = [
        f + s * np.arange(a, b) for f, s, a, b in zip(first, step, box.start, box.stop, strict=True)
    ]
    start = [int(np.floor(p[0])) for p in positions]
    stop = [int(np.floor(p[-1])) + 2 for p in positions]
    return _interpolate(read_padded(source, start, stop), start, positions)


def _interpolate(
    block: npt.NDArray[Any],
    start: Sequence[int],
    positions: Sequence[npt.NDArray[np.floating[Any]]],
) -> Float32Array:
    """Interpolate linearly at `positions`, in a block whose voxel 0 lies at `start`."""
    below = [np.floor(position).astype(int) for position in positions]
    return blend(
        block,
        [lower - origin for lower, origin in zip(below, start, strict=True)],
        [
            (position - lower).astype(np.float32)
            for position, lower in zip(positions, below, strict=True)
        ],
    )


def blend(
    block: npt.NDArray[Any],
    below: Sequence[npt.NDArray[np.integer[Any]]],
    weights: Sequence[Float32Array],
) -> Float32Array:
    """Interpolate a block linearly at places between its voxels, along each axis.

    Parameters
    ----------
    below : for each axis, the index of the voxel before each place.
    weights : for each axis, the distance of each place from that voxel, in [0, 1); if all of an
        axis are 0, the next voxels are not read.

    Returns
    -------
    array, float32, shape ``tuple(map(len, below))``
    """
    values = block
    for axis, (lower, weight) in enumerate(zip(below, weights, strict=True)):
        low: Float32Array = np.take(values, lower, axis).astype(np.float32, copy=False)
        if weight.any():
            step: Float32Array = np.take(values, lower + 1, axis).astype(np.float32, copy=False)
            step -= low  # low + weight * step is exact if both voxels are equal, as in air
            step *= weight.reshape([-1 if i == axis else 1 for i in range(block.ndim)])
            low += step
        values = low
    return values


def resample_max(
    source: ArrayLike, step: Sequence[float], first: Sequence[float], box: Box
) -> npt.NDArray[Any]:
    """Resample by the maximum of the source voxels whose centres lie in each new voxel.

    If there are none, because the new grid is finer, the nearest source voxel is taken. Parameters
    as in `resample`.
    """
    return _in_parts(partial(_resample_max, source, step, first), step, box)


def _resample_max(
    source: ArrayLike, step: Sequence[float], first: Sequence[float], box: Box
) -> npt.NDArray[Any]:
    starts, stops = [], []
    for s, f, a, b in zip(step, first, box.start, box.stop, strict=True):
        index = np.arange(a, b)
        lower = np.ceil(f + s * (index - 0.5) - 1e-6).astype(int)
        upper = np.ceil(f + s * (index + 0.5) - 1e-6).astype(int)
        nearest = np.floor(f + s * index + 0.5).astype(int)
        empty = upper <= lower
        starts.append(np.where(empty, nearest, lower))
        stops.append(np.where(empty, nearest + 1, upper))
    for begin, end, n in zip(starts, stops, source.shape, strict=True):
        # beyond the source the border voxel is repeated, and reading it once is enough
        np.minimum(end, np.maximum(begin + 1, n), out=end)
        np.maximum(begin, np.minimum(end - 1, 0), out=begin)
    low, high = [int(v[0]) for v in starts], [int(v[-1]) for v in stops]
    block = read_padded(source, low, high)
    for axis, (begin, end, origin) in enumerate(zip(starts, stops, low, strict=True)):
        widest = int((end - begin).max())
        picks = [np.minimum(begin + k, end - 1) - origin for k in range(widest)]
        block = np.maximum.reduce([np.take(block, pick, axis=axis) for pick in picks])
    return block


def _in_parts(make: Callable[[Box], _Part], step: Sequence[float], box: Box) -> _Part:
    """Make a block, in halves if it would read too much of the source at once."""
    read = [n * max(1.0, s) for n, s in zip(box.shape, step, strict=True)]
    if math.prod(read) <= _MOST_READ or box.size == 1:
        return make(box)
    axis = max((i for i, n in enumerate(box.shape) if n > 1), key=read.__getitem__)
    middle = (box.start[axis] + box.stop[axis]) // 2
    lower = tuple(middle if i == axis else n for i, n in enumerate(box.stop))
    upper = tuple(middle if i == axis else n for i, n in enumerate(box.start))
    halves = (Box(box.start, lower), Box(upper, box.stop))
    return cast("_Part", np.concatenate([_in_parts(make, step, h) for h in halves], axis))


def reduce_mean(array: npt.NDArray[Any], factor: Ints) -> Float32Array:
    """Return block means; at the far border, blocks are filled by repeating the last voxel."""
    blocks = _whole_blocks(array, factor)
    if max(factor) > _LONGEST_PLAIN_SUM:
        split = [m for n, f in zip(blocks.shape, factor, strict=True) for m in (n // f, f)]
        axes = tuple(range(1, 2 * array.ndim, 2))
        means: Float32Array = blocks.reshape(split).mean(axis=axes, dtype=np.float32)
        return means
    total: Float32Array = np.zeros(1, np.float32)
    *outer, last = (range(f) for f in factor)
    for place in product(*outer):  # in the order of NumPy's mean, so that the bits are the same
        line = blocks[tuple(slice(k, None, f) for k, f in zip(place, factor, strict=False))]
        columns = (line[..., k :: factor[-1]].astype(np.float32, copy=False) for k in last)
        total = total + reduce(np.add, columns)
    return total / np.float32(math.prod(factor))


def reduce_max(array: npt.NDArray[Any], factor: Ints) -> npt.NDArray[Any]:
    """Return block maxima; for the far border see `reduce_mean`."""
    result = _whole_blocks(array, factor)
    for axis, f in enumerate(factor):
        before = (slice(None),) * axis
        result = reduce(np.maximum, (result[(*before, slice(k, None, f))] for k in range(f)))
    return result


def _whole_blocks(array: npt.NDArray[Any], factor: Ints) -> npt.NDArray[Any]:
    pads = [(0, -n % f) for n, f in zip(array.shape, factor, strict=True)]
    return np.pad(array, pads, mode="edge") if any(p for _, p in pads) else array
