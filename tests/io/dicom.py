"""DICOM files, made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

AXIAL = (1, 0, 0, 0, 1, 0)
SAGITTAL = (0, 1, 0, 0, 0, -1)
_GROUP_OF = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
}


def dataset(pixels: npt.NDArray[Any], **elements: Any) -> Dataset:
    """Return an image as a scanner of 12 bits writes it."""
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, generate_uid()
    made.SeriesInstanceUID, made.Modality = "1.2.3", "CT"
    made.Rows, made.Columns = pixels.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = 8 * pixels.dtype.itemsize
    made.BitsStored = min(made.BitsAllocated, 12)
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes()
    with disable_value_validation():  # what others write is to be written
        for name, value in elements.items():
            setattr(made, name, value)
    return made


def of_frames(stored: npt.NDArray[Any], places: list[dict[str, Any]], **shared: Any) -> Dataset:
    """Return an enhanced image of frames, shape (frames, rows, columns).

    places : what the groups of each frame say, by name.
    shared : what is said once for all.
    """
    made = dataset(stored[0], SOPClassUID=EnhancedCTImageStorage, NumberOfFrames=len(stored))
    made.PixelData = stored.tobytes()
    made.SharedFunctionalGroupsSequence = [_grouped(shared)]
    made.PerFrameFunctionalGroupsSequence = [_grouped(place) for place in places]
    return made


def _grouped(elements: dict[str, Any]) -> Dataset:
    groups = Dataset()
    for name, value in elements.items():
        group = _GROUP_OF[name]
        if group not in groups:
            setattr(groups, group, [Dataset()])
        setattr(groups[group][0], name, value)
    return groups


def places_of(count: int, directions: tuple[float, ...] = AXIAL) -> list[dict[str, Any]]:
    """Return where frames lie, one after the other, 2.5 mm apart."""
    normal = np.cross(directions[:3], directions[3:])
    first = np.array([-100.5, 30.25, 700])
    return [
        {"ImagePositionPatient": (first + number * 2.5 * normal).tolist()}
        for number in range(count)
    ]


def write(
    path: Path,
    made: Dataset,
    syntax: str = ExplicitVRLittleEndian,
    frame: bytes | list[bytes] = b"",
) -> Path:
    """Write a file; `frame` is its image, compressed, or all of them."""
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.file_meta.TransferSyntaxUID = syntax
    if frame:
        made.PixelData = encapsulate(frame if isinstance(frame, list) else [frame])
        made["PixelData"].VR = "OB"
    path.parent.mkdir(parents=True, exist_ok=True)
    with disable_value_validation():
        made.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path,
    stored: npt.NDArray[Any],
    *,
    directions: tuple[float, ...] = AXIAL,
    spacing: tuple[float, float, float] = (2.5, 0.8, 0.6),
    **elements: Any,
) -> None:
    """Write slices, shape (slices, rows, columns), under names that do not tell their order."""
    normal = np.cross(directions[:3], directions[3:])
    names = np.random.default_rng(0).permutation(len(stored))
    for number, (pixels, name) in enumerate(zip(stored, names, strict=True)):
        position = np.array([-100.5, 30.25, 700]) + number * spacing[0] * normal
        placed = dataset(
            pixels,
            ImageOrientationPatient=list(directions),
            ImagePositionPatient=position.tolist(),
            PixelSpacing=list(spacing[1:]),
            SliceThickness=spacing[0],
            RescaleSlope=1,
            RescaleIntercept=-1024,
        )
        for key, value in elements.items():
            setattr(placed, key, value[number] if isinstance(value, list) else value)
        write(folder / f"{name}.dcm", placed)
