"""Label maps: integers that fill regions, and whose borders are edges."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_msgan.geometry import Box
from napari_msgan.volume import LazyArray, read_padded

if TYPE_CHECKING:
    from napari_msgan.volume import ArrayLike

#: Side, in voxels, of the blocks that are read at a time, by number of axes.
_BLOCK = {2: 1024, 3: 64}
_MOSTLY = 0.5


def is_picture(data: ArrayLike) -> bool:
    """Return whether most voxels are not 0, which is never so for edges."""
    there = sum(int(np.count_nonzero(data[box.slices])) for box in blocks_of(data))
    return there > _MOSTLY * math.prod(data.shape)


def is_filled(data: ArrayLike) -> bool:
    """Return whether an array fills regions, rather than drawing lines.

    It does if most of its nonzero voxels have the same value as their next neighbours along all
    axes.
    """
    inside = there = 0
    for box in blocks_of(data):
        block = np.asarray(data[box.slices])
        is_there = block != 0
        is_inside = is_there.copy()
        for axis in range(block.ndim):
            ends = block.take([-1], axis)
            is_inside &= np.diff(block, axis=axis, append=ends) == 0
        there += int(np.count_nonzero(is_there))
        inside += int(np.count_nonzero(is_inside))
    return inside > _MOSTLY * there


def is_label_map(data: ArrayLike) -> bool:
    """Return whether an array holds labels: integers of 0 or more that fill regions.

    If the largest value of the type (255 in uint8) occurs, the values are not labels but edge
    strengths.
    """
    if data.dtype.kind not in "iu":
        return False
    top = np.iinfo(data.dtype).max
    blocks = (np.asarray(data[box.slices]) for box in blocks_of(data))
    return all(block.min() >= 0 and block.max() < top for block in blocks) and is_filled(data)


def borders_of(labels: ArrayLike) -> LazyArray:
    """Return the borders between labels as a sketch: one voxel wide, with strength 255."""
    shape = tuple(labels.shape)

    def read(box: Box) -> npt.NDArray[np.uint8]:
        block = read_padded(labels, box.start, tuple(n + 1 for n in box.stop))
        is_border = np.zeros(box.shape, bool)
        for axis in range(block.ndim):
            differs = np.diff(block, axis=axis) != 0
            is_border |= differs[tuple(slice(0, n) for n in box.shape)]
        return is_border * np.uint8(255)

    return LazyArray(shape, np.uint8, read, (_BLOCK[len(shape)],) * len(shape))


def blocks_of(data: ArrayLike) -> list[Box]:
    """Return the blocks in which an array is read through."""
    shape = tuple(data.shape)
    return Box.of_shape(shape).blocks((_BLOCK[len(shape)],) * len(shape))
