from __future__ import annotations

import numpy as np
import pytest

from napari_msgan._napari.from_layer import layer_matrix
from napari_msgan._napari.scene import Scene
from napari_msgan._napari.sliced import Depth, SlicedLevel, follow
from napari_msgan._napari.to_layer import Placement, result_layer
from napari_msgan.geometry import Box


class Counting:
    """Array-like that counts the voxels that are read."""

    def __init__(self, data):
        self.data, self.shape, self.dtype, self.read = data, data.shape, data.dtype, 0

    def __getitem__(self, key):
        block = self.data[key]
        self.read += block.size
        return block


def test_slice_reads_one_slice_only():
    array = Counting(np.arange(1000).reshape(10, 10, 10))
    level = SlicedLevel(array, (1, 1, 1), Depth())
    window = level[:, 2:5, 3:9]  # as napari does it
    assert array.read == 0
    np.testing.assert_array_equal(window[4, :, :], array.data[4, 2:5, 3:9])
    assert array.read == 18
    np.testing.assert_array_equal(np.asarray(window), array.data[:, 2:5, 3:9])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_coarse_slice_is_the_one_that_holds_the_voxel(axis):
    fine = np.broadcast_to(
        np.arange(24).reshape([-1 if i == axis else 1 for i in range(3)]), (24,) * 3
    )
    coarse = fine[::4, ::4, ::4] // 4
    depth = Depth()
    level = SlicedLevel(coarse, (4, 4, 4), depth)
    wrong = 0
    for index in range(24):
        key = tuple(round(index / 4) if i == axis else slice(None) for i in range(3))
        key = tuple(min(k, 5) if isinstance(k, int) else k for k in key)
        wrong += int((level[key] != index // 4).any())
    assert wrong > 5  # what napari shows by itself
    for index in range(24):
        depth.position = lambda i=index: [i if a == axis else 0 for a in range(3)]
        key = tuple(min(round(index / 4), 5) if i == axis else slice(None) for i in range(3))
        assert (level[key] == index // 4).all()


@pytest.mark.parametrize(("unit", "per_mm"), [("mm", 1), ("um", 1000)])
def test_layers_in_a_viewer_follow_its_sliders(viewer, ct_store, unit, per_mm):
    scene = Scene(viewer)
    placement = Placement.of_affine(ct_store.geometry.affine, "millimeter")
    layer = scene.add(result_layer(ct_store, placement, "result"))
    coarse = ct_store.read(0, Box.of_shape(ct_store.geometry.shape_at(0)))
    factor = ct_store.geometry.total_factor(0)[0]
    matrix = layer_matrix(layer)
    viewer.layers.units = (unit,) * 3
    assert layer.data_level == len(layer.data) - 1
    for index in range(ct_store.geometry.shape[0]):
        viewer.dims.set_point(0, per_mm * (index * matrix[0, 0] + matrix[0, 3]))
        shown = np.asarray(layer._slice.image.raw)
        np.testing.assert_array_equal(shown, coarse[index // factor])


def test_slices_of_a_layer_that_was_moved_are_those_under_the_slider(viewer, ct_store):
    placement = Placement.of_affine(ct_store.geometry.affine, "millimeter")
    layer = Scene(viewer).add(result_layer(ct_store, placement, "result"))
    coarse = ct_store.read(0, Box.of_shape(ct_store.geometry.shape_at(0)))
    factor = ct_store.geometry.total_factor(0)[0]
    layer.translate += (0.5 * factor * layer.scale[0], 0, 0)
    assert layer.data_level == len(layer.data) - 1
    for index in range(ct_store.geometry.shape[0]):
        viewer.dims.set_point(0, layer.data_to_world((index, 0, 0))[0])
        np.testing.assert_array_equal(layer._slice.image.raw, coarse[index // factor])
    layer.rotate = 10  # its axes are no longer those of the sliders
    viewer.dims.set_point(0, 0)


def test_follow_ignores_plain_arrays():
    follow([np.zeros((3, 3))], lambda: [0])


@pytest.mark.parametrize("store", ["xray_store", "ct_store"])
def test_layers_can_be_duplicated(viewer, request, store):
    from napari.layers._layer_actions import _duplicate_layer

    store = request.getfixturevalue(store)
    placement = Placement.of_affine(store.geometry.affine, store.geometry.unit)
    layer = Scene(viewer).add(result_layer(store, placement, "result"))
    viewer.layers.selection.active = layer
    _duplicate_layer(viewer.layers)
    np.testing.assert_array_equal(viewer.layers[1].data[0], layer.data[0])
