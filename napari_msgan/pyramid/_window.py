"""Array-likes that compute what is asked of them, and nothing else."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from types import EllipsisType
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from napari_msgan.geometry import Box, Ints
from napari_msgan.volume import read_padded

if TYPE_CHECKING:
    from collections.abc import Sequence

    Part = SupportsIndex | slice | EllipsisType
    Key = Part | tuple[Part, ...]


class WindowedArray(ABC):
    """Array-like that shows a box of an image; outside the image the border voxel is repeated.

    Parameters
    ----------
    shape : of the image.
    shown : what index 0 and the end of this array are in the image; it may leave it.
    """

    def __init__(self, shape: Ints, shown: Box, dtype: np.dtype[Any]) -> None:
        self._whole, self._shown, self._dtype = Box.of_shape(shape), shown, dtype

    @abstractmethod
    def _read(self, box: Box) -> npt.NDArray[Any]:
        """Return a box that lies inside the image."""

    @property
    def shape(self) -> Ints:
        return self._shown.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    @property
    def ndim(self) -> int:
        return self._shown.ndim

    @property
    def size(self) -> int:
        return self._shown.size

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Key) -> Any:
        box, picks = _parse_key(key, self.shape)
        if box.size == 0:
            return np.empty(box.shape, self.dtype)[picks]
        box = box.shift(self._shown.start)
        if self._whole.contains(box):
            return self._read(box)[picks]
        return read_padded(_Inside(self), box.start, box.stop)[picks]

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("a view of a store cannot become an array without a copy")
        return np.asarray(self[...], dtype=dtype)


class _Inside:
    """The image of a `WindowedArray`, for `read_padded`."""

    def __init__(self, array: WindowedArray) -> None:
        self._array = array
        self.shape, self.dtype = array._whole.shape, array.dtype

    def __getitem__(self, key: tuple[slice, ...]) -> npt.NDArray[Any]:
        return self._array._read(Box(tuple(k.start for k in key), tuple(k.stop for k in key)))


def _parse_key(key: Key, shape: Sequence[int]) -> tuple[Box, tuple[int | slice, ...]]:
    """Return the box that an index asks for, and what to pick from it."""
    parts = key if isinstance(key, tuple) else (key,)
    dots = [i for i, part in enumerate(parts) if isinstance(part, EllipsisType)]
    n_left = len(shape) - (len(parts) - len(dots))
    if n_left < 0 or len(dots) > 1:
        raise IndexError(f"index {key!r} does not fit {len(shape)} axes")
    at = dots[0] if dots else len(parts)
    rest = (slice(None),) * n_left
    starts, stops, picks = [], [], []
    for part, size in zip((*parts[:at], *rest, *parts[at + 1 :]), shape, strict=True):
        pick: int | slice
        if isinstance(part, slice):
            chosen = range(*part.indices(size))
            pick = slice(None, None, chosen.step)
        else:
            index = operator.index(part)  # type: ignore[arg-type] # no Ellipsis is left
            if not -size <= index < size:
                raise IndexError(f"index {index} is outside an axis of {size} voxels")
            chosen, pick = range(index % size, index % size + 1), 0
        ends = (chosen[0], chosen[-1]) if chosen else (0, -1)
        starts.append(min(ends) if chosen else 0)
        stops.append(max(ends) + 1 if chosen else 0)
        picks.append(pick)
    return Box(tuple(starts), tuple(stops)), tuple(picks)
