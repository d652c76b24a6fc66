import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import wasserstein_distance

from napari_msgan.evaluation import (
    checkerboard_index,
    compare_spectra,
    radial_power_spectrum,
    sliced_wasserstein,
)
from napari_msgan.evaluation.textures import projected_distance
from tests.evaluation.images import smooth, textured


def blurred(image):
    return ndimage.gaussian_filter(image, 2)


def test_projected_distance_is_the_mean_of_those_of_scipy(rng):
    a, b = rng.standard_normal((200, 5)), rng.standard_normal((200, 5)) * 2 + 1
    directions = rng.standard_normal((5, 7))
    expected = [wasserstein_distance(a @ d, b @ d) for d in directions.T]
    assert projected_distance(a, b, directions) == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("shape", [(96, 80), (6, 64, 64)])
def test_sliced_wasserstein_distance_of_the_truth_is_its_floor(shape):
    true = textured(shape, 0)
    same, other = sliced_wasserstein(true, true), sliced_wasserstein(blurred(true), true)
    assert same.distance < 1.5 * same.floor
    assert other.distance > 2 * other.floor
    assert sliced_wasserstein(true, true) == same


def test_sliced_wasserstein_distance_needs_16_pixels():
    small = textured((15, 40), 0)
    assert np.isnan(sliced_wasserstein(small, small).distance)


def test_power_lies_in_the_ring_of_its_frequency():
    wave = np.sin(2 * np.pi * 0.25 * np.arange(128))
    spectrum = radial_power_spectrum(np.tile(wave, (128, 1)).astype(np.float32))
    assert int(np.nanargmax(spectrum)) in (15, 16)  # 0.25 of rings 1 / 64 wide
    assert spectrum[16] > 1e3 * spectrum[4]


@pytest.mark.parametrize("shape", [(128, 96), (40, 48, 44)])
def test_spectra_show_blur_and_noise_and_no_shift(shape, rng):
    true = textured(shape, 0)
    same = compare_spectra(true, true)
    assert (same.distance_db, same.fine_share) == (0, 1)
    half = compare_spectra(true / 2, true)
    assert half.distance_db == pytest.approx(20 * np.log10(2), abs=1e-3)
    assert half.fine_share == pytest.approx(0.25, abs=1e-3)
    assert compare_spectra(blurred(true), true).fine_share < 0.2
    noisy = true + rng.normal(0, 20, shape).astype(np.float32)
    assert compare_spectra(noisy, true).fine_share > 1.5


def test_spectra_of_constant_images_are_not_compared():
    flat = np.zeros((64, 64), np.float32)
    assert np.isnan(compare_spectra(flat, flat).distance_db)


def test_checkerboard_is_seen_and_plain_images_have_none(rng):
    plain = smooth((128, 128), 0)
    board = plain.copy()
    board[::2, ::2] += 10
    assert checkerboard_index(plain, (2, 2)) < 0.05
    assert checkerboard_index(board, (2, 2)) > 0.5
    assert np.isnan(checkerboard_index(np.zeros((8, 8), np.float32), (2, 2)))


def test_checkerboard_by_hand():
    # steps of 1 between 2 x 2 blocks only: their last row and column has the energy
    image = np.kron(np.add.outer(range(9), range(9)), np.ones((2, 2))).astype(np.float32)
    image = image[:17, :17]  # 16 gradients per axis
    # per phase: 0, 1, 1, 2
    assert checkerboard_index(image, (2, 2)) == pytest.approx(2)


def test_checkerboard_of_thick_slices_has_the_factor_of_the_model():
    image = np.zeros((5, 33, 33), np.float32)
    image[::2] = 1
    assert checkerboard_index(image, (1, 2, 2)) == 0
