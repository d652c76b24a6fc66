"""Which images the letters and the upright camera are for."""

from __future__ import annotations

import numpy as np
import pytest

from napari_msgan._napari.orientation import UprightView
from napari_msgan._napari.to_layer import volume_layer
from napari_msgan.geometry import Affine
from napari_msgan.volume import Volume


@pytest.fixture
def orientation(viewer):
    orientation = UprightView(viewer)
    yield orientation
    orientation.close()


@pytest.fixture
def ct(viewer):
    """A CT of ours."""
    volume = Volume(np.zeros((8, 9, 10), np.int16), Affine.of_spacing((2, 1, 1)), "millimeter")
    data, options, _ = volume_layer(volume, "CT")
    return viewer.add_image(data, **options)


def written(viewer):
    """The letters that one sees."""
    ours = (box for key, box in viewer.canvas.overlays.items() if "msgan" in key)
    return "".join(box.text for box in ours if box.visible)


def vertical(viewer):
    return viewer.scene.camera.orientation[1].value


def test_camera_is_as_it_was_once_nobody_turns_it(viewer, ct):
    before = viewer.scene.camera.orientation
    orientation = UprightView(viewer)
    viewer.dims.order = (1, 0, 2)
    assert viewer.scene.camera.orientation != before
    orientation.close()
    assert viewer.scene.camera.orientation == before


def test_hidden_volume_writes_no_letters_over_an_xray(viewer, orientation, ct):
    assert written(viewer) == "APRL"
    xray = viewer.add_image(np.zeros((60, 80), np.uint8))
    viewer.dims.order = (1, 0, 2)
    for xray.visible, ct.visible, letters in (
        (True, True, ""),  # of which of both would they be?
        (True, False, ""),
        (False, True, "SIRL"),
    ):
        assert written(viewer) == letters
        assert vertical(viewer) == ("up" if letters else "down")


def test_source_of_a_volume_is_seen_the_same_way_up(viewer, orientation, ct):
    source = viewer.add_image(np.zeros((8, 9, 10)), scale=(2, 1, 1), units=("mm",) * 3)
    viewer.add_labels(np.zeros((9, 10), np.uint8))
    viewer.dims.order = (1, 0, 2)
    for source.visible, ct.visible in ((True, True), (True, False), (False, True)):
        assert (written(viewer), vertical(viewer)) == ("SIRL", "up")
    source.visible, source.units = True, ("pixel",) * 3  # a stack of whatever
    assert (written(viewer), vertical(viewer)) == ("", "down")


@pytest.mark.parametrize("is_rolled", [False, True], ids=["from axial", "rolled twice"])
@pytest.mark.parametrize("more", [(), (2,)], ids=["volume", "beside a series"])
@pytest.mark.parametrize(
    ("plane", "letters"), [("Axial", "APRL"), ("Coronal", "SIRL"), ("Sagittal", "SIAP")]
)
def test_planes_stand_as_in_radiology(viewer, orientation, ct, plane, letters, more, is_rolled):
    if more:
        viewer.add_points(np.zeros((1, 4)))
    last = viewer.dims.ndim - 3
    if is_rolled:
        viewer.dims.order = (*range(last), last + 1, last + 2, last)
        assert written(viewer) in ("RLIS", "LRIS")  # the coronal slice lies on its side
    orientation.show_plane(plane)
    assert written(viewer) == letters
    assert vertical(viewer) == ("down" if plane == "Axial" else "up")
    assert viewer.dims.displayed[0] == last + (plane == "Axial")
