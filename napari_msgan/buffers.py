"""Large buffers that glibc keeps, instead of giving them back to the system after every use.

A network asks for the same few hundred megabytes at every tile and at every training step. By
default glibc maps such buffers anew each time, and the system clears every page of them: in 3-D
that is a quarter of the CPU time of a tile in float32, and a third of a training step.

glibc also gives each thread an arena of its own, from which the others take nothing back: with two
workers that is up to twice the memory.

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
    from collections.abc import Hashable, Iterator

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8
_NEVER = 2**31 - 1
#: What glibc arrives at by itself after it has freed large buffers (`DEFAULT_MMAP_THRESHOLD_MAX`).
_USUAL = ((_M_MMAP_MAX, 65536), (_M_MMAP_THRESHOLD, 2**25), (_M_TRIM_THRESHOLD, 2**26))

#: Blocks of several threads come to lie between each other, so that what is kept slowly grows.
_MOST_GROWTH = 1.2

_lock = Lock()
_holders = 0


class KeptBuffers:
    """The buffers that are kept; tells when they have grown too much.

    n_threads : that use them at the same time.
    """

    def __init__(self, n_threads: int) -> None:
        self._warm_up, self._uses, self._usual = 2 * n_threads, 0, 0
        self._kind: Hashable = None
        self._lock = Lock()

    def used(self, kind: Hashable = None) -> None:
        """Give back what is free if the process has become larger than after the first uses.

        To be called by each thread when it has freed its buffers.

        Parameters
        ----------
        kind : of use: free buffers of another kind are of other sizes, so they are given back.
        """
        with self._lock:
            if kind != self._kind:
                self._kind, self._uses, self._usual = kind, 0, 0
                _call("malloc_trim", 0)
            size = private_bytes()
            self._uses += 1
            if self._uses <= self._warm_up:
                self._usual = max(self._usual, size)
            elif size > _MOST_GROWTH * self._usual:
                _call("malloc_trim", 0)


def share_one_arena() -> None:
    """Have threads that begin from now on take their memory from arenas that are there.

    Where no other thread was begun before, that is one.
    """
    _set((_M_ARENA_MAX, 1))


def keep_large_buffers() -> None:
    """Keep them from now on, for processes that do nothing else."""
    share_one_arena()
    _set((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER))


@contextmanager
def large_buffers_kept(n_threads: int = 1) -> Iterator[KeptBuffers]:
    """Keep them inside the ``with`` block; the last block that ends gives them back."""
    global _holders
    with _lock:
        _holders += 1
        keep_large_buffers()
    try:
        yield KeptBuffers(n_threads)
    finally:
        with _lock:
            _holders -= 1
            if not _holders:
                _set(*_USUAL)
                _call("malloc_trim", 0)


def private_bytes() -> int:
    """Return resident bytes of this process that no file stands behind (but on Linux: all)."""
    from psutil import Process  # type: ignore[import-untyped]

    seen = Process().memory_info()
    return int(seen.rss - getattr(seen, "shared", 0))


def _set(*values: tuple[int, int]) -> None:
    for parameter, value in values:
        _call("mallopt", parameter, value)


def _call(name: str, *arguments: int) -> None:
    function: Any = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*arguments)
