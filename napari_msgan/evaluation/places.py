"""Where an evaluation reads its images, and where it writes."""

from __future__ import annotations

import fnmatch
import hashlib
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from napari_msgan.errors import JobError, VolumeError
from napari_msgan.io import READABLE, images_in, is_series, readable_text
from napari_msgan.patients import patients_in

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def find_images(
    data: Path, include: Sequence[str] = ("*",), limit: int | None = None
) -> list[Path]:
    """Return `data` if it is an image, or the images below that folder, that match `include`.

    Parameters
    ----------
    include : patterns for file names, without folders.
    limit : largest number of images to return, in the order of their names; None for all.

    Raises
    ------
    VolumeError
        If there are none.
    """
    if not data.exists():
        raise VolumeError(f"{data} does not exist: check the name and the folder")
    is_image = not data.is_dir() or data.name.lower().endswith(READABLE) or is_series(data)
    fitting = [
        path
        for path in ([data] if is_image else images_in(data))
        if any(fnmatch.fnmatch(path.name, pattern) for pattern in include)
    ]
    if not fitting:
        raise VolumeError(
            f"{data} holds no image that matches {', '.join(include)}; {readable_text(data)}"
        )
    return fitting[:limit]


def names_of(images: Sequence[Path]) -> dict[Path, str]:
    """Return the name of each image in tables: its file name, with folders if those are equal.

    Raises
    ------
    VolumeError
        If an image is listed twice.

    Examples
    --------
    >>> from pathlib import Path
    >>> list(names_of([Path("a/ct"), Path("b/ct")]).values())
    ['a_ct', 'b_ct']
    """
    for depth in range(1, max((len(path.parts) for path in images), default=0) + 1):
        names = {path: "_".join(path.parts[-depth:]) for path in images}
        if len(set(names.values())) == len(images):
            return names
    if len(set(images)) < len(images):
        twice = next(path for path in images if list(images).count(path) > 1)
        raise VolumeError(f"{twice} is there twice")
    # as for a/b_c and a_b/c
    return {path: f"{number}_{path.name}" for number, path in enumerate(images, 1)}


def patients_of(images: Sequence[Path], pattern: str) -> dict[Path, str]:
    """Return the patient of each image by its name, see `napari_msgan.patients.patients_in`.

    Raises
    ------
    VolumeError
        If the pattern matches nothing, or if only some names include folders (see `names_of`) and
        it finds a different patient with the folders than without.
    """
    names = names_of(images)
    patients = patients_in(names.values(), pattern)
    count = Counter(path.name for path in images)
    if min(count.values(), default=1) == 1:
        for path, name in names.items():
            alone = _patients_of_file(path, pattern)
            if alone and alone != {patients[name]}:
                raise VolumeError(
                    f"some images are named with their folders, and {pattern!r} finds "
                    f"{patients[name]!r} in the name {name}, but {alone.pop()!r} in that of its "
                    "file alone: give a pattern that finds the same in both, such as p[0-9]+"
                )
    return {path: patients[names[path]] for path in images}


def check_held_out(
    images: Sequence[Path], training: Sequence[Path], pattern: str | None = None
) -> None:
    """Refuse images that the model was trained on, even under another name.

    Parameters
    ----------
    pattern : finds the patient in the name of an image; None if each is of a different patient.

    Raises
    ------
    VolumeError
        If an image or a patient is on both sides; it names the first.
    """
    advice = "hold images out of training, all those of a patient"
    if shared := sorted({p.resolve() for p in images} & {p.resolve() for p in training}):
        raise VolumeError(f"{shared[0]} is in DATA and in --training: {advice}")
    sizes = {path: _size(path) for path in images}
    alike = {path: size for path in training if (size := _size(path)) in sizes.values()}
    contents = {_digest(path): path for path, size in sizes.items() if size in alike.values()}
    for path in alike:
        if other := contents.get(_digest(path)):
            raise VolumeError(f"{other} has the content of {path} in --training: {advice}")
    if pattern is not None:
        held_out = set(patients_of(images, pattern).values())
        held_out |= set().union(*(_patients_of_file(path, pattern) for path in images))
        for path, name in names_of(training).items():
            found = _found_in(name, pattern) | _patients_of_file(path, pattern)
            if both := sorted(found & held_out):
                raise VolumeError(
                    f"{path} in --training is of patient {both[0]}, as is DATA: {advice}"
                )


def _found_in(name: str, pattern: str) -> set[str]:
    with suppress(VolumeError):  # training sets may name their images differently
        return set(patients_in([name], pattern).values())
    return set()


def _patients_of_file(path: Path, pattern: str) -> set[str]:
    """Return the patient that the file name alone tells; folders of series share their names."""
    return set() if path.is_dir() else _found_in(path.name, pattern)


def _files(path: Path) -> list[Path]:
    """Return the file of an image, or all files below its folder."""
    return [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in _files(path))


def _digest(path: Path) -> bytes:
    """Return a hash of the content of an image, regardless of file names."""
    digests = []
    for name in _files(path):
        with name.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").digest())
    return hashlib.sha256(b"".join(sorted(digests))).digest()


def check_out(out: Path, read: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse a folder that is not empty, unless it may be overwritten.

    read : folders and files that images are read from.

    Raises
    ------
    JobError
        If `out` is a file, is not empty, or lies in a folder of `read`, where its pictures would
        be taken for images.
    """
    if out.exists() and not out.is_dir():
        raise JobError(f"{out} is a file: name a folder for the tables and pictures")
    for data in read:
        if data.is_dir() and out.resolve().is_relative_to(data.resolve()):
            raise JobError(f"{out} lies in {data}, whose images are read: name a folder elsewhere")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise JobError(f"{out} is not empty: name another folder, or add --overwrite")
