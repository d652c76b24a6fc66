"""Allow one writer at a time, by a lock that the operating system frees when its holder dies."""

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

#: Error codes of file systems that do not support locks.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_LARGEST_PID = 2**31 - 1
_TRIES = 4
#: Longer than any note: a host name has at most 255 characters.
_MOST_CHARACTERS = 2000
#: Linux gives its boot time in whole seconds, computed from the clock at each reading.
_SAME_START_S = 2.0


class _Holder(NamedTuple):
    """The process that holds a lock.

    started_s : when it started, in seconds since the computer did; process ids alone are reused.
    """

    pid: int
    started_s: float
    host: str

    def __str__(self) -> str:
        is_here = self.host == platform.node()
        return f"process {self.pid}" if is_here else f"process {self.pid} on {self.host}"


@contextmanager
def hold_lock(file: Path, what: str, kind: type[MsganError] = StoreError) -> Iterator[None]:
    """Hold the lock of `file` inside the ``with`` block; never waits for it.

    The holder is recorded in a file beside the lock, because Windows lets nobody read a locked one.

    Raises
    ------
    kind
        If another process holds it ("`what` is being written by process 1234"), or it cannot be
        taken for another reason.
    """
    from filelock import FileLock, Timeout

    pid_file, me = file.with_suffix(".pid"), _this_process()
    lock = FileLock(file, thread_local=False, fallback_to_soft=False)
    try:
        _acquire(lock, file)
    except Timeout:
        if not file.exists():  # filelock raises Timeout also if it cannot create the file
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
            with suppress(OSError):  # nobody can be holding it
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
        with suppress(OSError):  # the lock also works if a full disk has no room for the note
            pid_file.unlink(missing_ok=True)  # so that a link of that name is not written through
            with pid_file.open("x", encoding="ascii") as note:
                json.dump(me, note)
        yield
    finally:
        try:
            # If the lock's file was deleted meanwhile, the note may be that of the next holder.
            if _noted(pid_file) in (None, me):
                with suppress(OSError):  # the disk is gone or read-only; a stale note does no harm
                    pid_file.unlink(missing_ok=True)
        finally:
            lock.release()


def _acquire(lock: FileLock, file: Path) -> None:
    """Take a lock without waiting, even if its holder is just removing its file."""
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
    """Return who seems to hold the lock of `file`, or None; changes nothing.

    It is the process named beside the lock, if that is running, or is one of another computer. Use
    it in explanations only: it is not reliable.
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
    """Return when a process started, in seconds since boot: that does not depend on the clock."""
    import psutil

    booted = psutil.boot_time()  # read anew, because psutil before 7 adds the last one it has read
    return float(psutil.Process(pid).create_time() - booted)


def _noted(pid_file: Path) -> _Holder | None:
    try:
        with pid_file.open(encoding="ascii") as file:
            pid, started_s, host = json.loads(file.read(_MOST_CHARACTERS))
    except (OSError, ValueError, TypeError, RecursionError):  # not written yet, or not ours
        return None
    is_ours = type(pid) is int and type(started_s) is float and type(host) is str
    return _Holder(pid, started_s, host) if is_ours and 0 < pid <= _LARGEST_PID else None


def _holder(pid_file: Path) -> str:
    noted = _noted(pid_file)
    if noted is None:
        return "another process"
    is_this = (noted.pid, noted.host) == (os.getpid(), platform.node())
    return "this process" if is_this else str(noted)
