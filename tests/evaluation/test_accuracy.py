import sys
from dataclasses import astuple

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import linregress
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from napari_msgan.errors import GeometryError, JobError
from napari_msgan.evaluation import (
    body_mask,
    checkerboard_index,
    matched_errors,
    mean_absolute_error,
    multiscale_structural_similarity,
    peak_signal_to_noise,
    structural_similarity,
    tissue_masks,
    units_of,
)
from napari_msgan.evaluation.accuracy import spread_slices
from napari_msgan.model import read_spec
from tests.evaluation.images import GREY, HU, smooth, textured
from tests.models import write_model


def test_mean_absolute_error_by_hand():
    made, true = np.float32([[1, 2], [3, 4]]), np.float32([[1, 4], [3, 0]])
    assert mean_absolute_error(made, true) == 1.5
    assert mean_absolute_error(made, true, np.array([[False, True], [True, False]])) == 1.0
    assert np.isnan(mean_absolute_error(made, true, np.zeros((2, 2), bool)))


def test_psnr_by_hand():
    true = np.zeros((4, 4), np.float32)
    assert peak_signal_to_noise(true + 2.55, true, 255) == pytest.approx(40, abs=1e-4)
    assert peak_signal_to_noise(true, true, 255) == np.inf


@pytest.mark.parametrize("shape", [(70, 83), (30, 24, 27)])
def test_ssim_is_that_of_torchmetrics_away_from_the_border(shape, monkeypatch):
    made, true = textured(shape, 0), textured(shape, 1)
    inside = np.zeros(shape, bool)
    inside[(slice(6, -6),) * len(shape)] = True
    _, full = structural_similarity_index_measure(
        *(torch.from_numpy(a).double()[None, None] for a in (made, true)),
        data_range=255.0,
        return_full_image=True,
    )
    expected = float(full[0, 0].numpy()[inside].mean())
    assert structural_similarity(made, true, inside, (0, 255)) == pytest.approx(expected, abs=1e-4)
    monkeypatch.setattr("napari_msgan.evaluation.accuracy._BLOCK", {2: 32, 3: 13})
    assert structural_similarity(made, true, inside, (0, 255)) == pytest.approx(expected, abs=1e-4)
    assert expected < 0.9


def test_ssim_counts_the_mask_only():
    true = textured((64, 64), 0)
    made = true.copy()
    made[:20] = 0
    far = np.zeros(true.shape, bool)
    far[40:] = True
    assert structural_similarity(made, true, far, (0, 255)) == pytest.approx(1)
    assert structural_similarity(made, true, ~far, (0, 255)) < 0.9
    assert np.isnan(structural_similarity(made, true, far & ~far, (0, 255)))


@pytest.mark.parametrize("shape", [(11, 11), (40, 11), (13, 12, 11)], ids=str)
def test_ssim_is_that_of_the_formula_up_to_the_border_in_blocks_of_any_size(shape, monkeypatch):
    made, true = textured(shape, 0), textured(shape, 1)
    mask = np.random.default_rng(0).random(shape) < 0.5

    def mean(image):
        return ndimage.gaussian_filter(image.astype(np.float64), 1.5, truncate=3.5)

    def covariance(a, b):
        return mean(a.astype(np.float64) * b) - mean(a) * mean(b)

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    contrast = (2 * covariance(made, true) + c2) / (
        covariance(made, made) + covariance(true, true) + c2
    )
    brightness = (2 * mean(made) * mean(true) + c1) / (mean(made) ** 2 + mean(true) ** 2 + c1)
    expected = (brightness * contrast)[mask].mean()
    for block in (64, 12, 7):
        monkeypatch.setattr("napari_msgan.evaluation.accuracy._BLOCK", {2: block, 3: block})
        assert structural_similarity(made, true, mask, (0, 255)) == pytest.approx(
            expected, abs=1e-5
        )


def test_ssim_needs_11_voxels_on_every_side():
    for shape in ((10, 40), (40, 10), (20, 20, 10)):
        made, true = textured(shape, 0), textured(shape, 1)
        assert np.isnan(structural_similarity(made, true, np.ones(shape, bool), (0, 255)))


def test_ssim_counts_values_from_the_low_end_of_the_window():
    """A soft tissue of 0 HU that is made 40 HU darker differs by a 40th of the window."""
    true = np.float32(0.2) * smooth((192, 192), 0)
    made, body = true - 40, np.ones(true.shape, bool)
    window = (-1000.0, 600.0)
    shifted = [a + np.float32(1000) for a in (made, true)]
    found = structural_similarity(made, true, body, window)
    assert found == pytest.approx(structural_similarity(*shifted, body, (0, 1600)), abs=1e-5)
    assert found > 0.99 > structural_similarity(made, true, body, (0, 1600)) + 0.1
    found = multiscale_structural_similarity(made, true, window)
    assert found == pytest.approx(multiscale_structural_similarity(*shifted, (0, 1600)), abs=1e-5)


def test_similarities_count_in_the_width_of_the_window():
    """An error of 40 of a width of 1600 is that of one of 6.4 of 255."""
    made, true = (textured((176, 176), seed) for seed in (0, 1))
    made, scale = (made + 4 * true) / 5, np.float32(1600 / 255)
    in_hu, body = [a * scale - 1000 for a in (made, true)], np.ones(true.shape, bool)
    found = structural_similarity(*in_hu, body, (-1000, 600))
    assert 0.5 < found < 0.98
    assert found == pytest.approx(structural_similarity(made, true, body, (0, 255)), abs=1e-4)
    found = multiscale_structural_similarity(*in_hu, (-1000, 600))
    expected = multiscale_structural_similarity(made, true, (0, 255))
    assert found == pytest.approx(expected, abs=1e-4)


def test_ms_ssim_is_that_of_torchmetrics_and_of_volumes_the_mean_of_slices():
    made, true = textured((176, 180), 0), textured((176, 180), 1)
    tensors = [torch.from_numpy(a)[None, None] for a in (made, true)]
    expected = float(multiscale_structural_similarity_index_measure(*tensors, data_range=255.0))
    assert multiscale_structural_similarity(made, true, (0, 255)) == pytest.approx(expected)
    volumes = np.stack([true, made]), np.stack([true, true])
    mean = multiscale_structural_similarity(*volumes, (0, 255))
    assert mean == pytest.approx((1 + expected) / 2, abs=1e-6)
    assert np.isnan(multiscale_structural_similarity(made[:175], true[:175], (0, 255)))


def test_missing_torchmetrics_is_said_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(JobError, match=r'pip install "napari-msgan\[train\]"'):
        multiscale_structural_similarity(np.zeros((2, 2)), np.zeros((2, 2)), (0, 255))


def test_matched_errors_forget_brightness_and_contrast_and_nothing_else():
    true = textured((60, 70), 0)
    same = matched_errors(0.5 * true - 7, true)
    assert (same.gain, same.offset) == pytest.approx((2, 14), rel=1e-4)
    assert same.correlation == pytest.approx(1)
    assert same.mae < 1e-3
    other = matched_errors(textured((60, 70), 5), true)
    assert other.mae > 5
    assert other.correlation == pytest.approx(
        np.corrcoef(textured((60, 70), 5).ravel(), true.ravel())[0, 1], abs=1e-6
    )


@pytest.mark.parametrize("shape", [(60, 70), (20, 30, 25)], ids=str)
def test_matched_errors_are_what_a_regression_leaves(shape):
    made, true = textured(shape, 0), textured(shape, 1) + 0.5 * textured(shape, 0)
    line = linregress(made.ravel(), true.ravel())
    residual = line.slope * made + line.intercept - true
    low = ndimage.gaussian_filter(residual, 6, mode="nearest")
    expected = [line.slope, line.intercept, line.rvalue]
    expected += [np.abs(a).mean() for a in (residual, low, residual - low)]
    assert astuple(matched_errors(made, true)) == pytest.approx(expected, rel=1e-4)


def test_matched_errors_tell_slow_from_fast():
    true = smooth((128, 128), 0)
    slow = 10 * ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((128, 128)), 30)
    fast = 2 * np.indices((128, 128)).sum(0) % 4 - 1.0
    in_low = matched_errors(true + (100 * slow).astype(np.float32), true)
    in_high = matched_errors(true + fast.astype(np.float32), true)
    assert in_low.mae_low > 5 * in_low.mae_high
    assert in_high.mae_high > 5 * in_high.mae_low


def test_constant_result_has_no_correlation():
    true = smooth((20, 20), 0)
    errors = matched_errors(np.zeros_like(true), true)
    assert errors.gain == 0
    assert np.isnan(errors.correlation)
    assert errors.mae == pytest.approx(np.abs(true - true.mean()).mean(), rel=1e-4)


def test_slices_are_spread_evenly():
    volume = np.arange(11, dtype=np.float32)[:, None, None] * np.ones((1, 2, 2), np.float32)
    assert [a[0, 0] for a, _ in spread_slices(volume, volume, 3)] == [0, 5, 10]
    assert len(spread_slices(volume, volume, 99)) == 11


def test_body_is_the_largest_part_with_its_lungs_and_tissues_are_told_apart():
    true = np.full((4, 40, 40), -1000, np.float32)
    true[:, 5:35, 5:35] = 40
    true[:, 10:20, 10:20] = -850  # open at both ends of the volume
    true[:, 25:28, 25:28] = 500
    true[:, 0:2, 38:40] = 300  # something else on the table
    body = body_mask(true, HU)
    assert body.sum() == 4 * 30 * 30
    assert body[:, 12, 12].all()
    assert not body[:, 0, 39].any()
    masks = tissue_masks(true, body)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {
        "lung": 4 * 100,
        "bone": 4 * 9,
        "soft_tissue": 4 * (900 - 109),
    }


def test_body_of_grey_values_is_above_a_share_of_the_window():
    true = np.zeros((30, 30), np.float32)
    true[4:20, 4:20] = 14
    assert body_mask(true, GREY).sum() == 256
    assert body_mask(np.zeros((5, 5), np.float32), GREY).all()


@pytest.mark.parametrize(("units", "air", "least"), [(HU, -500, -499), (GREY, 12, 13)])
def test_body_begins_above_minus_500_hu_or_a_twentieth_of_the_window(units, air, least):
    true = np.full((30, 30), air, np.float32)
    true[4:20, 4:20] = least
    assert body_mask(true, units).sum() == 256


def test_tissues_begin_and_end_at_their_hu():
    true = np.float32([[-501, -500, -51, -50, 149, 150, 199, 200]])
    masks = tissue_masks(true, np.ones(true.shape, bool))
    found = {name: true[mask].tolist() for name, mask in masks.items()}
    assert found == {"lung": [-501], "soft_tissue": [-50, 149], "bone": [200]}


def test_units_are_hu_for_ct_and_grey_levels_for_the_rest(tmp_path):
    flat, solid = (read_spec(write_model(tmp_path / f"{n}", ndim=n)) for n in (2, 3))
    assert units_of(flat).convert(np.uint16([0, 65535])).tolist() == [0, 255]
    assert units_of(flat).data_range == 255
    assert units_of(solid).convert(np.int16([-1000, 600])).tolist() == [0, 255]  # stretched: no HU
    sketch = solid.sketch.model_copy(update={"window": solid.window})
    hu = units_of(solid.model_copy(update={"sketch": sketch}))
    assert hu.convert(np.int16([-1000, 40])).tolist() == [-1000, 40]
    assert hu.data_range == 1600
    assert not units_of(flat.model_copy(update={"modality": "CT"})).is_hu  # stretched: no HU


def test_a_constant_truth_has_no_matched_errors():
    flat = np.full((30, 30), 7, np.float32)
    errors = matched_errors(textured((30, 30), 1), flat)
    assert np.isnan([errors.gain, errors.mae, errors.mae_low, errors.mae_high]).all()


def test_slices_too_large_for_memory_have_no_ms_ssim(monkeypatch):
    made, true = (textured((180, 200), seed) for seed in (1, 2))
    assert np.isfinite(multiscale_structural_similarity(made, true, (0, 255)))
    monkeypatch.setattr("napari_msgan.evaluation.accuracy._MS_SSIM_MOST_PIXELS", 180 * 200)
    assert np.isfinite(multiscale_structural_similarity(made, true, (0, 255)))
    monkeypatch.setattr("napari_msgan.evaluation.accuracy._MS_SSIM_MOST_PIXELS", 180 * 200 - 1)
    assert np.isnan(multiscale_structural_similarity(made, true, (0, 255)))
    monkeypatch.undo()
    large = np.broadcast_to(np.float32(0), (4096, 4097))  # takes no memory
    assert np.isnan(multiscale_structural_similarity(large, large, (0, 255)))


def test_ms_ssim_of_a_volume_is_taken_on_24_slices():
    true = np.stack([textured((176, 176), 0)] * 25)
    left_out = set(range(25)) - set(np.linspace(0, 24, 24).round().astype(int).tolist())
    for index, is_seen in ((left_out.pop(), False), (0, True), (24, True)):
        made = true.copy()
        made[index] = 0
        assert (multiscale_structural_similarity(made, true, (0, 255)) < 0.999) == is_seen


def test_integers_as_stores_hold_them_give_the_figures_of_floats(rng):
    made, true = rng.integers(0, 65536, (2, 40, 50)).astype(np.uint16)
    as_floats = mean_absolute_error(made.astype(np.float32), true.astype(np.float32))
    assert mean_absolute_error(made, true) == pytest.approx(as_floats)
    assert checkerboard_index(made, (2, 2)) == pytest.approx(
        checkerboard_index(made.astype(np.float32), (2, 2))
    )
    with pytest.raises(GeometryError, match="cannot be compared"):
        mean_absolute_error(made, true[:1])
