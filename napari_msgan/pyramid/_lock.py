"""One writer at a time, by a lock of the operating system, which frees it when its holder dies."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_msgan.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def hold_lock(file: Path, what: str) -> Iterator[None]:
    """Hold the lock of `file` in this process; never waits.

    The process id of the holder stands beside the lock, because Windows lets nobody read a
    locked file.

    Raises
    ------
    StoreError
        If somebody else holds it: "`what` is being written by process 1234".
    """
    from filelock import FileLock, Timeout

    pid_file = file.with_suffix(".pid")
    lock = FileLock(file, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise StoreError(
            f"{what} is being written by {_holder(pid_file)}. Wait until that is done, or stop it."
        ) from None
    except OSError as error:
        raise StoreError(f"{what} cannot be written: {error}. Check its permissions.") from error
    try:
        pid_file.write_text(str(os.getpid()), encoding="ascii")
        yield
    finally:
        pid_file.unlink(missing_ok=True)
        lock.release()


def _holder(pid_file: Path) -> str:
    try:
        pid = int(pid_file.read_text(encoding="ascii"))
    except (OSError, ValueError):  # the holder has not written it yet
        return "another process"
    return "this process" if pid == os.getpid() else f"process {pid}"
