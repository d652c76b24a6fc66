import math
import warnings

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage

from napari_msgan import sketch
from napari_msgan.geometry import Box
from napari_msgan.sketch import (
    interpolate_sketch,
    lazy_sketch,
    measure_thresholds,
    measure_window,
    reduce_sketch,
    sketch_block,
    sketch_of,
    thin,
    weakest_kept,
)
from napari_msgan.sketch_settings import SketchSettings, SketchThresholds
from napari_msgan.volume import LazyArray

FLAT = SketchSettings(dilations=6)
SOLID = SketchSettings(low_density=0.14, high_density=0.09, dilations=8)


def texture(shape, seed=0, smooth=1.5):
    rng = np.random.default_rng(seed)
    values = ndimage.gaussian_filter(rng.standard_normal(shape), smooth)
    return ((values - values.min()) / np.ptp(values)).astype(np.float32)


def ball(n=48, radius=14.0):
    grid = np.indices((n, n, n)) - (n - 1) / 2
    distance = np.sqrt((grid**2).sum(axis=0))
    return np.clip((radius - distance) * 2 + 0.5, 0, 1).astype(np.float32), distance


@pytest.mark.parametrize(
    ("shape", "settings"), [((90, 130), FLAT), ((40, 44, 50), SOLID)], ids=["2d", "3d"]
)
def test_any_block_equals_the_same_block_of_the_whole(shape, settings):
    image = texture(shape)
    thresholds = measure_thresholds(image, settings)
    whole = sketch_block(image, Box.of_shape(shape), thresholds, settings)
    rng = np.random.default_rng(1)
    for _ in range(6):
        start = [int(rng.integers(0, n - 9)) for n in shape]
        box = Box(tuple(start), tuple(a + int(rng.integers(1, 9)) for a in start))
        np.testing.assert_array_equal(
            sketch_block(image, box, thresholds, settings), whole[box.slices]
        )


def test_thresholds_do_not_depend_on_threads_or_on_how_many_neighbours_are_gathered(monkeypatch):
    image = texture((150, 70, 66))  # six blocks are measured
    found = measure_thresholds(image, SOLID)
    assert measure_thresholds(image, SOLID, workers=3) == found
    box = Box.of_shape(image.shape)
    block = sketch_block(image, box, found, SOLID)
    monkeypatch.setattr(sketch, "_AT_ONCE", 7)
    assert measure_thresholds(image[:40, :40, :40], SOLID) != found
    np.testing.assert_array_equal(sketch_block(image, box, found, SOLID), block)


def test_thresholds_are_the_values_at_their_ranks():
    image = texture((60, 64))
    padded = np.pad(image, sketch._ridge_halo(FLAT.sigma), mode="edge")
    _, ridge = sketch._ridge(padded, FLAT.sigma, 1e-5)
    magnitude, _ = sketch._ridge(padded, FLAT.sigma, 0)
    ordered = np.sort(magnitude[ridge])[::-1]
    found = measure_thresholds(image, FLAT)
    assert found.high == ordered[int(FLAT.high_density * image.size)]
    assert found.normaliser == ordered[int(0.1 * FLAT.high_density * image.size)]
    assert found.low == ordered[int(FLAT.low_density * image.size)]
    for rank, low in ((len(ordered) - 1, ordered[-1]), (len(ordered), np.float32(1e-5))):
        more = FLAT.model_copy(update={"low_density": (rank + 0.5) / image.size})
        assert measure_thresholds(image, more).low == pytest.approx(low)


def test_reading_an_image_between_0_and_1_leaves_it_as_it_is():
    image = np.array([[0.0, np.nan, 4.0]], np.float32)
    before = image.copy()
    unit = sketch.lazy_unit(image, 0, 2)
    np.testing.assert_array_equal(unit[0:1, 0:3], [[0, 0, 1]])
    np.testing.assert_array_equal(image, before)
    hounsfield = sketch.lazy_unit(np.array([[np.nan, 0.0]], np.float32), -1000, 1000)
    np.testing.assert_array_equal(hounsfield[0:1, 0:2], [[0, 0.5]])  # NaN is dark, not 0 HU


def test_window_without_its_halo_changes_some_block():
    image = texture((200, 200), smooth=3)
    thresholds = measure_thresholds(image, FLAT)
    whole = sketch_block(image, Box.of_shape(image.shape), thresholds, FLAT)
    short, changed = 1, 0
    for box in Box((40, 40), (160, 160)).blocks((16, 16)):
        window = box.grow(short)
        part = sketch_block(image[window.slices], box.relative_to(window.start), thresholds, FLAT)
        changed += not np.array_equal(part, whole[box.slices])
    assert changed


@pytest.mark.parametrize("smooth", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("contrast", [1.0, 0.02])
def test_edge_density_stays_in_its_range_whatever_the_image(smooth, contrast):
    flat = sketch_of(texture((300, 300), smooth=smooth) * np.float32(contrast), FLAT)
    assert 0.045 <= (flat > 0).mean() <= 0.10
    solid = sketch_of(texture((60, 60, 60), smooth=smooth) * np.float32(contrast), SOLID)
    assert 0.07 <= (solid > 0).mean() <= 0.15


@pytest.mark.parametrize(
    ("image", "is_told"),
    [
        (np.arange(900).reshape(30, 30) + 2**28, True),
        (np.arange(900.0).reshape(30, 30) + 1e9, True),
        (np.arange(900.0).reshape(30, 30) * 1e38, True),
        (np.linspace(-4e38, 1e30, 900).reshape(30, 30), True),
        (np.arange(900).reshape(30, 30) + 2**16, False),
        (np.arange(900.0).reshape(30, 30) * 1e-12, False),
        (np.full((30, 30), 1e9), False),
        (np.arange(900, dtype=np.uint16).reshape(30, 30), False),
    ],
)
def test_values_that_float32_rounds_away_are_told(image, is_told):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        measure_window(image)
    assert [w for w in told if "rounded to what float32 can tell" in str(w.message)] == told
    assert bool(told) == is_told


def test_a_mask_is_an_image_of_0_and_1():
    mask = texture((60, 70)) > 0.5
    sketches = [np.asarray(lazy_sketch(x, FLAT)[...]) for x in (mask, mask.astype(np.uint8))]
    np.testing.assert_array_equal(*sketches)
    assert sketches[0].any()


@pytest.mark.parametrize("shape", [(50, 60), (20, 22, 24)], ids=["2d", "3d"])
def test_lazy_sketch_of_a_window_equals_that_of_the_whole_image(shape):
    image = texture(shape) * 500 - 100
    settings = SketchSettings(window=(0.0, 300.0), dilations=4)
    lazy = lazy_sketch(image, settings)
    expected = sketch_of(np.clip(image / 300, 0, 1).astype(np.float32), settings)
    assert (lazy.shape, lazy.dtype) == (shape, np.uint8)
    np.testing.assert_array_equal(lazy[...], expected)
    part = tuple(slice(5, n - 3) for n in shape)
    np.testing.assert_array_equal(lazy[part], expected[part])


@pytest.mark.parametrize("shape", [(20, 24), (9, 8, 7)], ids=["2d", "3d"])
def test_ridges_peak_towards_the_neighbour_that_is_nearest_to_the_gradient(shape):
    image, floor = np.pad(texture(shape), 8, constant_values=0.5), 0.02
    magnitude, ridge = sketch._ridge(image, 1.0, floor)
    smooth = ndimage.gaussian_filter(image, 1.0, mode="nearest", truncate=3)
    slopes = np.stack(np.gradient(smooth))  # central differences, but for the border
    whole = np.sqrt((slopes**2).sum(axis=0))
    margin, diagonal = sketch._ridge_halo(1.0), 0
    assert magnitude.shape == ridge.shape == tuple(n - 2 * margin for n in image.shape)
    for index in np.ndindex(magnitude.shape):
        at = np.array(index) + margin
        slope = slopes[(slice(None), *at)]
        step = np.rint(slope / np.abs(slope).max()).astype(int)
        here, behind, ahead = (whole[tuple(place)] for place in (at, at - step, at + step))
        assert magnitude[index] == pytest.approx(here, rel=1e-5)
        assert ridge[index] == (here > floor and here >= behind and here > ahead)
        diagonal += bool(ridge[index]) and np.count_nonzero(step) > 1
    assert diagonal > 5


@pytest.mark.parametrize(("normaliser", "ends"), [(0.2, (14, 255)), (0.5, (6, 163)), (999, (1, 1))])
def test_strengths_are_in_proportion_to_the_gradient_from_1_to_255(normaliser, ends):
    image = np.zeros((12, 100), np.float32)
    image[6:] = np.linspace(0.03, 1, 100)  # an edge that becomes stronger and stronger
    magnitude, _ = sketch._ridge(np.pad(image, 5, mode="edge"), 1.0, 0)
    found = SketchThresholds(low=1e-5, high=1e-5, normaliser=normaliser, density=0.1)
    settings = SketchSettings(dilations=0)
    made = sketch_block(image, Box.of_shape(image.shape), found, settings)
    expected = np.clip(np.rint(magnitude * (255 / normaliser)), 1, 255)
    np.testing.assert_array_equal(made, np.where(made > 0, expected, 0))
    line = made.max(axis=0)
    assert (line[0], line[-1]) == ends
    assert (np.diff(line.astype(int)) >= 0).all()


def test_at_most_one_and_a_half_times_the_sample_is_read_from_all_parts_of_an_image(monkeypatch):
    monkeypatch.setattr(sketch, "_SAMPLE_BLOCK", {2: 4})
    blocks = Box.of_shape((48, 40)).blocks((4, 4))
    for size, every in ((10**6, 1), (1920, 1), (1000, 3), (640, 3), (480, 3), (400, 7), (1, 1921)):
        monkeypatch.setattr(sketch, "SAMPLE_SIZE", size)
        boxes = sketch._sample_boxes((48, 40))
        assert boxes == blocks[::every]
        assert sum(box.size for box in boxes) <= max(16, 1.5 * size)
        if len(boxes) > 10:  # of ten in a row, with a distance of 2 or 5 some would never be read
            assert {box.start[0] for box in boxes} == set(range(0, 48, 4))
            assert {box.start[1] for box in boxes} == set(range(0, 40, 4))


@pytest.mark.parametrize("shape", [(24, 20, 12), (32, 36, 32), (40, 24, 20), (60, 40, 36)], ids=str)
def test_the_sample_of_a_volume_is_read_from_all_columns(monkeypatch, shape):
    monkeypatch.setattr(sketch, "_SAMPLE_BLOCK", {3: 4})
    columns = {box.start for box in Box.of_shape(shape[1:]).blocks((4, 4))}
    for distance in range(2, len(columns)):
        wanted = math.prod(shape) / distance
        monkeypatch.setattr(sketch, "SAMPLE_SIZE", wanted)
        boxes = sketch._sample_boxes(shape)
        assert wanted / 4 <= sum(box.size for box in boxes) <= 1.6 * wanted
        read = {box.start[1:] for box in boxes}
        assert len(read) == min(len(boxes), len(columns))


def test_weakest_edges_are_those_beyond_the_density_and_the_strongest_stay():
    strengths = np.zeros(256, np.int64)
    strengths[[0, 10, 20]] = 90, 6, 4
    assert [weakest_kept(strengths, d) for d in (0.5, 0.1, 0.09, 0.04)] == [1, 1, 11, 11]
    assert weakest_kept(strengths, 0.03) == 20
    strengths[255] = 4
    assert [weakest_kept(strengths, d) for d in (0.05, 0.01)] == [21, 255]
    assert weakest_kept(np.bincount([0] * 9, minlength=256), 0.05) == 1


def test_window_of_an_image_that_is_nearly_flat_goes_from_its_smallest_to_its_largest_value():
    image = np.full((40, 50), 7.0)
    assert measure_window(image) == pytest.approx((7, 7), abs=2e-6)
    image[3, 4], image[5, 6] = 2, 90  # fewer than half a percent
    assert measure_window(image) == pytest.approx((2, 90), abs=2e-6)
    for value in (0.0, 7.0, -1e9, 1e15):
        flat = np.full((40, 50), value)
        low, high = measure_window(flat)
        assert low < high
        assert not lazy_sketch(flat, FLAT)[...].any()


def test_constant_image_has_no_edges():
    assert not sketch_of(np.full((50, 60), 0.4, np.float32), FLAT).any()


def test_edges_of_a_ball_lie_on_its_surface_as_with_canny_of_simpleitk():
    image, distance = ball()
    settings = SketchSettings(low_density=0.05, high_density=0.03, dilations=8)
    ours = sketch_of(image, settings) > 0
    assert abs(distance[ours] - 14).max() < 1.8
    canny = sitk.CannyEdgeDetection(sitk.GetImageFromArray(image), 0.02, 0.05, [1.0] * 3, [0.1] * 3)
    theirs = sitk.GetArrayFromImage(canny) > 0
    near = ndimage.binary_dilation(ours, np.ones((3, 3, 3)))
    assert (near & theirs).sum() / theirs.sum() > 0.95
    shifted = np.roll(near, 6, axis=0)
    assert (shifted & theirs).sum() / theirs.sum() < 0.8


def test_strong_edges_are_brighter_than_weak_ones():
    image = np.zeros((60, 60), np.float32)
    image[:, 15:] = 0.2
    image[:, 40:] = 1.0
    sketch = sketch_of(image, SketchSettings(low_density=0.2, high_density=0.15))
    assert sketch[30, 38:42].max() > sketch[30, 13:17].max() > 0
    assert sketch.dtype == np.uint8


def test_reduced_sketch_keeps_lines_thin_and_in_place():
    sketch = np.zeros((64, 64), np.uint8)
    sketch[20, :] = 200
    sketch[:, 40] = 100
    reduced = reduce_sketch(sketch, (2, 2))
    assert reduced.shape == (32, 32)
    assert (reduced[10, :18] == 200).all()
    assert (reduced[:8, 20] == 100).all()
    assert (reduced > 0).mean() < 0.08


def test_thinning_takes_a_thick_line_to_one_voxel():
    sketch = np.zeros((30, 30), np.uint8)
    sketch[10:13] = 255
    rows = np.flatnonzero(thin(sketch)[:, 15])
    assert rows.tolist() == [11]


@pytest.mark.parametrize("shape", [(64, 64), (24, 24, 24)], ids=["2d", "3d"])
def test_reduced_sketch_of_any_block_equals_the_whole(shape):
    from napari_msgan.sketch import REDUCE_HALO
    from napari_msgan.volume import read_padded

    rng = np.random.default_rng(0)
    sketch = (rng.integers(1, 256, shape) * (rng.random(shape) < 0.1)).astype(np.uint8)
    factor = (2,) * len(shape)
    whole = reduce_sketch(sketch, factor)
    box = Box((3,) * len(shape), (9,) * len(shape))
    wide = box.grow(REDUCE_HALO)
    finer = wide.multiply(factor)
    part = reduce_sketch(read_padded(sketch, finer.start, finer.stop), factor)
    np.testing.assert_array_equal(part[box.relative_to(wide.start).slices], whole[box.slices])


@pytest.mark.parametrize(
    ("shape", "coarse"),
    [((33, 20, 41), (17, 10, 21)), ((64, 64, 64), (16, 16, 16)), ((9, 1, 40), (3, 1, 5))],
    ids=str,
)
def test_interpolated_sketch_has_its_corners_aligned(rng, shape, coarse):
    fine = rng.integers(0, 256, shape, np.uint8)
    made = interpolate_sketch(fine, coarse)[tuple(slice(n) for n in coarse)]
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(fine[None, None].astype(np.float32)),
        coarse,
        mode="trilinear",
        align_corners=True,
    )
    np.testing.assert_allclose(made, expected[0, 0].numpy(), atol=0.01)
    block = Box(tuple(n // 3 for n in coarse), coarse)
    np.testing.assert_array_equal(
        interpolate_sketch(fine, coarse)[block.slices], made[block.slices]
    )


def test_interpolated_sketch_is_read_in_blocks_whatever_its_size():
    largest = []

    def read(box):
        largest[-1] = max(largest[-1], box.size)
        return np.zeros(box.shape, np.uint8)

    for size in (512, 4096):
        largest.append(0)
        fine = LazyArray((size, 300, 300), np.uint8, read)
        interpolate_sketch(fine, (size // 4, 75, 75))[: size // 4, :75, :75]
    assert largest[1] <= largest[0] <= 140**3


@pytest.mark.parametrize(("high", "is_kept"), [(0.15, False), (0.05, True)])
def test_weak_edges_count_only_beside_strong_ones(high, is_kept):
    image = np.zeros((40, 80), np.float32)
    image[:, 20:], image[:, 60:] = 0.2, 1.0  # gradients of 0.08 and 0.3
    thresholds = SketchThresholds(low=0.01, high=high, normaliser=0.3, density=0.1)
    sketch = sketch_block(image, Box.of_shape(image.shape), thresholds, SketchSettings())
    assert sketch[:, 57:63].any(axis=1).all()
    assert sketch[:, 17:23].any() == is_kept


@pytest.mark.parametrize("turn", [np.asarray, np.fliplr, np.flipud, np.transpose])
def test_weak_edge_is_followed_from_a_strong_one_as_far_as_there_are_dilations(turn):
    image = np.zeros((12, 100), np.float32)
    image[6:] = np.linspace(1, 0.1, 100)  # an edge that becomes weaker and weaker
    thresholds = SketchThresholds(low=0.02, high=0.2, normaliser=0.3, density=0.1)
    image, lengths = turn(image), []
    for dilations in (0, 8, 20):
        settings = SketchSettings(dilations=dilations)
        sketch = sketch_block(image, Box.of_shape(image.shape), thresholds, settings)
        lengths.append(int(sketch.any(axis=np.argmin(image.shape)).sum()))
    assert lengths[0] > 20
    assert np.diff(lengths).tolist() == [8, 12]


def test_window_leaves_out_half_a_percent_at_both_ends():
    image = np.linspace(0, 1000, 10_000).reshape(100, 100)
    image[0, 0], image[-1, -1] = -1e5, 1e5  # metal, or nothing
    assert measure_window(image) == pytest.approx((5, 995), abs=0.2)
