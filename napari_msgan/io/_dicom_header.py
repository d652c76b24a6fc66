"""What the header of a DICOM file with grey images says: one, or frames that are slices.

References
----------
DICOM PS3.3 C.7.6.2 (image plane), C.7.6.3 (image pixel) and C.7.6.16 (functional groups of frames).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from napari_msgan.errors import VolumeError
from napari_msgan.io._checks import check_fits_memory, check_is_plausible, is_spacing
from napari_msgan.io._dicom_elements import CONVERT, open_header
from napari_msgan.io._dicom_files import SLICED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_msgan.geometry import Ints
    from napari_msgan.io._dicom_elements import Header, Vector

#: What a file may hold beside its pixels: overlays, curves, private elements.
_BESIDE_BYTES = 64 * 2**20
#: Pixels are stored one after the other.
PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
_RIGHT_ANGLE = 1e-2
#: Groups of elements that all frames share, and those of each frame.
_SHARED, _OF_FRAMES = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
#: The groups that say where a frame lies, and what its numbers mean.
_GROUPS = (
    *("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"),
    "PixelValueTransformationSequence",
)
_TABLE = "ModalityLUTSequence"
MOST_FRAMES = 20_000
#: Types of values of a CT that are Hounsfield units, or that say nothing.
_HOUNSFIELD = ("", "US", "HU", "HU_MOD")
#: Elements that are read; others may be of any size.
_READ = (
    *("SOPInstanceUID", "SeriesInstanceUID", "Modality", "ImageType", "NumberOfFrames"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "RescaleSlope"),
    *("RescaleIntercept", "PixelSpacing", "ImagerPixelSpacing", "ImageOrientationPatient"),
    *("RescaleType", "ConcatenationUID", "InConcatenationTotalNumber"),
    *("ImagePositionPatient", _SHARED, _OF_FRAMES, _TABLE),
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
    """What the header of a file says of an image.

    frame, n_frames : which of the images in the file it is, of how many.
    identifier, series : of the file, and of the series that it belongs to.
    concatenation, n_parts : of a volume that lies in several files, and how many; "" and 0 if not.
    is_localiser : it shows where slices of the same series lie.
    has_hounsfield : it says how numbers become values, and no other unit; of a CT.
    shape : rows and columns.
    bits, is_signed : of the numbers that are stored.
    padding : number that is stored where there is no image, None if there is none.
    is_dark_high : large numbers are dark, of an X-ray (MONOCHROME1).
    slope, intercept : from stored numbers to values, such as Hounsfield units.
    spacing : mm between rows and between columns, None if it is not known.
    plane : None if it is not known.
    """

    path: Path
    frame: int
    n_frames: int
    identifier: str
    series: str
    concatenation: str
    n_parts: int
    modality: str
    is_localiser: bool
    has_hounsfield: bool
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


def read_slices(path: Path) -> list[Slice]:
    """Return what the header of a file says of its images, if it has any; no pixels are read.

    Raises
    ------
    OtherKindError
        If it is something else than one grey image of integers, or frames that are slices.
    VolumeError
        If it is damaged.
    """
    syntax, header = open_header(path, _READ)
    rows, columns = header.whole("Rows"), header.whole("Columns")
    if rows is None or columns is None:
        if header.text("Modality") in ("", *SLICED):  # a slice that is damaged must not be missed
            raise OtherKindError(f"{path} holds no image")
        return []
    _check_kind(path, header)
    n_frames = _n_frames(path, header)
    whole = _slice(path, syntax, header, (rows, columns), n_frames)
    _check_size(whole)
    own, shared = header.items(_OF_FRAMES, n_frames), header.items(_SHARED, 1)[:1]
    if len(own or [header]) != n_frames:
        more = "more" if len(own) > n_frames else f"only {len(own)}"
        raise VolumeError(f"it says that it has {n_frames} frames, but describes {more}")
    found = [
        replace(whole, frame=number, **_said(header.under(_groups([*one, *shared]))))
        for number, one in enumerate([[frame] for frame in own] or [[]])
    ]
    if n_frames > 1 and any(one.plane is None for one in found):
        raise OtherKindError(
            f"{path} holds {n_frames} frames that do not all say where they lie: {CONVERT}"
        )
    return found


def _n_frames(path: Path, header: Header) -> int:
    text = header.text("NumberOfFrames") or "1"
    if not text.isdecimal() or len(text) > 9:
        raise VolumeError(f"NumberOfFrames is {text[:20]!r}: it is damaged")
    count = int(text) or 1  # some write 0 where there is one
    if count > 1 and _OF_FRAMES not in header:
        raise OtherKindError(
            f"{path} holds {count} frames that do not say where they lie, as those of a film: "
            f"{CONVERT}"
        )
    if count > MOST_FRAMES:
        raise VolumeError(f"it has {count} frames, more than {MOST_FRAMES}: {CONVERT}")
    return count


def _groups(holders: Sequence[Header]) -> list[Header]:
    """Return what the groups of a frame say, its own first."""
    return [item for one in holders for name in _GROUPS for item in one.items(name, 1)[:1]]


def _check_kind(path: Path, header: Header) -> None:
    if _TABLE in header:
        raise OtherKindError(f"{path} has {_TABLE}, which is not read: {CONVERT}")
    photometric, samples = header.text("PhotometricInterpretation"), header.whole("SamplesPerPixel")
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or samples not in (1, None):
        raise OtherKindError(
            f"{path} has colours ({photometric or 'unknown'}); only grey can be read"
        )
    if (modality := header.text("Modality")) in ("RTDOSE", "SEG"):
        raise OtherKindError(f"{path} is {modality}, no image of a patient")


def _slice(path: Path, syntax: str, header: Header, shape: Ints, n_frames: int) -> Slice:
    """Return the first frame, as the header says without groups."""
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
    modality = header.text("Modality")
    is_inverted = header.text("PhotometricInterpretation") == "MONOCHROME1"
    return Slice(
        path=path,
        frame=0,
        n_frames=n_frames,
        identifier=header.text("SOPInstanceUID"),
        series=header.text("SeriesInstanceUID"),
        concatenation=header.text("ConcatenationUID"),
        n_parts=header.whole("InConcatenationTotalNumber") or 0,
        modality=modality,
        is_localiser="LOCALIZER" in header.text("ImageType").split("\\"),
        syntax=syntax,
        shape=shape,
        bits_allocated=allocated,
        bits=bits,
        is_signed=is_signed,
        padding=header.whole("PixelPaddingValue", signed=is_signed),
        # Of slices it only says how to show them: their values have a unit.
        is_dark_high=is_inverted and modality not in SLICED,
        **_said(header),
    )


class _Said(TypedDict):
    """What a frame may say for itself."""

    has_hounsfield: bool
    slope: float
    intercept: float
    spacing: tuple[float, float] | None
    plane: Plane | None


def _said(header: Header) -> _Said:
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    spacing = _spacing(header)
    return {
        "has_hounsfield": intercept is not None and header.text("RescaleType") in _HOUNSFIELD,
        "slope": 1.0 if slope is None else slope,
        "intercept": 0.0 if intercept is None else intercept,
        "spacing": spacing,
        "plane": None if spacing is None else _plane(header, spacing),
    }


def _check_size(one: Slice) -> None:
    """Check the size that a header declares, before anything is made room for."""
    n_stored, n_declared = one.path.stat().st_size, one.n_frames * one.n_bytes
    if one.syntax in PLAIN and n_stored < n_declared:
        raise VolumeError(
            f"it has {n_stored} bytes, fewer than the {n_declared} of its pixels: cut off"
        )
    if n_stored > 2 * n_declared + _BESIDE_BYTES:
        raise VolumeError(
            f"it has {n_stored} bytes, far more than the {n_declared} of its pixels: it is damaged"
        )
    check_is_plausible(one.path, n_declared)
    # compressed ones may be larger than unpacked, and are there twice
    check_fits_memory(one.path, 2 * max(n_stored, n_declared) + 2 * one.n_bytes)


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
