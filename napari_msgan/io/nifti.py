"""NIfTI: (x, y, z) in RAS+ on disk, (z, y, x) in SPL+ (LPS+, reversed) here."""

from __future__ import annotations

import gzip
import math
import zlib
from contextlib import nullcontext
from typing import IO, TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from napari_msgan.errors import VolumeError
from napari_msgan.io import _note
from napari_msgan.io._arrays import iter_slabs, scaled
from napari_msgan.io._checks import check_dtype, check_has_values, check_is_plausible
from napari_msgan.io._nifti_header import geometry_of, header_of, read_note
from napari_msgan.io._unpacked import empty_image
from napari_msgan.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from napari_msgan.geometry import Ints
    from napari_msgan.io._arrays import Block

UNREADABLE: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    EOFError,
    OverflowError,
    ImageFileError,
    HeaderDataError,
    zlib.error,
)


#: Bytes that are packed or unpacked at a time.
_PIECE = 8 * 2**20


def iter_read(path: Path) -> Generator[float, None, Volume]:
    """Read the image, whose voxels stay in the file until it is sliced.

    A compressed image is unpacked first, during which the fraction unpacked is yielded.
    """
    image, shape = _load_checked(path)
    if _is_packed(path):
        stored = yield from _iter_unpack(path, image, shape)
    else:
        stored = np.asanyarray(image.dataobj.get_unscaled()).T
    return _volume(path, image, stored)


def read_geometry(path: Path) -> tuple[Volume, int]:
    """Return the image and 0; if it is compressed, zeros with its geometry, and its bytes."""
    image, shape = _load_checked(path)
    if not _is_packed(path):
        return _volume(path, image, np.asanyarray(image.dataobj.get_unscaled()).T), 0
    stored = np.broadcast_to(np.zeros((), image.header.get_data_dtype()), shape)  # takes no memory
    return _volume(path, image, stored), stored.nbytes


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _load_checked(path: Path) -> tuple[Any, Ints]:
    """Return the image as nibabel opens it, without its data, and its shape as (..., Z, Y, X)."""
    image = _load(path)
    header = image.header
    shape = header.get_data_shape()
    if len(shape) < 2 or min(shape) < 1 or any(n > 1 for n in shape[3:]):
        what = f"{math.prod(shape[3:])} volumes" if len(shape) > 3 else "no image"
        raise VolumeError(
            f"{path} holds {what} (shape {shape}); save one of them as a file of its own, for "
            "instance with nibabel: img.slicer[..., 0]"
        )
    check_dtype(path, header.get_data_dtype())
    if _is_packed(path):
        check_is_plausible(path, math.prod(shape) * header.get_data_dtype().itemsize)
    return image, tuple(int(n) for n in reversed(shape))


def _volume(path: Path, image: Any, stored: Block) -> Volume:
    stored = stored.reshape((1, *stored.shape)[-3:])
    affine, unit = geometry_of(path, image.header)
    if len(stored) == 1 and affine.ndim == 2:
        stored = stored[0]
    data = scaled(stored, image.dataobj.slope, image.dataobj.inter)
    check_has_values(path, data)
    return Volume(data, affine, unit)


def _iter_unpack(path: Path, image: Any, shape: Ints) -> Generator[float, None, Block]:
    """Unpack the voxels of a compressed file piece by piece; yield the fraction unpacked."""
    target = empty_image(path, shape, image.header.get_data_dtype())
    content = target.reshape(-1).view(np.uint8).data
    with gzip.open(path) as file:
        file.seek(image.dataobj.offset)
        for start in range(0, len(content), _PIECE):
            piece = content[start : start + _PIECE]
            filled = 0
            while filled < len(piece):
                count = file.readinto(piece[filled:])
                if count == 0:
                    raise EOFError(f"it ends after {start + filled} of {len(content)} bytes")
                filled += count
            yield (start + filled) / len(content)
        file.read(1)  # the checksum is compared only when the end of the file is reached
    return target


def read_description(path: Path) -> dict[str, Any] | None:
    """Return the description that `write` stored in a comment extension of the header."""
    return _note.description_of(read_note(_load(path).header))


def write(
    target: Path,
    levels: Sequence[Volume],
    description: Mapping[str, Any],
    progress: Callable[[float], None],
) -> None:
    """Write the finest level slab by slab; ``.gz`` files are compressed on the way."""
    volume = levels[0]
    header = header_of(volume, description)
    with target.open("wb") as file, _packing(file, target) as stream:
        header.write_to(stream)
        stream.write(bytes(int(header["vox_offset"]) - stream.tell()))
        for slab in iter_slabs(volume.data, progress=progress):
            plain = np.ascontiguousarray(slab, header.get_data_dtype())
            content = plain.reshape(-1).view(np.uint8).data
            for start in range(0, len(content), _PIECE):  # packed at once, it would be in memory
                stream.write(content[start : start + _PIECE])
            del slab, plain, content  # before the next one is read


def _packing(file: IO[bytes], target: Path) -> AbstractContextManager[Any]:
    """Return the stream to write to, which compresses if the name ends in ``.gz``."""
    if target.suffix.lower() != ".gz":
        return nullcontext(file)
    # No name and no time in the gzip header, so that equal images give equal files.
    return gzip.GzipFile("", "wb", 1, file, 0)


def _load(path: Path) -> Any:  # nibabel's headers have no types
    return nib.load(path, mmap="r")
