"""Read and decode the pixels of a DICOM file with grey images.

References
----------
DICOM PS3.5 annex A (transfer syntaxes).
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.encaps import generate_fragments, generate_frames, parse_basic_offsets
from pydicom.uid import ExplicitVRBigEndian, RLELossless

from napari_msgan.errors import VolumeError
from napari_msgan.io._dicom_elements import CONVERT, read_elements
from napari_msgan.io._dicom_header import PLAIN, Slice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_msgan.geometry import Ints

    Pixels = npt.NDArray[Any]
    Stored = bytes | memoryview

_JPEG = "1.2.840.10008.1.2.4."
_JPEG_LS, _JPEG_2000 = ("80", "81"), ("90", "91", "201", "202", "203")
_END_OF_JPEG, _BEGIN_OF_JPEG_2000 = b"\xff\xd9", b"\xff\x4f\xff\x51"
#: Bytes searched for the code stream of JPEG 2000, which may be wrapped in a file format.
_WRAPPED = 512


def read_frames(header: Slice) -> Sequence[Stored]:
    """Return the stored bytes of every image in the file that `header` comes from.

    Raises
    ------
    VolumeError
        If there are no pixels, too few images, or an unknown transfer syntax.
    """
    content = read_elements(header.path, ["PixelData"]).get("PixelData")
    if not isinstance(content, bytes):
        raise VolumeError("it has no pixels of integers (PixelData)")
    if header.syntax in PLAIN:
        starts = range(0, header.n_frames * header.n_bytes, header.n_bytes)
        return [memoryview(content)[start : start + header.n_bytes] for start in starts]
    if not header.syntax.startswith(_JPEG) and header.syntax != RLELossless:
        raise VolumeError(f"its pixels are stored in an unknown way ({header.syntax}): {CONVERT}")
    buffer = io.BytesIO(content)
    parse_basic_offsets(buffer)
    frames = list(generate_fragments(buffer))
    if len(frames) != header.n_frames:  # if equal, one fragment is one image, whatever the offsets
        frames = list(generate_frames(content, number_of_frames=header.n_frames))
    if len(frames) != header.n_frames:
        raise VolumeError(f"it has {len(frames)} of {header.n_frames} compressed images")
    return frames


def values_of(header: Slice, frame: Stored, dtype: np.dtype[Any]) -> Pixels:
    """Decode the values of an image, shape (rows, columns), e.g. Hounsfield units.

    Parameters
    ----------
    frame : stored bytes of the image.
    dtype : type of the result; it must hold all values within the limits of the image.

    Raises
    ------
    VolumeError
        If the pixels are damaged or do not match the header.
    """
    stored = _stored(header, frame)
    is_padding = None if header.padding is None else stored == header.padding
    shift = 8 * stored.dtype.itemsize - header.bits
    if shift:  # bits above those stored are not part of the number
        stored = (stored << shift) >> shift
    low = -(2 ** (header.bits - 1)) if header.is_signed else 0
    high = low + 2**header.bits - 1
    if header.is_dark_high:
        stored = low + high - stored
    if is_padding is not None and is_padding.any():
        darkest = low if header.slope > 0 else high
        stored = np.where(is_padding, stored.dtype.type(darkest), stored)
    if (header.slope, header.intercept) == (1, 0):
        return stored.astype(dtype)
    if dtype.kind == "f":
        values: Pixels = stored * header.slope + header.intercept
    else:
        values = stored.astype(np.int64) * int(header.slope) + int(header.intercept)
    return values.astype(dtype)


def _stored(header: Slice, frame: Stored) -> Pixels:
    kind = f"{'i' if header.is_signed else 'u'}{header.bits_allocated // 8}"
    if header.syntax in PLAIN:
        is_big = header.syntax == ExplicitVRBigEndian
        if is_big and header.bits_allocated == 8:  # swapped in pairs or not: programs differ
            raise VolumeError(f"it has big-endian pixels of 8 bits: {CONVERT}")
        values = np.frombuffer(frame, (">" if is_big else "<") + kind, math.prod(header.shape))
        return values.astype(kind).reshape(header.shape)
    frame = bytes(frame)
    if header.syntax == RLELossless:
        unpacked = imagecodecs.dicomrle_decode(frame, dtype=np.dtype(kind), out=header.n_bytes)
        return np.frombuffer(unpacked, kind, math.prod(header.shape)).reshape(header.shape)
    return _unpacked(frame, header.syntax.removeprefix(_JPEG), header.shape).astype(kind)


def _unpacked(frame: bytes, name: str, shape: Ints) -> Pixels:
    """Decode a JPEG of any kind; the size it declares is checked before memory is allocated."""
    decode: Callable[[bytes], Any]
    if name in _JPEG_2000:
        decode, declared = imagecodecs.jpeg2k_decode, _shape_of_jpeg_2000(frame)
    else:
        decode = imagecodecs.jpegls_decode if name in _JPEG_LS else imagecodecs.jpeg_decode
        declared = _shape_of_jpeg(frame)
        if not frame.rstrip(b"\0\xff").endswith(_END_OF_JPEG):  # decoders invent what is missing
            raise VolumeError("its compressed image is cut off")
    if declared is None:
        raise VolumeError("its compressed image does not begin with its size")
    if declared != (*shape, 1):
        raise VolumeError(
            f"its compressed image is {declared[:2]} of {declared[2]} colour(s), where the header "
            f"says {shape}"
        )
    values = np.asarray(decode(frame))
    if values.shape != shape or values.dtype.kind not in "iu":
        raise VolumeError(f"its compressed image is {values.dtype} of shape {values.shape}")
    return values


def _shape_of_jpeg(frame: bytes) -> Ints | None:
    """Return the rows, columns and components in the frame header (SOF) of a JPEG or JPEG-LS."""
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # fill
            at += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = _big_endian(frame, at + 5, 2), _big_endian(frame, at + 7, 2)
            return rows, columns, frame[at + 9]
        else:
            at += 2 + _big_endian(frame, at + 2, 2)
    return None


def _shape_of_jpeg_2000(frame: bytes) -> Ints | None:
    """Return the rows, columns and components in the SIZ segment, which begins a code stream."""
    at = frame.find(_BEGIN_OF_JPEG_2000, 0, _WRAPPED)
    if at < 0 or len(frame) < at + 42:
        return None
    right, bottom, left, top = (_big_endian(frame, at + i, 4) for i in (8, 12, 16, 20))
    return bottom - top, right - left, _big_endian(frame, at + 40, 2)


def _big_endian(content: bytes, at: int, count: int) -> int:
    return int.from_bytes(content[at : at + count], "big")
