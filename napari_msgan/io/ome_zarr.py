"""OME-Zarr: reads 0.4, 0.5 and plain Zarr arrays, and writes dense 0.5."""

from __future__ import annotations

import math
import os
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from napari_msgan.errors import VolumeError
from napari_msgan.folders import check_inside
from napari_msgan.geometry import Affine, Box, Ints
from napari_msgan.io import _note
from napari_msgan.io._checks import check_dtype, check_fits_memory, check_has_values
from napari_msgan.io._ome_attributes import attributes_of, find_image
from napari_msgan.io._zarr_checks import open_node, open_voxels
from napari_msgan.multiscales import OUR_KEY
from napari_msgan.volume import LazyArray, Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from napari_msgan.io._arrays import Block
    from napari_msgan.volume import ArrayLike

#: What zarr, its codecs (RuntimeError) and malformed metadata raise.
UNREADABLE: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    EOFError,
    MemoryError,
    RuntimeError,
    zlib.error,
)
_CHUNKS: dict[int, Ints] = {2: (256, 256), 3: (64, 64, 64)}


def read(path: Path) -> Volume:
    """Return the finest level of an image, or a plain array; voxels are read when it is sliced."""
    node = open_node(path)
    if isinstance(node, zarr.Array):
        kept = [i for i in range(node.ndim) if node.ndim <= 3 or node.shape[i] > 1]
        if len(kept) == 3 and node.shape[kept[0]] == 1:
            del kept[0]  # a single slice is a 2-D image, as in other formats
        data = _image(path, node, kept)
        return Volume(data, Affine(np.eye(len(kept) + 1)), "pixel")
    image = find_image(path, node)
    array = node[image.path]
    if not isinstance(array, zarr.Array) or array.ndim != len(image.axes):
        raise VolumeError(f"{path} has no array {image.path!r} with the axes {image.axes}")
    note = _read_note(node)
    _check_is_whole(path, array, note)
    kept = image.kept_axes(path, array.shape, is_volume=len(_note.noted_shape(note)) == 3)
    data = _image(path, array, kept)
    exact = _note.noted_affine(note)
    if (
        exact is not None
        and image.is_on_grid_of(exact, kept)
        and _note.noted_shape(note) == data.shape  # if not, it was cropped or resampled
    ):
        return Volume(data, exact, "pixel" if _note.noted_unit(note) == "pixel" else "millimeter")
    return Volume(data, *image.geometry(path, kept))


def _check_is_whole(path: Path, array: zarr.Array[Any], note: Mapping[str, Any] | None) -> None:
    """Refuse a store whose finest scale is incomplete: missing voxels would read as air."""
    if note is None or "model_sha256" not in note or array.metadata.zarr_format != 3:
        return
    sides = zip(array.shape, array.shards or array.chunks, strict=True)
    made = _n_chunk_files(path, path / array.path / "c")
    of_all = math.prod(-(-n // c) for n, c in sides)
    if made < of_all:
        raise VolumeError(
            f"{path} is a store of a generated image with {made} of {of_all} chunks of its "
            "finest scale made: refine the rest, or give what export writes of it, where coarser "
            "scales fill the gaps"
        )


def _n_chunk_files(path: Path, folder: Path) -> int:
    check_inside(path, folder)
    # Not counted by zarr, which compares each chunk with all files.
    return sum(name.isdigit() for _, _, names in os.walk(folder) for name in names)


def read_description(path: Path) -> dict[str, Any] | None:
    """Return the description that `write` stored in the attributes."""
    return _note.description_of(_read_note(open_node(path)))


def write(
    target: Path,
    levels: Sequence[Volume],
    description: Mapping[str, Any],
    progress: Callable[[float], None],
) -> None:
    """Write all levels chunk by chunk."""
    create(target, levels, description)
    total = sum(math.prod(level.shape) for level in levels)
    done = 0
    for index, level in enumerate(levels):
        for voxels in write_chunks(target, index, level.data, Box.of_shape(level.shape)):
            done += voxels
            progress(done / total)


def export_chunks(shape: Ints) -> Ints:
    """Return the chunk shape in which an image of this shape is written."""
    return tuple(map(min, _CHUNKS[len(shape)], shape))


def create(target: Path, levels: Sequence[Volume], description: Mapping[str, Any]) -> None:
    """Declare all levels; `write_chunks` fills them, in this or in other processes."""
    # All attributes at once: on Windows, zarr now and then fails to replace a file just written.
    attributes: dict[str, Any] = {
        "ome": attributes_of(levels, name=_note.label(description)),
        OUR_KEY: _note.make_note(levels[0], description),
    }
    group = zarr.create_group(LocalStore(target), zarr_format=3, attributes=attributes)
    for index, level in enumerate(levels):
        group.create_array(
            str(index),
            shape=level.shape,
            chunks=export_chunks(level.shape),
            dtype=level.data.dtype.newbyteorder("="),
            dimension_names=level.axes,
        )


def write_chunks(target: Path, level: int, data: ArrayLike, box: Box) -> Iterator[int]:
    """Write the chunks in a box of whole chunks of a level; yield the number of voxels of each.

    Every chunk is written, even if it holds a single value.
    """
    config: Any = {"write_empty_chunks": True}  # not stored, so `zarr.open` needs it every time
    # a store, because zarr would take a path with :: for a chain of URLs
    store = LocalStore(target)
    array = zarr.open(store, path=str(level), mode="r+", zarr_format=3, config=config)
    assert isinstance(array, zarr.Array)
    for chunk in box.blocks(array.chunks):
        array[chunk.slices] = np.asarray(data[chunk.slices])
        yield chunk.size


def _read_note(node: zarr.Group | zarr.Array[Any]) -> dict[str, Any] | None:
    note: Any = node.attrs.get(OUR_KEY)
    return note if isinstance(note, dict) else None


def _image(path: Path, array: zarr.Array[Any], kept: Sequence[int]) -> LazyArray:
    """Return the kept axes of an array; reading a damaged chunk raises VolumeError."""
    if len(kept) not in (2, 3):
        raise VolumeError(
            f"{path} has the shape {array.shape}; an image must be 2-D or 3-D. Save the part "
            "that you need as an array of its own"
        )
    check_fits_memory(path, math.prod(array.chunks) * np.dtype(array.dtype).itemsize)
    voxels = open_voxels(path, array)

    def read_box(box: Box) -> Block:
        key: list[slice | int] = [0] * voxels.ndim
        for axis, part in zip(kept, box.slices, strict=True):
            key[axis] = part
        try:
            return np.asarray(voxels[tuple(key)])
        except UNREADABLE as error:
            raise VolumeError(
                f"{path} cannot be read at {box}: {error}. A chunk may be damaged"
            ) from error

    dtype = np.dtype(array.dtype).newbyteorder("=")
    data = LazyArray(tuple(array.shape[axis] for axis in kept), dtype, read_box)
    check_dtype(path, data.dtype)
    check_has_values(path, data)
    return data
