from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from napari_msgan.errors import StoreError
from napari_msgan.geometry import Box
from napari_msgan.pyramid import Fingerprint, open_pyramid

HOLDER = """
import sys
from napari_msgan.pyramid import open_pyramid
with open_pyramid(sys.argv[1], writable=True).writing():
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_ends_even_if_killed(store, root):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store.path)],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        with (
            pytest.raises(StoreError, match=f"being written by process {process.pid}"),
            store.writing(),
        ):
            pass
        with (
            pytest.raises(StoreError, match=f"being written by process {process.pid}"),
            open_pyramid(store.path.as_uri(), writable=True).writing(),
        ):
            pass
        open_pyramid(store.path)  # reading needs no lock
        process.kill()
    with store.writing():
        pass


def test_a_second_object_is_refused(store):
    other = open_pyramid(store.path, writable=True)
    with store.writing():
        with pytest.raises(StoreError, match="being written by this process"), other.writing():
            pass
        with pytest.raises(StoreError, match="only changed inside"):
            other.discard(())
    with other.writing():
        pass


def test_the_lock_is_kept_until_the_last_user_of_the_object_leaves(store):
    other = open_pyramid(store.path, writable=True)
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with store.writing():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=work)
    with store.writing():
        with store.writing():
            thread.start()
            assert inside.wait(10)
        with pytest.raises(StoreError), other.writing():
            pass
    with pytest.raises(StoreError), other.writing():
        pass
    leave.set()
    thread.join()
    with other.writing():
        pass


def test_a_store_opened_for_reading_is_not_locked(store):
    reader = open_pyramid(store.path)
    with pytest.raises(StoreError, match="Open it with writable=True"), reader.writing():
        pass
    assert not list(store.path.rglob("*.lock"))


def test_a_job_that_the_garbage_collector_ends_inside_the_lock_does_not_hang(store, monkeypatch):
    abandoned = store.writing()
    abandoned.__enter__()
    flags = type(store).refined_chunks

    def collected(self, scale):
        monkeypatch.undo()
        abandoned.__exit__(None, None, None)
        return flags(self, scale)

    def work():
        with store.writing():
            store.set_fingerprint(
                Fingerprint(device="cpu", precision="fp32", torch="2", tile_shape=(16, 16))
            )

    monkeypatch.setattr(type(store), "refined_chunks", collected)
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    with open_pyramid(store.path, writable=True).writing():  # nobody holds it any more
        pass


def test_a_store_that_is_moved_while_it_is_written_is_not_begun_anew(store, write_scale):
    write_scale(store, 0, 5)
    moved = store.path.with_name("moved.ome.zarr")
    tile = store.tiling.tiles(1, Box((0, 0), (8, 8)))[0]
    core = store.tiling.core(tile)
    with store.writing():
        store.path.rename(moved)
        with pytest.raises(StoreError, match="is gone: put the folder back"):
            store.write(1, core, np.full(core.shape, 5, np.int16))
        assert not store.path.exists()
        moved.rename(store.path)
    assert open_pyramid(store.path).refined_fraction(0) == 1
