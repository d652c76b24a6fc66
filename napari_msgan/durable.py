"""Write files that survive a power cut, and explain why the disk refuses.

Whatever is renamed into place is synchronised first: otherwise a file system may keep the new name
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
#: Windows error codes for a file that is open, or a folder with such a file: access denied, used by
#: another process, locked. Errors of other systems have no such code.
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
    # Windows synchronises only files open for writing; elsewhere we may have no right to write
    return path.open("rb+" if os.name == "nt" else "rb")


def _sync_through(descriptor: int) -> None:
    """Wait until the content of a file or folder is on the disk, not just in the disk's own memory.

    References
    ----------
    `fsync(2)` in the macOS manual: there, fsync does not flush that memory; F_FULLFSYNC does, for
    everything sent to the disk before.
    """
    if sys.platform == "darwin":
        import fcntl

        with suppress(OSError):  # network file systems do not support it
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def sync_files(paths: Iterable[Path]) -> None:
    """Wait until files are on the disk; those that do not exist are skipped.

    On macOS they may still be in the memory of the disk until a folder is synchronised, which all
    callers do next.

    Several files are synchronised at a time, because a file system writes its journal once for all
    that wait: 64 chunks took 0.14 s one after another, and 0.02 s in this way.
    """
    run_to_end(iter_in_threads(_sync_if_there, paths, _SYNCED_AT_A_TIME))


def _sync_if_there(path: Path) -> None:
    with suppress(FileNotFoundError), _opened_to_sync(path) as file:
        os.fsync(file.fileno())


def sync_folder(path: Path, *, through: bool = True) -> None:
    """Wait until the names in a folder are on the disk; does nothing on Windows, which cannot.

    through : whether to empty the cache of the disk, too, on macOS, where that takes long; False if
        another folder is synchronised next.
    """
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if through:
            _sync_through(descriptor)
        else:
            os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems do not support it
            raise
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Wait until a file, or a folder with everything in it, is on the disk."""
    if not path.is_dir():
        sync_file(path)
        return
    folders = []

    def files() -> Iterator[Path]:
        for folder, _, names in os.walk(path):
            folders.append(Path(folder))
            yield from (Path(folder, name) for name in names)

    sync_files(files())
    for folder in folders[1:]:
        sync_folder(folder, through=False)
    sync_folder(path)


def patiently(act: Callable[..., T], *arguments: Path) -> T:
    """Return ``act(*arguments)``; retry for some seconds while Windows says that a file is in use.

    Windows does not rename, replace or remove what any program has open; and virus scanners, the
    search indexer and cloud clients briefly open every file that was just written.
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
    """Exchange two names atomically; return whether that worked (only on Linux with glibc).

    References
    ----------
    `renameat2(2)` in the Linux manual, RENAME_EXCHANGE.
    """
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "renameat2"):
        return False
    here, both_stay = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return not libc.renameat2(here, os.fsencode(one), here, os.fsencode(other), both_stay)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old or the new content, even after a power cut.

    If several processes write at once, the last one wins.
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
    """Create a ``.npy`` file, reserve its disk space (see `take_room`) and map it into memory."""
    import numpy as np  # here, because it would slow down the start of the terminal program

    array: npt.NDArray[Any] = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)
    with path.open("rb+") as file:
        take_room(file)
    return array


def take_room(file: IO[bytes]) -> None:
    """Reserve the disk space of a file that is to be mapped into memory.

    Otherwise, writing to the map when the disk is full would kill the process (SIGBUS).
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def is_disk_full(error: OSError) -> bool:
    """Return whether an operation failed because a disk, a quota or a file size is at its limit."""
    return error.errno in _FULL


def disk_full_text(error: OSError, path: Path | str, needed_bytes: int | None = None) -> str:
    """Return an error message for a path that could not be written, with advice."""
    what = _FULL[error.errno or errno.ENOSPC]
    free = f"{_size(free_bytes(Path(path)))} are free there"
    needs = f", up to {_size(needed_bytes)} are needed" if needed_bytes is not None else ""
    return f"{path} cannot be written: {what} ({free}{needs}). Make room, then do the same again."


def existing(path: Path) -> Path:
    """Return a path if it exists, or else the nearest folder above it that does."""
    path = path.absolute()
    return next(p for p in (path, *path.parents) if p.exists())


def free_bytes(path: Path) -> int:
    """Return the free bytes on the disk of a path, which need not exist yet."""
    return shutil.disk_usage(existing(path)).free


def _size(n_bytes: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes / 1e3:.0f} kB"


@contextmanager
def told_if_unwritable(path: Path | str, kind: type[MsganError]) -> Iterator[None]:
    """Turn any error of the operating system into one of `kind`; our own are left as they are."""
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
    """Turn "no space left" and the like into an error of `kind` that says what to do."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise kind(disk_full_text(error, path, needed_bytes)) from error
