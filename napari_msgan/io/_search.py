"""Which images a folder holds."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from napari_msgan.io._dicom_files import is_series
from napari_msgan.io._dispatch import READABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


def images_in(folder: Path, patterns: Sequence[str] = ("**/*",)) -> list[Path]:
    """Return the images whose paths below a folder match a pattern, sorted.

    A folder of the slices of a DICOM series is one image. Hidden files and folders are left out,
    and so is what lies behind links to folders.
    """
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    is_one = cache(is_series)
    return sorted(path for path in found if _fits(path.relative_to(folder), path, is_one))


def _fits(inside: Path, path: Path, is_one: Callable[[Path], bool]) -> bool:
    if not inside.parts or any(part[0] == "." for part in inside.parts):
        return False
    name = path.name.lower()
    if path.is_dir():
        return name.endswith(".zarr") or is_one(path)
    if name.endswith(".dcm"):
        return path.is_file() and not is_one(path.parent)
    return path.is_file() and name.endswith(READABLE)
