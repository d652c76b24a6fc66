"""Which images a folder holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_msgan.io._dispatch import READABLE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def images_in(folder: Path, patterns: Sequence[str] = ("**/*",)) -> list[Path]:
    """Return the images whose paths below a folder match a pattern, sorted.

    Hidden files and folders are left out, and so is what lies behind links to folders.
    """
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return sorted(path for path in found if _fits(path.relative_to(folder), path))


def _fits(inside: Path, path: Path) -> bool:
    name = path.name.lower()
    is_whole = path.is_file() or name.endswith(".zarr")
    return is_whole and name.endswith(READABLE) and not any(p[0] == "." for p in inside.parts)
