"""Large buffers that glibc keeps, instead of giving them back to the system after every use.

A network asks for the same few hundred megabytes at every tile and at every training step. By
default glibc maps such buffers anew each time, and the system clears every page of them: in 3-D
that is a quarter of the CPU time of a tile in float32, and a third of a training step.

glibc also gives each thread an arena of its own, from which the others take nothing back: with two
workers that is up to twice the memory. In one arena buffers of several threads come to lie between
each other, so what is kept of it is bounded: what does not fit is mapped, as by default. Other
arenas cannot be made large, so where there are several (napari begins threads before us) all is
kept.

References
----------
`mallopt(3)` of the Linux manual; other systems and C libraries are left as they are.
"""

from __future__ import annotations

import ctypes
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Barrier, BrokenBarrierError, Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8
_NEVER = 2**31 - 1
#: What glibc arrives at by itself after it has freed large buffers (`DEFAULT_MMAP_THRESHOLD_MAX`).
_USUAL = ((_M_MMAP_MAX, 65536), (_M_MMAP_THRESHOLD, 2**25), (_M_TRIM_THRESHOLD, 2**26))

#: Bytes: about what a tile of 128^3 takes in bfloat16.
KEPT_BYTES = 128 << 20
#: Smaller buffers are never mapped.
_LARGE = 1 << 20

_lock = Lock()
_holders = 0


def share_one_arena() -> None:
    """Have threads that begin from now on take their memory from arenas that are there.

    Where no other thread was begun before, that is one.
    """
    _set((_M_ARENA_MAX, 1))


def keep_large_buffers() -> None:
    """Keep all of them from now on, for processes that do nothing else."""
    share_one_arena()
    _set((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER))


@contextmanager
def large_buffers_kept(n_threads: int = 1, bytes_each: int = KEPT_BYTES) -> Iterator[None]:
    """Keep them inside the ``with`` block; the last block that ends gives them back.

    Parameters
    ----------
    bytes_each : kept for each thread, where all threads share one arena.
    """
    global _holders
    with _lock:
        _holders += 1
        keep_large_buffers()
        if count_arenas() == 1:
            _make_room(n_threads * bytes_each)
            # glibc looks among the freed buffers first, and maps only what finds no room there
            _set((_M_MMAP_MAX, 65536), (_M_MMAP_THRESHOLD, _LARGE))
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if not _holders:
                _give_back()


def private_bytes() -> int:
    """Return resident bytes of this process that no file stands behind (but on Linux: all)."""
    from psutil import Process  # type: ignore[import-untyped]

    seen = Process().memory_info()
    return int(seen.rss - getattr(seen, "shared", 0))


def count_arenas() -> int:
    """Return from how many arenas of glibc threads take memory; 0 where there is no glibc."""
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "malloc_info"):
        return 0
    text, size = ctypes.c_void_p(), ctypes.c_size_t()
    libc.open_memstream.restype = ctypes.c_void_p
    stream = ctypes.c_void_p(libc.open_memstream(ctypes.byref(text), ctypes.byref(size)))
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    found = ctypes.string_at(text, size.value).count(b"<heap nr=")
    libc.free(text)
    return found


def _give_back() -> None:
    """Return what is free in all arenas to the system.

    `malloc_trim` returns the holes in all arenas, but the free end of the first one only. The end
    of another arena is returned when a thread frees a large buffer in it.
    """
    _call("malloc_trim", 0)
    n_arenas = count_arenas()
    if n_arenas > 1:
        _set((_M_TRIM_THRESHOLD, _LARGE))
        _reach(n_arenas)
    _set(*_USUAL)


def _reach(n_arenas: int) -> None:
    """Take a large buffer from every arena, and free it.

    New threads take over the arenas of threads that ended, at most all of them, then share all
    arenas in turn: so twice as many threads reach every arena, if none ends before all have.
    """
    all_done = Barrier(2 * n_arenas)

    def reach_one() -> None:
        _make_room(_LARGE)
        with suppress(BrokenBarrierError):
            all_done.wait()

    with ThreadPoolExecutor(2 * n_arenas) as pool:
        try:
            for _ in range(2 * n_arenas):
                pool.submit(reach_one)
        except RuntimeError:  # the system, or the end of the program, allows no more threads
            all_done.abort()


def _make_room(n_bytes: int) -> None:
    """Have the heap become so much larger; its pages are taken when they are first written."""
    libc = ctypes.CDLL(None)
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    libc.free(libc.malloc(n_bytes))


def _set(*values: tuple[int, int]) -> None:
    for parameter, value in values:
        _call("mallopt", parameter, value)


def _call(name: str, *arguments: int) -> None:
    function: Any = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*arguments)
