"""Read folders that may come from anybody, without reading or changing anything outside them."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from napari_msgan.errors import FolderError, MsganError

#: Larger metadata are not those of an image or a model.
MOST_METADATA_BYTES = 1 << 24

#: Error codes of operations that fail although the file may be sound.
_NO_ANSWER = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)


def is_url(address: Path | str) -> bool:
    """Return whether an address is a URL that fsspec opens, such as ``s3://bucket/a.ome.zarr``.

    Examples
    --------
    >>> is_url("s3://bucket/a.ome.zarr"), is_url("a.ome.zarr"), is_url("C://a.ome.zarr")
    (True, False, False)
    """
    return not isinstance(address, Path) and address.find("://") > 1  # a single letter is a drive


def check_is_folder(folder: Path, kind: type[MsganError]) -> None:
    """Check that a folder to write into exists.

    Raises
    ------
    kind
        If it does not exist, or is a file.
    """
    if folder.is_dir():
        return
    if folder.exists():
        raise kind(f"{folder} is a file, where a folder is needed. Choose another place.")
    raise kind(f"the folder {folder} does not exist. Make it first.")


def check_inside(root: Path, path: Path) -> int:
    """Check that a path stays inside a folder, and return its size in bytes if it is a file.

    The size is 0 for a folder, or if nothing is there. The root folder itself may be a link; links
    inside it that lead out of it are refused.

    Raises
    ------
    FolderError
        If a link leads out of the folder, or the path is a pipe, a device or a cycle of links.
    OSError
        If the disk or the network does not answer, which says nothing about the file.
    """
    home, real = os.path.realpath(root), os.path.realpath(path)
    if real != home and not real.startswith(os.path.join(home, "")):  # noqa: PTH118 - adds one "/"
        raise FolderError(
            f"{path} is a link that leads out of {root}. Links to other places are not followed: "
            "put a copy of the file there"
        )
    try:
        seen = Path(real).stat()
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        if error.errno in _NO_ANSWER:
            raise
        raise FolderError(f"{path} cannot be read: {error.strerror}") from error
    if stat.S_ISDIR(seen.st_mode):
        return 0
    if not stat.S_ISREG(seen.st_mode):
        raise FolderError(f"{path} is a pipe or a device, not a plain file. Delete it")
    return seen.st_size


def read_inside(root: Path, name: str, most_bytes: int = MOST_METADATA_BYTES) -> bytes:
    """Return the content of a file in a folder.

    Raises
    ------
    FolderError
        If it is a link that leads out of the folder, not a plain file, or larger than `most_bytes`.
    OSError
        If it does not exist or cannot be read.
    """
    path = root / name
    size = check_inside(root, path)
    if size > most_bytes:
        raise FolderError(f"{path} has {size} bytes, more than the {most_bytes} that it can need")
    return path.read_bytes()
