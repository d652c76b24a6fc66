"""Make glibc keep large buffers, instead of returning them to the system after every use.

A network allocates the same few hundred megabytes for every tile and every training step. By
default, glibc maps such buffers anew each time, and the system clears all their pages: in 3-D that
is a quarter of the CPU time of a tile in float32, and a third of that of a training step.

glibc also gives each thread an arena of its own, whose free memory other threads cannot reuse: with
two workers this takes up to twice the memory. In a single arena the buffers of several threads
interleave, so the memory kept there is bounded, and buffers that do not fit are mapped, as by
default. Other arenas cannot be enlarged in advance, so if there are several (napari starts threads
before us), all buffers are kept.

References
----------
`mallopt(3)` in the Linux manual. Other systems and C libraries are left as they are.
"""

from __future__ import annotations

import ctypes
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Event, Lock, Semaphore
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8
_NEVER = 2**31 - 1
#: The values that glibc itself reaches after freeing large buffers (`DEFAULT_MMAP_THRESHOLD_MAX`).
_USUAL = ((_M_MMAP_MAX, 65536), (_M_MMAP_THRESHOLD, 2**25), (_M_TRIM_THRESHOLD, 2**26))

#: Bytes that a tile of 128^3 takes in bfloat16, approximately.
KEPT_BYTES = 128 << 20
#: Buffers of fewer bytes are never mapped.
_LARGE = 1 << 20

_lock = Lock()
_holders = 0


def share_one_arena() -> None:
    """Make threads started from now on use the existing arenas of glibc.

    If no other thread has been started before, that is a single one.
    """
    _set((_M_ARENA_MAX, 1))


def keep_large_buffers() -> None:
    """Keep all large buffers from now on, in processes that do nothing else."""
    share_one_arena()
    _set((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER))


@contextmanager
def large_buffers_kept(n_threads: int = 1, bytes_each: int = KEPT_BYTES) -> Iterator[None]:
    """Keep large buffers inside the ``with`` block; the last such block to end returns them.

    Parameters
    ----------
    n_threads : number of threads that compute.
    bytes_each : bytes to keep for each of them, if all threads share one arena; otherwise all
        buffers are kept.
    """
    global _holders
    with _lock:
        _holders += 1
        keep_large_buffers()
        if count_arenas() == 1:
            _make_room(n_threads * bytes_each)
            # glibc searches the freed buffers first, and maps only what does not fit there
            _set((_M_MMAP_MAX, 65536), (_M_MMAP_THRESHOLD, _LARGE))
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if not _holders:
                _give_back()


def private_bytes() -> int:
    """Return the resident bytes of this process that no file backs; outside Linux, all resident."""
    from psutil import Process  # type: ignore[import-untyped]

    seen = Process().memory_info()
    return int(seen.rss - getattr(seen, "shared", 0))


def count_arenas() -> int:
    """Return the number of glibc arenas that threads take memory from; 0 without glibc."""
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
    """Take a large buffer from every arena that is free or shared, and free it.

    New threads take over the arenas of threads that ended, at most all of them, then share all
    arenas in turn. So twice as many threads reach every arena, if all are alive at once. In a
    process with more than eight arenas before `share_one_arena`, glibc has fixed its limit already
    and makes new arenas instead of sharing; the first new one shows that no free one is left.
    """
    may_end, has_room = Event(), Semaphore(0)

    def reach_one() -> None:
        try:
            _make_room(_LARGE)
        finally:
            has_room.release()
        may_end.wait()

    with ThreadPoolExecutor(2 * n_arenas) as pool:
        try:
            # RuntimeError: the system, or the end of the program, allows no more threads
            with suppress(RuntimeError):
                for _ in range(2 * n_arenas):
                    pool.submit(reach_one)
                    has_room.acquire()
                    if count_arenas() > n_arenas:
                        break
        finally:
            may_end.set()  # also after Ctrl-C, or the pool would wait for them for ever


def _make_room(n_bytes: int) -> None:
    """Enlarge the heap by so many bytes; its pages are allocated when they are first written."""
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
