from __future__ import annotations

import errno
import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaozarrs
import zarr

from napari_msgan.errors import GeometryError, StoreError
from napari_msgan.geometry import Box
from napari_msgan.pyramid import Fingerprint, PyramidStore, open_pyramid

if TYPE_CHECKING:
    from pathlib import Path

    from napari_msgan.tiling import Tile

CPU = Fingerprint(device="cpu", precision="fp32", torch="2.13.0", tile_shape=(16, 16))


def whole(store: PyramidStore, scale: int) -> Box:
    return Box.of_shape(store.geometry.shape_at(scale))


@pytest.mark.parametrize(
    ("dtype", "window"),
    [("int16", (-1024, 3071)), ("uint16", (0, 65535)), ("float32", (-1.1, 1.1))],
    ids=["int16", "uint16", "float32"],
)
def test_what_is_written_is_read_back(make_info, make_store, write_scale, rng, dtype, window):
    info = make_info((5, 37, 41), ((1, 2, 2), (2, 2, 2)), dtype=dtype, window=window)
    store = make_store(info)
    for scale in range(3):
        image = rng.integers(0, 3000, store.geometry.shape_at(scale)).astype(dtype)
        write_scale(store, scale, image)
        for opened in (store, open_pyramid(store.path)):
            assert opened.info == info.model_copy(update={"sketch": store.info.sketch})
            assert opened.array(scale).shape == image.shape
            read = opened.read(scale, Box((1, 3, 5), (3, 10, 9)))
            assert read.dtype == dtype
            np.testing.assert_array_equal(read, image[1:3, 3:10, 5:9])
            np.testing.assert_array_equal(opened.read(scale, whole(store, scale)), image)
            assert opened.refined_fraction(scale) == 1


def test_refined_state_is_per_chunk_and_weighted_by_voxels(store):
    with store.writing():
        store.write(2, Box((72, 88), (75, 90)), np.ones((3, 2), np.int16))  # the last chunk
        store.write(2, Box((0, 8), (16, 16)), np.ones((16, 8), np.int16))
    expected = np.zeros((10, 12), bool)
    expected[-1, -1] = expected[0, 1] = expected[1, 1] = True
    for opened in (store, open_pyramid(store.path)):
        np.testing.assert_array_equal(opened.refined_chunks(2), expected)
        assert opened.refined_fraction(2) == pytest.approx((6 + 128) / (75 * 90))
        assert opened.is_refined(2, Box((0, 8), (16, 16)))
        assert opened.is_refined(2, Box((74, 89), (99, 99)))
        assert not opened.is_refined(2, Box((0, 7), (1, 9)))
        assert not opened.refined_chunks(1).any()
    with pytest.raises(ValueError, match="read-only"):
        store.refined_chunks(2)[0, 0] = True


def test_air_counts_as_refined(store):
    with store.writing():
        store.write(2, Box((0, 0), (16, 16)), np.full((16, 16), -1024, np.int16))
    assert open_pyramid(store.path).is_refined(2, Box((0, 0), (16, 16)))


def test_an_array_opened_in_another_way_would_lose_the_air(store):
    with store.writing():
        store.write(2, Box((0, 0), (16, 16)), np.full((16, 16), -1024, np.int16))
        plain = zarr.open_array(store.path / "0", mode="r+")
        plain[:16, :16] = np.full((16, 16), -1024, np.int16)
    assert not open_pyramid(store.path).is_refined(2, Box((0, 0), (16, 16)))


@pytest.mark.parametrize(
    ("box", "data", "message"),
    [
        (Box((0, 0), (8, 12)), np.zeros((8, 12), np.int16), "not whole chunks"),
        (Box((4, 0), (8, 8)), np.zeros((4, 8), np.int16), "not whole chunks"),
        (Box((72, 88), (80, 96)), np.zeros((8, 8), np.int16), "not whole chunks"),
        (Box((8, 8), (8, 8)), np.zeros((0, 0), np.int16), "not whole chunks"),
        (Box((0, 0), (8, 8)), np.zeros((8, 8), np.uint16), "needs int16.*got uint16"),
        (Box((0, 0), (8, 8)), np.zeros((8, 16), np.int16), "of shape"),
    ],
    ids=str,
)
def test_blocks_that_are_not_whole_chunks_of_the_level_are_refused(store, box, data, message):
    with store.writing(), pytest.raises(ValueError, match=message):
        store.write(2, box, data)
    assert not store.refined_chunks(2).any()


def test_boxes_and_scales_outside_the_image_are_refused(store):
    with pytest.raises(GeometryError, match="leaves the image, which is 0:75,0:90"):
        store.read(2, Box((0, 0), (76, 8)))
    with pytest.raises(GeometryError, match="leaves the image"):
        store.read_sketch(2, Box((-1, 0), (8, 8)))
    with pytest.raises(GeometryError, match="scales are 0 to 2"):
        store.array(-1)
    with pytest.raises(GeometryError, match="scales are 0 to 2"):
        store.refined_chunks(3)


def test_nothing_is_written_without_the_lock(store):
    air = np.zeros((8, 8), np.int16)
    for change in (
        lambda: store.write(2, Box((0, 0), (8, 8)), air),
        lambda: store.clear(2, Box((0, 0), (8, 8))),
        lambda: store.set_fingerprint(CPU),
    ):
        with pytest.raises(StoreError, match="only changed inside"):
            change()
    with pytest.raises(ValueError, match="read-only"):
        store.array(2)[:8, :8] = air


@pytest.mark.parametrize("share", [0, 0.4, 1], ids=["fresh", "half", "full"])
def test_yaozarrs_finds_nothing_to_complain_about(make_info, make_store, write_scale, share):
    store = make_store(make_info((6, 40, 30), ((1, 2, 2), (2, 2, 2))))
    with store.writing():  # the lock is there, too
        for scale in range(3 if share else 0):
            shape = store.geometry.shape_at(scale)
            write_scale(store, scale, 7, Box.of_shape((shape[0], int(shape[1] * share), 30)))
        assert store.refined_fraction(2) == share
        yaozarrs.validate_zarr_store(str(store.path))
        yaozarrs.validate_zarr_store(str(store.path / "sketch"))
        group = zarr.open_group(store.path, mode="r")
        assert sorted(name for name, _ in group.members()) == ["0", "1", "2", "sketch"]
        assert group["0"].metadata.dimension_names == ("z", "y", "x")


def test_threads_write_different_tiles_at_the_same_time(make_info, make_store, rng):
    store = make_store(make_info((160, 160)))
    image = rng.integers(-1000, 3000, (160, 160)).astype(np.int16)
    start = threading.Barrier(8)

    def write(tiles: list[Tile]) -> None:
        start.wait()
        for tile in tiles:
            core = store.tiling.core(tile)
            store.write(2, core, image[core.slices])

    tiles = store.tiling.tiles(2, whole(store, 2))
    with store.writing(), ThreadPoolExecutor(8) as pool:
        list(pool.map(write, [tiles[i::8] for i in range(8)]))
    np.testing.assert_array_equal(store.array(2)[:], image)
    assert store.refined_chunks(2).all()
    assert open_pyramid(store.path).refined_chunks(2).all()


def brute_force_doomed(store: PyramidStore, scale: int, box: Box) -> list[set[Tile]]:
    """Go through all tiles of all scales: a tile goes if one that it reads from goes."""
    doomed: list[set[Tile]] = []
    for s in range(store.n_scales):
        tiles = store.tiling.tiles(s, whole(store, s))
        if s == scale:
            doomed.append({t for t in tiles if store.tiling.core(t).intersect(box).size})
        elif s < scale:
            doomed.append(set())
        else:
            doomed.append({t for t in tiles if doomed[-1] & set(store.tiling.dependencies(t))})
    return doomed


@pytest.mark.parametrize(
    ("shape", "factors", "scale", "box"),
    [
        ((75, 90), ((2, 2), (2, 2)), 1, Box((20, 0), (21, 1))),
        ((75, 90), ((2, 2), (2, 2)), 2, Box((20, 40), (40, 50))),
        ((130, 67), ((2, 2), (2, 2), (2, 2)), 1, Box((0, 0), (1, 1))),
        ((9, 70, 90), ((1, 2, 2), (1, 2, 2)), 1, Box((0, 15, 15), (1, 17, 16))),
        ((75, 90), ((2, 2), (2, 2)), 1, Box((0, 0), (99, 99))),
    ],
    ids=str,
)
def test_clear_takes_exactly_the_tiles_that_depend(
    make_info, make_store, write_scale, shape, factors, scale, box
):
    store = make_store(make_info(shape, factors))
    for s in range(store.n_scales):
        write_scale(store, s, s)
    with store.writing():
        removed = store.clear(scale, box)
    doomed = brute_force_doomed(store, scale, box)
    again = open_pyramid(store.path)
    for s, tiles in enumerate(doomed):
        cores = [store.tiling.core(tile) for tile in sorted(tiles)]
        assert removed.get(s, []) == cores
        expected = np.full(store.geometry.shape_at(s), s)
        for core in cores:
            expected[core.slices] = -1024
        np.testing.assert_array_equal(store.array(s)[:], expected)
        np.testing.assert_array_equal(store.refined_chunks(s), again.refined_chunks(s))
    assert removed
    with store.writing():
        assert store.clear(scale, box) == {}


def test_scale_0_cannot_be_cleared(store):
    with store.writing(), pytest.raises(StoreError, match="Delete the store"):
        store.clear(0, Box((0, 0), (1, 1)))


def test_tiles_are_not_removed_while_others_of_this_process_write(store, write_scale):
    write_scale(store, 1, 7)
    with store.writing():
        with (
            store.writing(),
            pytest.raises(StoreError, match=r"tiles are being made in .* until that has ended"),
        ):
            store.clear(1, Box((0, 0), (1, 1)))
        assert store.refined_fraction(1) == 1
        assert store.clear(1, Box((0, 0), (1, 1)))


def test_share_of_a_box_that_is_refined_is_counted_in_voxels(store):
    with store.writing():
        store.write(2, Box((0, 8), (16, 16)), np.ones((16, 8), np.int16))
    assert store.refined_fraction(2, Box((3, 5), (20, 15))) == 13 * 7 / (17 * 10)
    assert store.refined_fraction(2, Box((0, 8), (16, 16))) == 1
    assert store.refined_fraction(2, Box((40, 0), (50, 90))) == 0


def test_chunk_that_cannot_be_written_is_an_error_of_the_store(store):
    (store.path / store.level(2).array.path / "c" / "0" / "1").mkdir(parents=True)
    with store.writing(), pytest.raises(StoreError, match=r"cannot be written: .*irectory"):
        store.write(2, Box((0, 8), (16, 16)), np.ones((16, 8), np.int16))


def test_reload_sees_what_another_object_wrote(store, write_scale):
    reader = open_pyramid(store.path)
    write_scale(store, 2, 5)
    assert reader.refined_fraction(2) == 0
    reader.reload()
    assert reader.refined_fraction(2) == 1


def test_leftovers_of_an_interrupted_write_are_no_chunks_and_go_with_the_next_writer(store):
    folder = store.path / "0/c/1"
    folder.mkdir(parents=True)
    leftovers = [folder / "2.d3adb33f.partial", store.path / "zarr.d3adb33f.partial"]
    strangers = [folder / "notes", folder / "07", folder / "99", store.path / "0/c/x"]
    for file in leftovers + strangers:
        file.touch()
    opened = open_pyramid(store.path, writable=True)
    assert not opened.refined_chunks(2).any()
    assert all(file.exists() for file in leftovers)
    with opened.writing():
        assert not any(file.exists() for file in leftovers)
    assert all(file.exists() for file in strangers)


def test_helper_writes_for_as_long_as_its_holder_has_the_lock(store):
    helper, box = open_pyramid(store.path, writable=True), Box((0, 0), (8, 8))
    pixels = np.ones((8, 8), np.int16)
    with pytest.raises(StoreError, match="may be writing"):
        helper.assist(".absent.partial")
    with store.writing():
        with pytest.raises(StoreError, match="opened for reading"):
            open_pyramid(store.path).assist(store.put_mark())
        helper.assist(store.put_mark())
        helper.write(2, box, pixels)
    # the holder was killed, and somebody else takes over
    with open_pyramid(store.path, writable=True).writing() as other:
        assert other.is_refined(2, box)
        with pytest.raises(StoreError, match="is no longer written to"):
            helper.write(2, Box((8, 8), (16, 16)), pixels)
    assert not store.place.marks()


def test_tidying_after_one_job_leaves_what_another_is_writing(store):
    torn = store.path / "0" / "c" / "1.0123.partial"
    with store.writing():
        with store.writing():
            mine, other = store.put_mark(), store.put_mark()
            torn.parent.mkdir(exist_ok=True)
            torn.write_bytes(b"in the middle")
            store.tidy(mine)
            assert store.place.marks() == [other]
            assert torn.exists()
        store.tidy(other)
        assert not store.place.marks()
        assert not torn.exists()


def test_chunks_of_helpers_are_waited_for(store, monkeypatch):
    synced = []
    monkeypatch.setattr(type(store.place), "sync", lambda place, keys: synced.extend(keys))
    helper = open_pyramid(store.path, writable=True)
    with store.writing():
        mark = store.put_mark()
        helper.assist(mark)
        helper.write(2, Box((0, 0), (8, 8)), np.ones((8, 8), np.int16))
        store.tidy(mark)
    assert synced == ["0/c/0/0"]
    with store.writing():
        pass
    assert synced == ["0/c/0/0"]


def test_fingerprint_is_kept_and_another_device_precision_or_tile_is_refused(store):
    with store.writing():
        store.set_fingerprint(CPU.model_copy(update={"precision": "bf16"}))
        store.set_fingerprint(CPU)  # nothing was made with the other one
        store.write(2, Box((0, 0), (16, 16)), np.ones((16, 16), np.int16))
        store.set_fingerprint(CPU)
    again = open_pyramid(store.path, writable=True)
    assert again.info.fingerprint == CPU
    for change in ({"device": "cuda"}, {"precision": "bf16"}, {"tile_shape": (32, 32)}):
        (name,) = change
        refusal = pytest.raises(StoreError, match=f"generated with {name}.*or generate a new")
        with again.writing(), refusal:
            again.set_fingerprint(CPU.model_copy(update=change))
    with again.writing(), pytest.raises(StoreError, match="computes fp32 in another way"):
        again.set_fingerprint(CPU.model_copy(update={"arithmetic": 2}))
    newer = CPU.model_copy(update={"torch": "2.14.0"})
    with again.writing(), pytest.warns(UserWarning, match="torch 2.13.0, this is torch 2.14.0"):
        again.set_fingerprint(newer)
    assert open_pyramid(store.path).info.fingerprint == CPU


def test_fingerprint_names_the_gpu_and_another_one_is_told(store):
    on_a = CPU.model_copy(update={"device": "cuda", "gpu": "A"})
    with store.writing():
        store.set_fingerprint(on_a)
        store.write(2, Box((0, 0), (16, 16)), np.ones((16, 16), np.int16))
    again = open_pyramid(store.path, writable=True)
    assert again.info.fingerprint == on_a
    with again.writing():
        with pytest.warns(UserWarning, match="on A, this is B"):
            again.set_fingerprint(on_a.model_copy(update={"gpu": "B"}))
        again.set_fingerprint(on_a.model_copy(update={"gpu": None}))  # it is not known
    assert not {"gpu", "machine", "arithmetic"} & set(CPU.model_dump())  # older versions read it


def test_another_kind_of_machine_is_told_and_goes_on(store):
    on_mac = CPU.model_copy(update={"machine": "Darwin arm64"})
    with store.writing():
        store.set_fingerprint(on_mac)
        store.write(2, Box((0, 0), (16, 16)), np.ones((16, 16), np.int16))
    again = open_pyramid(store.path, writable=True)
    told = "on Darwin arm64, this is Linux x86-64: .* in bfloat16 by more"
    with again.writing(), pytest.warns(UserWarning, match=told):
        again.set_fingerprint(CPU)
    assert open_pyramid(store.path).info.fingerprint == on_mac


def edit(file: Path, change: Any) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def set_both_shapes(root: Path) -> None:
    edit(
        root / "zarr.json",
        lambda c: c["attributes"]["napari_msgan"]["geometry"].update(shape=[2**31 - 1] * 2),
    )
    edit(root / "0/zarr.json", lambda c: c.update(shape=[2**31 - 1] * 2))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: (r / "zarr.json").write_text('{"zarr_form'), "zarr.json is damaged"),
        (lambda r: (r / "zarr.json").write_text("[]"), "zarr.json is damaged"),
        (lambda r: (r / "zarr.json").unlink(), "not an OME-Zarr 0.5 group"),
        (lambda r: edit(r / "zarr.json", lambda c: c.update(node_type="array")), "damaged"),
        (lambda r: edit(r / "zarr.json", lambda c: c.update(attributes=5)), "damaged"),
        (
            lambda r: edit(r / "zarr.json", lambda c: c.update(attributes={})),
            "not a store of napari",
        ),
        (
            lambda r: edit(
                r / "zarr.json",
                lambda c: c["attributes"]["napari_msgan"]["geometry"].update(shape=[75, 91]),
            ),
            r"level '1' has shape \(38, 45\), but the metadata of the store say \(38, 46\)",
        ),
        (set_both_shapes, "chunks|scale 0 has more"),
        (lambda r: (r / "1/zarr.json").unlink(), "level '1' is missing"),
        (lambda r: (r / "sketch/2/zarr.json").write_text("{}"), "level 'sketch/2' is missing or"),
        (lambda r: edit(r / "2/zarr.json", lambda c: c.update(shape=[19, 24])), "has shape"),
        (
            lambda r: edit(
                r / "2/zarr.json", lambda c: c.update(data_type="uint16", fill_value=0)
            ),
            "has dtype",
        ),
        (lambda r: edit(r / "2/zarr.json", lambda c: c.update(fill_value=0)), "has fill_value"),
        (
            lambda r: edit(
                r / "2/zarr.json",
                lambda c: c["chunk_grid"]["configuration"].update(chunk_shape=[8, 16]),
            ),
            "has chunks",
        ),
        (
            lambda r: edit(
                r / "2/zarr.json",
                lambda c: c["chunk_key_encoding"]["configuration"].update(separator="."),
            ),
            "has chunk file",
        ),
    ],
)  # fmt: skip
def test_damaged_stores_are_refused_with_what_was_seen(store, damage, message):
    open_pyramid(store.path)
    damage(store.path)
    with pytest.raises(StoreError, match=message):
        open_pyramid(store.path)


def test_a_place_without_a_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match="there is no store"):
        open_pyramid(tmp_path / "nowhere")
    with pytest.raises(StoreError, match=r"not an OME-Zarr 0\.5 group"):
        open_pyramid(tmp_path)


def test_a_store_that_was_replaced_is_not_written(store):
    edit(store.path / "zarr.json", lambda c: c["attributes"]["napari_msgan"].update(seed=1))
    with pytest.raises(StoreError, match="was replaced"), store.writing():
        pass
    with open_pyramid(store.path, writable=True).writing():  # the lock was given back
        pass


def test_big_endian_chunks_are_refused(store):
    path = store.path / "0/zarr.json"
    metadata = json.loads(path.read_text())
    metadata["codecs"][0]["configuration"] = {"endian": "big"}
    path.write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match="has byte order big"):
        open_pyramid(store.path)


def test_a_store_says_what_it_is_and_goes_to_other_processes(store, write_scale):
    write_scale(store, 0, 5)
    assert repr(store) == f"<PyramidStore {store.path}, tiny, refined 100%, 0%, 0%>"
    for opened in (store, open_pyramid(store.path)):
        other = pickle.loads(pickle.dumps(opened))
        assert (other.address, other.info) == (store.address, store.info)
        assert other.refined_fraction(0) == 1
    with pytest.raises(StoreError, match="opened for reading"), other.writing():
        pass
    with pickle.loads(pickle.dumps(store)).writing():
        pass


@pytest.mark.parametrize("name", ["sync", "write", "remove", "note_unsynced"])
def test_whatever_the_disk_says_is_told_as_ours(store, write_scale, monkeypatch, name):
    write_scale(store, 0, 5)

    def fail(*anything, **options):
        raise OSError(errno.EIO, "Input/output error")

    def work():
        with store.writing():
            store.set_fingerprint(CPU)
            store.tidy(store.put_mark())
            store.discard(store.tiling.tiles(0, Box((0, 0), (1, 1))))

    monkeypatch.setattr(type(store.place), name, fail)
    with pytest.raises(StoreError, match=r"cannot be written: .*Input/output error"):
        work()


def test_what_could_not_be_removed_is_still_refined(store, write_scale, monkeypatch):
    write_scale(store, 0, 5)
    remove, told = type(store.place).remove, []

    def fail_later(place, key):
        told.append(key)
        if len(told) == 3:
            raise PermissionError(errno.EACCES, "Permission denied")
        remove(place, key)

    monkeypatch.setattr(type(store.place), "remove", fail_later)
    with store.writing(), pytest.raises(StoreError, match="Permission denied"):
        store.discard(store.tiling.tiles(0, Box.of_shape(store.geometry.shape_at(0))))
    monkeypatch.undo()
    seen = store.refined_chunks(0)
    np.testing.assert_array_equal(seen, open_pyramid(store.path).refined_chunks(0))
    assert int((~seen).sum()) == 2
