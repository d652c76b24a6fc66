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
from napari_msgan.evaluation.textures import laplacian_pyramid, projected_distance, upsampled
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


@pytest.mark.parametrize("shape", [(64, 48), (3, 32, 32)])
def test_sliced_wasserstein_distance_sees_no_brightness_and_no_contrast(shape):
    made, true = blurred(textured(shape, 1)), textured(shape, 0)
    found = sliced_wasserstein(made, true)
    for other in (sliced_wasserstein(0.2 * made + 90, true), sliced_wasserstein(made, true - 500)):
        assert other.distance == pytest.approx(found.distance, rel=1e-3)
        assert other.floor == pytest.approx(found.floor, rel=1e-3)


def test_patches_of_a_volume_come_from_16_slices():
    true = textured((17, 16, 16), 0)
    same = sliced_wasserstein(true, true)
    for index, is_seen in ((8, False), (0, True), (16, True)):
        made = true.copy()
        made[index] = 255 - made[index]
        assert (sliced_wasserstein(made, true) != same) == is_seen


def body(shape, seed):
    """Return texture inside a bright ellipse on black, with two dark parts, as lungs are."""
    y, x = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in shape[-2:])]
    inside = (y / 0.9) ** 2 + (x / 0.8) ** 2 < 1
    dark = ((np.abs(x) - 0.35) / 0.25) ** 2 + (y / 0.5) ** 2 < 1
    low = ndimage.gaussian_filter(160 * inside - 100.0 * dark, 3).astype(np.float32)
    return low, low + 0.2 * textured(shape, seed)


@pytest.mark.parametrize("shape", [(128, 112), (4, 64, 64)])
@pytest.mark.parametrize(
    "changed_low",
    [
        pytest.param(lambda low: 0 * low, id="removed"),
        pytest.param(lambda low: -low, id="inverted"),
        pytest.param(
            lambda low: low + np.linspace(0, 400, low.shape[-1], dtype=np.float32), id="ramp"
        ),
    ],
)
def test_sliced_wasserstein_distance_sees_another_low_pass(shape, changed_low):
    low, true = body(shape, 0)
    found = sliced_wasserstein(true - low + changed_low(low), true)
    assert found.distance > 3 * found.floor
    assert sliced_wasserstein(true, true).distance < 1.5 * found.floor


@pytest.mark.parametrize("shape", [(128, 112), (61, 83), (31, 40), (30, 64)])
def test_levels_of_a_pyramid_sum_up_to_the_image(shape):
    image = textured(shape, 0)
    *details, total = laplacian_pyramid(image)
    assert 16 <= min(total.shape) <= 30
    for level in reversed(details):
        total = level + upsampled(total, level.shape)
    np.testing.assert_allclose(total, image, atol=1e-3)


def test_levels_of_a_pyramid_are_those_of_karras():
    """Their code convolves with a 5 x 5 kernel, and shapes are even."""
    image = textured((64, 32), 0)
    kernel = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    coarse = ndimage.convolve(image, kernel, mode="mirror")[::2, ::2]
    spread = np.zeros_like(image)
    spread[::2, ::2] = coarse
    fine, low = laplacian_pyramid(image)
    np.testing.assert_allclose(low, coarse, atol=1e-3)
    expected = image - ndimage.convolve(spread, 4 * kernel, mode="mirror")
    np.testing.assert_allclose(fine, expected, atol=1e-3)


def test_sliced_wasserstein_distance_needs_16_pixels():
    small = textured((15, 40), 0)
    assert np.isnan(sliced_wasserstein(small, small).distance)


def test_power_lies_in_the_ring_of_its_frequency():
    wave = np.sin(2 * np.pi * 0.25 * np.arange(128))
    spectrum = radial_power_spectrum(np.tile(wave, (128, 1)).astype(np.float32))
    assert int(np.nanargmax(spectrum)) in (15, 16)  # 0.25 of rings 1 / 64 wide
    assert spectrum[16] > 1e3 * spectrum[4]


@pytest.mark.parametrize("shape", [(96, 80), (33, 40, 45)], ids=str)
def test_every_direction_counts_alike_in_a_spectrum(shape):
    """Edges along one axis only, so that most of the power lies on one axis of the spectrum."""
    image = textured(shape, 0)
    image += np.cumsum(np.arange(shape[0]) % 7, dtype=np.float32).reshape(-1, *[1] * len(shape[1:]))
    spectrum = radial_power_spectrum(image)
    for axis in range(1, len(shape)):
        turned = np.ascontiguousarray(np.swapaxes(image, 0, axis))
        np.testing.assert_allclose(radial_power_spectrum(turned), spectrum, rtol=1e-3)


def rings_of_all_frequencies(image):
    """Return the mean power of 32 rings from the whole transform, negative frequencies, too."""
    values = image - image.mean(dtype=np.float64)
    for axis, n in enumerate(image.shape):
        hann = np.sin(np.pi * np.arange(1, n + 1) / (n + 1)) ** 2
        values = np.moveaxis(np.moveaxis(values, axis, -1) * hann, -1, axis)
    power = np.abs(np.fft.fftn(values)) ** 2
    frequencies = np.meshgrid(*map(np.fft.fftfreq, image.shape), indexing="ij")
    rings = np.floor(64 * np.linalg.norm(frequencies, axis=0))
    return np.array([power[rings == k].mean() if (rings == k).any() else np.nan for k in range(32)])


@pytest.mark.parametrize("shape", [(96, 80), (64, 33), (20, 64, 31), (8, 8)], ids=str)
def test_spectrum_is_the_mean_over_all_frequencies_of_a_ring(shape):
    made, true = textured(shape, 0), textured(shape, 1)
    of_made, of_true = map(rings_of_all_frequencies, (made, true))
    np.testing.assert_allclose(radial_power_spectrum(made), of_made, rtol=1e-4)
    found = compare_spectra(made, true)
    decibel = 10 * np.log10(of_made / of_true)
    assert found.distance_db == pytest.approx(np.nanmean(np.abs(decibel)), rel=1e-4)
    fine = np.nansum(of_made[16:]) / np.nansum(of_true[16:])  # rings count alike
    assert found.fine_share == pytest.approx(fine, rel=1e-4)


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


@pytest.mark.parametrize(("shape", "factor"), [((20, 23), (2, 3)), ((9, 10, 12), (1, 2, 2))])
def test_checkerboard_counts_the_gradients_of_every_voxel_at_its_position(shape, factor):
    image, energies = textured(shape, 0), {}
    for place in np.ndindex(*(n - 1 for n in shape)):
        steps = [image[tuple(p)] - image[place] for p in place + np.eye(len(shape), dtype=int)]
        position = tuple(np.mod(place, factor))
        energies.setdefault(position, []).append(np.square(steps, dtype=np.float64).sum())
    means = [np.mean(found) for found in energies.values()]
    expected = (max(means) - min(means)) / np.mean(means)
    assert checkerboard_index(image, factor) == pytest.approx(expected, rel=1e-4)


def test_checkerboard_of_thick_slices_has_the_factor_of_the_model():
    image = np.zeros((5, 33, 33), np.float32)
    image[::2] = 1
    assert checkerboard_index(image, (1, 2, 2)) == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_checkerboard_of_a_volume_of_few_slices_is_blank_where_a_position_is_missing(depth):
    found = checkerboard_index(textured((depth, 33, 33), 0), (2, 2, 2))
    assert np.isnan(found) == (depth < 3)


def test_a_constant_truth_has_no_distance():
    made = np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)
    assert np.isnan(sliced_wasserstein(made, np.zeros((40, 40), np.float32)).distance)


def test_sliced_wasserstein_distance_of_noise_to_nothing_is_the_mean_of_a_half_normal(rng):
    noise = rng.standard_normal((64, 64)).astype(np.float32)
    found = sliced_wasserstein(np.zeros((64, 64), np.float32), noise)
    assert found.distance == pytest.approx(1000 * np.sqrt(2 / np.pi), rel=0.15)  # times 1000
    assert 10 < found.floor < 100


def test_a_border_that_does_not_continue_is_no_fine_detail():
    ramp = np.tile(np.linspace(0, 255, 128, dtype=np.float32), (128, 1))
    spectrum = radial_power_spectrum(ramp)
    assert np.nansum(spectrum[16:]) < 1e-6 * np.nansum(spectrum[:2])
