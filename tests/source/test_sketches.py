import warnings

import numpy as np
import pytest

from napari_msgan.errors import VolumeError
from napari_msgan.geometry import Affine
from napari_msgan.sketch import sketch_of
from napari_msgan.source import iter_sketch_given, iter_sketch_image, plan_source
from napari_msgan.volume import Volume


def collect(plan, steps_of):
    levels = [
        np.full(plan.geometry.shape_at(s), 255, np.uint8) for s in range(plan.geometry.n_scales)
    ]

    def write(scale, box, block):
        levels[scale][box.slices] = block

    for _ in steps_of(levels, write):
        pass
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


def test_given_sketch_is_kept_at_the_finest_scale_and_reduced_below(relative):
    drawn = np.zeros((64, 64), np.uint8)
    drawn[31, 5:60] = 255
    levels = given(drawn, relative)
    np.testing.assert_array_equal(levels[-1], drawn)
    assert (levels[-2][15, 3:29] == 255).all()
    assert np.count_nonzero(levels[0]) > 0


@pytest.mark.parametrize(
    ("values", "expected"), [((0, 40000), 156), ((0.0, 0.5), 128)], ids=["uint16", "float"]
)
def test_given_sketch_is_scaled_by_its_type(relative, values, expected):
    dtype = np.uint16 if isinstance(values[1], int) else np.float32
    drawn = np.full((48, 48), values[0], dtype)
    drawn[24] = values[1]
    levels = given(drawn, relative)
    assert levels[-1].max() == expected


def test_sketch_of_floats_beyond_one_is_refused(relative):
    drawn = np.diag(np.full(48, 3.0, np.float32))
    with pytest.raises(VolumeError, match=r"must lie in \[0, 1\]"):
        given(drawn, relative)


def test_sketch_of_floats_with_nan_is_refused(relative):
    drawn = np.zeros((64, 64), np.float32)
    drawn[31, 5:60] = 1
    drawn[3, 3] = np.nan
    with pytest.raises(VolumeError, match="has NaN"):
        given(drawn, relative)


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


@pytest.mark.parametrize(("dtype", "top"), [(np.int16, 256), (np.uint16, 256), (np.uint8, 2)])
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
