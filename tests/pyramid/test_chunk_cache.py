"""Chunks that neighbours share are read once, and what is read is what is stored."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr

from napari_msgan.errors import StoreError
from napari_msgan.geometry import Box
from napari_msgan.pyramid import ChunkCache, open_pyramid
from napari_msgan.pyramid._level import Level
from tests.pyramid.levels import level_of

N_CHUNKS = 4 * 3 * 2


@pytest.fixture
def stored(tmp_path):
    values = np.random.default_rng(0).integers(0, 2**15, (30, 20, 16)).astype(np.int16)
    zarr.create_array(tmp_path / "g.zarr", name="a", data=values, chunks=(8, 8, 8))
    return level_of(tmp_path / "g.zarr", "a"), values


@pytest.mark.parametrize("capacity", [0, 3 * 1024, 1 << 20], ids=["none", "three", "all"])
def test_boxes_are_those_of_the_level_whatever_fits(stored, capacity):
    level, values = stored
    view = ChunkCache(capacity).view(level)
    assert (view.shape, view.dtype) == (level.shape, level.dtype)
    for box in (
        Box((0, 0, 0), values.shape),
        Box((3, 7, 1), (30, 9, 16)),
        Box((8, 8, 8), (9, 9, 9)),
    ):
        np.testing.assert_array_equal(view[box.slices], values[box.slices])


def test_each_chunk_is_read_once_by_several_threads(stored):
    level, values = stored
    cache = ChunkCache(1 << 20)
    view = cache.view(level)
    boxes = [Box((z, 0, 0), (z + 6, 20, 16)) for z in range(24)]
    with ThreadPoolExecutor(4) as pool:
        blocks = list(pool.map(lambda box: view[box.slices], boxes * 4))
    assert cache.n_reads == N_CHUNKS
    for box, block in zip(boxes * 4, blocks, strict=True):
        np.testing.assert_array_equal(block, values[box.slices])


def test_without_room_chunks_are_read_again(stored):
    cache = ChunkCache(0)
    view = cache.view(stored[0])
    for _ in range(2):
        view[Box((0, 0, 0), (9, 9, 9)).slices]
    assert cache.n_reads == 2 * 8


def test_the_chunk_that_was_not_used_for_longest_goes_first(stored):
    chunk_bytes = 8**3 * 2
    cache = ChunkCache(2 * chunk_bytes)
    view = cache.view(stored[0])
    first, second, third = (Box((z, 0, 0), (z + 8, 8, 8)).slices for z in (0, 8, 16))
    for key in (first, second, first, third, first):
        view[key]
    assert cache.n_reads == 3
    view[second]
    assert cache.n_reads == 4


def test_two_levels_share_a_cache_and_are_not_mixed_up(tmp_path):
    group = zarr.create_group(tmp_path / "g.zarr")
    for name, value in (("1", 1), ("2", 2)):
        group.create_array(name, data=np.full((8, 8), value, np.uint8), chunks=(8, 8))
    ones, twos = (level_of(tmp_path / "g.zarr", name) for name in ("1", "2"))
    cache = ChunkCache(1 << 20)
    key = Box.of_shape((8, 8)).slices
    assert cache.view(ones)[key].max() == 1
    assert cache.view(twos)[key].min() == 2


def test_a_chunk_that_could_not_be_read_is_tried_again(stored, tmp_path):
    level, values = stored
    cache = ChunkCache(1 << 20)
    key = Box((0, 0, 0), (8, 8, 8)).slices
    file = tmp_path / "g.zarr/a/c/0/0/0"
    content = file.read_bytes()
    file.write_bytes(content[:10])
    with pytest.raises(StoreError, match="c/0/0/0 cannot be read"):
        cache.view(level)[key]
    file.write_bytes(content)
    np.testing.assert_array_equal(cache.view(level)[key], values[key])


def test_a_chunk_that_others_remove_or_make_anew_is_found_as_it_is_now(store):
    cache, box = ChunkCache(1 << 24), Box((0, 0), (8, 8))
    other = open_pyramid(store.path)
    for value in (7, 9):
        with store.writing():
            for tile in store.tiling.tiles(1, box):
                core = store.tiling.core(tile)
                store.write(1, core, np.full(core.shape, value, store.info.dtype))
        for _ in range(2):
            assert (other.read(1, box, cache=cache) == value).all()
    assert cache.n_reads == 2
    with store.writing():
        store.clear(1, box)
    assert (other.read(1, box, cache=cache) == store.info.fill_value).all()


def test_a_chunk_that_is_not_there_yet_is_not_kept(store):
    cache = ChunkCache(1 << 24)
    assert (store.read(1, Box((0, 0), (8, 8)), cache=cache) == store.info.fill_value).all()
    with store.writing():
        for tile in store.tiling.tiles(1, Box((0, 0), (8, 8))):
            core = store.tiling.core(tile)
            store.write(1, core, np.full(core.shape, 7, store.info.dtype))
    assert (store.read(1, Box((0, 0), (8, 8)), cache=cache) == 7).all()


def test_a_chunk_that_is_removed_while_it_is_looked_for_is_not_kept(store, monkeypatch):
    cache, box = ChunkCache(1 << 24), Box((0, 0), (8, 8))
    with store.writing():
        store.write(1, box, np.full((8, 8), 7, store.info.dtype))
    file, find = store.path / "1/c/0/0", Level.find_chunk
    monkeypatch.setattr(Level, "find_chunk", lambda *asked: (file.unlink(), find(*asked))[1])
    assert (store.read(1, box, cache=cache) == store.info.fill_value).all()
    assert cache.n_reads == 0


def test_a_chunk_is_not_kept_where_nothing_tells_that_it_changed():
    url, values = f"memory://{uuid.uuid4().hex}", np.arange(64, dtype=np.uint8).reshape(8, 8)
    zarr.create_array(url, name="a", data=values, chunks=(8, 8))
    cache, level = ChunkCache(1 << 20), level_of(url, "a")
    np.testing.assert_array_equal(cache.find(level, (0, 0)), values)
    assert cache.n_reads == 0
