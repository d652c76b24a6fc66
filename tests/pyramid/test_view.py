from __future__ import annotations

import shutil
import threading
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from napari_msgan.errors import GeometryError, StoreError
from napari_msgan.geometry import Affine, Box
from napari_msgan.pyramid import (
    ChunkCache,
    Place,
    PyramidStore,
    PyramidView,
    SketchView,
    levels,
    open_pyramid,
    refresh_coarsest,
    sketch_levels,
    view_volume,
)
from napari_msgan.pyramid._level import Level
from napari_msgan.pyramid.view import padded_box, upsample


def interpolated(
    coarse: npt.NDArray[Any], factor: tuple[int, ...], shape: tuple[int, ...], *, half: float = 0.5
) -> npt.NDArray[np.float64]:
    """The same as `upsample`, by scipy and for the whole image."""
    points = [(np.arange(n) + half) / f - half for n, f in zip(shape, factor, strict=True)]
    grid = np.meshgrid(*points, indexing="ij")
    return ndimage.map_coordinates(coarse.astype(np.float64), grid, order=1, mode="nearest")


@pytest.mark.parametrize(
    ("shape", "factor"),
    [((9, 10), (2, 2)), ((7, 5), (3, 1)), ((3, 8, 5), (1, 2, 2)), ((1, 1), (4, 5))],
    ids=str,
)
def test_upsampling_is_half_voxel_aligned_linear_interpolation(rng, shape, factor):
    coarse = rng.normal(size=shape).astype(np.float32)
    fine = tuple(n * f for n, f in zip(shape, factor, strict=True))
    values = upsample(coarse, factor, Box.of_shape(fine))
    np.testing.assert_allclose(values, interpolated(coarse, factor, fine), atol=1e-6)
    part = Box((1,) * len(fine), tuple(n - 1 for n in fine))
    np.testing.assert_array_equal(upsample(coarse, factor, part), values[part.slices])


def test_upsampling_aligned_to_corners_would_be_another_image(rng):
    coarse = rng.normal(size=(9, 10)).astype(np.float32)
    values = upsample(coarse, (2, 2), Box.of_shape((18, 20)))
    other = interpolated(coarse, (2, 2), (18, 20), half=0)
    assert not np.allclose(values, other, atol=0.1)


def test_air_stays_air():
    air = np.full((5, 5), -1 / 3, np.float32)
    assert (upsample(air, (3, 7), Box.of_shape((15, 35))) == air[0, 0]).all()


@pytest.fixture
def images(store: PyramidStore, rng: np.random.Generator) -> list[npt.NDArray[np.int16]]:
    """One random image per scale; none of them is written."""
    shapes = [store.geometry.shape_at(scale) for scale in range(3)]
    return [rng.integers(-1000, 3000, shape).astype(np.int16) for shape in shapes]


def test_view_is_the_store_where_everything_is_refined(store, images, write_scale):
    for scale, image in enumerate(images):
        write_scale(store, scale, image)
        np.testing.assert_array_equal(PyramidView(store, scale), image)


def test_view_is_the_coarser_level_upsampled_where_nothing_is(store, images, write_scale):
    write_scale(store, 0, images[0])
    middle = np.rint(interpolated(images[0], (2, 2), (38, 45)))
    finest = np.rint(interpolated(middle, (2, 2), (75, 90)))
    # float32 against float64: a tie may be rounded the other way
    np.testing.assert_allclose(PyramidView(store, 1), middle, atol=1)
    np.testing.assert_allclose(PyramidView(store, 2), finest, atol=1)
    assert (np.asarray(PyramidView(store, 1)) == middle).mean() > 0.99


def test_chunks_that_another_process_removed_are_seen_upsampled(store, images, write_scale):
    for scale in (0, 1, 2):
        write_scale(store, scale, images[scale])
    reader = open_pyramid(store.path)
    with store.writing():
        store.clear(2, Box((0, 0), (20, 20)))
    assert reader.refined_fraction(2) == 1  # it has not looked since
    seen = np.asarray(PyramidView(reader, 2))
    np.testing.assert_array_equal(seen, PyramidView(store, 2))
    assert (seen[:20, :20] != store.info.fill_value).any()
    assert reader.refined_fraction(2) == store.refined_fraction(2) < 1


def test_view_mixes_chunk_by_chunk(store, images, write_scale):
    write_scale(store, 0, images[0])
    write_scale(store, 1, images[1], Box((0, 0), (1, 40)))
    write_scale(store, 2, images[2], Box((20, 20), (21, 50)))
    write_scale(store, 2, images[2], Box((70, 80), (75, 90)))
    expected = images[0]
    for scale in (1, 2):
        shape = store.geometry.shape_at(scale)
        refined = store.refined_chunks(scale).repeat(8, 0).repeat(8, 1)[: shape[0], : shape[1]]
        assert 0 < refined.mean() < 1
        upsampled = np.rint(upsample(expected, (2, 2), Box.of_shape(shape))).astype(np.int16)
        expected = np.where(refined, images[scale], upsampled)
        np.testing.assert_array_equal(PyramidView(store, scale), expected)
        for box in (Box((19, 3), (35, 33)), Box((30, 40), (38, 45)), Box((0, 0), (1, 45))):
            np.testing.assert_array_equal(
                PyramidView(store, scale)[box.slices], expected[box.slices]
            )


def test_finest_view_of_a_coarse_ramp_is_the_ramp(make_info, make_store, write_scale):
    info = make_info(
        (1701, 2048), ((2, 2),) * 4, tile_shape=(512, 512), chunk_shape=(256, 256),
        dtype="float32", window=(-1, 3000), affine=Affine.of_spacing((1, 1)),
    )  # fmt: skip
    store = make_store(info)
    y, x = (16 * axis + 7.5 for axis in np.ogrid[:107, :128])  # centres of blocks of 16
    write_scale(store, 0, y + 0.5 * x)
    rows, columns = np.s_[900:1000], np.s_[1000:1200]
    fine = np.arange(900, 1000)[:, None] + 0.5 * np.arange(1000, 1200)
    np.testing.assert_allclose(PyramidView(store, 4)[rows, columns], fine, atol=0.01)
    unshifted = fine - 7.5 * 1.5
    assert np.abs(PyramidView(store, 4)[rows, columns] - unshifted).min() > 5


KEYS: list[Any] = [
    np.s_[:],
    np.s_[...],
    np.s_[4],
    np.s_[-1],
    np.s_[np.int64(2), 3],
    np.s_[:, 7],
    np.s_[..., 7],
    np.s_[3, ...],
    np.s_[2:9, -5:],
    np.s_[::2, 1::3],
    np.s_[::-1, 30:2:-4],
    np.s_[5:5],
    np.s_[60:90:7, 99:],
    np.s_[(slice(3, 9), slice(None))],
]


@pytest.fixture(scope="module")
def half_refined(make_info: Any, make_store: Any, write_scale: Any) -> PyramidStore:
    """A store that nobody changes."""
    store: PyramidStore = make_store(make_info())
    write_scale(store, 0, np.arange(19 * 23).reshape(19, 23))
    write_scale(store, 2, 1000 + np.arange(75 * 90).reshape(75, 90), Box((20, 20), (21, 50)))
    return store


@pytest.mark.parametrize("padded", [False, True], ids=["true", "padded"])
@pytest.mark.parametrize("key", KEYS, ids=str)
def test_view_is_indexed_like_an_array(half_refined, key, padded):
    shown = padded_box(half_refined.geometry, 2) if padded else None
    view = PyramidView(half_refined, 2, shown=shown)
    array = np.asarray(view)
    assert (view.shape, view.dtype, view.ndim) == (array.shape, array.dtype, array.ndim)
    assert (view.size, len(view)) == (array.size, len(array))
    assert np.shape(view[key]) == np.shape(array[key])
    np.testing.assert_array_equal(view[key], array[key])


@pytest.mark.parametrize("key", [np.s_[76], np.s_[-77], np.s_[0, 0, 0], np.s_[..., ...]], ids=str)
def test_indices_that_do_not_fit_are_refused(half_refined, key):
    with pytest.raises(IndexError):
        PyramidView(half_refined, 2)[key]


def test_padded_levels_have_exact_ratios_and_repeat_the_border(store, images, write_scale):
    for scale, image in enumerate(images):
        write_scale(store, scale, image)
    shown = levels(store)
    assert [level.shape for level in shown] == [(76, 92), (38, 46), (19, 23)]
    for scale, image in enumerate(images):
        level = np.asarray(shown[2 - scale])
        pads = [(0, a - b) for a, b in zip(level.shape, image.shape, strict=True)]
        np.testing.assert_array_equal(level, np.pad(image, pads, mode="edge"))
    np.testing.assert_array_equal(shown[0][75, 88:], images[2][74, [88, 89, 89, 89]])
    true = [PyramidView(store, scale) for scale in (2, 1, 0)]
    assert [level.shape for level in true] == [(75, 90), (38, 45), (19, 23)]


def test_without_padding_the_far_edge_of_an_x_ray_would_be_off(make_info):
    geometry = make_info(
        (1701, 2048), ((2, 2),) * 4, tile_shape=(512, 512), chunk_shape=(256, 256)
    ).to_geometry()
    ratio = geometry.shape[0] / geometry.shape_at(0)[0]
    assert (16 - ratio) * geometry.shape_at(0)[0] > 10  # finest pixels


def test_coarsest_level_is_an_array_written_in_place(store, images, write_scale):
    shown = levels(store)
    coarsest = shown[-1]
    assert isinstance(coarsest, np.ndarray)
    assert (coarsest == -1024).all()
    write_scale(store, 0, images[0])
    refresh_coarsest(store, shown)
    assert shown[-1] is coarsest
    np.testing.assert_array_equal(coarsest, images[0])
    assert (shown[0][:20, :20] != -1024).any()  # the others follow by themselves


def test_sketch_levels_are_padded_alike(make_info, tmp_path, rng):
    from napari_msgan.pyramid import SketchInfo, create_pyramid
    from napari_msgan.sketch_settings import SketchSettings

    with create_pyramid(tmp_path / "a", make_info()) as builder:
        shapes = [builder.geometry.shape_at(scale) for scale in range(3)]
        sketches = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
        for scale, sketch in enumerate(sketches):
            builder.write_sketch(scale, Box.of_shape(sketch.shape), sketch)
        store = builder.finish(SketchInfo(settings=SketchSettings(), given=True, sha256="c" * 64))
    shown = sketch_levels(store)
    assert [level.shape for level in shown] == [level.shape for level in levels(store)]
    np.testing.assert_array_equal(shown[0], np.pad(sketches[2], [(0, 1), (0, 2)], mode="edge"))
    np.testing.assert_array_equal(shown[2], sketches[0])


def test_only_what_is_asked_for_is_read(make_info, make_store, write_scale, monkeypatch):
    store = make_store(make_info((40, 64, 64), ((2, 2, 2),) * 2))
    write_scale(store, 0, 3)
    write_scale(store, 2, 5, Box((0, 0, 0), (1, 16, 16)))
    read: list[tuple[int, Box]] = []
    original = PyramidStore.read

    def spy(self: PyramidStore, scale: int, box: Box, **options: Any) -> npt.NDArray[Any]:
        read.append((scale, box))
        return original(self, scale, box, **options)

    monkeypatch.setattr(PyramidStore, "read", spy)
    plane = PyramidView(store, 2)[9]
    assert {*np.unique(plane)} == {3, 5}
    assert [box.shape for scale, box in read if scale == 2] == [(1, 16, 16)]
    assert all(box.shape[0] <= 3 for scale, box in read if scale == 0)
    read.clear()
    PyramidView(store, 2)[9, :16, :16]
    assert read == [(2, Box((9, 0, 0), (10, 16, 16)))]
    read.clear()
    volume = view_volume(store, 2)
    PyramidView(store, 2, shown=padded_box(store.geometry, 2))
    assert volume.shape == (40, 64, 64)
    assert read == []


@pytest.mark.parametrize("scale", range(3))
def test_volume_of_a_region_lies_where_the_region_lies(store, images, write_scale, scale):
    for s, image in enumerate(images):
        write_scale(store, s, image)
    region = Box((21, 30), (44, 90))
    volume = view_volume(store, scale, region)
    box = store.geometry.box_at(scale, region)
    assert volume.shape == box.shape
    assert volume.unit == "millimeter"
    np.testing.assert_array_equal(volume.data, images[scale][box.slices])
    np.testing.assert_array_equal(volume.data[2:4, 1:3], images[scale][box.slices][2:4, 1:3])
    np.testing.assert_allclose(
        volume.affine.at((1, 2)), store.geometry.affine_at(scale).at(np.add(box.start, (1, 2)))
    )


@pytest.mark.parametrize("scale", [0, 2])
def test_what_is_saved_of_a_store_that_is_gone_is_refused(store, images, write_scale, scale):
    for finer in range(3):
        write_scale(store, finer, images[finer])
    saved, shown = view_volume(store, scale).data, PyramidView(store, scale)
    edges, shown_edges = SketchView(store, scale, whole=True), SketchView(store, scale)
    np.testing.assert_array_equal(np.asarray(saved), images[scale])
    assert (np.asarray(edges) == 0).all()
    shutil.rmtree(store.path)
    for gone in (saved, edges):
        with pytest.raises(StoreError, match="is missing: the image is incomplete"):
            np.asarray(gone)
    assert (np.asarray(shown) == store.info.fill_value).all()  # a viewer goes on
    assert (np.asarray(shown_edges) == 0).all()


@pytest.mark.parametrize("scale", [-1, 3])
@pytest.mark.parametrize("view", [view_volume, PyramidView, SketchView])
def test_scales_that_do_not_exist_are_not_shown(store, view, scale):
    with pytest.raises(GeometryError, match="scales are 0 to 2"):
        view(store, scale)


def test_volume_of_everything_has_the_true_shape(store):
    assert view_volume(store, 2).shape == (75, 90)
    assert view_volume(store, 2).affine == store.geometry.affine
    with pytest.raises(GeometryError, match="outside the image"):
        view_volume(store, 2, Box((80, 0), (90, 9)))


def test_chunk_that_is_made_again_while_it_is_read_is_not_air(store, write_scale, monkeypatch):
    write_scale(store, 0, 100)
    write_scale(store, 1, 100)
    write_scale(store, 2, 200)
    place_type, box = type(store.place), Box((0, 0), (16, 16))
    read, is_first = place_type.read, True

    def read_when_it_is_gone(place: Place, key: str, most_bytes: int) -> bytes | None:
        nonlocal is_first
        if not is_first or not key.startswith(store.level(2).key):
            return read(place, key, most_bytes)
        is_first = False
        store.clear(2, box)
        content = read(place, key, most_bytes)
        write_scale(store, 2, 200, box)
        assert content is None
        return content

    monkeypatch.setattr(place_type, "read", read_when_it_is_gone)
    with store.writing():
        assert {*np.unique(PyramidView(store, 2))} == {200}
    assert not is_first


def test_readers_see_whole_chunks_of_either_state_while_others_write(store, write_scale):
    write_scale(store, 0, 100)
    write_scale(store, 1, 100)
    view = PyramidView(store, 2)
    seen: list[npt.NDArray[Any]] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            seen.append(view[:, :])

    reader = threading.Thread(target=look)
    reader.start()
    with store.writing():
        for _ in range(3):
            write_scale(store, 2, 200)
            store.clear(2, Box((0, 0), (75, 90)))
    write_scale(store, 2, 200)
    while len(seen) < 2:
        assert reader.is_alive()
        reader.join(0.01)
    stop.set()
    reader.join()
    assert {*np.unique(seen)} <= {100, 200}  # never the fill value
    for image in seen:
        chunks = [image[box.slices] for box in Box.of_shape((75, 90)).blocks((8, 8))]
        assert all(np.ptp(chunk) == 0 for chunk in chunks)
    assert (view[:, :] == 200).all()


def test_reading_a_store_needs_no_permission_to_write(store, images, write_scale):
    write_scale(store, 0, images[0])
    reader = open_pyramid(store.path)
    np.testing.assert_array_equal(PyramidView(reader, 2), PyramidView(store, 2))
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(PyramidView(reader, 2), copy=False)


def test_a_view_that_keeps_chunks_reads_each_once_but_sees_what_comes_and_goes(
    store, images, write_scale, monkeypatch
):
    asked = []
    find = Level.find_chunk
    monkeypatch.setattr(Level, "find_chunk", lambda *a: (asked.append(a[1]), find(*a))[1])
    for scale, image in enumerate(images):
        write_scale(store, scale, image)
    plain, kept = (levels(store, cache=c)[0] for c in (None, ChunkCache(1 << 24)))
    line = (slice(0, 1), slice(0, 90))
    for view, n_read in ((plain, 2), (kept, 1)):
        asked.clear()
        for _ in range(2):
            np.testing.assert_array_equal(view[line], images[2][line])
        assert len(asked) == n_read * len(set(asked)) > 0
    with store.writing():
        store.clear(2, Box.of_shape((75, 90)))
    asked.clear()
    for _ in range(2):
        assert not np.array_equal(kept[line], images[2][line])
    assert len(asked) == len(set(asked)) > 0  # chunks of the coarser scale
    np.testing.assert_array_equal(kept[line], plain[line])
    write_scale(store, 2, images[2])
    np.testing.assert_array_equal(kept[line], images[2][line])
