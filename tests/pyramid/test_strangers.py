"""Stores of strangers: what fuzzing found once, and what a link in a store could do."""

import json
import os
import platform

import numcodecs
import numpy as np
import psutil
import pytest

from napari_msgan.errors import MsganError, StoreError
from napari_msgan.geometry import Box
from napari_msgan.pyramid import PyramidView, open_pyramid


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_bytes(b"precious")
    (folder / "0.partial").write_bytes(b"precious")
    return folder


def whole(store, scale=0):
    return Box.of_shape(store.geometry.shape_at(scale))


def test_chunk_that_is_a_link_outside_is_refused(store, outside):
    chunk = store.path / "sketch/0/c/0/0"
    chunk.unlink()
    chunk.symlink_to(outside / "file")
    with pytest.raises(StoreError, match="leads out of"):
        store.read_sketch(2, Box((0, 0), (8, 8)))


def test_folder_of_chunks_that_is_a_link_outside_is_refused_and_not_cleaned(store, outside):
    (store.path / "0/c").symlink_to(outside)
    with pytest.raises(MsganError, match="leads out of"):
        open_pyramid(store.path)
    with pytest.raises(MsganError, match="leads out of"), store.writing():
        pass
    assert sorted(p.name for p in outside.iterdir()) == ["0.partial", "file"]


@pytest.mark.parametrize("name", [".writer.lock", ".writer.pid"])
def test_lock_that_is_a_link_outside_is_not_written_through(store, outside, name):
    (store.path / "0" / name).symlink_to(outside / "file")
    with pytest.raises(MsganError, match="leads out of"), store.writing():
        pass
    assert (outside / "file").read_bytes() == b"precious"


def test_lock_that_is_a_link_outside_is_not_read(store, outside):
    mine = [os.getpid(), psutil.Process().create_time() - psutil.boot_time(), platform.node()]
    (outside / "file").write_text(json.dumps(mine))
    holder = store.path / "0/.writer.pid"
    holder.symlink_to(outside / "file")
    assert store.place.writer() is None
    holder.unlink()
    holder.write_text(json.dumps(mine))
    assert store.place.writer() == f"process {os.getpid()}"


def test_writing_through_a_folder_that_is_a_link_outside_is_refused(store, outside, write_scale):
    (store.path / "2/c").symlink_to(outside)
    with pytest.raises(MsganError, match="leads out of"):
        write_scale(store, 0, 5)
    assert sorted(p.name for p in outside.iterdir()) == ["0.partial", "file"]


@pytest.mark.parametrize("opened", ["before", "after"])
def test_folder_in_the_place_of_a_chunk_is_no_chunk(store, write_scale, opened):
    for scale in range(3):
        write_scale(store, scale, 5 + scale)
    chunk = store.path / "0/c/0/0"
    chunk.unlink()
    chunk.mkdir()
    reader = store if opened == "before" else open_pyramid(store.path)
    assert (PyramidView(reader, 2)[0:4, 0:4] == 6).all()
    assert not reader.refined_chunks(2)[0, 0]
    assert reader.refined_chunks(2)[0, 1]


def test_pipe_in_the_place_of_a_chunk_does_not_hang(store):
    chunk = store.path / "sketch/0/c/0/0"
    chunk.unlink()
    os.mkfifo(chunk)
    with pytest.raises(StoreError, match="a pipe or a device"):
        store.read_sketch(2, Box((0, 0), (8, 8)))


def test_chunk_that_unpacks_to_more_than_its_voxels_is_refused(store):
    bomb = bytes(numcodecs.Zstd().encode(np.zeros(10**8, np.uint8)))
    assert len(bomb) < 20_000
    (store.path / "sketch/0/c/0/0").write_bytes(bomb)
    with pytest.raises(StoreError, match="unpacks to more than the 64 bytes"):
        store.read_sketch(2, Box((0, 0), (8, 8)))


def test_damaged_chunk_is_a_store_error(store):
    (store.path / "sketch/0/c/0/0").write_bytes(b"damaged")
    with pytest.raises(StoreError, match="The chunk is damaged"):
        store.read_sketch(2, whole(store, 2))


def test_file_in_the_place_of_the_chunks_is_a_store_error(store):
    (store.path / "0/c").write_bytes(b"")
    with pytest.raises(StoreError, match="is a file, where a folder of chunks belongs"):
        open_pyramid(store.path)


@pytest.mark.parametrize("name", ["zarr.json", "0/zarr.json"])
@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"", b"{}", b"\xff", b"1" * 2**24 + b"1"], ids=range(5)
)
def test_metadata_that_are_none_are_a_store_error(store, name, content):
    (store.path / name).write_bytes(content)
    with pytest.raises(StoreError):
        open_pyramid(store.path)


@pytest.mark.parametrize("value", [10**40, float("nan"), -1, "x", None, [[]]], ids=str)
@pytest.mark.parametrize("field", ["fill_value", "shape", "codecs", "chunk_grid", "data_type"])
def test_absurd_metadata_of_a_level_are_a_store_error(store, field, value):
    path = store.path / "0/zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(StoreError):
        open_pyramid(store.path)


@pytest.mark.parametrize(
    "change",
    [
        {"tile_shape": (8192, 8192, 8192), "chunk_shape": (8192, 8192, 8192)},
        {"tile_shape": (16, 16, 16), "halos": ((0, 0, 0), (8000, 8000, 8000))},
    ],
    ids=["tile", "halo"],
)
def test_tile_that_needs_absurd_memory_is_refused(make_info, change):
    with pytest.raises(ValueError, match="a tile is, or reads, more than"):
        make_info((40, 40, 40), ((2, 2, 2),), **change)
