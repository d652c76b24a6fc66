import itertools
import warnings

import numpy as np
import pytest

from napari_msgan.errors import VolumeError
from napari_msgan.geometry import Affine
from napari_msgan.labels import borders_of
from napari_msgan.sketch import (
    interpolate_sketch,
    measure_thresholds,
    reduce_sketch,
    sketch_of,
    weakest_kept,
)
from napari_msgan.source import image_pyramid, iter_sketch_given, iter_sketch_image, plan_source
from napari_msgan.steps import run_to_end
from napari_msgan.volume import Volume


def collect(plan, steps_of):
    levels = [
        np.full(plan.geometry.shape_at(s), 255, np.uint8) for s in range(plan.geometry.n_scales)
    ]

    def write(scale, box, block):
        levels[scale][box.slices] = block

    steps = list(steps_of(levels, write))
    n_blocks = sum(len(plan.blocks(s)) for s in range(plan.geometry.n_scales))
    assert steps == [(done, n_blocks) for done in range(1, n_blocks + 1)]
    return levels


def given(drawn, model):
    """Return the sketch of each scale that is made of a given one."""
    plan = plan_source(Volume(drawn, Affine.of_spacing((1, 1)), "pixel"), model)
    return collect(
        plan,
        lambda levels, write: iter_sketch_given(
            plan, model.sketch, lambda s, box: levels[s][box.slices], write
        ),
    )


def test_streamed_sketch_equals_that_of_the_whole_image(relative):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 65536, (70, 90)).astype(np.uint16)
    plan = plan_source(Volume(image, Affine.of_spacing((1, 1)), "pixel"), relative)
    levels = collect(plan, lambda _, write: iter_sketch_image(plan, relative.sketch, write, 2))
    low, high = np.percentile(image, (0.5, 99.5))
    unit = np.clip((image - low) / (high - low), 0, 1).astype(np.float32)
    quantised = np.rint(unit * 65535).astype(np.uint16) / np.float32(65535)
    expected = sketch_of(quantised, relative.sketch)
    assert (levels[-1] == expected).mean() > 0.999
    thresholds = run_to_end(iter_sketch_image(plan, relative.sketch, lambda *_: None, 2))
    assert len(thresholds) == plan.geometry.n_scales
    assert thresholds[-1] == measure_thresholds(quantised, relative.sketch)


def test_coarse_scales_may_have_windows_of_their_own(relative):
    image = np.random.default_rng(0).integers(0, 1001, (80, 96)).astype(np.uint16)
    plan = plan_source(Volume(image, Affine.of_spacing((1, 1)), "pixel"), relative)
    windows = {"window": (0, 1000), "coarse_windows": ((400, 600), (200, 700))}
    settings = relative.sketch.model_copy(update=windows)
    levels = collect(plan, lambda _, write: iter_sketch_image(plan, settings, write, 2))
    with image_pyramid(plan, settings, 1) as images:
        units = [np.asarray(image) for image in images]
    assert len(units) > 2
    narrow = [np.clip((units[0] - 0.4) / 0.2, 0, 1), np.clip((units[1] - 0.2) / 0.5, 0, 1)]
    for level, unit in zip(levels, [*narrow, *units[2:]], strict=True):
        assert (level == sketch_of(unit, settings)).mean() > 0.999
    assert (levels[0] == sketch_of(units[0], settings)).mean() < 0.95


def test_given_sketch_is_kept_at_the_finest_scale_and_reduced_below(relative):
    drawn = np.zeros((64, 64), np.uint8)
    drawn[31, 5:60] = 255
    drawn[40:42, 5:60] = 120  # is kept as thick as it was drawn
    levels = given(drawn, relative)
    np.testing.assert_array_equal(levels[-1], drawn)
    assert (levels[-2][15, 3:29] == 255).all()
    assert np.count_nonzero(levels[0]) > 0


def test_coarser_scales_are_reduced_and_lose_their_weakest_edges(relative):
    rng = np.random.default_rng(0)
    drawn = (rng.integers(1, 256, (150, 170)) * (rng.random((150, 170)) < 0.1)).astype(np.uint8)
    levels, density = given(drawn, relative), relative.sketch.low_density
    assert len(levels) == 3
    np.testing.assert_array_equal(levels[-1], drawn)
    for finer, coarser in itertools.pairwise(levels[::-1]):
        reduced = reduce_sketch(np.pad(finer, 8, mode="edge"), (2, 2))
        reduced = reduced[4 : 4 + coarser.shape[0], 4 : 4 + coarser.shape[1]]
        weakest = weakest_kept(np.bincount(reduced.ravel(), minlength=256), density)
        assert 1 < weakest < 255
        np.testing.assert_array_equal(coarser, np.where(reduced < weakest, 0, reduced))


def test_interpolated_scales_are_made_of_the_finest_and_rounded(relative):
    rng = np.random.default_rng(0)
    drawn = (rng.integers(1, 256, (150, 170)) * (rng.random((150, 170)) < 0.1)).astype(np.uint8)
    settings = relative.sketch.model_copy(update={"given": "interpolated"})
    levels = given(drawn, relative.model_copy(update={"sketch": settings}))
    np.testing.assert_array_equal(levels[-1], drawn)
    for level in levels[:-1]:
        expected = np.rint(interpolate_sketch(drawn, level.shape)[...])
        np.testing.assert_array_equal(level, expected)


def test_of_a_label_map_the_borders_are_drawn_unless_the_model_takes_labels(relative):
    labels = np.zeros((60, 64), np.uint8)
    labels[10:40, 10:30], labels[10:40, 30:50] = 1, 2
    with pytest.warns(UserWarning, match="is a label map"):
        levels = given(labels, relative)
    np.testing.assert_array_equal(levels[-1], borders_of(labels)[...])
    settings = relative.sketch.model_copy(update={"given": "interpolated"})
    levels = given(labels, relative.model_copy(update={"sketch": settings}))
    np.testing.assert_array_equal(levels[-1], labels)


def test_a_sketch_of_filled_regions_is_warned_of_and_an_empty_one_is_not(relative):
    drawn = np.zeros((64, 64), np.float32)
    assert not given(drawn, relative)[-1].any()
    drawn[10:30, 10:40] = 1
    with pytest.warns(UserWarning, match="fills regions, where edges are lines"):
        given(drawn, relative)


@pytest.mark.parametrize(
    ("values", "expected"), [((0, 40000), 156), ((0.0, 0.5), 128)], ids=["uint16", "float"]
)
def test_given_sketch_is_scaled_by_its_type(relative, values, expected):
    dtype = np.uint16 if isinstance(values[1], int) else np.float32
    drawn = np.full((48, 48), values[0], dtype)
    drawn[24] = values[1]
    levels = given(drawn, relative)
    assert levels[-1].max() == expected


@pytest.mark.parametrize("value", [3.0, 1.002, -0.002, np.inf, -np.inf])
def test_sketch_of_floats_beyond_one_is_refused(relative, value):
    drawn = np.diag(np.full(48, value, np.float32))
    with pytest.raises(VolumeError, match=r"must lie in \[0, 1\]"):
        given(drawn, relative)


def test_sketch_of_floats_with_nan_is_refused(relative):
    drawn = np.zeros((64, 64), np.float32)
    drawn[31, 5:60] = 1
    drawn[3, 3] = np.nan
    with pytest.raises(VolumeError, match="has NaN"):
        given(drawn, relative)


def test_sketch_of_floats_that_were_rounded_beyond_0_and_1_is_taken(relative):
    drawn = np.full((64, 64), -0.0005, np.float32)
    drawn[31, 5:60] = 1.0005
    with pytest.warns(UserWarning, match="looks like an image"):  # most of it is not 0
        levels = given(drawn, relative)
    np.testing.assert_array_equal(levels[-1], np.where(drawn > 0, 255, 0))


def test_picture_as_a_sketch_is_warned_of(relative):
    picture = np.random.default_rng(0).integers(1, 255, (64, 64), np.uint8)
    with pytest.warns(UserWarning, match="looks like an image"):
        given(picture, relative)


def test_sketch_of_integers_below_zero_is_refused(relative):
    drawn = np.diag(np.full(48, -3, np.int16))
    with pytest.raises(VolumeError, match="must have no values below 0, this one has -3"):
        given(drawn, relative)


def test_given_sketch_on_another_grid_stays_sharp_and_sparse(physical):
    rng = np.random.default_rng(0)
    drawn = np.zeros((40, 60, 60), np.uint8)
    drawn[:, 20, :] = 255
    drawn[rng.random(drawn.shape) < 0.02] = 40
    source = Volume(drawn, Affine.of_spacing((1.25, 0.8, 0.8)), "millimeter")
    plan = plan_source(source, physical)
    levels = collect(
        plan,
        lambda all_, write: iter_sketch_given(
            plan, physical.sketch, lambda s, box: all_[s][box.slices], write
        ),
    )
    row = round((20 + 0.5) * 0.8 - 0.5)
    near = levels[-1][10:-10, row - 1 : row + 2, 10:-10].max(axis=1)
    assert (near == 255).mean() > 0.95
    for level in levels[:-1]:
        weak = ((level > 0) & (level < 255)).mean()
        assert weak <= physical.sketch.low_density
    smeared = set(np.unique(levels[-1])) - {0, 40, 255}
    assert not smeared  # interpolation would make strengths that nobody drew


@pytest.mark.parametrize(
    ("dtype", "top"), [(np.int16, 255), (np.uint16, 255), (np.int64, 255), (np.uint8, 1)]
)
def test_lines_as_programs_save_8_bits_or_a_mask_are_as_strong_as_edges_can_be(
    relative, dtype, top
):
    drawn = np.zeros((64, 64), dtype)
    drawn[31, 5:60] = top
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert given(drawn, relative)[-1].max() == 255


@pytest.mark.parametrize(
    ("dtype", "top"), [(np.int16, 256), (np.uint16, 256), (np.uint8, 2), (np.float32, 0.0625)]
)
def test_lines_that_are_faint_for_their_type_are_warned_of(relative, dtype, top):
    drawn = np.zeros((64, 64), dtype)
    drawn[31, 5:60] = top
    with pytest.warns(UserWarning, match=f"strongest edge of the given sketch is {top}"):
        given(drawn, relative)


def test_lines_of_a_quarter_of_their_type_are_not_warned_of(relative):
    drawn = np.zeros((64, 64), np.uint8)
    drawn[31, 5:60] = 64
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        given(drawn, relative)
