"""What is drawn on the screen lies where it should, to half a voxel, at every level."""

from __future__ import annotations

import numpy as np
import pytest

from napari_msgan import generate
from napari_msgan._napari.from_layer import to_volume
from napari_msgan._napari.orientation import UprightView
from napari_msgan._napari.scene import Scene
from napari_msgan._napari.to_layer import Placement, box_layer, result_layer, volume_layer
from napari_msgan.geometry import Affine, Box
from napari_msgan.resampling import reduce_mean
from napari_msgan.volume import Volume
from tests._napari.conftest import ball


def paint(store, image):
    """Write a known image at every scale of a store; `image` is that of the finest scale."""
    with store.writing():
        for scale in range(store.geometry.finest_scale, -1, -1):
            low, high = store.info.window
            values = (low + image / 255 * (high - low)).round().astype(store.info.dtype_type)
            store.write(scale, Box.of_shape(image.shape), values)
            if scale:
                image = reduce_mean(image, store.geometry.factor(scale))


def centre_on_screen(viewer, layer):
    """Centre of brightness of one layer, in screen pixels (row, column)."""
    for other in viewer.layers:
        other.visible = other is layer
    picture = viewer.screenshot(flash=False)[..., :3].astype(float).sum(axis=2)
    picture[picture < 60] = 0
    assert picture.any()
    return np.array([np.average(axis, weights=picture[picture > 0]) for axis in picture.nonzero()])


@pytest.fixture
def painted_xray(viewer, models, tmp_path):
    """Source and result that both show the same ball, in an image of odd size."""
    image = ball((117, 150), (61.3, 90.8), 30).astype(np.float32)
    source = viewer.add_image(image.astype(np.uint8), scale=(0.7, 0.7), translate=(5, -9))
    volume = to_volume(source)
    store = generate(volume, tmp_path / "a.ome.zarr", models / "small-xr", scale=0)
    paint(store, image)
    placement = Placement.of_layer(source, volume.affine)
    result = Scene(viewer).add(result_layer(store, placement, "result"))
    return source, result


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_level_of_an_image_lies_on_the_source(viewer, painted_xray, level):
    source, result = painted_xray
    result.locked_data_level = level
    apart = centre_on_screen(viewer, result) - centre_on_screen(viewer, source)
    voxel = 0.7 * viewer.scene.camera.zoom
    assert np.abs(apart).max() < 0.5 * voxel


def test_a_layer_that_is_off_by_a_voxel_is_noticed(viewer, painted_xray):
    source, result = painted_xray
    result.translate = result.translate + 0.7
    apart = centre_on_screen(viewer, result) - centre_on_screen(viewer, source)
    assert np.abs(apart).max() > 0.8 * 0.7 * viewer.scene.camera.zoom


@pytest.fixture
def painted_ct(viewer, models, tmp_path):
    """Source with thick slices and a result; the ball of the result is made on its own grid."""
    centre, radius = np.array([27.0, 24.0, 20.0]), 14
    source = viewer.add_image(
        ball((23, 45, 39), centre, radius, [2.5, 1, 1]),
        scale=(2.5, 1, 1),
        translate=(-100, 20, 7),
        units=("mm",) * 3,
    )
    volume = to_volume(source)
    store = generate(volume, tmp_path / "a.ome.zarr", models / "small-ct", scale=0)
    origin = np.array(store.geometry.affine.origin) - (-100, 20, 7)
    spacing = list(store.geometry.affine.spacing)
    paint(store, ball(store.geometry.shape, centre - origin, radius, spacing).astype(np.float32))
    placement = Placement.of_layer(source, volume.affine)
    result = Scene(viewer).add(result_layer(store, placement, "result"))
    result.contrast_limits = store.info.window
    return source, result, store, placement


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)], ids=str)
def test_every_level_of_a_volume_lies_on_the_source(viewer, painted_ct, order):
    source, result, *_ = painted_ct
    orientation = UprightView(viewer)
    viewer.dims.order = order
    wanted = centre_on_screen(viewer, source)
    for level in (0, 1):
        result.locked_data_level = level
        apart = centre_on_screen(viewer, result) - wanted
        assert np.abs(apart).max() < 0.5 * 2 * viewer.scene.camera.zoom
    orientation.close()


def test_refined_box_and_coarse_volume_lie_together_in_3d(viewer, painted_ct):
    _, result, store, placement = painted_ct
    region = Box((2, 2, 2), store.geometry.shape)
    tuple_ = box_layer(store, placement, 1, region, store.info.window)
    box = Scene(viewer).add(tuple_)
    viewer.dims.ndisplay = 3
    viewer.fit_to_view()
    assert result.data_level == 1
    coarse, fine = centre_on_screen(viewer, result), centre_on_screen(viewer, box)
    voxel = 2 * viewer.scene.camera.zoom
    assert np.abs(coarse - fine).max() < 0.5 * voxel
    box.translate = box.translate - 2  # the negative control: one voxel off
    assert np.abs(coarse - centre_on_screen(viewer, box)).max() > 0.7 * voxel


def test_coronal_slice_is_upright_and_has_its_letters(viewer, painted_ct):
    _, result, *_ = painted_ct
    orientation = UprightView(viewer)
    viewer.dims.order = (1, 0, 2)
    assert orientation.letters() == {
        "top_center": "S",
        "bottom_center": "I",
        "middle_left": "R",
        "middle_right": "L",
    }
    row = centre_on_screen(viewer, result)[0]
    middle = viewer.screenshot(flash=False).shape[0] / 2
    # the ball lies below the middle of the volume (z = 27 of 57 mm), so lower on the screen
    assert row > middle
    orientation.close()
    viewer.scene.camera.orientation = ("towards", "down", "right")
    assert centre_on_screen(viewer, result)[0] < middle  # napari's default shows it upside down


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)], ids=str)
def test_patient_in_3d_is_seen_from_the_front_and_not_mirrored(viewer, order):
    data = np.zeros((20, 24, 28), np.uint8)
    data[14:18, 2:6, 20:25] = 255  # superior, anterior, left
    volume = Volume(data, Affine.of_spacing((2, 1, 1)), "millimeter")
    layer = Scene(viewer).add(volume_layer(volume, "CT"))
    layer.rendering = "mip"
    orientation = UprightView(viewer)
    viewer.dims.order = order
    viewer.dims.ndisplay = 3
    viewer.fit_to_view()
    orientation.look_from_the_front()
    height, width = viewer.screenshot(flash=False).shape[:2]
    row, column = centre_on_screen(viewer, layer)
    assert row < 0.45 * height  # superior is up
    assert column > 0.55 * width  # his left is on our right
    orientation.close()
    viewer.scene.camera.orientation = ("towards", "down", "right")
    if order == (0, 1, 2):  # what napari does by itself
        orientation.look_from_the_front()
        assert centre_on_screen(viewer, layer)[1] < 0.45 * width
