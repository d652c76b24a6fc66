import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_msgan.geometry import Box
from napari_msgan.resampling import (
    corner_aligned_first,
    reduce_max,
    reduce_mean,
    resample,
    resample_max,
)


def ramp(n):
    return np.broadcast_to(np.arange(n, dtype=np.float32), (5, n)).copy()


@given(st.floats(0.3, 3.0), st.integers(20, 60))
def test_ramp_stays_where_it_is_in_the_world(step, n):
    size = int(n / step)
    first = corner_aligned_first((1, step))
    made = resample(ramp(n), (1, step), first, Box.of_shape((5, size)))
    expected = first[1] + step * np.arange(size)
    inside = (expected > 4 * step + 1) & (expected < n - 4 * step - 2)
    np.testing.assert_allclose(made[2][inside], expected[inside], atol=1e-3)


def test_same_grid_gives_the_same_values():
    image = np.random.default_rng(0).random((7, 9)).astype(np.float32)
    np.testing.assert_array_equal(resample(image, (1, 1), (0, 0), Box.of_shape((7, 9))), image)


@pytest.mark.parametrize("step", [(0.5, 0.7), (1.5, 2.0), (1.0, 1.0)], ids=str)
def test_block_equals_the_same_block_of_the_whole(step):
    image = np.random.default_rng(0).random((50, 60)).astype(np.float32)
    first = corner_aligned_first(step)
    whole = resample(image, step, first, Box.of_shape((20, 20)))
    box = Box((6, 3), (15, 19))
    np.testing.assert_allclose(resample(image, step, first, box), whole[box.slices], atol=1e-5)


def test_fine_stripes_become_grey_and_not_other_stripes():
    stripes = np.tile(np.array([0, 1], np.float32), (5, 40))
    made = resample(stripes, (1, 3.1), corner_aligned_first((1, 3.1)), Box.of_shape((5, 25)))
    assert abs(made[:, 3:-3] - 0.5).max() < 0.05


def test_block_means_and_maxima_fill_the_far_border_with_the_last_voxel():
    values = np.array([[1, 3, 5], [3, 5, 9]], np.float32)
    np.testing.assert_array_equal(reduce_mean(values, (2, 2)), [[3, 7]])
    np.testing.assert_array_equal(reduce_max(values, (2, 2)), [[5, 9]])


def padded(make, image, step, box):
    """Return what is made of an image whose border was repeated before, far enough."""
    pad = [4 * int(s) + 4 for s in step]
    first = [f + p for f, p in zip(corner_aligned_first(step), pad, strict=True)]
    return make(np.pad(image, [(p, p) for p in pad], mode="edge"), step, first, box)


@pytest.mark.parametrize("make", [resample, resample_max])
@pytest.mark.parametrize("step", [(3.0, 2.5), (1.0, 6.0), (9.9, 0.5), (15.5, 15.9)], ids=str)
def test_the_border_is_repeated_however_far_a_new_voxel_reaches(make, step):
    image = np.random.default_rng(0).random((7, 40)).astype(np.float32)
    box = Box((0, 0), tuple(int(np.ceil(n / s)) for n, s in zip(image.shape, step, strict=True)))
    made = make(image, step, corner_aligned_first(step), box)
    np.testing.assert_array_equal(made, padded(make, image, step, box))
    assert not np.array_equal(made, make(image[:, ::-1], step, corner_aligned_first(step), box))


def test_a_much_coarser_grid_is_made_of_block_means_and_nearly_the_same(monkeypatch):
    waves = np.add.outer(np.sin(np.arange(700) / 60), np.cos(np.arange(900) / 45))
    noise = np.random.default_rng(0).standard_normal(waves.shape)
    image, step = (waves + noise).astype(np.float32), (40.0, 25.0)
    first, box = corner_aligned_first(step), Box((0, 0), (17, 36))
    by_means = resample(image, step, first, box)
    monkeypatch.setattr("napari_msgan.resampling._LONGEST_STEP", 100)
    whole = resample(image, step, first, box)
    difference = np.abs(by_means - whole)
    assert 0 < difference[1:-1, 1:-1].max() < 0.02
    assert difference.max() < 0.1  # at the border a block is repeated instead of a voxel
    assert np.abs(np.roll(by_means, 1, 0) - whole).max() > 0.3


@pytest.mark.parametrize("step", [100.0, 5000.0, 1e9], ids=str)
@pytest.mark.parametrize("make", [resample, resample_max])
def test_what_is_read_at_once_does_not_grow_with_the_step(make, step):
    """So that a voxel size of metres, taken for mm, takes no memory."""
    read = []

    class Source:
        shape, dtype = (60, 60, 400), np.dtype(np.float32)

        def __getitem__(self, key):
            read.append(tuple(part.stop - part.start for part in key))
            return np.ones(read[-1], np.float32)

    steps = (step,) * 3
    tracemalloc.start()
    made = make(Source(), steps, corner_aligned_first(steps), Box((0, -1, 0), (1, 1, 2)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_allclose(made, 1, rtol=1e-5)
    assert peak < 200e6


@pytest.mark.parametrize("make", [resample, resample_max])
@pytest.mark.parametrize("step", [(3.0, 2.5), (1.0, 6.0), (7.3, 0.5)], ids=str)
def test_block_of_a_much_finer_source_is_read_in_parts_and_is_the_same(make, step, monkeypatch):
    image = np.random.default_rng(0).random((90, 120)).astype(np.float32)
    first, box = corner_aligned_first(step), Box((1, 2), (11, 18))
    at_once = make(image, step, first, box)
    read = []

    class Source:
        shape, dtype = image.shape, image.dtype

        def __getitem__(self, key):
            read.append(image[key].size)
            return image[key]

    make(Source(), step, first, box)
    whole = read.pop()
    monkeypatch.setattr("napari_msgan.resampling._MOST_READ", 100)
    np.testing.assert_array_equal(make(Source(), step, first, box), at_once)
    assert len(read) > 4
    assert max(read) < whole


def test_a_finer_grid_has_the_nearest_voxel():
    image = np.arange(12, dtype=np.uint8)[None]
    for finer in (2, 4):
        step = (1.0, 1 / finer)
        made = resample_max(image, step, corner_aligned_first(step), Box((0, 0), (1, 12 * finer)))
        np.testing.assert_array_equal(made[0], image[0].repeat(finer))


def test_every_source_voxel_is_in_exactly_one_of_a_coarser_grid():
    step = (1.0, 1.5)  # some centres lie on the border of two new voxels
    for drawn in np.eye(12, dtype=np.uint8):
        made = resample_max(drawn[None], step, corner_aligned_first(step), Box((0, 0), (1, 8)))
        assert made.sum() == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64, bool])
@pytest.mark.parametrize(
    ("shape", "factor"),
    [
        ((37, 50), (2, 2)),
        ((21, 40), (3, 7)),
        ((33, 50), (11, 10)),
        ((9, 41), (2, 9)),
        ((13, 20, 24), (1, 2, 2)),
        ((12, 21, 17), (3, 2, 5)),
        ((6, 5, 7), (1, 1, 1)),
    ],
)
def test_block_means_and_maxima_have_the_bits_of_numpys(shape, factor, dtype):
    values = (np.random.default_rng(1).random(shape) * 60000).astype(dtype)
    whole = np.pad(values, [(0, -n % f) for n, f in zip(shape, factor, strict=True)], mode="edge")
    split = [m for n, f in zip(whole.shape, factor, strict=True) for m in (n // f, f)]
    axes = tuple(range(1, 2 * len(shape), 2))
    blocks = whole.reshape(split)
    means, maxima = reduce_mean(values, factor), reduce_max(values, factor)
    np.testing.assert_array_equal(means, blocks.mean(axis=axes, dtype=np.float32))
    np.testing.assert_array_equal(maxima, blocks.max(axis=axes))
    assert (means.dtype, maxima.dtype) == (np.float32, dtype)
    if dtype == np.float32 and max(factor) > 1:
        as_double = blocks.mean(axis=axes, dtype=np.float64)
        assert not np.array_equal(means, as_double)  # its bits can be told
