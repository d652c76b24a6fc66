import numpy as np

from napari_msgan.geometry import Affine
from napari_msgan.source import hash_pixels
from napari_msgan.volume import Orientation, Volume, turn


def test_hash_depends_on_pixels_shape_and_type_and_not_on_how_it_is_read():
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    volume = Volume(data, Affine.of_spacing((1,) * 3), "millimeter")
    twice = turn(
        turn(volume, Orientation((1, 0, 2), (True, False, False))),
        Orientation((1, 0, 2), (False, True, False)),
    )
    assert hash_pixels(twice) == hash_pixels(volume)
    other = data.copy()
    other[0, 0, 0] += 1
    assert hash_pixels(Volume(other, volume.affine, "millimeter")) != hash_pixels(volume)
    assert hash_pixels(Volume(data.reshape(3, 2, 4), volume.affine, "millimeter")) != hash_pixels(
        volume
    )
