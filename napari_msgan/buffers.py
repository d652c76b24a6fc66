"""Large buffers that glibc keeps, instead of giving them back to the system after every use.

A network asks for the same few hundred megabytes at every tile and at every training step. By
default glibc maps such buffers anew each time, and the system clears every page of them: in 3-D
that is a quarter of the CPU time of a tile in float32, and a third of a training step.

References
----------
`mallopt(3)` of the Linux manual; other systems and C libraries are left as they are.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_NEVER = 2**31 - 1
#: What glibc arrives at by itself after it has freed large buffers (`DEFAULT_MMAP_THRESHOLD_MAX`).
_USUAL = ((_M_MMAP_MAX, 65536), (_M_MMAP_THRESHOLD, 2**25), (_M_TRIM_THRESHOLD, 2**26))

_lock = Lock()
_holders = 0


def keep_large_buffers() -> None:
    """Keep them from now on, for processes that do nothing else."""
    _set((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER))


@contextmanager
def large_buffers_kept() -> Iterator[None]:
    """Keep them inside the ``with`` block; the last block that ends gives them back.

    What was freed before the first block begins is given back, too: it would lie between them.
    """
    global _holders
    with _lock:
        if not _holders:
            _call("malloc_trim", 0)
        _holders += 1
        keep_large_buffers()
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if not _holders:
                _set(*_USUAL)
                _call("malloc_trim", 0)


def _set(*values: tuple[int, int]) -> None:
    for parameter, value in values:
        _call("mallopt", parameter, value)


def _call(name: str, *arguments: int) -> None:
    function: Any = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*arguments)
