"""Large buffers stay with the process while a job runs, and go back after it."""

import os
import subprocess
import sys
from contextlib import nullcontext
from threading import Thread

import pytest

from napari_msgan import buffers

_PAGES = """
import ctypes, resource
from contextlib import nullcontext
from napari_msgan.buffers import large_buffers_kept

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def touched(n_bytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        buffer = libc.malloc(n_bytes)
        libc.memset(buffer, 1, n_bytes)
        libc.free(buffer)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1])

size = 100 << 20
with {block}:
    print(touched(size) / (size / resource.getpagesize()))
print(resident() * resource.getpagesize() / size)
"""

_HEAP = """
import ctypes
from contextlib import contextmanager
from napari_msgan.buffers import count_arenas, keep_large_buffers, large_buffers_kept

class Seen(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost",
    )]

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.mallinfo2.restype = Seen

@contextmanager
def keep():
    yield keep_large_buffers()

def use(_):
    libc.malloc(1 << 20)
    all_here.wait()

{before}
with {block}:
    before = libc.mallinfo2()
    blocks = [libc.malloc(20 << 20) for _ in range(14)]
    after = libc.mallinfo2()
print(after.arena, after.hblks - before.hblks, count_arenas())
"""

_ENDS = """
import ctypes, resource, threading
from napari_msgan.buffers import count_arenas, large_buffers_kept

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
size, n_threads = 40 << 20, 4
all_here = threading.Barrier(n_threads)

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def use():
    buffer = libc.malloc(size)
    libc.memset(buffer, 1, size)
    all_here.wait()
    libc.free(buffer)

def in_threads():
    threads = [threading.Thread(target=use) for _ in range(n_threads)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]

libc.mallopt(-3, 1 << 25)  # as in a process that has freed large buffers before
before = resident()
in_threads()
with large_buffers_kept():
    in_threads()
    inside = resident()
print(count_arenas(), inside - before, resident() - before)
"""
_MANY = """
import threading
from napari_msgan.buffers import count_arenas, large_buffers_kept

all_here = threading.Barrier(12)
threads = [threading.Thread(target=all_here.wait) for _ in range(12)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
before = count_arenas()
for _ in range(4):
    with large_buffers_kept():
        pass
print(before, count_arenas())
"""
_KEPT = "large_buffers_kept()"
_THREADS = """
import threading
all_here = threading.Barrier(2)
threads = [threading.Thread(target=use, args=(n,)) for n in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told")


def _share_of_pages(block):
    command = [sys.executable, "-c", _PAGES.format(block=block)]
    made, left = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(made), float(left)


def test_pages_are_made_once_inside_the_block_and_given_back_after_it():
    made, left = _share_of_pages("large_buffers_kept()")
    assert made < 1.5
    assert left < 0.9


def test_without_the_block_pages_are_made_again_each_time():
    made, _ = _share_of_pages("nullcontext()")
    assert made > 4


def _kept_and_mapped(block, before="pass"):
    command = [sys.executable, "-c", _HEAP.format(block=block, before=before)]
    kept, mapped, arenas = map(int, subprocess.check_output(command, text=True).split())
    return kept, mapped, arenas


def test_what_is_kept_of_one_heap_is_bounded():
    more = "large_buffers_kept(), large_buffers_kept()"  # two jobs share what one of them keeps
    for block in ("large_buffers_kept()", more):
        kept, mapped, arenas = _kept_and_mapped(block)
        assert arenas == 1
        assert kept < 1.1 * buffers.KEPT_BYTES
        assert mapped > 7


def test_more_is_kept_for_each_thread_where_it_is_asked_for():
    assert _kept_and_mapped("large_buffers_kept(1, 1 << 26)")[0] < 1.1 * 2**26
    assert _kept_and_mapped("large_buffers_kept(2, 1 << 26)")[0] > 1.8 * 2**26


@pytest.mark.parametrize(("block", "before"), [("keep()", "pass"), (_KEPT, _THREADS)])
def test_all_is_kept_on_demand_and_where_threads_have_heaps_of_their_own(block, before):
    kept, mapped, arenas = _kept_and_mapped(block, before)
    assert arenas == (1 if before == "pass" else 3)
    assert kept > 2 * buffers.KEPT_BYTES
    assert mapped == 0


def test_the_ends_of_all_heaps_are_given_back():
    seen = subprocess.check_output([sys.executable, "-c", _ENDS], text=True)
    arenas, inside, after = map(int, seen.split())
    assert arenas == 5
    assert inside > 4 * 36 << 20  # else there would be nothing to give back
    assert after < 8 << 20


def test_jobs_do_not_multiply_heaps_where_glibc_does_not_share_them():
    """It fixes how many it makes, 8 for each core, when a process first has more than 8."""
    environment = os.environ | {"GLIBC_TUNABLES": "glibc.malloc.arena_max=64"}  # as with 8 cores
    seen = subprocess.check_output([sys.executable, "-c", _MANY], text=True, env=environment)
    before, after = map(int, seen.split())
    assert 8 < before <= 13
    assert after <= before + 4


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), KeyboardInterrupt()])
def test_where_no_more_threads_are_started_nothing_waits_for_them(monkeypatch, error):
    started = []

    def start(thread, _start=Thread.start):
        if len(started) > 2:
            raise error
        started.append(thread)
        _start(thread)

    monkeypatch.setattr(Thread, "start", start)
    is_told = isinstance(error, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt) if is_told else nullcontext():
        buffers._reach(buffers.count_arenas() + 4)  # more than there will be, so all are started
    assert len(started) == 3
    assert not any(thread.is_alive() for thread in started)


def test_private_bytes_are_those_of_no_file():
    before = buffers.private_bytes()
    block = bytearray(64 << 20)
    assert (60 << 20) < buffers.private_bytes() - before < (80 << 20)
    assert block


_ARENAS = """
import ctypes, os, threading
from napari_msgan.steps import iter_in_threads

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
all_here = threading.Barrier(4)

def use(_):
    block = libc.malloc(1 << 20)
    all_here.wait()
    libc.free(block)

{work}
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""
_WITHOUT_SHARING = """
threads = [threading.Thread(target=use, args=(0,)) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def _arenas(work):
    command = [sys.executable, "-c", _ARENAS.format(work=work)]
    seen = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return seen.count("<heap nr=")


def test_threads_that_work_on_items_share_one_heap():
    assert _arenas("list(iter_in_threads(use, range(4), 4))") == 1
    assert _arenas(_WITHOUT_SHARING) > 1
