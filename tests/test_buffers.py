"""Large buffers stay with the process while a job runs, and go back after it."""

import subprocess
import sys

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


def test_what_grows_beyond_the_first_uses_is_given_back(monkeypatch):
    sizes, calls = [], []
    monkeypatch.setattr(buffers, "private_bytes", lambda: sizes.pop(0))
    monkeypatch.setattr(buffers, "_call", lambda *arguments: calls.append(arguments))
    kept = buffers.KeptBuffers(2)
    for size, trims in (
        (50, 0),
        (100, 0),
        (90, 0),
        (80, 0),
        (119, 0),
        (121, 1),
        (110, 1),
        (130, 2),
    ):
        sizes.append(size)
        kept.used()
        assert len(calls) == trims, size
    assert set(calls) == {("malloc_trim", 0)}


def test_another_kind_of_use_gives_back_what_is_free_and_is_measured_anew(monkeypatch):
    sizes, calls = [], []
    monkeypatch.setattr(buffers, "private_bytes", lambda: sizes.pop(0))
    monkeypatch.setattr(buffers, "_call", lambda *arguments: calls.append(arguments))
    kept = buffers.KeptBuffers(1)
    for kind, size, trims in (
        ("large", 100, 1),
        ("large", 100, 1),
        ("large", 119, 1),
        ("small", 40, 2),
        ("small", 50, 2),
        ("small", 59, 2),
        ("small", 61, 3),
    ):
        sizes.append(size)
        kept.used(kind)
        assert len(calls) == trims, (kind, size)


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
