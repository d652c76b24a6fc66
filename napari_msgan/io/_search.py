"""Find the images in a folder."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from napari_msgan.io._dicom_files import is_dicom, is_series
from napari_msgan.io._dispatch import READABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def images_in(folder: Path, patterns: Sequence[str] = ("**/*",)) -> list[Path]:
    """Return the images whose paths below a folder match one of the patterns, sorted.

    A folder with the slices of a DICOM series is one image. Hidden files and folders are left out,
    and links to folders are not followed.
    """
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    is_one = cache(is_series)
    return sorted(path for path in found if _fits(path.relative_to(folder), path, is_one))


def _fits(inside: Path, path: Path, is_one: Callable[[Path], bool]) -> bool:
    *parents, name = (part.lower() for part in (inside.parts or (".",)))
    if any(part.startswith(".") for part in (*parents, name)):
        return False
    if any(parent.endswith(".zarr") for parent in parents):
        return False
    if path.is_dir():
        return name.endswith(".zarr") or (not path.is_symlink() and is_one(path))
    if name.endswith(".dcm") or "." not in name:
        is_alone = not path.is_symlink() and not is_one(path.parent)
        return is_alone and path.is_file() and is_dicom(path.parent, path)
    return path.is_file() and name.endswith(READABLE)
