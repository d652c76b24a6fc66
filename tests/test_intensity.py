import numpy as np
import pytest

from napari_msgan.intensity import Window, luminance


def test_values_are_clipped_to_the_window_and_rounded_to_the_nearest():
    values = np.array([-1.5, -1, 0.2499, 0.2501, 1, 1.5], np.float32)
    stored = Window(0, 8, np.dtype(np.uint8)).to_stored(values)
    assert stored.tolist() == [0, 0, 5, 5, 8, 8]
    assert Window(0, 8, np.dtype(np.uint8)).to_stored(np.float32([-0.13])).tolist() == [3]
    real = Window(-1, 3, np.dtype(np.float32)).to_stored(values)
    np.testing.assert_allclose(real, [-1, -1, 1.4998, 1.5002, 3, 3], atol=1e-5)


def test_the_window_is_minus_1_to_1_for_networks_and_values_beyond_it_stay():
    stored = np.array([-2000, -1000, -200, 600, 1400], np.int16)
    values = Window(-1000, 600, np.dtype(np.int16)).to_network(stored)
    np.testing.assert_array_equal(values, np.float32([-2.25, -1, 0, 1, 2]))
    assert values.dtype == np.float32


def test_every_value_of_16_bits_comes_back_from_the_network():
    stored = np.arange(65536, dtype=np.uint16)
    window = Window(0, 65535, stored.dtype)
    np.testing.assert_array_equal(window.to_stored(window.to_network(stored)), stored)


def test_luminance_weighs_colours_and_ignores_what_follows_them():
    colours = np.diag([255, 255, 255, 255]).astype(np.uint8)  # red, green, blue, alone opaque
    grey = luminance(colours)
    assert (grey.tolist(), grey.dtype) == ([76, 150, 29, 0], np.uint8)  # 76.2, 149.7, 29.1
    np.testing.assert_allclose(luminance(np.eye(3, dtype=np.float32)), [0.299, 0.587, 0.114])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32, np.float64])
def test_grey_stays_as_it_is_up_to_the_largest_values(dtype):
    top = np.iinfo(dtype).max if np.dtype(dtype).kind in "iu" else 1 + 2.0**-40
    grey = np.array([0, 1, top - 1 if top > 2 else 0.3, top], dtype)
    np.testing.assert_allclose(luminance(np.stack([grey] * 3, -1)), grey, rtol=1e-15)
