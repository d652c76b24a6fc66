"""OME-Zarr 0.4 and 0.5 and plain Zarr arrays; written as dense OME-Zarr 0.5."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from napari_msgan.errors import VolumeError
from napari_msgan.geometry import Affine, Box, Ints
from napari_msgan.io import _note
from napari_msgan.io._checks import check_dtype, check_fits_memory, check_has_values
from napari_msgan.io._ome_attributes import find_image, ome_attributes
from napari_msgan.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from napari_msgan.io._arrays import Block

#: What zarr, its codecs (RuntimeError) and metadata of an unexpected form raise.
UNREADABLE: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    AttributeError,
    MemoryError,
    RuntimeError,
)
_CHUNKS: dict[int, Ints] = {2: (256, 256), 3: (64, 64, 64)}


class _ZarrImage:
    """Array-like over a Zarr array: its size-1 axes left out, damage told as VolumeError."""

    def __init__(self, array: zarr.Array[Any], kept: Sequence[int], path: Path) -> None:
        self._array, self._kept, self._path = array, tuple(kept), path
        self.shape: Ints = tuple(array.shape[i] for i in kept)
        self.dtype: np.dtype[Any] = np.dtype(array.dtype).newbyteorder("=")
        self.chunks: Ints = tuple(array.chunks[i] for i in kept)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, key: tuple[slice, ...]) -> Block:
        full: list[slice | int] = [0] * self._array.ndim
        for axis in self._kept:
            full[axis] = slice(None)
        for axis, part in zip(self._kept, key, strict=False):
            full[axis] = part
        try:
            block = np.asarray(self._array[tuple(full)])
        except UNREADABLE as error:
            raise VolumeError(
                f"{self._path} cannot be read at {key}: {error}. A chunk may be damaged"
            ) from error
        return block.astype(self.dtype, copy=False)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Block:
        return self[(slice(None),) * self.ndim].astype(dtype or self.dtype, copy=False)


def read(path: Path) -> Volume:
    """Return the finest level of an image, or a plain array; read when it is sliced."""
    node = zarr.open(store=str(path), mode="r")
    if isinstance(node, zarr.Array):
        kept = [i for i in range(node.ndim) if node.ndim <= 3 or node.shape[i] > 1]
        data = _image(path, node, kept)
        return Volume(data, Affine(np.eye(len(kept) + 1)), "pixel")
    image = find_image(path, node)
    array = node[image.path]
    if not isinstance(array, zarr.Array) or array.ndim != len(image.axes):
        raise VolumeError(f"{path} has no array {image.path!r} with the axes {image.axes}")
    kept = image.kept_axes(path, array.shape)
    data = _image(path, array, kept)
    note = _read_note(node)
    exact = _note.noted_affine(note)
    if exact is not None and exact.ndim == len(data.shape):
        return Volume(data, exact, "pixel" if _note.noted_unit(note) == "pixel" else "millimeter")
    return Volume(data, *image.geometry(path, kept))


def read_description(path: Path) -> dict[str, Any] | None:
    """Return what `write` stored in the attributes."""
    return _note.description_of(_read_note(zarr.open(store=str(path), mode="r")))


def write(
    target: Path,
    levels: Sequence[Volume],
    description: Mapping[str, Any],
    progress: Callable[[float], None],
) -> None:
    """Write all levels chunk by chunk, every chunk (also those that hold one value only)."""
    total = sum(math.prod(level.shape) for level in levels)
    done = 0
    group = zarr.create_group(str(target), zarr_format=3)
    for index, level in enumerate(levels):
        chunks = tuple(map(min, _CHUNKS[len(level.shape)], level.shape))
        array = group.create_array(
            str(index),
            shape=level.shape,
            chunks=chunks,
            dtype=level.data.dtype.newbyteorder("="),
            dimension_names=level.axes,
            config={"write_empty_chunks": True},
        )
        for box in Box.of_shape(level.shape).blocks(chunks):
            array[box.slices] = np.asarray(level.data[box.slices])
            done += box.size
            progress(done / total)
    group.attrs.put(
        {
            "ome": ome_attributes(levels, name=_note.LABEL),
            _note.KEY: _note.make_note(levels[0], description),
        }
    )


def _read_note(node: zarr.Group | zarr.Array[Any]) -> dict[str, Any] | None:
    note: Any = node.attrs.get(_note.KEY)
    return note if isinstance(note, dict) else None


def _image(path: Path, array: zarr.Array[Any], kept: Sequence[int]) -> _ZarrImage:
    if len(kept) not in (2, 3):
        raise VolumeError(
            f"{path} has the shape {array.shape}; an image must be 2-D or 3-D. Save the part "
            "that you need as an array of its own"
        )
    check_fits_memory(path, math.prod(array.chunks) * np.dtype(array.dtype).itemsize)
    data = _ZarrImage(array, kept, path)
    check_dtype(path, data.dtype)
    check_has_values(path, data)
    return data
