"""Write a file or folder so that it appears under its name only when it is complete."""

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

#: Files in a Zarr folder that say what it is.
_ZARR_METADATA = ("zarr.json", ".zattrs")


@contextmanager
def complete_or_nothing(
    path: Path, *, overwrite: bool, needed_bytes: int | None = None
) -> Iterator[Path]:
    """Give a hidden sibling of `path` to write to, which takes that name if the body succeeds.

    Otherwise (on an error, Ctrl-C, or when a generator is closed) the sibling is removed; one that
    a killed process leaves is removed by the next process that writes `path`. Whenever the process
    is killed, and after a power cut, the name stands for either the old or the new content; only
    where the system cannot exchange two folders is the name of an old folder free for a moment.

    needed_bytes : size that the content may reach, for the message about a full disk.

    Raises
    ------
    VolumeError
        If the name is taken and may not be replaced, another process is writing it, or the
        operating system refuses.
    """
    check_is_folder(path.parent, VolumeError)
    token = uuid.uuid4().hex[:8]
    partial = path.with_name(f".partial-{token}-{path.name}")  # keeps the suffix
    lock_file = path.with_name(f".{path.name}.lock")
    with hold_lock(lock_file, str(path), VolumeError):
        try:
            _remove_stale(path, "partial")
            if path.exists():  # if it does not, the old content is the only copy
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
            # Unlinked while held, as in `create_pyramid`; Windows refuses, and an empty file stays.
            with suppress(OSError):
                lock_file.unlink(missing_ok=True)


def _remove_stale(path: Path, what: str) -> None:
    """Remove what other processes left beside `path`; they held the lock, and no longer run."""
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
    """Return whether a folder is a Zarr array or multiscale image, not a group of other things."""
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
    # Checked again: writing takes long, and os.replace would replace a new file silently.
    _check_name(path, overwrite=overwrite)
    if not path.is_dir():
        patiently(partial.replace, path)
        return
    # The old content is removed only when the new name is on the disk.
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
        with suppress(OSError):  # or it would hide the first error; the next writer removes it
            patiently(path.unlink)
