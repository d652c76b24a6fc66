"""What a comparison reads of its source."""

import numpy as np
import pytest
from napari.layers import Image, Layer

from napari_msgan._napari.compare import Comparison
from napari_msgan._napari.to_layer import Placement, result_layer

FINER = 8


@pytest.fixture
def result(xray_store):
    placement = Placement.of_affine(xray_store.geometry.affine, "pixel")
    return Layer.create(*result_layer(xray_store, placement, "result"))


def on_the_left(store, result, pixels):
    """Return what is shown of a source that is `FINER` times as fine, at every level."""
    source = Image(
        pixels,
        scale=(1 / FINER,) * 2,
        translate=(1 / (2 * FINER) - 0.5,) * 2,
        contrast_limits=result.contrast_limits,
    )
    comparison = Comparison(store, result, source)
    comparison.set("wipe", 1.0, 1)
    return [np.asarray(level[:, :]) for level in comparison._levels]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_source_lies_where_it_lies_at_every_level(xray_store, result, axis):
    shape = [FINER * n for n in xray_store.geometry.shape]
    place = (np.indices(shape)[axis] + 0.5) / FINER - 0.5  # in voxels of the finest scale
    for level, shown in enumerate(on_the_left(xray_store, result, place.astype(np.float32))):
        ends = (np.indices(shown.shape)[axis] + 0.5) * 2**level - 0.5
        inside = tuple(slice(3, n // 2**level - 3) for n in xray_store.geometry.shape)
        np.testing.assert_allclose(shown[inside], ends[inside], atol=0.02)


def test_coarse_levels_have_few_voxels_of_the_source_to_read(xray_store, result):
    """Of 64 for each voxel of the finest scale, and 1024 for each of the coarsest."""
    pixels = np.zeros([FINER * n for n in xray_store.geometry.shape], np.float32)
    source = Image(pixels, scale=(1 / FINER,) * 2)
    for level, shown in enumerate(Comparison(xray_store, result, source)._levels):
        n_shown = np.prod(xray_store.geometry.shape) / 4**level
        assert 15 < np.prod(shown._source.shape) / n_shown < 18


def test_fine_levels_have_all_of_it(xray_store, result):
    pixels = np.zeros(xray_store.geometry.shape, np.float32)
    for shown in Comparison(xray_store, result, Image(pixels))._levels:
        assert shown._source.shape == pixels.shape
