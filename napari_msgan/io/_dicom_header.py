"""Headers of DICOM files with grey images: one image, or frames that are slices.

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

#: Most bytes that a file may hold beside its pixels: overlays, curves, private elements.
_BESIDE_BYTES = 64 * 2**20
#: Transfer syntaxes without compression.
PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
_RIGHT_ANGLE = 1e-2
#: Groups of elements shared by all frames, and groups of each frame.
_SHARED, _OF_FRAMES = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
#: The groups that say where a frame lies and what its stored numbers mean.
_GROUPS = (
    *("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"),
    "PixelValueTransformationSequence",
)
_TABLE = "ModalityLUTSequence"
MOST_FRAMES = 20_000
#: RescaleType of a CT in Hounsfield units, or one that does not say.
_HOUNSFIELD = ("", "US", "HU", "HU_MOD")
#: The only elements that are read, because others may have any size.
_READ = (
    *("SOPInstanceUID", "SeriesInstanceUID", "Modality", "ImageType", "NumberOfFrames"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "RescaleSlope"),
    *("RescaleIntercept", "PixelSpacing", "ImagerPixelSpacing", "ImageOrientationPatient"),
    *("RescaleType", "ConcatenationUID", "InConcatenationTotalNumber"),
    *("ImagePositionPatient", _SHARED, _OF_FRAMES, _TABLE),
)


class OtherKindError(VolumeError):
    """A file without images of the kind that is read; in a folder it may lie beside such images."""


@dataclass(frozen=True)
class Plane:
    """Where an image lies in the patient, in (x, y, z) LPS coordinates.

    along_row, along_column : directions in which the column index and the row index grow.
    position : position of the centre of the first voxel, in mm.
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
        """Return whether both have the directions and spacing of slices of one volume."""
        ours, theirs = ((p.along_row, p.along_column) for p in (self, other))
        is_alike = np.allclose(self.spacing, other.spacing, rtol=1e-4)
        return is_alike and np.allclose(ours, theirs, atol=1e-3)


@dataclass(frozen=True)
class Slice:
    """What the header of a file says about one of its images.

    frame, n_frames : index of the image in the file, and number of images there.
    identifier, series : identifiers of the file, and of the series that it belongs to.
    concatenation, n_parts : if the volume lies in several files, their common identifier and their
        number; otherwise "" and 0.
    is_localiser : whether it shows where the slices of the same series lie.
    has_hounsfield : for a CT: whether the header converts numbers to values without naming a unit
        other than Hounsfield.
    syntax : transfer syntax of the pixels.
    shape : rows and columns.
    bits, is_signed : of the stored numbers.
    padding : number stored where there is no image; None if there is none.
    is_dark_high : whether large numbers are dark, in an X-ray (MONOCHROME1).
    slope, intercept : convert stored numbers to values, such as Hounsfield units.
    spacing : mm between rows and between columns; None if it is not known.
    plane : place in the patient; None if it is not known.
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
        """Return the size of the uncompressed pixels."""
        return math.prod(self.shape) * self.bits_allocated // 8

    @property
    def limits(self) -> tuple[float, float]:
        """Return the smallest and the largest value that pixels can have."""
        low = -(2 ** (self.bits - 1)) if self.is_signed else 0
        ends = [self.slope * (low + n) + self.intercept for n in (0, 2**self.bits - 1)]
        return min(ends), max(ends)

    @property
    def is_whole(self) -> bool:
        """Return whether all values are integers."""
        return self.slope.is_integer() and self.intercept.is_integer()


def read_slices(path: Path) -> list[Slice]:
    """Return what the header of a file says about its images, if it has any; reads no pixels.

    Raises
    ------
    OtherKindError
        If the file is anything but one grey image of integers, or frames that are slices.
    VolumeError
        If the file is damaged.
    """
    syntax, header = open_header(path, _READ)
    rows, columns = header.whole("Rows"), header.whole("Columns")
    if rows is None or columns is None:
        if header.text("Modality") in ("", *SLICED):  # a damaged slice must not go unnoticed
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
    count = int(text) or 1  # some programs write 0 for a single image
    if count > 1 and _OF_FRAMES not in header:
        raise OtherKindError(
            f"{path} holds {count} frames that do not say where they lie, as those of a film: "
            f"{CONVERT}"
        )
    if count > MOST_FRAMES:
        raise VolumeError(f"it has {count} frames, more than {MOST_FRAMES}: {CONVERT}")
    return count


def _groups(holders: Sequence[Header]) -> list[Header]:
    """Return the groups of elements of a frame, its own before the shared ones."""
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
    """Return the first frame as the header describes it outside the groups of frames."""
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
        # For slices MONOCHROME1 only says how to display them: their values have a unit.
        is_dark_high=is_inverted and modality not in SLICED,
        **_said(header),
    )


class _Said(TypedDict):
    """What the header may say separately for each frame."""

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
    """Check the size that a header declares before memory is allocated."""
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
    # compressed pixels may be larger than uncompressed ones, and are in memory twice
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
    """Return mm between rows and columns, in the patient or (X-rays) on the detector."""
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        found = header.numbers(name, 2)
        if found is not None and is_spacing(tuple(found.tolist())):
            return float(found[0]), float(found[1])
    return None
