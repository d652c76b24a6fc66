"""Where an evaluation reads its images, and where it writes."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

from napari_msgan.errors import JobError, VolumeError
from napari_msgan.io import READABLE, images_in
from napari_msgan.patients import patients_in

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def find_images(
    data: Path, include: Sequence[str] = ("*",), limit: int | None = None
) -> list[Path]:
    """Return a file, or the images below a folder whose names match, by name.

    Raises
    ------
    VolumeError
        If there is none.
    """
    if not data.exists():
        raise VolumeError(f"{data} does not exist: check the name and the folder")
    if not data.is_dir() or data.name.lower().endswith(READABLE):
        return [data]
    fitting = [
        path
        for path in images_in(data)
        if any(fnmatch.fnmatch(path.name, pattern) for pattern in include)
    ]
    if not fitting:
        raise VolumeError(f"{data} holds no image that matches {', '.join(include)}")
    return fitting[:limit]


def check_names(images: Sequence[Path]) -> None:
    """Refuse images that tables and pictures could not tell apart.

    Raises
    ------
    VolumeError
        If two have the same name.
    """
    seen: dict[str, Path] = {}
    for path in images:
        if (other := seen.setdefault(path.name, path)) is not path:
            raise VolumeError(
                f"{other} and {path} have the same name: evaluate their folders one by one"
            )


def patients_of(images: Sequence[Path], pattern: str) -> dict[Path, str]:
    """Return whose each image is, by its file's name; see `napari_msgan.patients.patients_in`."""
    patients = patients_in((path.name for path in images), pattern)
    return {path: patients[path.name] for path in images}


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds something, unless it may be overwritten.

    Raises
    ------
    JobError
        If `out` is a file, or holds something.
    """
    if out.exists() and not out.is_dir():
        raise JobError(f"{out} is a file: name a folder for the tables and pictures")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise JobError(f"{out} is not empty: name another folder, or add --overwrite")
