"""Source and result compared in one layer: on either side of a line, or as their difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Layer

from napari_msgan._napari.from_layer import KEY, layer_matrix, to_volume
from napari_msgan._napari.sliced import sliced_levels
from napari_msgan._napari.to_layer import LayerTuple
from napari_msgan._napari.windows import is_ct, is_in_hu
from napari_msgan.errors import GeometryError
from napari_msgan.geometry import Box, Ints
from napari_msgan.pyramid import PyramidStore, levels
from napari_msgan.resampling import resample
from napari_msgan.volume import ArrayLike, LazyArray, Orientation, turn

_COMPARED = KEY + "_compare"
#: Least number of source voxels read per axis of a shown voxel; others are skipped. Otherwise a
#: coarse level, which napari reads at every slice for its thumbnail, would read hundreds of slices
#: of the source.
_SAMPLES = 4
Mode = Literal["wipe", "difference"]
Range = tuple[float, float]


def is_comparison(layer: Layer) -> bool:
    """Return whether a layer shows a comparison, which cannot be the source of another image."""
    return _COMPARED in layer.metadata


class _ComparedLevel(LazyArray):
    """Array-like of one level that compares result and source on the result's grid as it is read.

    The grey values of the source are mapped from its contrast limits to those of the result, so
    that both look alike where they are alike; but not if both are in Hounsfield units.
    """

    def __init__(
        self, result: Any, source: Any, step: Sequence[float], first: Sequence[float]
    ) -> None:
        super().__init__(result.shape, np.float32, self._compare)
        self._result, self._source = result, source
        self._step, self._first = tuple(step), tuple(first)
        self.mode: Mode = "wipe"
        self.cut = 0.5
        self.axis = self.ndim - 1
        self.gain, self.offset = 1.0, 0.0
        self.line_value = np.float32(0)
        self._last: tuple[Any, npt.NDArray[np.float32]] | None = None

    def _compare(self, box: Box) -> npt.NDArray[np.float32]:
        source = self._read_source(box) * np.float32(self.gain) + np.float32(self.offset)
        result = np.asarray(self._result[box.slices], np.float32)
        if self.mode == "difference":
            return result - source
        size = self.shape[self.axis]
        line = round(self.cut * size)
        shape = [-1 if axis == self.axis else 1 for axis in range(self.ndim)]
        where = np.arange(box.start[self.axis], box.stop[self.axis]).reshape(shape)
        shown = np.where(where < line, source, result)
        return np.where(where == line, self.line_value, shown) if 0 < line < size else shown

    def _read_source(self, box: Box) -> npt.NDArray[np.float32]:
        """Return the source on this grid; the last block is cached, for moving the line."""
        if self._last is None or self._last[0] != box:
            block = resample(self._source, self._step, self._first, box)
            self._last = (box, np.asarray(block, np.float32))
        return self._last[1]


def _every(array: ArrayLike, nth: Ints) -> ArrayLike:
    """Return every n-th voxel along each axis, the middle one of each block of n."""
    if max(nth) == 1:
        return array
    middle = [(n - 1) // 2 for n in nth]
    shape = tuple(
        (size - m - 1) // n + 1 for size, m, n in zip(array.shape, middle, nth, strict=True)
    )

    def read(box: Box) -> npt.NDArray[Any]:
        key = tuple(
            slice(m + a * n, m + (b - 1) * n + 1)
            for m, n, a, b in zip(middle, nth, box.start, box.stop, strict=True)
        )
        return np.asarray(array[key])[tuple(slice(None, None, n) for n in nth)]

    return LazyArray(shape, array.dtype, read)


class Comparison:
    """A layer that compares a result with its source."""

    def __init__(self, store: PyramidStore, result: Image, source: Image) -> None:
        volume = to_volume(source)
        if len(volume.shape) != result.ndim:
            raise GeometryError(
                f"layer {source.name!r} has {len(volume.shape)} axes, the result {result.ndim}: "
                "choose the image that the result was made from"
            )
        self.result, self.source = result, source
        self._are_same_units = is_ct(store) and is_in_hu(source)
        # voxel i of a level lies at voxel first + step * i of the source
        to_source = np.linalg.inv(layer_matrix(source)) @ layer_matrix(result)
        steps, starts = np.diag(to_source)[:-1], to_source[:-1, -1]
        flipped = tuple(bool(step < 0) for step in steps)
        turned = turn(volume, Orientation(tuple(range(result.ndim)), flipped))
        ends = np.array(volume.shape) - 1
        steps, starts = np.abs(steps), np.where(flipped, ends - starts, starts)
        self._levels = []
        geometry = self._geometry = store.geometry
        for scale, data in zip(range(geometry.finest_scale, -1, -1), levels(store), strict=True):
            total = np.array(geometry.total_factor(scale), float)
            first = starts + steps * (total - 1) / 2
            step = steps * total
            nth = np.clip(step // _SAMPLES, 1, turned.data.shape).astype(int)
            seen = _every(turned.data, nth.tolist())
            first = (first - (nth - 1) // 2) / nth
            self._levels.append(_ComparedLevel(data, seen, (step / nth).tolist(), first.tolist()))

    def layer(self) -> LayerTuple:
        result = self.result
        return (
            sliced_levels(self._levels, self._geometry),
            {
                "name": f"compare {result.name}",
                "multiscale": True,
                "projection_mode": "none",
                "scale": result.scale,
                "translate": result.translate,
                "units": result.units,
                "axis_labels": result.axis_labels,
                "contrast_limits": result.contrast_limits,
                "metadata": {_COMPARED: True},
            },
            "image",
        )

    def set(self, mode: Mode, cut: float, axis: int) -> None:
        """Choose what is shown; the line lies at the share `cut` (0 to 1) of an axis."""
        for level in self._levels:
            level.mode, level.cut, level.axis = mode, cut, axis

    def link_contrast(self) -> None:
        """Map the contrast limits of the source to those of the result, and make the line white."""
        low, high = self.source.contrast_limits
        goal_low, goal_high = self.result.contrast_limits
        gain = (goal_high - goal_low) / (high - low)
        for level in self._levels:
            level.line_value = np.float32(goal_high)
            if not self._are_same_units:
                level.gain, level.offset = gain, goal_low - low * gain
