"""What an image's values say about how to show it."""

import dask.array
import numpy as np
from napari.layers import Image

from napari_msgan._napari.windows import is_in_hu


def test_one_slice_of_a_volume_says_whether_it_is_in_hu():
    read = []

    def block(block_info):
        read.append(block_info[None]["chunk-location"])
        return np.full((1, 8, 8), -1000, np.int16)

    chunks = ((1,) * 9, (8,), (8,))
    lazy = dask.array.map_blocks(block, chunks=chunks, dtype=np.int16, meta=np.empty(0, np.int16))
    layer = Image(lazy, contrast_limits=(-1000, 0), units=("mm",) * 3)
    read.clear()  # the thumbnail
    assert is_in_hu(layer)
    assert set(read) == {(4, 0, 0)}


def test_values_without_voxel_size_or_air_are_not_in_hu():
    air = np.full((4, 4, 4), -1000, np.int16)
    assert is_in_hu(Image(air, units=("mm",) * 3))
    assert not is_in_hu(Image(air))
    assert not is_in_hu(Image(air + 1000, units=("mm",) * 3))
