"""One writer at a time, by a lock of the operating system, which frees it when its holder dies."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from napari_msgan.durable import disk_full_text, is_disk_full
from napari_msgan.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_msgan.errors import MsganError

#: What a file system says that keeps no locks.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_LARGEST_PID = 2**31 - 1


@contextmanager
def hold_lock(file: Path, what: str, kind: type[MsganError] = StoreError) -> Iterator[None]:
    """Hold the lock of `file` in this process; never waits.

    The process id of the holder stands beside the lock, because Windows lets nobody read a
    locked file.

    Raises
    ------
    kind
        If somebody else holds it: "`what` is being written by process 1234".
    """
    from filelock import FileLock, Timeout

    pid_file = file.with_suffix(".pid")
    lock = FileLock(file, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise kind(
            f"{what} is being written by {_holder(pid_file)}. Wait until that is done, or stop it."
        ) from None
    except OSError as error:
        if is_disk_full(error):
            raise kind(disk_full_text(error, what)) from error
        if error.errno in _NO_LOCKS:
            with suppress(OSError):  # nobody holds what cannot be held
                file.unlink()
            raise kind(
                f"{what} cannot be written: its file system keeps no locks, so two writers could "
                "not be kept apart. Mount it with locks (Lustre: the option flock), or write to a "
                "folder elsewhere and copy that."
            ) from error
        raise kind(
            f"{what} cannot be written: {error.strerror or error}. Check its permissions, and "
            "whether its disk is read-only."
        ) from error
    try:
        with suppress(OSError):  # the lock holds also where a full disk leaves no room to say who
            pid_file.write_text(str(os.getpid()), encoding="ascii")
        yield
    finally:
        # Who has deleted the lock's file inside has a successor already, whose id it may be.
        if _pid_in(pid_file) in (None, os.getpid()):
            pid_file.unlink(missing_ok=True)
        lock.release()


def living_holder(file: Path) -> int | None:
    """Return the process that seems to hold the lock of `file`, without touching anything.

    It is what the process id beside the lock says, if such a process runs: good enough to explain
    what is seen, not to rely on.
    """
    from psutil import pid_exists  # type: ignore[import-untyped]

    pid = _pid_in(file.with_suffix(".pid"))
    return pid if pid is not None and pid_exists(pid) else None


def _pid_in(pid_file: Path) -> int | None:
    try:
        with pid_file.open(encoding="ascii") as file:
            pid = int(file.read(20))
    except (OSError, ValueError):  # the holder has not written it yet
        return None
    return pid if 0 < pid <= _LARGEST_PID else None


def _holder(pid_file: Path) -> str:
    pid = _pid_in(pid_file)
    if pid is None:
        return "another process"
    return "this process" if pid == os.getpid() else f"process {pid}"
