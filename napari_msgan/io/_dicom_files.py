"""Which files are DICOM, by their first bytes; nothing heavy is imported here."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from napari_msgan.folders import check_inside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Files of a folder that are looked at to tell what it holds.
_LOOKED_AT = 100
#: Index of a medium, which holds no image.
_INDEX = "DICOMDIR"
#: Modalities whose images are slices of a volume.
SLICED = ("CT", "MR", "PT")


def is_dicom(folder: Path, path: Path) -> bool:
    """Return whether a file, which lies in a folder, begins as DICOM does."""
    with suppress(OSError):  # also what is a folder, or a link that leaves this one
        check_inside(folder, path)
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    return False


def is_dicom_folder(folder: Path) -> bool:
    """Return whether a folder has DICOM among its first files."""
    return any(True for _ in islice(_iter_files(folder, _LOOKED_AT), 1))


def is_series(path: Path) -> bool:
    """Return whether a folder has several DICOM files, the first of a modality that has slices."""
    if not path.is_dir():
        return False
    first = list(islice(_iter_files(path, _LOOKED_AT), 2))
    return len(first) > 1 and _modality(first[0]) in SLICED


def _modality(file: Path) -> str:
    from pydicom import dcmread

    with suppress(Exception):  # whatever is wrong is said where the file is read
        return str(dcmread(file, specific_tags=["Modality"], stop_before_pixels=True).Modality)
    return ""


def dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files of a folder, but not those of folders inside."""
    return list(_iter_files(folder, None))


def _iter_files(folder: Path, most: int | None) -> Iterator[Path]:
    files = sorted(path for path in folder.iterdir() if path.name.upper() != _INDEX)
    return (path for path in files[:most] if is_dicom(folder, path))
