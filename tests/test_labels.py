from __future__ import annotations

import numpy as np
import pytest

from napari_msgan.labels import borders_of, is_filled, is_label_map


def organs(shape, dtype=np.uint8):
    """Two boxes that touch, labels 1 and 2."""
    labels = np.zeros(shape, dtype)
    middle = shape[-1] // 2
    inside = (slice(5, -5),) * (len(shape) - 1)
    labels[(*inside, slice(5, middle))] = 1
    labels[(*inside, slice(middle, -5))] = 2
    return labels


def lines(shape, dtype=np.uint8):
    """A net of lines (2-D) or planes (3-D), one voxel wide."""
    drawn = np.zeros(shape, dtype)
    for axis in range(len(shape)):
        np.moveaxis(drawn, axis, 0)[7::9] = 40
    return drawn


@pytest.mark.parametrize("shape", [(60, 50), (30, 40, 35), (70, 66, 65)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_labels_fill_regions_and_lines_do_not(shape, dtype):
    assert is_label_map(organs(shape, dtype))
    assert not is_filled(lines(shape, dtype))
    assert not is_label_map(lines(shape, dtype))
    assert not is_label_map(np.zeros(shape, dtype))


def test_what_holds_the_strongest_edge_floats_or_negative_values_is_no_label_map():
    mask = organs((60, 50))
    assert not is_label_map(np.where(mask > 0, 255, 0).astype(np.uint8))
    assert not is_label_map(mask.astype(np.float32))
    assert not is_label_map(-mask.astype(np.int16))
    assert not is_label_map(mask.astype(np.int16) - 1)
    assert is_filled(mask.astype(np.float32))


@pytest.mark.parametrize("shape", [(6, 7), (4, 5, 6)])
def test_borders_are_voxels_whose_next_neighbour_along_any_axis_has_another_label(rng, shape):
    labels = rng.integers(0, 2, shape, np.uint8)
    borders = borders_of(labels)[...]
    for index in np.ndindex(shape):
        ahead = [
            tuple(min(n + (a == axis), shape[a] - 1) for a, n in enumerate(index))
            for axis in range(len(shape))
        ]
        differs = any(labels[other] != labels[index] for other in ahead)
        assert borders[index] == (255 if differs else 0)


@pytest.mark.parametrize("shape", [(60, 50), (70, 40, 66)])
def test_borders_lie_where_a_label_ends_one_voxel_wide(shape):
    labels = organs(shape)
    borders = borders_of(labels)
    found = borders[tuple(slice(0, n) for n in shape)]
    assert set(np.unique(found)) == {0, 255}
    line = (*(n // 2 for n in shape[:-1]), slice(None))
    ends = [4, shape[-1] // 2 - 1, shape[-1] - 6]
    assert np.flatnonzero(found[line]).tolist() == ends
    part = tuple(slice(3, n - 3) for n in shape)
    np.testing.assert_array_equal(borders[part], found[part])
