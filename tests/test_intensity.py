import numpy as np

from napari_msgan.intensity import Window


def test_values_are_clipped_to_the_window_and_rounded_to_the_nearest():
    values = np.array([-1.5, -1, 0.2499, 0.2501, 1, 1.5], np.float32)
    stored = Window(0, 8, np.dtype(np.uint8)).to_stored(values)
    assert stored.tolist() == [0, 0, 5, 5, 8, 8]
    assert Window(0, 8, np.dtype(np.uint8)).to_stored(np.float32([-0.13])).tolist() == [3]
    real = Window(-1, 3, np.dtype(np.float32)).to_stored(values)
    np.testing.assert_allclose(real, [-1, -1, 1.4998, 1.5002, 3, 3], atol=1e-5)
