"""Levels of a volume as napari slices them: only what is needed, and at the right depth.

napari cuts a slice in two steps: first the visible window with the whole depth, then one index of
the depth. An array that read at the first step would read a volume for every slice, so ours wait
for the second. Moreover napari finds that index by rounding ``i / F``, whereas voxel i of the
finest level lies in coarse voxel ``i // F``. This is half a coarse voxel off, so slices jump when
zooming. `Depth` is told where the sliders stand, and corrects the index.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_msgan.geometry import Box, Ints, PyramidGeometry
from napari_msgan.volume import ArrayLike


class Depth:
    """Where the sliders of a viewer stand, in (fractional) voxels of the finest level.

    position : returns that, as one number per axis; None, or returns None, while it is unknown.
    """

    def __init__(self) -> None:
        self.position: Callable[[], Sequence[float] | None] | None = None

    def index(self, axis: int, rounded: int, factor: int) -> int:
        """Return the correct index into a level, given the one that napari rounded to."""
        position = None if self.position is None or factor == 1 else self.position()
        if position is None:
            return rounded
        exact = math.floor((round(position[axis]) + 0.5) / factor)
        return exact if abs(exact - rounded) <= 1 else rounded


class SlicedLevel:
    """Array-like of one level that reads when an axis is indexed, or when it becomes an array.

    Parameters
    ----------
    array : the level; it is read with slices.
    factor : how many times coarser it is than the finest level, per axis.
    window : the part of it that this object stands for; None for all of it.
    """

    def __init__(
        self, array: ArrayLike, factor: Ints, depth: Depth, window: Box | None = None
    ) -> None:
        self._array, self._factor, self.depth = array, factor, depth
        self._window = window or Box.of_shape(array.shape)
        self.shape = self._window.shape
        self.dtype = array.dtype
        self.ndim = len(self.shape)
        self.size = self._window.size

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        if any(part is Ellipsis for part in parts):
            return np.asarray(self)[key]
        parts = (*parts, *(slice(None),) * (self.ndim - len(parts)))
        starts, stops, is_indexed = [], [], False
        picks: list[int | slice] = []
        for axis, part in enumerate(parts):
            low = self._window.start[axis]
            if isinstance(part, slice):
                start, stop, step = part.indices(self.shape[axis])
                if step != 1:
                    return np.asarray(self)[key]
                picks.append(slice(None))
            else:
                start = self._index(axis, int(part))
                stop = start + 1
                is_indexed = True
                picks.append(0)
            starts.append(low + start)
            stops.append(low + max(start, stop))
        box = Box(tuple(starts), tuple(stops))
        if is_indexed:
            return np.asarray(self._array[box.slices])[tuple(picks)]
        return SlicedLevel(self._array, self._factor, self.depth, box)

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        return np.asarray(self._array[self._window.slices], dtype=dtype)

    def __deepcopy__(self, memo: object) -> SlicedLevel:
        return self  # it shows a store, which is not copied

    def _index(self, axis: int, part: int) -> int:
        size = self.shape[axis]
        index = part + size if part < 0 else part
        if not 0 <= index < size:
            raise IndexError(f"index {part} is outside an axis of {size} voxels")
        if size == self._array.shape[axis]:  # the whole axis, so this is napari's slice
            index = self.depth.index(axis, index, self._factor[axis])
        return min(max(index, 0), size - 1)


def sliced_levels(arrays: Sequence[ArrayLike], geometry: PyramidGeometry) -> list[Any]:
    """Wrap the levels of a layer, finest first."""
    depth = Depth()
    levels = []
    for scale, array in zip(reversed(range(geometry.n_scales)), arrays, strict=True):
        # napari keeps the coarsest level of a 2-D image, so it must be written in place.
        is_kept = len(array.shape) == 2 and isinstance(array, np.ndarray)
        factor = geometry.total_factor(scale)
        levels.append(array if is_kept else SlicedLevel(array, factor, depth))
    return levels


def follow(levels: Sequence[Any], position: Callable[[], Sequence[float] | None]) -> None:
    """Let the levels of a layer know where the sliders stand."""
    for level in levels:
        if isinstance(level, SlicedLevel):
            level.depth.position = position
