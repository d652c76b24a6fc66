"""One DICOM file with one grey image: what its header says, and its pixels.

References
----------
DICOM PS3.3 C.7.6.2 (image plane) and C.7.6.3 (image pixel), PS3.5 annex A (transfer syntaxes).
"""

from __future__ import annotations

import logging
import math
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.encaps import generate_frames
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    RLELossless,
)

from napari_msgan.errors import VolumeError
from napari_msgan.io._checks import check_fits_memory, check_is_plausible, is_spacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pydicom import Dataset

    from napari_msgan.geometry import Ints

    Pixels = npt.NDArray[Any]
    Vector = npt.NDArray[np.float64]

#: What a file may hold beside its pixels: overlays, curves, private elements.
_BESIDE_BYTES = 64 * 2**20
_JPEG, _JPEG_LS, _JPEG_2000 = (
    "1.2.840.10008.1.2.4.",
    ("80", "81"),
    ("90", "91", "201", "202", "203"),
)
_NO_DIRECTION = 1e-2
logging.getLogger("pydicom").addHandler(logging.NullHandler())  # else it writes to the terminal
_CONVERT = "convert it to NIfTI first, for instance with dcm2niix"


@dataclass(frozen=True)
class Plane:
    """Where an image lies in the patient, (x, y, z) in LPS.

    along_row, along_column : directions in which the column and the row index grow.
    position : of the first voxel's centre, mm.
    spacing : mm between rows and between columns.
    """

    along_row: Vector
    along_column: Vector
    position: Vector
    spacing: tuple[float, float]

    @property
    def normal(self) -> Vector:
        normal: Vector = np.cross(self.along_row, self.along_column)
        return normal / np.linalg.norm(normal)

    def is_parallel(self, other: Plane) -> bool:
        """Return whether two images can be slices of one volume."""
        ours, theirs = ((p.along_row, p.along_column) for p in (self, other))
        is_alike = np.allclose(self.spacing, other.spacing, rtol=1e-4)
        return is_alike and np.allclose(ours, theirs, atol=1e-3)


@dataclass(frozen=True)
class Slice:
    """What the header of a file says.

    series : identifier of the series that the file belongs to.
    shape : rows and columns.
    bits, is_signed : of the numbers that are stored.
    is_dark_high : large numbers are dark (MONOCHROME1).
    slope, intercept : from stored numbers to values, such as Hounsfield units.
    spacing : mm between rows and between columns, None if it is not known.
    plane : None if it is not known.
    """

    path: Path
    series: str
    modality: str
    syntax: str
    shape: Ints
    bits_allocated: int
    bits: int
    is_signed: bool
    is_dark_high: bool
    slope: float
    intercept: float
    spacing: tuple[float, float] | None
    plane: Plane | None

    @property
    def limits(self) -> tuple[float, float]:
        """Return the least and the greatest value that there can be."""
        low = -(2 ** (self.bits - 1)) if self.is_signed else 0
        ends = [self.slope * (low + n) + self.intercept for n in (0, 2**self.bits - 1)]
        return min(ends), max(ends)

    @property
    def is_whole(self) -> bool:
        """Return whether all values are integers."""
        return self.slope.is_integer() and self.intercept.is_integer()


def read_slice(path: Path) -> Slice | None:
    """Return what the header of a file says, None if it has no image; no pixels are read.

    Raises
    ------
    VolumeError
        If it is not one grey image of integers.
    """
    syntax = str(read_file_meta_info(path).TransferSyntaxUID)
    if syntax == DeflatedExplicitVRLittleEndian:  # it would be unpacked to any size
        raise VolumeError(f"{path} is compressed with its header (deflated): {_CONVERT}")
    with _quiet():
        return _slice(path, syntax, dcmread(path, stop_before_pixels=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """Let pydicom take what standards forbid without a word: what we need is checked here."""
    with warnings.catch_warnings(), disable_value_validation():
        warnings.filterwarnings("ignore", module="pydicom")
        yield


def _slice(path: Path, syntax: str, header: Dataset) -> Slice | None:
    frames = int(header.get("NumberOfFrames") or 1)
    photometric = str(header.get("PhotometricInterpretation", ""))
    if "Rows" not in header or "Columns" not in header:
        return None
    if frames != 1:
        raise VolumeError(
            f"{path} holds {frames} frames, of which only one can be read: {_CONVERT}"
        )
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or int(header.SamplesPerPixel) != 1:
        raise VolumeError(f"{path} has colours ({photometric or 'unknown'}); only grey can be read")
    allocated, bits = int(header.BitsAllocated), int(header.BitsStored)
    if allocated not in (8, 16, 32) or not 1 <= bits <= allocated or header.HighBit != bits - 1:
        raise VolumeError(
            f"{path} stores {bits} of {allocated} bits, up to bit {header.HighBit}: {_CONVERT}"
        )
    shape = int(header.Rows), int(header.Columns)
    if min(shape) < 1:
        raise VolumeError(f"{path} holds no pixels, its shape is {shape}")
    slope, intercept = (_number(header, name) for name in ("RescaleSlope", "RescaleIntercept"))
    spacing = _spacing(header)
    return Slice(
        path,
        str(header.get("SeriesInstanceUID", "")),
        str(header.get("Modality", "")),
        syntax,
        shape,
        allocated,
        bits,
        bool(header.PixelRepresentation),
        photometric == "MONOCHROME1",
        1.0 if slope is None else slope,
        0.0 if intercept is None else intercept,
        spacing,
        None if spacing is None else _plane(header, spacing),
    )


def _plane(header: Dataset, spacing: tuple[float, float]) -> Plane | None:
    directions = _numbers(header, "ImageOrientationPatient", 6)
    position = _numbers(header, "ImagePositionPatient", 3)
    if directions is None or position is None:
        return None
    along_row, along_column = directions[:3], directions[3:]
    if abs(np.linalg.norm(np.cross(along_row, along_column)) - 1) > _NO_DIRECTION:
        raise VolumeError(f"ImageOrientationPatient is {directions.tolist()}: no right angle")
    return Plane(along_row, along_column, position, spacing)


def _number(header: Dataset, name: str) -> float | None:
    found = _numbers(header, name, 1)
    return None if found is None else float(found[0])


def _numbers(header: Dataset, name: str, count: int) -> npt.NDArray[np.float64] | None:
    """Return the numbers of an element, None if it is not there."""
    value = header.get(name)
    if value is None or value == "":
        return None
    numbers = np.array(value, np.float64).reshape(-1)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise VolumeError(f"{name} is {value}, where {count} number(s) should be")
    return numbers


def _spacing(header: Dataset) -> tuple[float, float] | None:
    """Return mm between rows and columns, in the patient or, of an X-ray, on the detector."""
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        found = _numbers(header, name, 2)
        if found is not None and is_spacing(tuple(found.tolist())):
            return float(found[0]), float(found[1])
    return None


def read_values(header: Slice, dtype: np.dtype[Any]) -> Pixels:
    """Return the values of an image, shape (rows, columns).

    Parameters
    ----------
    dtype : holds all values between the limits of the image.

    Raises
    ------
    VolumeError
        If they are compressed in an unknown way, or are others than the header says.
    """
    stored = _stored(header)
    shift = 8 * stored.dtype.itemsize - header.bits
    if shift:  # what stands above the bits that count is no part of the number
        stored = (stored << shift) >> shift
    if header.is_dark_high:
        stored = -1 - stored if header.is_signed else 2**header.bits - 1 - stored
    if (header.slope, header.intercept) == (1, 0):
        return stored.astype(dtype)
    if dtype.kind == "f":
        values: Pixels = stored * header.slope + header.intercept
    else:
        values = stored.astype(np.int64) * int(header.slope) + int(header.intercept)
    return values.astype(dtype)


def _stored(header: Slice) -> Pixels:
    n_bytes = math.prod(header.shape) * header.bits_allocated // 8
    n_stored = header.path.stat().st_size
    if n_stored > 2 * n_bytes + _BESIDE_BYTES:
        raise VolumeError(
            f"it has {n_stored} bytes, far more than the {n_bytes} of its pixels: it is damaged"
        )
    name = header.syntax.removeprefix(_JPEG)
    is_packed = name != header.syntax or header.syntax == RLELossless
    if not is_packed and n_stored < n_bytes:
        raise VolumeError(
            f"it has {n_stored} bytes, fewer than the {n_bytes} of its pixels: cut off"
        )
    check_is_plausible(header.path, n_bytes)
    check_fits_memory(header.path, 4 * n_bytes)
    with _quiet():
        content = dcmread(header.path, specific_tags=["PixelData"]).get("PixelData")
    if not isinstance(content, bytes):
        raise VolumeError("it has no pixels of integers (PixelData)")
    kind = f"{'i' if header.is_signed else 'u'}{header.bits_allocated // 8}"
    if not is_packed:
        order = ">" if header.syntax == ExplicitVRBigEndian else "<"
        values = np.frombuffer(content, order + kind, math.prod(header.shape))
        return values.astype(kind).reshape(header.shape)
    (frame,) = generate_frames(content, number_of_frames=1)
    decode: Callable[[bytes], Any]
    if header.syntax == RLELossless:
        unpacked = imagecodecs.dicomrle_decode(frame, dtype=np.dtype(kind), out=n_bytes)
        return np.frombuffer(unpacked, kind, math.prod(header.shape)).reshape(header.shape)
    if name in _JPEG_LS:
        decode, declared = imagecodecs.jpegls_decode, _shape_of_jpeg(frame)
    elif name in _JPEG_2000:
        decode, declared = imagecodecs.jpeg2k_decode, _shape_of_jpeg_2000(frame)
    else:
        decode, declared = imagecodecs.jpeg_decode, _shape_of_jpeg(frame)
        if not frame.rstrip(b"\0").endswith(b"\xff\xd9"):  # the codec fills up what is missing
            raise VolumeError("its compressed image is cut off")
    if declared is None:
        raise VolumeError("its compressed image does not begin with its size")
    if declared != header.shape:  # looked at before memory is taken for it
        raise VolumeError(
            f"its compressed image is {declared}, where the header says {header.shape}"
        )
    values = np.asarray(decode(frame))
    if values.shape != header.shape or values.dtype.kind not in "iu":
        raise VolumeError(f"its compressed image is {values.dtype} of shape {values.shape}")
    return values.astype(kind)


def _shape_of_jpeg(frame: bytes) -> Ints | None:
    """Return rows and columns that the frame header (SOF) of JPEG or JPEG-LS declares."""
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # fill
            at += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return _big_endian(frame, at + 5, 2), _big_endian(frame, at + 7, 2)
        else:
            at += 2 + _big_endian(frame, at + 2, 2)
    return None


def _shape_of_jpeg_2000(frame: bytes) -> Ints | None:
    """Return rows and columns that the SIZ segment of a code stream declares, which comes first."""
    if frame[:4] != b"\xff\x4f\xff\x51" or len(frame) < 24:
        return None
    right, bottom, left, top = (_big_endian(frame, at, 4) for at in (8, 12, 16, 20))
    return bottom - top, right - left


def _big_endian(content: bytes, at: int, count: int) -> int:
    return int.from_bytes(content[at : at + count], "big")
