"""A file or folder that appears under its name only when it is complete."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from napari_msgan.durable import exchange, patiently, sync_folder, sync_tree, told_if_disk_full
from napari_msgan.errors import VolumeError
from napari_msgan.folders import check_is_folder, read_inside
from napari_msgan.locking import hold_lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Files at the top of a Zarr folder that say what it is.
_ZARR_METADATA = ("zarr.json", ".zattrs")


@contextmanager
def complete_or_nothing(
    path: Path, *, overwrite: bool, needed_bytes: int | None = None
) -> Iterator[Path]:
    """Yield a hidden sibling of `path` to write to, which takes the name when all went well.

    Whatever stops the body (an error, Ctrl-C, a generator that is closed) removes the sibling; what
    a killed process left is removed by the next one that writes `path`. Whenever it is killed, and
    after a power cut, the name stands for the old or the new content; only where the system cannot
    exchange two folders, that of an old folder is free for a moment.

    needed_bytes : how large it may become, for the message that the disk is full.

    Raises
    ------
    VolumeError
        If the name is taken and `overwrite` is false, another process is writing it, or the
        operating system refuses.
    """
    check_is_folder(path.parent, VolumeError)
    token = uuid.uuid4().hex[:8]
    partial = path.with_name(f".partial-{token}-{path.name}")  # keeps the suffix
    lock_file = path.with_name(f".{path.name}.lock")
    with hold_lock(lock_file, str(path), VolumeError):
        try:
            _remove_stale(path, "partial")
            if path.exists():  # else it is the only copy
                _remove_stale(path, "old")
            _check_name(path, overwrite=overwrite)
            with told_if_disk_full(path, VolumeError, needed_bytes):
                yield partial
                sync_tree(partial)
                _move(partial, path, path.with_name(f".old-{token}-{path.name}"), overwrite)
                _remove_stale(path, "old")
                sync_folder(path.absolute().parent)
        except OSError as error:
            raise VolumeError(f"{path} could not be written: {error}") from error
        finally:
            _remove(partial)
            # While it is held, as in `create_pyramid`; Windows refuses, an empty file then stays.
            with suppress(OSError):
                lock_file.unlink(missing_ok=True)


def _remove_stale(path: Path, what: str) -> None:
    """Remove what others left beside `path`: they held the lock and are gone."""
    pattern = re.compile(rf"\.{what}-[0-9a-f]{{8}}-{re.escape(path.name)}")
    for stale in [p for p in path.absolute().parent.iterdir() if pattern.fullmatch(p.name)]:
        _remove(stale)


def _check_name(path: Path, *, overwrite: bool) -> None:
    if not (path.exists() or path.is_symlink()):
        return
    if not overwrite:
        raise VolumeError(
            f"{path} exists already: choose another name, delete it first, or say "
            "that it may be replaced (--overwrite; in Python overwrite=True)"
        )
    if path.is_dir() and not _is_one_image(path):
        raise VolumeError(
            f"{path} is a folder but not one Zarr image, so it is not replaced. Choose another "
            "name, or delete it yourself"
        )


def _is_one_image(folder: Path) -> bool:
    """Return whether a folder is an array or a multiscale image of Zarr, no group of others."""
    if (folder / ".zarray").is_file():
        return True
    for name in _ZARR_METADATA:
        with suppress(OSError, ValueError, AttributeError, RecursionError):
            found = json.loads(read_inside(folder, name))
            attributes = found.get("attributes", found)
            is_image = "multiscales" in {**attributes, **attributes.get("ome", {})}
            if is_image or found.get("node_type") == "array":
                return True
    return False


def _move(partial: Path, path: Path, old: Path, overwrite: bool) -> None:
    # Asked again: writing takes long, and os.replace would silently replace a file.
    _check_name(path, overwrite=overwrite)
    if not path.is_dir():
        patiently(partial.replace, path)
        return
    # The old content goes when the new name is on the disk.
    if exchange(partial, path):
        try:
            sync_folder(path.absolute().parent)
        except OSError:
            exchange(partial, path)
            raise
        _remove(partial)
        return
    patiently(path.rename, old)
    try:
        patiently(partial.rename, path)
    except OSError:
        patiently(old.rename, path)
        raise
    sync_folder(path.absolute().parent)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # else it would hide why nothing was written; the next one does it
            patiently(path.unlink)
