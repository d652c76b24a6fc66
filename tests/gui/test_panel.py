from __future__ import annotations

import gc
import re
import shutil
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtGui import QOpenGLContext
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QLabel,
    QLineEdit,
    QMessageBox,
    QOpenGLWidget,
    QPushButton,
    QScrollArea,
    QSlider,
)

from napari_msgan import generate as library_generate
from napari_msgan import refine as library_refine
from napari_msgan._napari import source_panel, workers
from napari_msgan._napari.choices import TIMES
from napari_msgan._napari.from_layer import to_volume
from napari_msgan._napari.to_layer import volume_layer
from napari_msgan.geometry import Affine, Box
from napari_msgan.io import write_volume
from napari_msgan.pyramid import open_pyramid, view_volume
from napari_msgan.volume import Volume
from tests.gui.conftest import blobs


def pixels(store, scale):
    data = view_volume(store, scale).data
    return data[tuple(slice(0, n) for n in data.shape)]


def shown(layer, store, scale):
    """The pixels of a level of a layer, without the padding."""
    level = layer.data[store.geometry.finest_scale - scale]
    return np.asarray(level)[tuple(slice(0, n) for n in store.geometry.shape_at(scale))]


def test_generate_makes_the_pixels_of_the_library(panel, xray, generated, models, tmp_path):
    store = generated(xray)
    same = library_generate(to_volume(xray), tmp_path / "x.ome.zarr", models / "small-xr", scale=0)
    layer = panel.scene.result_of(store)
    np.testing.assert_array_equal(shown(layer, store, 0), pixels(same, 0))
    assert np.ptp(shown(layer, store, 0).astype(float)) > 0
    (sketch,) = panel.scene.layers_of(store, "sketch")
    np.testing.assert_array_equal(
        shown(sketch, store, 2), same.read_sketch(2, Box.of_shape((117, 150)))
    )
    assert store.refined_fraction(1) == 0


def test_refine_everything_shows_the_pixels_of_the_library(
    panel, xray, generated, finish, models, tmp_path
):
    store = generated(xray)
    before = shown(panel.scene.result_of(store), store, 2)
    panel.refine.region.setCurrentText("Everything")
    panel.refine_button.click()
    finish()
    same = library_generate(to_volume(xray), tmp_path / "x.ome.zarr", models / "small-xr")
    after = shown(panel.scene.result_of(store), store, 2)
    np.testing.assert_array_equal(after, pixels(same, 2))
    assert (before != after).mean() > 0.5
    assert panel.bar.status.text() == "Refined."


def test_refine_the_view_makes_only_the_tiles_in_view(
    panel, viewer, xray, generated, finish, qtbot
):
    store = generated(xray)
    viewer.scene.camera.zoom *= 6
    viewer.scene.camera.center = (0, 20, 20)
    qtbot.wait(50)
    box = panel.refine.boxes()[0]
    assert max(box.stop) < 70
    panel.refine.update_summary()
    assert "about" not in panel.refine.summary.text()
    panel.refine_button.click()
    finish()
    assert store.is_refined(2, box)
    assert not store.is_refined(2, Box((96, 96), (117, 150)))
    panel.refine.region.setCurrentText("Everything")
    panel.refine.update_summary()
    assert re.search(r": \d+ tiles to make, about \d+ s$", panel.refine.summary.text())


def test_refine_rectangles_and_clear_them(panel, viewer, xray, generated, finish):
    store = generated(xray)
    panel.refine.region.setCurrentText("Rectangles")
    panel.refine.draw.click()
    shapes = viewer.layers.selection.active
    assert shapes.mode == "add_rectangle"
    shapes.add_rectangles([[10, 10], [30, 30]])
    panel.refine_button.click()
    finish()
    box = Box((10, 10), (31, 31))
    assert panel.refine.boxes() == [box]
    assert store.is_refined(2, box)
    assert panel.refine.summary.text().endswith(": done already")
    refined = shown(panel.scene.result_of(store), store, 2)
    panel.refine_button.click()
    finish()
    assert panel.job.outcome == "All of it was there already."
    panel.clear_button.click()
    finish()
    assert panel.job.outcome == "Removed 1 tile."
    assert "to make" in panel.refine.summary.text()
    assert not store.is_refined(2, box)
    assert (shown(panel.scene.result_of(store), store, 2) != refined).any()


def test_everything_is_cleared_only_by_who_says_so(
    panel, viewer, ct, generated, finish, notes, monkeypatch
):
    asked, answer = [], QMessageBox.StandardButton.No
    monkeypatch.setattr(QMessageBox, "question", lambda *said: asked.append(said[-1]) or answer)
    store = generated(ct)
    panel.refine.region.setCurrentText("Everything")
    panel.refine_button.click()
    finish()
    panel.clear_button.click()
    assert "all tiles" in asked.pop()
    panel.refine.region.setCurrentText("Current view")
    viewer.dims.ndisplay = 3
    panel.clear_button.click()
    assert "in 3-D" in notes[-1].message
    assert store.refined_fraction(1) == 1
    viewer.dims.ndisplay = 2
    panel.refine.region.setCurrentText("Everything")
    answer = QMessageBox.StandardButton.Yes
    panel.clear_button.click()
    finish()
    assert len(asked) == 1
    assert store.refined_fraction(1) == 0


def test_rectangles_of_a_layer_of_the_users_own_count(panel, viewer, xray, generated, qtbot):
    generated(xray)
    panel.refine.region.setCurrentText("Rectangles")
    qtbot.waitUntil(lambda: "no rectangle yet" in panel.refine.problem.text())
    shapes = viewer.add_shapes([[[10, 10], [10, 30], [30, 30], [30, 10]]], name="mine")
    qtbot.waitUntil(lambda: "tile" in panel.refine.summary.text())
    assert panel.refine.problem.text() == ""
    shapes.selected_data = {0}
    shapes.remove_selected()
    qtbot.waitUntil(lambda: panel.refine.summary.text() == "")
    assert panel.refine.problem.text() != ""


def test_rectangle_in_a_volume_gets_the_slices_of_the_panel(panel, viewer, ct, generated, finish):
    store = generated(ct)
    assert store.geometry.affine.spacing == (2.0, 2.0, 2.0)
    panel.refine.region.setCurrentText("Rectangles")
    panel.refine.draw.click()
    shapes = viewer.layers.selection.active
    z = viewer.dims.point[0]
    corners = [[z, 24, 11], [z, 24, 27], [z, 40, 27], [z, 40, 11]]
    slices = viewer.dims.nsteps
    shapes.add_rectangles([[shapes.world_to_data(corner) for corner in corners]])
    assert viewer.dims.nsteps == slices  # drawing does not change what a slice is
    np.testing.assert_allclose(viewer.dims.point[0], z)
    panel.refine.first.setValue(9)
    panel.refine.last.setValue(15)
    (box,) = panel.refine.boxes()
    assert (box.start[0], box.stop[0]) == (9, 16)
    assert box.start[1:] == (2, 2)
    panel.refine.update_summary()
    said = TIMES.join(("14", "18", "18 mm")) + " (slices 9 to 15): "
    assert panel.refine.summary.text().startswith(said)
    panel.refine_button.click()
    finish()
    assert store.is_refined(1, box)


def test_rectangles_on_two_slices_have_slices_of_their_own(panel, viewer, generated, qtbot):
    deep = viewer.add_image(blobs((70, 45, 39)), name="deep", units=("mm",) * 3)
    generated(deep)
    panel.refine.region.setCurrentText("Rectangles")
    for z in (5, 60):
        viewer.dims.set_point(0, z)
        panel.refine.draw.click()
        corners = [[z, 5, 5], [z, 5, 30], [z, 30, 30], [z, 30, 5]]
        viewer.layers.selection.active.add_rectangles([corners])
    found = [(box.start[0], box.stop[0]) for box in panel.refine.boxes()]
    assert found == [(0, 22), (44, 70)]
    panel.refine.first.setValue(62)
    panel.refine.last.setValue(58)
    panel.refine.update_summary()
    assert "first slice, 62, comes after the last, 58" in panel.refine.problem.text()


def test_where_the_open_result_is_removed_another_one_is_open(panel, viewer, generated, xray):
    first = generated(xray)
    second = generated(viewer.add_image(blobs((90, 80), 5), name="other"))
    viewer.layers.remove(panel.scene.result_of(second))
    assert panel.session.opened.store is first
    assert panel.refine.scale.count() > 0
    assert panel.view.compare.isEnabled()
    viewer.layers.remove(panel.scene.result_of(first))
    assert panel.session.opened is None
    assert panel.refine.scale.count() == 0
    assert not panel.refine_button.isEnabled()


def test_every_control_has_a_name_to_be_read_out_and_a_tooltip(panel, viewer, ct, generated):
    generated(ct)
    labels = panel.findChildren(QLabel)
    controls = [
        control
        for kind in (QComboBox, QLineEdit, QAbstractSpinBox, QSlider, QPushButton, QCheckBox)
        for control in panel.findChildren(kind)
        if not isinstance(control.parent(), QAbstractSpinBox)  # the line in one
    ]
    assert len(controls) > 40

    def name(control):
        said = control.accessibleName()
        if not said and isinstance(control, QPushButton | QCheckBox):
            said = control.text()
        return said or next((x.text() for x in labels if x.buddy() is control), "")

    assert [c.toolTip() for c in controls if not re.search(r"\w", name(c))] == []
    assert [name(c) for c in controls if not c.toolTip()] == []


def test_the_panel_says_in_which_folder_the_open_store_lies(panel, viewer, xray, generated):
    panel.save._title.setChecked(True)
    assert not panel.save.folder.isVisible()
    first = generated(xray)
    second = generated(viewer.add_image(blobs((90, 80), 5), name="other"))
    assert panel.save.folder.text() == str(second.path)
    assert str(second.path) in panel.save.folder.toolTip()
    assert panel.save.folder.isReadOnly()
    viewer.layers.selection.active = panel.scene.result_of(first)
    assert panel.save.folder.text() == str(first.path)
    viewer.layers.clear()
    assert panel.save.folder.text() == ""
    assert not panel.save.folder.isVisible()


def test_a_result_that_was_chosen_in_the_list_stays_open_after_its_job(
    panel, viewer, generated, xray, qtbot
):
    """As napari opens the panel: with a proxy of the viewer, which gives new proxies of layers."""
    first = generated(xray)
    second = generated(viewer.add_image(blobs((90, 80), 5), name="other"))
    panel.close_session()
    _, panel = viewer.window.add_plugin_dock_widget("napari-msgan", "Generate and refine")
    viewer.layers.selection.active = panel.scene.result_of(second)
    panel.refine.result.setCurrentIndex(0)
    assert panel.session.opened.store is first
    panel.refine.region.setCurrentText("Everything")
    panel.refine_button.click()
    qtbot.waitUntil(lambda: not panel.job.is_running)
    assert panel.session.opened.store is first
    assert panel.bar.status.text() == "Refined."


def test_a_painted_sketch_is_let_go_of_when_it_is_removed(
    panel, viewer, generated, finish, xray, qtbot
):
    """It lies in memory, and may be large."""
    generated(xray)
    panel.paint_button.click()
    finish()
    panel.generate_button.click()  # while the painted sketch is the active layer
    finish()
    painted = weakref.ref(panel.source.layer.data)
    viewer.layers.clear()
    qtbot.waitUntil(lambda: gc.collect() >= 0 and painted() is None)


def test_slices_of_a_view_stay_when_another_one_is_shown(panel, viewer, ct, generated):
    generated(ct)
    panel.refine.region.setCurrentText("Rectangles")
    panel.refine.draw.click()
    shapes = viewer.layers.selection.active
    z, y, _ = viewer.dims.point
    axial = [[z, 24, 11], [z, 24, 27], [z, 40, 27], [z, 40, 11]]
    shapes.add_rectangles([[shapes.world_to_data(corner) for corner in axial]])
    panel.refine.first.setValue(9)
    panel.refine.last.setValue(15)
    viewer.dims.order = (1, 0, 2)
    panel.refine.update_summary()
    assert (panel.refine.first.value(), panel.refine.last.value()) != (9, 15)  # those of this view
    panel.refine.first.setValue(10)
    panel.refine.last.setValue(11)
    (low, _, left), (high, _, right) = (
        shapes.data_to_world(corner) for corner in ((4, 0, 4), (8, 0, 12))
    )
    coronal = [[low, y, left], [low, y, right], [high, y, right], [high, y, left]]
    shapes.add_rectangles([[shapes.world_to_data(corner) for corner in coronal]])
    first, second = panel.refine.boxes()
    assert (first.start[0], first.stop[0]) == (9, 16)
    assert (second.start[1], second.stop[1]) == (10, 12)
    viewer.dims.order = (0, 1, 2)
    panel.refine.update_summary()
    assert (panel.refine.first.value(), panel.refine.last.value()) == (9, 15)


def test_slices_are_not_asked_for_without_an_image(panel, viewer, ct, generated):
    store = generated(ct)
    panel.refine.draw.click()
    assert panel.refine.first.isVisibleTo(panel)
    viewer.layers.remove(panel.scene.result_of(store))
    panel.refine.update_summary()
    assert not panel.refine.first.isVisibleTo(panel)


def test_drawing_in_another_view_leaves_the_slices_of_the_last_one(panel, viewer, ct, generated):
    generated(ct)
    panel.refine.region.setCurrentText("Rectangles")
    panel.refine.update_summary()
    panel.refine.first.setValue(9)
    panel.refine.last.setValue(15)
    viewer.dims.ndisplay = 3
    viewer.dims.order = (1, 0, 2)
    panel.refine.update_summary()
    panel.refine.draw.click()  # shows coronal slices
    viewer.dims.order = (0, 1, 2)
    panel.refine.update_summary()
    assert (panel.refine.first.value(), panel.refine.last.value()) == (9, 15)


@pytest.mark.parametrize("is_floating", [False, True])
def test_a_layer_is_removed_in_the_context_that_drew_it(panel, viewer, xray, ct, is_floating):
    """In another one, Mesa's software rendering crashes at the next draw."""
    panel.parentWidget().setFloating(is_floating)
    (canvas,) = viewer.window._qt_window.findChildren(QOpenGLWidget)
    contexts = []
    viewer.layers.events.removed.connect(lambda: contexts.append(QOpenGLContext.currentContext()))
    canvas.doneCurrent()
    viewer.layers.remove(ct)
    canvas.doneCurrent()
    viewer.layers.clear()
    panel.close_session()
    viewer.add_layer(ct)
    canvas.doneCurrent()
    viewer.layers.remove(ct)
    assert contexts == [canvas.context(), canvas.context(), None]


def test_a_name_that_another_window_took_is_made_free(panel, xray, generated):
    proposed = panel.source.path.text()
    Path(proposed).mkdir(parents=True)
    store = generated(xray)
    assert str(store.path) not in ("", proposed)


def test_name_that_was_typed_stays_where_the_model_changes(panel, xray, ct, tmp_path, monkeypatch):
    panel.source.choose(xray)
    panel.source.path.setText(str(tmp_path / "case17.ome.zarr"))
    panel.source.choose(ct)
    assert panel.source.path.text() == str(tmp_path / "case17.ome.zarr")
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "there"))
    panel.source.browse.click()
    for name in ("small-ct", "small-xr"):  # of a folder that was chosen the name follows
        panel.model.choose_name(name)
        path = Path(panel.source.path.text())
        assert path.parent == tmp_path / "there"
        assert path.name.startswith(name)
    panel.source.path.clear()
    panel.model.choose_name("small-ct")
    assert panel.source.path.text() != ""


def test_store_that_is_gone_is_told(panel, viewer, xray, generated, qtbot):
    store = generated(xray)
    other = generated(viewer.add_image(blobs((90, 80), 5), name="other"))
    shutil.rmtree(store.path)
    panel.refine.result.setCurrentIndex(0)
    panel.refine.update_summary()  # as the timer does soon
    assert "there is no store" in panel.refine.open_problem.text()
    assert panel.session.opened.store is other
    viewer.layers.remove(panel.scene.result_of(other))
    panel.refine.update_summary()
    assert "there is no store" in panel.refine.open_problem.text()
    generated(viewer.add_image(blobs((80, 90), 6), name="third"))
    assert panel.refine.open_problem.text() == ""


def test_of_a_store_alone_nothing_is_proposed_as_a_source(panel, viewer, xray, generated):
    store = generated(xray)
    assert panel.source.layer is xray
    viewer.layers.remove(xray)
    assert panel.source.layer is None
    assert not panel.generate_button.isEnabled()
    (sketch,) = panel.scene.layers_of(store, "sketch")
    panel.source.choose(sketch)
    assert panel.source.is_sketch.isChecked()
    assert panel.generate_button.isEnabled()


def test_file_of_a_sketch_is_taken_for_one(panel, viewer, ct, tmp_path):
    for name, content in (("sketch", "sketch"), ("scan", "image")):
        path = tmp_path / f"{name}.nii.gz"
        write_volume(path, [to_volume(ct)], description={"content": content})
        (layer,) = viewer.open(str(path), plugin="napari-msgan")
        panel.source.choose(layer)
        assert panel.source.is_sketch.isChecked() == (content == "sketch")


def test_an_image_that_is_opened_becomes_the_source(panel, viewer, xray, generated):
    generated(xray)  # its layers are none
    assert panel.source.layer is xray
    other = viewer.add_image(np.random.default_rng(0).random((80, 90)), name="other")
    assert panel.source.layer is other
    panel.source.choose(xray)
    viewer.add_labels(np.zeros((80, 90), np.uint8), name="drawn")
    viewer.layers.move(0, 2)
    other.name = "renamed"
    assert panel.source.layer is xray


def test_wrong_sources_are_told_before_running(panel, viewer, xray, ct):
    panel.source.choose(xray)
    panel.model.choose_for(3)
    assert "is for 3-D images" in panel.source.problem.text()
    assert not panel.generate_button.isEnabled()
    plain = viewer.add_image(np.zeros((9, 9, 9), np.uint8), name="plain", scale=(2, 1, 1))
    panel.source.choose(plain)
    assert "no voxel size" in panel.source.problem.text()
    assert not panel.generate_button.isEnabled()
    panel.source.fix.click()
    assert panel.source.problem.text() == ""
    assert panel.generate_button.isEnabled()
    turned = viewer.add_image(np.zeros((9, 9), np.uint8), name="turned", rotate=10)
    panel.source.choose(turned)
    assert "rotated" in panel.source.problem.text()
    many = viewer.add_image(np.zeros((2, 2, 9, 9), np.uint8), name="many")
    panel.source.choose(many)
    assert "Split Stack" in panel.source.problem.text()


def test_radiograph_in_colours_is_made_anew_as_its_luminance(panel, viewer, xray, generated):
    grey = np.asarray(xray.data, np.uint8)
    colour = viewer.add_image(np.stack([grey] * 3, -1), rgb=True, name="colour")
    plain = viewer.add_image(grey, name="plain")
    hashes = []
    for layer in (plain, colour):
        panel.source.choose(layer)
        assert panel.source.problem.text() == ""
        assert ("luminance" in panel.source.hint.text()) == (layer is colour)
        hashes.append(generated(layer).info.source.sha256)
    assert hashes[0] == hashes[1]


def test_model_fits_the_axes_of_the_layer_until_another_is_chosen(panel, viewer, xray, ct):
    for layer in (ct, xray, ct):
        panel.source.choose(layer)
        assert len(panel.model.spec.axes) == layer.ndim
        assert panel.generate_button.isEnabled()
    in_hu = np.full((9, 9, 9), -1000, np.int16)
    panel.source.choose(viewer.add_image(in_hu, name="air", units=("mm",) * 3))
    assert panel.model.spec.modality == "CT"
    panel.model.choose_name("small-xr")
    viewer.layers.move(0, 1)  # layers are listed anew, the source stays
    assert panel.model.spec.name == "small-xr"


def test_model_stays_where_the_source_becomes_its_own_sketch(panel, viewer):
    in_hu = np.full((9, 9, 9), -1000, np.int16)
    ct = viewer.add_image(in_hu, name="air", units=("mm",) * 3)
    assert panel.model.spec.modality == "CT"
    chosen = panel.model.folder
    panel.source.choose(viewer.add_labels(np.zeros((9, 9, 9), np.uint8), units=ct.units))
    assert panel.source.is_sketch.isChecked()
    assert panel.model.folder == chosen


def test_another_model_or_layer_brings_its_own_finest_scale(panel, viewer, ct):
    panel.source.choose(ct)
    panel.model.choose_name("small-ct")
    default = panel.source.finest.currentText()
    assert panel.source.finest.currentIndex() == 0
    last = panel.source.finest.count() - 1
    panel.source.finest.setCurrentIndex(last)
    panel.source.choose(viewer.add_image(ct.data, name="other", scale=ct.scale, units=ct.units))
    assert panel.source.finest.currentIndex() == 0
    panel.source.finest.setCurrentIndex(last)
    panel.model.choose_name("brain-mri")
    assert panel.source.finest.currentIndex() == 0
    panel.model.choose_name("small-ct")
    assert last > 0
    assert panel.source.finest.currentText() == default


def test_nothing_is_cut_off_where_the_panel_has_to_scroll(panel, viewer, qtbot):
    panel.source.where.content.show()
    viewer.window._qt_window.resize(1000, 480)
    area = panel.findChild(QScrollArea)
    qtbot.waitUntil(lambda: area.verticalScrollBar().isVisible())
    qtbot.waitUntil(lambda: area.widget().width() <= area.viewport().width())
    assert area.widget().width() >= area.widget().minimumSizeHint().width() > 100


def test_source_is_checked_again_when_its_layer_changes(panel, viewer, ct):
    panel.model.choose_for(3)
    panel.source.choose(ct)
    assert panel.generate_button.isEnabled()
    ct.units = ("pixel",) * 3
    assert "no voxel size" in panel.source.problem.text()
    assert not panel.generate_button.isEnabled()
    ct.units = ("mm",) * 3
    assert panel.generate_button.isEnabled()
    offered = panel.source.finest.itemText(0)
    ct.scale = (8, 8, 8)
    assert "8 mm" in panel.source.hint.text()
    assert panel.source.finest.itemText(0) != offered
    ct.affine = np.array([[1, 0, 0, 0], [0, 0.9, -0.4, 0], [0, 0.4, 0.9, 0], [0, 0, 0, 1]])
    assert "rotated" in panel.source.problem.text()
    assert not panel.generate_button.isEnabled()


def test_file_without_units_stands_upright_once_its_scale_is_in_mm(panel, viewer):
    volume = Volume(np.zeros((9, 10, 11), np.uint8), Affine.of_spacing((2, 1, 1)), "pixel")
    data, options, _ = volume_layer(volume, "no units")
    layer = viewer.add_image(data, **options)
    panel.model.choose_for(3)
    panel.source.choose(layer)
    viewer.dims.order = (1, 0, 2)
    assert viewer.scene.camera.orientation[1] == "down"
    panel.source.fix.click()
    assert panel.source.problem.text() == ""
    assert viewer.scene.camera.orientation[1] == "up"
    panel.close_session()
    panel.model.changed.emit()  # a closed panel turns nothing any more


def test_layer_that_is_no_source_any_more_is_not_listened_to(panel, viewer, xray, ct, monkeypatch):
    checked = []
    check_source = source_panel.check_source
    monkeypatch.setattr(
        source_panel,
        "check_source",
        lambda layer, spec: checked.append(layer) or check_source(layer, spec),
    )

    def is_watched(layer):
        checked.clear()
        layer.scale = layer.scale * 2
        return bool(checked)

    panel.source.choose(xray)
    assert is_watched(xray)
    assert not is_watched(ct)
    panel.source.choose(ct)
    assert is_watched(ct)
    assert not is_watched(xray)
    viewer.layers.remove(ct)
    assert not is_watched(ct)
    assert is_watched(xray)
    panel.close_session()
    assert not is_watched(xray)


def test_a_selected_rectangle_is_what_the_summary_says(panel, viewer, xray, generated, qtbot):
    generated(xray)
    panel.refine.region.setCurrentText("Rectangles")
    shapes = viewer.add_shapes(
        [[[10, 10], [10, 30], [30, 30], [30, 10]], [[50, 50], [50, 90], [80, 90], [80, 50]]]
    )
    qtbot.waitUntil(lambda: ";" in panel.refine.summary.text())
    shapes.selected_data = {1}
    qtbot.waitUntil(lambda: panel.refine.summary.text().startswith(f"41{TIMES}31"))
    assert "more" not in panel.refine.summary.text()
    shapes.selected_data = set()
    shapes.add_rectangles([[[y, 10], [y, 30], [y + 4, 30], [y + 4, 10]] for y in (60, 70, 80)])
    qtbot.waitUntil(lambda: " and 2 more: " in panel.refine.summary.text())
    assert panel.refine.summary.text().count("px") == 3


def test_what_was_selected_during_a_job_is_worked_on_afterwards(
    panel, viewer, xray, generated, finish, gate, qtbot
):
    first = panel.scene.result_of(generated(xray))
    second = generated(xray)
    gate.close()
    panel.refine.region.setCurrentText("Everything")
    panel.refine_button.click()
    qtbot.wait(100)
    viewer.layers.selection.active = first
    assert panel.session.opened.store is second
    gate.set()
    finish()
    assert panel.scene.result_of(panel.session.opened.store) is first


def test_folder_that_cannot_be_made_is_told(panel, xray, finish, notes, tmp_path):
    (tmp_path / "file").write_text("in the way")
    panel.source.choose(xray)
    panel.model.choose_name("small-xr")
    panel.source.path.setText(str(tmp_path / "file" / "a.ome.zarr"))
    panel.generate_button.click()
    finish()
    assert "file cannot be made" in panel.job.outcome
    assert "another folder under Where" in panel.job.outcome


@pytest.mark.parametrize("text", ["/", ".", "~nobody-of-this-name/a"])
def test_text_that_cannot_be_the_name_of_a_store_is_told(panel, xray, notes, text):
    panel.source.choose(xray)
    panel.model.choose_name("small-xr")
    panel.source.path.setText(text)
    panel.generate_button.click()
    assert panel.job.outcome.startswith(f"{text} is no name for a store")


def test_what_was_refused_stands_where_the_last_outcome_stood(
    panel, viewer, xray, generated, notes, tmp_path
):
    first, second = (panel.scene.result_of(generated(xray)) for _ in range(2))
    assert panel.bar.status.text() == "Made the image."
    viewer.layers.selection.active = first
    panel.refine.result.setCurrentText(second.name)
    (tmp_path / "a.ome.zarr").mkdir()
    panel.source.path.setText(str(tmp_path / "a.ome.zarr"))
    panel.generate_button.click()
    assert "exists already" in panel.bar.status.text()
    assert any("exists already" in note.message for note in notes)
    assert panel.refine.result.currentText() == second.name


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
def test_a_result_that_was_rotated_is_told(panel, viewer, ct, generated, finish, notes):
    layer = panel.scene.result_of(generated(ct))
    turn = np.eye(4)
    turn[1:3, 1:3] = [[0.8, -0.6], [0.6, 0.8]]
    layer.affine = turn
    panel.refine.region.setCurrentText("Rectangles")
    panel.refine.draw.click()
    assert "is rotated" in panel.refine.problem.text()
    viewer.dims.order = (1, 0, 2)
    panel.refine.update_summary()
    assert "is rotated" in panel.refine.problem.text()
    assert panel.refine.focus() is None
    viewer.dims.ndisplay = 3
    panel.refine.region.setCurrentText("Everything")
    panel.refine_button.click()
    finish()
    assert panel.job.outcome == "Refined."
    assert notes == []


def test_result_and_box_that_were_converted_are_none_any_more(panel, viewer, ct, generated):
    store = generated(ct)
    result = panel.scene.result_of(store)
    viewer.add_labels(np.asarray(result.data[0]).astype(int), metadata=dict(result.metadata))
    assert panel.scene.results() == [result]
    panel.view.in_3d.click()
    assert panel.session.opened.store is store


def test_what_is_painted_after_generating_is_seen(panel, viewer, generated):
    layer = viewer.add_labels(np.eye(60, dtype=np.uint8), name="painted")
    store = generated(layer)
    assert viewer.layers[-1] is layer
    assert viewer.layers.index(panel.scene.result_of(store)) == 0
    (sketch,) = panel.scene.layers_of(store, "sketch")
    assert not sketch.visible  # it is what was painted
    layer.visible = False
    (sketch,) = panel.scene.layers_of(generated(layer), "sketch")
    assert sketch.visible


def test_painted_labels_become_an_image(panel, viewer, generated):
    painted = np.zeros((60, 64), np.uint8)
    painted[20:40, 30] = 1
    layer = viewer.add_labels(painted, name="painted")
    panel.source.choose(layer)
    assert panel.source.is_sketch.isChecked()
    store = generated(layer)
    np.testing.assert_array_equal(store.sketch_array(store.n_scales - 1)[...], painted * 255)


@pytest.fixture
def gate(monkeypatch):
    """Hold the tiles back until `gate.set()`."""
    from napari_msgan import refiner

    event, run_tile = threading.Event(), refiner.run_tile

    def slow(context, tile):
        event.wait(20)
        return run_tile(context, tile)

    def close():
        event.clear()
        monkeypatch.setattr(refiner, "run_tile", slow)

    event.close = close
    yield event
    event.set()


def test_cancel_keeps_what_is_done(panel, xray, generated, finish, gate, qtbot):
    store = generated(xray)
    gate.close()
    panel.refine.region.setCurrentText("Everything")
    panel.refine_button.click()
    qtbot.wait(200)
    assert panel.bar.cancel.isVisible()
    assert not panel.refine_button.isEnabled()
    panel.bar.cancel.click()
    assert "Stopping" in panel.bar.status.text()
    gate.set()
    finish()
    assert panel.bar.status.text().startswith("Cancelled")
    done = sum(store.refined_chunks(s).sum() for s in (1, 2))
    assert 0 < done < sum(store.refined_chunks(s).size for s in (1, 2))
    again = open_pyramid(store.path)
    assert sum(again.refined_chunks(s).sum() for s in (1, 2)) == done
    panel.refine_button.click()
    finish()
    assert store.refined_fraction(2) == 1


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), OSError("disk full")])
def test_failing_job_is_told_and_leaves_the_panel_usable(
    panel, xray, generated, finish, notes, monkeypatch, error
):
    from napari_msgan import refiner

    store = generated(xray)
    run_tile = refiner.run_tile

    def fail(context, tile):
        raise error

    monkeypatch.setattr(refiner, "run_tile", fail)
    panel.refine.region.setCurrentText("Everything")
    panel.refine_button.click()
    finish()
    assert any(str(error) in note.message for note in notes)
    assert str(error) in panel.bar.status.text()
    monkeypatch.setattr(refiner, "run_tile", run_tile)
    panel.refine_button.click()
    finish()
    assert store.refined_fraction(2) == 1


def test_closing_the_window_during_a_run_loses_nothing(
    panel, viewer, xray, generated, gate, qtbot, monkeypatch
):
    store = generated(xray)
    gate.close()
    panel.refine.region.setCurrentText("Everything")
    panel.refine_button.click()
    qtbot.wait(200)
    job = panel.jobs._job
    threading.Timer(0.3, gate.set).start()
    viewer.close()
    assert job.ended.is_set()
    done = sum(store.refined_chunks(s).sum() for s in (1, 2))
    assert 0 < done < sum(store.refined_chunks(s).size for s in (1, 2))
    library_refine(store.path)  # the lock is free, what was done counts
    assert open_pyramid(store.path).refined_fraction(2) == 1


def test_closing_the_dock_during_a_run_loses_nothing(panel, viewer, xray, generated, gate, qtbot):
    store = generated(xray)
    gate.close()
    panel.refine.region.setCurrentText("Everything")
    panel.refine_button.click()
    qtbot.wait(200)
    job = panel.jobs._job
    threading.Timer(0.3, gate.set).start()
    viewer.window.remove_dock_widget(panel)
    assert job.ended.is_set()
    assert store.refined_chunks(1).any()
    assert not [name for name in viewer.canvas.overlays if "msgan" in name]
    viewer.layers.clear()  # nothing of the panel listens any more
    panel.deleteLater()


@pytest.mark.filterwarnings("ignore:RuntimeError in aborted thread")
def test_runtime_error_of_a_bare_generator_would_be_lost(qtbot):
    """Why `until_ended` returns errors: the negative control of the test above."""
    from napari.qt.threading import create_worker

    def steps():
        yield 1
        raise RuntimeError("lost")

    seen = []
    worker = create_worker(steps, _ignore_errors=True)
    worker.errored.connect(seen.append)
    worker.finished.connect(lambda: seen.append("finished"))
    worker.start()
    qtbot.wait(300)
    assert seen == []
    type(worker)._set_discard(worker)
    job = workers.start_in_thread(
        steps(), on_step=lambda s: None, on_error=seen.append, on_end=lambda c: None
    )
    qtbot.waitUntil(lambda: bool(seen), timeout=3000)
    assert job.ended.is_set()
    assert "lost" in str(seen[0])


def test_closed_panel_listens_to_no_shapes(panel, viewer, xray, generated):
    generated(xray)
    shapes = viewer.add_shapes([[[10, 10], [10, 30], [30, 30], [30, 10]]])
    n_listeners = len(shapes.events.set_data.callbacks)
    panel.close_session()
    assert len(shapes.events.set_data.callbacks) == n_listeners - 1


def test_a_name_that_is_too_long_to_be_looked_up_breaks_no_job(panel, xray, generated, finish):
    generated(xray)
    folder = Path(panel.source.path.text()).parent
    panel.source.path.setText(str(folder / ("n" * 300)))
    panel.refine.region.setCurrentText("Everything")
    panel.refine_button.click()
    finish()
    assert panel.job.outcome == "Refined."
    assert panel.refine_button.isEnabled()


def test_moves_of_the_camera_count_for_the_current_view_only(panel, viewer, xray, generated):
    generated(xray)
    for region, counts in (("Everything", False), ("Current view", True)):
        panel.refine.region.setCurrentText(region)
        panel.refine._timer.stop()
        viewer.scene.camera.zoom *= 1.1
        assert panel.refine._timer.isActive() == counts
