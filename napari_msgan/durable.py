"""Files that survive a power cut, and what to say when the disk refuses.

Whatever is renamed into place is synchronised first: a file system may otherwise keep the new name
and lose the content.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from napari_msgan.errors import MsganError
from napari_msgan.steps import iter_in_threads, run_to_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy.typing as npt


T = TypeVar("T")

_SYNCED_AT_A_TIME = 16
#: What Windows says of a file, or of a folder with a file, that somebody has open: access denied,
#: used by another process, locked. Elsewhere errors have no such number.
_IN_USE = (5, 32, 33)
_WAITS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 1.0, 1.0)
_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your share of the disk (quota) is used up",
    errno.EFBIG: "a file cannot be that large there",
}


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with _opened_to_sync(path) as file:
        _sync_through(file.fileno())


def _opened_to_sync(path: Path) -> IO[bytes]:
    # Windows synchronises only what may be written; elsewhere the file may be somebody else's
    return path.open("rb+" if os.name == "nt" else "rb")


def _sync_through(descriptor: int) -> None:
    """Wait until the content of a file or folder is on the disk, and out of the disk's own memory.

    References
    ----------
    `fsync(2)` of the macOS manual: there that memory is left as it is unless F_FULLFSYNC asks for
    it, which waits for all that was sent to the disk before.
    """
    if sys.platform == "darwin":
        import fcntl

        with suppress(OSError):  # network file systems know no such request
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def sync_files(paths: Iterable[Path]) -> None:
    """Wait until files are on the disk; those that do not exist are left out.

    On macOS they may be in its memory still until a folder is synchronised: all callers do it next.

    Many at a time, because a file system writes its journal once for all who wait: 64 chunks took
    0.14 s one after the other and 0.02 s like this.
    """
    run_to_end(iter_in_threads(_sync_if_there, paths, _SYNCED_AT_A_TIME))


def _sync_if_there(path: Path) -> None:
    with suppress(FileNotFoundError), _opened_to_sync(path) as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk; Windows has no such request."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _sync_through(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems know no such request
            raise
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Wait until a file, or a folder with all that is in it, is on the disk."""
    if not path.is_dir():
        sync_file(path)
        return
    folders = []

    def files() -> Iterator[Path]:
        for folder, _, names in os.walk(path):
            folders.append(Path(folder))
            yield from (Path(folder, name) for name in names)

    sync_files(files())
    for folder in folders:
        sync_folder(folder)


def patiently(act: Callable[..., T], *arguments: Path) -> T:
    """Return what `act` does; wait some seconds while Windows refuses, because a file is in use.

    There nothing is renamed, replaced or removed that anybody has open, and virus scanners, the
    search index and programs that copy to a cloud open for a moment whatever was just written.
    """
    for wait_s in _WAITS_S:
        try:
            return act(*arguments)
        except PermissionError as error:
            if getattr(error, "winerror", None) not in _IN_USE:
                raise
        time.sleep(wait_s)
    return act(*arguments)


def exchange(one: Path, other: Path) -> bool:
    """Let two names change places in one step; return whether the system can (Linux, glibc).

    References
    ----------
    `renameat2(2)` of the Linux manual, RENAME_EXCHANGE.
    """
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "renameat2"):
        return False
    here, both_stay = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return not libc.renameat2(here, os.fsencode(one), here, os.fsencode(other), both_stay)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old or the new content, also after a power cut.

    Of several who write at once, one is the last.
    """
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            _sync_through(file.fileno())
        patiently(partial.replace, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def create_array_file(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return a new ``.npy`` file, mapped into memory, see `take_room`."""
    import numpy as np  # here, or the terminal program would not answer at once

    array: npt.NDArray[Any] = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
    with path.open("rb+") as file:
        take_room(file)
    return array


def take_room(file: IO[bytes]) -> None:
    """Take the room on the disk of a file that is mapped into memory.

    Without that, a write to the map that finds the disk full ends the process (SIGBUS).
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def is_disk_full(error: OSError) -> bool:
    """Return whether an operation failed because there was no room for it."""
    return error.errno in _FULL


def disk_full_text(error: OSError, path: Path | str, needed_bytes: int | None = None) -> str:
    """Return what happened and what to do, for a path that could not be written to."""
    what = _FULL[error.errno or errno.ENOSPC]
    free = f"{_size(free_bytes(Path(path)))} are free there"
    needs = f", up to {_size(needed_bytes)} are needed" if needed_bytes is not None else ""
    return f"{path} cannot be written: {what} ({free}{needs}). Make room, then do the same again."


def existing(path: Path) -> Path:
    """Return a path, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(p for p in (path, *path.parents) if p.exists())


def free_bytes(path: Path) -> int:
    """Return how much room the disk of a path has, which need not exist yet."""
    return shutil.disk_usage(existing(path)).free


def _size(n_bytes: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes / 1e3:.0f} kB"


@contextmanager
def told_if_unwritable(path: Path | str, kind: type[MsganError]) -> Iterator[None]:
    """Turn whatever the operating system says into an error of `kind`; ours are left."""
    try:
        with told_if_disk_full(path, kind):
            yield
    except OSError as error:
        if isinstance(error, MsganError):
            raise
        raise kind(f"{path} cannot be written: {error}") from error


@contextmanager
def told_if_disk_full(
    path: Path | str, kind: type[MsganError], needed_bytes: int | None = None
) -> Iterator[None]:
    """Turn the operating system's "no space left" into an error of `kind` that says what to do."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise kind(disk_full_text(error, path, needed_bytes)) from error
