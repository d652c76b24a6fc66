"""Recognise DICOM files by their first bytes; nothing heavy is imported here."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_msgan.errors import VolumeError
from napari_msgan.folders import check_inside

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Modalities whose images are slices of a volume.
SLICED = ("CT", "MR", "PT")
#: How many names, and how many files that may be DICOM, are examined to tell what a folder holds.
_NAMES, _OPENED = 5000, 100
#: How many DICOM files are examined for slices: the first ones may be reports or doses.
_ASKED = 10
#: Index file of a medium; it holds no image.
_INDEX = "DICOMDIR"
_SUFFIX = ".dcm"
_OTHER_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".nii", ".gz", ".zip", ".npy", ".json", ".txt"),
    *(".csv", ".xml", ".md", ".html", ".pdf", ".py"),
)


def is_dicom(folder: Path, path: Path) -> bool:
    """Return whether a file in a folder begins like DICOM."""
    with suppress(OSError):  # raised also for a folder, or for a link that leads out of this one
        check_inside(folder, path)
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    return False


def is_dicom_folder(folder: Path) -> bool:
    """Return whether there is DICOM among the first files of a folder."""
    return any(True for _ in _first(folder, 1))


def is_series(path: Path) -> bool:
    """Return whether a folder has several DICOM files that form one volume.

    These are slices, or parts of a volume (a concatenation). Files with several frames are a volume
    each, unless there are at least as many slices beside them.
    """
    if not path.is_dir():
        return False
    first = list(_first(path, _ASKED))
    kinds = Counter(map(_kind, first))
    return len(first) > 1 and kinds["slice"] >= max(1, kinds["frames"])


def _first(folder: Path, count: int) -> Iterator[Path]:
    """Return the first DICOM files that the system lists; none if it cannot list the folder."""
    with suppress(OSError), os.scandir(folder) as entries:
        listed = [Path(entry.path) for entry in islice(entries, _NAMES)]
        some = islice(filter(_may_be, listed), _OPENED)
        return islice((path for path in some if is_dicom(folder, path)), count)
    return iter(())


def _may_be(path: Path) -> bool:
    name = path.name
    is_other = name.startswith(".") or name.lower().endswith(_OTHER_SUFFIXES)
    return not is_other and name.upper() != _INDEX


def _kind(file: Path) -> Literal["slice", "frames", "other"]:
    """Return "slice" for a slice or a part of a volume, "frames" for a volume of its own."""
    from napari_msgan.io._dicom_elements import open_header
    from napari_msgan.io.dicom import UNREADABLE

    with suppress(VolumeError, *UNREADABLE):  # problems are reported when the file is read
        _, header = open_header(file, ["Modality", "NumberOfFrames", "ConcatenationUID"])
        if header.text("Modality") in SLICED:
            is_part = (
                header.text("NumberOfFrames") in ("", "0", "1") or "ConcatenationUID" in header
            )
            return "slice" if is_part else "frames"
    return "other"


def dicom_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the DICOM files of a folder (not of folders inside), and those that may have been one.

    The latter are empty, unreadable, links, or named ``.dcm`` without being DICOM.
    """
    found, doubtful = [], []
    for path in sorted(filter(_may_be, folder.iterdir())):
        if is_dicom(folder, path):
            found.append(path)
        elif path.is_symlink() or (path.is_file() and _is_doubtful(path)):
            doubtful.append(path)
    return found, doubtful


def _is_doubtful(path: Path) -> bool:
    try:
        is_empty = path.stat().st_size == 0
    except OSError:
        return True
    return is_empty or not os.access(path, os.R_OK) or path.name.lower().endswith(_SUFFIX)
