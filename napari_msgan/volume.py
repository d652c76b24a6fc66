"""Volumes: arrays with their geometry."""

from __future__ import annotations

import math
import operator
import warnings
import zlib
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex, get_args

import numpy as np
import numpy.typing as npt

from napari_msgan.errors import GeometryError, VolumeError
from napari_msgan.geometry import Affine, Box, Floats, Ints, Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Part = SupportsIndex | slice | EllipsisType
    Key = Part | tuple[Part, ...]

#: Planes (of a 2-D image: rows) that are read at a time.
_SLAB = 16
#: Voxel sizes whose relative difference is smaller are the same but for rounding.
_SAME_SIZE = 0.01
#: Directions in which the (z, y, x) indices may grow; for "LPS" they grow towards S, P and L.
_LETTERS = ({"S": 1, "I": -1}, {"P": 1, "A": -1}, {"L": 1, "R": -1})


class ArrayLike(Protocol):
    """Any array that images are read from: NumPy arrays, memory maps, zarr arrays."""

    @property
    def shape(self) -> Ints: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, key: tuple[slice, ...]) -> Any: ...


class LazyArray:
    """Array-like that computes its values when it is indexed, and only those asked for.

    It takes integers, slices and an Ellipsis as indices, like a NumPy array.

    Parameters
    ----------
    compute : function that returns the values in a box. The box is not empty and lies inside the
        array; the result has its shape, and `dtype` or a type that can be cast to it.
    block_shape : larger boxes are computed in blocks of this shape, for functions that need several
        times the memory of their result; None to compute any box at once.
    """

    def __init__(
        self,
        shape: Ints,
        dtype: npt.DTypeLike,
        compute: Callable[[Box], npt.NDArray[Any]],
        block_shape: Ints | None = None,
    ) -> None:
        self.shape = tuple(shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self._compute, self._block_shape = compute, block_shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shape}, {self.dtype})"

    def __getitem__(self, key: Key) -> Any:
        box, picks = _parse_key(key, self.shape)
        if box.size == 0:
            return np.empty(box.shape, self.dtype)[picks]
        if self._block_shape is None:
            return self._compute(box).astype(self.dtype, copy=False)[picks]
        result = np.empty(box.shape, self.dtype)
        for block in box.blocks(self._block_shape):
            result[block.relative_to(box.start).slices] = self._compute(block)
        return result[picks]

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("what is computed cannot become an array without a copy")
        return np.asarray(self[...], dtype=dtype)


def _parse_key(key: Key, shape: Sequence[int]) -> tuple[Box, tuple[int | slice, ...]]:
    """Return the box that an index covers, and the index to apply within that box."""
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
        first, last = sorted((chosen[0], chosen[-1])) if chosen else (0, -1)
        starts.append(first)
        stops.append(last + 1)
        picks.append(pick)
    return Box(tuple(starts), tuple(stops)), tuple(picks)


@dataclass(frozen=True, eq=False)
class Volume:
    """An image with its geometry.

    data : array-like, shape (Z, Y, X) or (Y, X), of integers, floats or booleans.
    affine : voxel index to world position: (S, P, L) in mm if `unit` is "millimeter", else pixels.
        With ``Affine.of_spacing((sz, sy, sx))`` slices go up, rows go to the back and columns to
        the left of the patient, as with most CT scanners; any other orientation needs the full
        matrix.
    unit : "millimeter" or "pixel".

    Raises
    ------
    VolumeError
        If `data` is not a 2-D or 3-D array of numbers, `unit` is neither, or the affine has another
        number of axes.
    """

    data: ArrayLike
    affine: Affine
    unit: Unit

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise VolumeError(f"unit {self.unit!r} is not one of {', '.join(get_args(Unit))}")
        if not isinstance(getattr(self.data, "dtype", None), np.dtype):
            raise VolumeError(
                f"an image is a numpy array, or like one, got {type(self.data).__name__}: "
                "np.asarray(...) makes one"
            )
        if len(self.data.shape) not in (2, 3) or min(self.data.shape) < 1:
            raise VolumeError(f"an image must have 2 or 3 axes, got shape {self.data.shape}")
        if self.affine.ndim != len(self.data.shape):
            raise VolumeError(f"a {self.affine.ndim}-D affine for an image {self.data.shape}")
        if self.data.dtype.kind not in "biuf":
            raise VolumeError(f"an image must hold integers or floats, got {self.data.dtype}")

    @property
    def axes(self) -> tuple[str, ...]:
        return ("z", "y", "x")[-len(self.data.shape) :]

    @property
    def shape(self) -> Ints:
        return tuple(self.data.shape)

    @property
    def spacing(self) -> Floats:
        return self.affine.spacing


@dataclass(frozen=True)
class Orientation:
    """How a source was permuted and flipped.

    New axis i is source axis ``order[i]``, reversed if ``flipped[i]``.
    """

    order: Ints
    flipped: tuple[bool, ...]

    @classmethod
    def identity(cls, ndim: int) -> Orientation:
        return cls(tuple(range(ndim)), (False,) * ndim)

    @property
    def inverse(self) -> Orientation:
        """Return the orientation that undoes this one."""
        order = tuple(int(i) for i in np.argsort(self.order))
        return Orientation(order, tuple(self.flipped[i] for i in order))

    def apply(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the array permuted and flipped from source to model orientation (a view)."""
        turned = np.transpose(array, self.order)
        return np.flip(turned, tuple(i for i, flip in enumerate(self.flipped) if flip))

    def apply_to_affine(self, affine: Affine, source_shape: Ints) -> Affine:
        matrix = np.zeros((len(self.order) + 1,) * 2)
        matrix[-1, -1] = 1
        for new, (old, flip) in enumerate(zip(self.order, self.flipped, strict=True)):
            matrix[old, new] = -1 if flip else 1
            matrix[old, -1] = source_shape[old] - 1 if flip else 0
        return Affine(affine.matrix @ matrix)


def orient(volume: Volume, letters: str | None) -> tuple[Volume, Orientation]:
    """Permute and flip the axes of a volume into an orientation; also return how that was done.

    Parameters
    ----------
    letters : direction in which x, y and z grow, e.g. "LPS" (as in DICOM); None to leave the volume
        as it is.

    Raises
    ------
    GeometryError
        If the letters are not an orientation of an axial (z, y, x) volume.
    """
    if letters is None:
        return volume, Orientation.identity(len(volume.shape))
    try:
        signs = [_LETTERS[i][letter] for i, letter in enumerate(reversed(letters))]
    except (KeyError, IndexError):
        raise GeometryError(f"orientation {letters!r} is not like 'LPS' or 'RAS'") from None
    if len(signs) != len(volume.shape):
        raise GeometryError(f"orientation {letters!r} does not fit a {volume.axes} image")
    order, backwards = volume.affine.axis_order()
    flipped = tuple(back == (sign > 0) for back, sign in zip(backwards, signs, strict=True))
    orientation = Orientation(order, flipped)
    return turn(volume, orientation), orientation


def turn(volume: Volume, orientation: Orientation) -> Volume:
    """Return the volume permuted and flipped; its voxels keep their world positions."""
    if orientation == Orientation.identity(len(volume.shape)):
        return volume
    source = volume.data
    shape = tuple(source.shape[old] for old in orientation.order)

    def read(box: Box) -> npt.NDArray[Any]:
        key = [slice(None)] * box.ndim
        for new, old in enumerate(orientation.order):
            start, stop = box.start[new], box.stop[new]
            if orientation.flipped[new]:
                start, stop = shape[new] - stop, shape[new] - start
            key[old] = slice(start, stop)
        return orientation.apply(np.asarray(source[tuple(key)]))

    affine = orientation.apply_to_affine(volume.affine, volume.shape)
    return Volume(LazyArray(shape, source.dtype, read), affine, volume.unit)


def with_spacing(volume: Volume, spacing: float | Sequence[float] | None) -> Volume:
    """Return the volume with another voxel size; warn if that replaces a different one in mm.

    The axes keep their directions, and the first voxel keeps its place.

    Parameters
    ----------
    spacing : mm along each axis of the array, or one number for all axes; None changes nothing.

    Raises
    ------
    VolumeError
        If a size is not a finite number above 0, or there is neither one size nor one per axis.
    """
    if spacing is None:
        return volume
    try:
        given = tuple(float(mm) for mm in np.ravel(spacing))
    except (TypeError, ValueError) as error:
        raise VolumeError(f"the voxel size {spacing!r} is neither a number nor numbers") from error
    sizes = given * (len(volume.shape) if len(given) == 1 else 1)
    if len(sizes) != len(volume.shape) or not all(0 < mm < math.inf for mm in sizes):
        raise VolumeError(
            f"the voxel size {', '.join(f'{mm:g}' for mm in given)} does not fit an image of "
            f"shape {volume.shape}: give one size above 0 in mm for each axis, slices first, or "
            "one for all"
        )
    if volume.unit == "millimeter" and not np.allclose(volume.spacing, sizes, rtol=_SAME_SIZE):
        own, taken = (" x ".join(f"{mm:.4g}" for mm in mms) for mms in (volume.spacing, sizes))
        warnings.warn(
            f"voxels of {taken} mm are taken, as given; the image itself says {own} mm",
            stacklevel=2,
        )
    return replace(volume, affine=volume.affine.respaced(sizes), unit="millimeter")


def checksum_of(volume: Volume) -> int:
    """Return a checksum of voxels, data type, shape and spacing; reads slab by slab."""
    grid = f"{volume.shape} {volume.spacing} {volume.data.dtype.name}"
    checksum = zlib.crc32(grid.encode())
    rest = volume.shape[1:]
    for box in Box.of_shape(volume.shape).blocks((_SLAB, *rest)):
        checksum = zlib.crc32(np.asarray(volume.data[box.slices]).tobytes(), checksum)
    return checksum


def read_padded(array: ArrayLike, start: Sequence[int], stop: Sequence[int]) -> npt.NDArray[Any]:
    """Read a window that may extend beyond the array, where the border voxel is repeated."""
    clipped = [
        (min(max(a, 0), n - 1), min(max(b, 1), n))
        for a, b, n in zip(start, stop, array.shape, strict=True)
    ]
    block = np.asarray(array[tuple(slice(a, b) for a, b in clipped)])
    pads = [
        (min(max(c - a, 0), b - a - 1), min(max(b - d, 0), b - a - 1))
        for a, b, (c, d) in zip(start, stop, clipped, strict=True)
    ]
    return np.pad(block, pads, mode="edge") if any(map(any, pads)) else block
