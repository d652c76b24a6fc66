"""What 3-D display changes, and what of that is left."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_msgan import generate, refine
from napari_msgan._napari.scene import Scene
from napari_msgan._napari.state import Opened, SessionState
from napari_msgan._napari.to_layer import Placement
from napari_msgan._napari.view_panel import ViewPanel
from napari_msgan._napari.windows import PROJECTION
from napari_msgan.geometry import Affine, Box
from napari_msgan.volume import Volume
from tests._napari.conftest import ball

FLAT = (-160, 240)


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def scene(viewer):
    return Scene(viewer)


@pytest.fixture
def session():
    return SessionState()


@pytest.fixture
def view(viewer, scene, session, qtbot):
    view = ViewPanel(viewer, session, scene, lambda: None)
    qtbot.addWidget(view)
    session.events.opened.connect(view.show_store)
    return view


@pytest.fixture
def two(view, scene, session, models, tmp_path):
    """Two CTs with a refined box each; the second one is open."""
    both = []
    for name in ("a", "b"):
        volume = Volume(
            ball((40, 42, 44), (20, 20, 20), 12), Affine.of_spacing((1, 1, 1)), "millimeter"
        )
        store = generate(volume, tmp_path / f"{name}.ome.zarr", models / "small-ct", scale=0)
        refine(store, region=Box((0, 0, 0), (10, 10, 10)), scale=1)
        both.append(Opened(store, Placement.of_affine(store.geometry.affine, "millimeter")))
        scene.show(both[-1], name)
        session.opened = both[-1]
    return both


def is_shown(scene, opened):
    """Return which layers of a store are visible, and how its result looks."""
    roles = [
        r
        for r in ("result", "sketch", "box")
        if any(x.visible for x in scene.layers_of(opened.store, r))
    ]
    result = scene.result_of(opened.store)
    return roles, tuple(result.contrast_limits), result.opacity


def test_3d_shows_the_open_result_with_its_boxes_and_gives_all_back(view, scene, two):
    a, b = two
    scene.result_of(b.store).opacity = 0.35
    view.in_3d.click()
    assert is_shown(scene, a) == ([], FLAT, 1)
    assert is_shown(scene, b) == (["result", "box"], PROJECTION, 0.6)
    view.in_3d.click()
    assert is_shown(scene, a) == (["result", "sketch"], FLAT, 1)
    assert is_shown(scene, b) == (["result", "sketch"], FLAT, 0.35)


@pytest.mark.parametrize("back", ["click", "ndisplay"])
def test_another_result_that_is_opened_in_3d_takes_the_place_of_the_first(
    view, viewer, scene, session, two, back
):
    a, b = two
    view.in_3d.click()
    session.opened = a
    assert is_shown(scene, a) == (["result", "box"], PROJECTION, 0.6)
    assert is_shown(scene, b) == ([], FLAT, 1)
    if back == "click":
        view.in_3d.click()
    else:
        viewer.dims.ndisplay = 2
    for opened in two:
        assert is_shown(scene, opened) == (["result", "sketch"], FLAT, 1)


def test_napari_s_own_button_hides_nothing_and_leaves_no_box_in_slices(
    view, viewer, scene, session, two
):
    a, b = two
    scene.result_of(b.store).opacity = 0.35
    viewer.dims.ndisplay = 3
    assert is_shown(scene, b) == (["result", "sketch", "box"], PROJECTION, 0.35)
    session.opened = a
    assert is_shown(scene, a) == (["result", "sketch", "box"], PROJECTION, 1)
    viewer.dims.ndisplay = 2
    assert is_shown(scene, a) == (["result", "sketch"], FLAT, 1)
    assert is_shown(scene, b) == (["result", "sketch"], FLAT, 0.35)


def test_panel_that_is_closed_in_3d_leaves_layers_as_they_were(view, scene, two):
    view.in_3d.click()
    view.close_all()
    for opened in two:
        assert is_shown(scene, opened) == (["result", "sketch"], FLAT, 1)


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("back", ["click", "ndisplay"])
def test_3d_from_any_slice_frames_the_result_and_gives_the_slice_back(
    view, viewer, scene, session, two, order, back
):
    viewer.dims.order = order
    viewer.dims.set_point(range(3), (7, 8, 9))
    point = viewer.dims.point
    view.in_3d.click()
    low, high = scene.result_of(session.opened.store).extent.world
    middle = (low + high) / 2
    assert viewer.scene.camera.center == pytest.approx(tuple(middle[list(viewer.dims.displayed)]))
    assert middle[0] != middle[1]  # else any order would do
    if back == "click":
        view.in_3d.click()
    else:
        viewer.dims.ndisplay = 2  # as napari's button and *Draw* do
    assert viewer.dims.point == pytest.approx(point)


def test_the_slice_of_an_earlier_3d_does_not_come_back(view, viewer, two):
    for _ in range(2):
        view.in_3d.click()
    viewer.dims.set_point(0, 7)
    viewer.dims.ndisplay = 3
    view.in_3d.click()
    assert viewer.dims.point[0] == pytest.approx(7)


def test_a_slider_that_was_moved_in_3d_stays_where_it_is(view, viewer, two):
    viewer.add_image(np.zeros((5, 40, 42, 44), np.uint8), name="time")
    viewer.dims.set_point(range(4), (1, 7, 8, 9))
    view.in_3d.click()
    viewer.dims.set_point(0, 3)
    view.in_3d.click()
    assert viewer.dims.point == pytest.approx((3, 7, 8, 9))


def test_what_3d_hides_is_hidden_before_napari_makes_a_volume_of_it(view, viewer, scene, two):
    other = viewer.add_image(np.zeros((9, 9, 9), np.uint8), name="source")
    seen = []
    viewer.dims.events.ndisplay.connect(
        lambda event: seen.append((event.source.ndisplay, other.visible)), position="first"
    )
    for _ in range(2):
        view.in_3d.click()
    assert seen == [(3, False), (2, False)]
    assert other.visible
    view.in_3d.click()
    assert not other.visible
