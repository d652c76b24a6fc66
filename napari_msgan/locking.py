"""One writer at a time, by a lock of the operating system, which frees it when its holder dies."""

from __future__ import annotations

import errno
import json
import os
import platform
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from napari_msgan.durable import disk_full_text, is_disk_full
from napari_msgan.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from filelock import FileLock

    from napari_msgan.errors import MsganError

#: What a file system says that keeps no locks.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_LARGEST_PID = 2**31 - 1
_TRIES = 4
#: Longer than any note: a host's name has 255 characters at most.
_MOST_CHARACTERS = 2000
#: Linux tells when it was started in whole seconds, reckoned from the clock at each reading.
_SAME_START_S = 2.0


class _Holder(NamedTuple):
    """Who holds a lock.

    started_s : from the start of the computer; a process id alone is used again.
    """

    pid: int
    started_s: float
    host: str

    def __str__(self) -> str:
        is_here = self.host == platform.node()
        return f"process {self.pid}" if is_here else f"process {self.pid} on {self.host}"


@contextmanager
def hold_lock(file: Path, what: str, kind: type[MsganError] = StoreError) -> Iterator[None]:
    """Hold the lock of `file` in this process; never waits.

    Who the holder is stands beside the lock, because Windows lets nobody read a locked file.

    Raises
    ------
    kind
        If somebody else holds it: "`what` is being written by process 1234".
    """
    from filelock import FileLock, Timeout

    pid_file, me = file.with_suffix(".pid"), _this_process()
    lock = FileLock(file, thread_local=False, fallback_to_soft=False)
    try:
        _acquire(lock, file)
    except Timeout:
        if not file.exists():  # so filelock says also where it can make no file at all
            raise kind(
                f"{what} cannot be written: no file can be made in {file.parent}. Check its "
                "permissions, or choose another folder."
            ) from None
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
            pid_file.unlink(missing_ok=True)  # a link there, of a stranger, is not followed
            with pid_file.open("x", encoding="ascii") as note:
                json.dump(me, note)
        yield
    finally:
        try:
            # Who has deleted the lock's file inside has a successor already, whose note it may be.
            if _noted(pid_file) in (None, me):
                with suppress(OSError):  # the disk is gone, or became read-only: it means nothing
                    pid_file.unlink(missing_ok=True)
        finally:
            lock.release()


def _acquire(lock: FileLock, file: Path) -> None:
    """Take a lock without waiting, also one whose file its holder is just removing."""
    from filelock import Timeout

    for _ in range(_TRIES - 1):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if file.exists():
                raise
        else:
            return
    lock.acquire(blocking=False)


def living_holder(file: Path) -> str | None:
    """Return who seems to hold the lock of `file`, without touching anything; None for nobody.

    It is what stands beside the lock, if that process runs, or if it is one of another computer:
    good enough to explain what is seen, not to rely on.
    """
    from psutil import Error  # type: ignore[import-untyped]

    noted = _noted(file.with_suffix(".pid"))
    if noted is None:
        return None
    if noted.host != platform.node():
        return str(noted)
    try:
        is_same = abs(_started_s(noted.pid) - noted.started_s) < _SAME_START_S
    except Error:
        return None
    return str(noted) if is_same else None


def _this_process() -> _Holder:
    return _Holder(os.getpid(), _started_s(os.getpid()), platform.node())


def _started_s(pid: int) -> float:
    """Return when a process started, from the start of the computer: no clock that is set."""
    import psutil

    booted = psutil.boot_time()  # read anew; psutil before 7 adds the one that was read last
    return float(psutil.Process(pid).create_time() - booted)


def _noted(pid_file: Path) -> _Holder | None:
    try:
        with pid_file.open(encoding="ascii") as file:
            pid, started_s, host = json.loads(file.read(_MOST_CHARACTERS))
    except (OSError, ValueError, TypeError, RecursionError):  # not written yet, or not by us
        return None
    is_ours = type(pid) is int and type(started_s) is float and type(host) is str
    return _Holder(pid, started_s, host) if is_ours and 0 < pid <= _LARGEST_PID else None


def _holder(pid_file: Path) -> str:
    noted = _noted(pid_file)
    if noted is None:
        return "another process"
    is_this = (noted.pid, noted.host) == (os.getpid(), platform.node())
    return "this process" if is_this else str(noted)
