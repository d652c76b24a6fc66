"""Large buffers stay with the process while a job runs, and go back after it."""

import subprocess
import sys

import pytest

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
