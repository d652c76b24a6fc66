"""What the header of a DICOM file with one grey image says.

Elements are taken as they are stored and parsed here: pydicom's own conversion warns and checks by
settings of the whole process, which other threads and plugins share.

References
----------
DICOM PS3.3 C.7.6.2 (image plane) and C.7.6.3 (image pixel).
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from napari_msgan.errors import VolumeError
from napari_msgan.io._checks import check_fits_memory, check_is_plausible, is_spacing
from napari_msgan.io._dicom_files import SLICED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydicom import Dataset

    from napari_msgan.geometry import Ints

    Vector = npt.NDArray[np.float64]

logging.getLogger("pydicom").addHandler(logging.NullHandler())  # else it writes to the terminal

#: What a file may hold beside its pixels: overlays, curves, private elements.
_BESIDE_BYTES = 64 * 2**20
#: Pixels are stored one after the other.
PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
_RIGHT_ANGLE = 1e-2
CONVERT = "convert it to NIfTI first, for instance with dcm2niix"
#: Elements that hold values of their own for each frame, or grey values by a table.
_NOT_PLAIN = (
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ModalityLUTSequence",
)
#: Elements that are read; others may be of any size.
_READ = (
    *("SOPInstanceUID", "SeriesInstanceUID", "Modality", "ImageType", "NumberOfFrames"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "RescaleSlope"),
    *("RescaleIntercept", "PixelSpacing", "ImagerPixelSpacing", "ImageOrientationPatient"),
    *("ImagePositionPatient", *_NOT_PLAIN),
)


class OtherKindError(VolumeError):
    """A file that is no image of a volume: in a folder it may lie beside one."""


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

    identifier, series : of the image, and of the series that it belongs to.
    is_localiser : it shows where slices of the same series lie.
    has_rescale : it says how numbers become values.
    shape : rows and columns.
    bits, is_signed : of the numbers that are stored.
    padding : number that is stored where there is no image, None if there is none.
    is_dark_high : large numbers are dark, of an X-ray (MONOCHROME1).
    slope, intercept : from stored numbers to values, such as Hounsfield units.
    spacing : mm between rows and between columns, None if it is not known.
    plane : None if it is not known.
    """

    path: Path
    identifier: str
    series: str
    modality: str
    is_localiser: bool
    has_rescale: bool
    syntax: str
    shape: Ints
    bits_allocated: int
    bits: int
    is_signed: bool
    padding: int | None
    is_dark_high: bool
    slope: float
    intercept: float
    spacing: tuple[float, float] | None
    plane: Plane | None

    @property
    def n_bytes(self) -> int:
        """Return the bytes of the pixels, unpacked."""
        return math.prod(self.shape) * self.bits_allocated // 8

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
    OtherKindError
        If it is something else than one grey image of integers.
    VolumeError
        If it is damaged.
    """
    syntax, header = open_header(path, _READ)
    rows, columns = header.whole("Rows"), header.whole("Columns")
    if rows is None or columns is None:
        if header.text("Modality") in ("", *SLICED):  # a slice that is damaged must not be missed
            raise OtherKindError(f"{path} holds no image")
        return None
    _check_kind(path, header)
    one = _slice(path, syntax, header, (rows, columns))
    _check_size(one)
    return one


def open_header(path: Path, names: Sequence[str]) -> tuple[str, Header]:
    """Return how a file is stored, and these elements of its header.

    Raises
    ------
    VolumeError
        If it does not say how it is stored, or is compressed with its header.
    """
    syntax = Header(read_file_meta_info(path)).text("TransferSyntaxUID")
    if not syntax:
        raise VolumeError("it does not say how it is stored (TransferSyntaxUID): it is damaged")
    if syntax == DeflatedExplicitVRLittleEndian:  # it would be unpacked to any size
        raise VolumeError(f"{path} is compressed with its header (deflated): {CONVERT}")
    return syntax, Header(dcmread(path, specific_tags=list(names), stop_before_pixels=True))


class Header:
    """Elements of a file, parsed as their standard types."""

    def __init__(self, elements: Dataset) -> None:
        self._elements = elements

    def __contains__(self, name: str) -> bool:
        return name in self._elements

    def _stored(self, name: str) -> tuple[bytes, bool]:
        """Return the bytes of an element, and whether they are little-endian."""
        if name not in self._elements:
            return b"", True
        raw: Any = self._elements.get_item(name)
        return raw.value or b"", bool(getattr(raw, "is_little_endian", True))

    def whole(self, name: str, *, signed: bool = False) -> int | None:
        """Return an element of two bytes."""
        content, is_little = self._stored(name)
        order = "little" if is_little else "big"
        return int.from_bytes(content[:2], order, signed=signed) if content else None  # type: ignore[arg-type]

    def text(self, name: str) -> str:
        return self._stored(name)[0].decode("latin-1").strip(" \0")

    def numbers(self, name: str, count: int) -> Vector | None:
        """Return the numbers of an element that is written in decimals."""
        if not (text := self.text(name)):
            return None
        parts = text.split("\\")
        try:
            numbers = np.array([float(part) for part in parts], np.float64)
        except ValueError:
            numbers = np.empty(0)
        if len(numbers) != count or not np.isfinite(numbers).all():
            raise VolumeError(f"{name} is {text[:80]!r}, where {count} number(s) should be")
        return numbers

    def number(self, name: str) -> float | None:
        found = self.numbers(name, 1)
        return None if found is None else float(found[0])


def _check_kind(path: Path, header: Header) -> None:
    frames = int(header.number("NumberOfFrames") or 1)
    if frames != 1:
        raise OtherKindError(f"{path} holds {frames} frames, which are not read: {CONVERT}")
    if found := [name for name in _NOT_PLAIN if name in header]:
        raise OtherKindError(f"{path} has {found[0]}, which is not read: {CONVERT}")
    photometric, samples = header.text("PhotometricInterpretation"), header.whole("SamplesPerPixel")
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or samples not in (1, None):
        raise OtherKindError(
            f"{path} has colours ({photometric or 'unknown'}); only grey can be read"
        )
    if (modality := header.text("Modality")) in ("RTDOSE", "SEG"):
        raise OtherKindError(f"{path} is {modality}, no image of a patient")


def _slice(path: Path, syntax: str, header: Header, shape: Ints) -> Slice:
    allocated, bits = header.whole("BitsAllocated"), header.whole("BitsStored")
    bits = allocated if bits is None else bits
    high = header.whole("HighBit")
    if allocated not in (8, 16, 32) or bits is None or not 1 <= bits <= allocated:
        raise VolumeError(f"{path} stores {bits} of {allocated} bits: {CONVERT}")
    if high not in (None, bits - 1):
        raise VolumeError(f"{path} stores {bits} of {allocated} bits, up to bit {high}: {CONVERT}")
    if min(shape) < 1:
        raise VolumeError(f"{path} holds no pixels, its shape is {shape}")
    is_signed = bool(header.whole("PixelRepresentation"))
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    modality, spacing = header.text("Modality"), _spacing(header)
    is_inverted = header.text("PhotometricInterpretation") == "MONOCHROME1"
    return Slice(
        path=path,
        identifier=header.text("SOPInstanceUID"),
        series=header.text("SeriesInstanceUID"),
        modality=modality,
        is_localiser="LOCALIZER" in header.text("ImageType").split("\\"),
        has_rescale=intercept is not None,
        syntax=syntax,
        shape=shape,
        bits_allocated=allocated,
        bits=bits,
        is_signed=is_signed,
        padding=header.whole("PixelPaddingValue", signed=is_signed),
        # Of slices it only says how to show them: their values have a unit.
        is_dark_high=is_inverted and modality not in SLICED,
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        spacing=spacing,
        plane=None if spacing is None else _plane(header, spacing),
    )


def _check_size(one: Slice) -> None:
    """Check the size that a header declares, before anything is made room for."""
    n_stored = one.path.stat().st_size
    if one.syntax in PLAIN and n_stored < one.n_bytes:
        raise VolumeError(
            f"it has {n_stored} bytes, fewer than the {one.n_bytes} of its pixels: cut off"
        )
    if n_stored > 2 * one.n_bytes + _BESIDE_BYTES:
        raise VolumeError(
            f"it has {n_stored} bytes, far more than the {one.n_bytes} of its pixels: it is damaged"
        )
    check_is_plausible(one.path, one.n_bytes)
    check_fits_memory(one.path, 4 * one.n_bytes)


def _plane(header: Header, spacing: tuple[float, float]) -> Plane | None:
    directions = header.numbers("ImageOrientationPatient", 6)
    position = header.numbers("ImagePositionPatient", 3)
    if directions is None or position is None or not directions.any():
        return None
    along_row, along_column = directions[:3], directions[3:]
    if abs(np.linalg.norm(np.cross(along_row, along_column)) - 1) > _RIGHT_ANGLE:
        raise VolumeError(f"ImageOrientationPatient is {directions.tolist()}: no right angle")
    return Plane(along_row, along_column, position, spacing)


def _spacing(header: Header) -> tuple[float, float] | None:
    """Return mm between rows and columns, in the patient or, of an X-ray, on the detector."""
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        found = header.numbers(name, 2)
        if found is not None and is_spacing(tuple(found.tolist())):
            return float(found[0]), float(found[1])
    return None
