"""Windows, comparison, 3-D, saving and opening, through the widgets of the panel."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog

from napari_msgan import export, read_volume, refine
from napari_msgan._napari import demo as demo_module
from napari_msgan._napari import to_layer
from napari_msgan._napari.panel import GeneratePanel
from napari_msgan._napari.refined import ShownBox
from napari_msgan._napari.scene import key_of
from napari_msgan._napari.to_layer import volume_layer
from napari_msgan._napari.windows import PROJECTION
from napari_msgan.errors import MsganError
from napari_msgan.geometry import Affine, Box
from napari_msgan.io import read_description
from napari_msgan.pyramid import view_volume
from napari_msgan.resampling import resample
from napari_msgan.volume import Volume
from tests.gui.conftest import blobs
from tests.models import write_model


def compared(viewer):
    (layer,) = (x for x in viewer.layers if x.name.startswith("compare"))
    return layer


def test_window_buttons_set_result_and_source_alike(panel, ct, generated):
    store = generated(ct)
    layer = panel.scene.result_of(store)
    panel.view.windows["Lung"].click()
    assert tuple(layer.contrast_limits) == (-1000, 150)
    panel.view.windows["Soft tissue"].click()
    assert tuple(layer.contrast_limits) == (-160, 240)
    panel.view.windows["Full"].click()
    assert tuple(layer.contrast_limits) == (-1000, 600)


def test_wipe_shows_the_source_left_and_the_result_right(panel, viewer, xray, generated, qtbot):
    store = generated(xray)
    refine(store)
    panel.view.compare.setCurrentText("Wipe")
    layer = compared(viewer)
    panel.view.line.setValue(400)
    qtbot.wait(80)
    shown = np.asarray(layer.data[0])[:117, :150]
    line = round(0.4 * layer.data[0].shape[1])
    result = view_volume(store, 2).data[0:117, 0:150]
    np.testing.assert_array_equal(shown[:, line + 1 :], result[:, line + 1 :])
    assert (shown[:, line] == panel.scene.result_of(store).contrast_limits[1]).all()
    low, high = xray.contrast_limits
    goal_low, goal_high = panel.scene.result_of(store).contrast_limits
    source = (xray.data - low) / (high - low) * (goal_high - goal_low) + goal_low
    np.testing.assert_allclose(shown[:, :line], source[:, :line], rtol=1e-5)
    xray.contrast_limits = (0, 100)
    assert np.asarray(layer.data[0])[:117, :line].max() > shown[:, :line].max()
    panel.view.compare.setCurrentText("Off")
    assert not [x for x in viewer.layers if x.name.startswith("compare")]


def test_comparison_is_no_source_and_goes_with_the_panel(panel, viewer, xray, generated):
    generated(xray)
    panel.view.compare.setCurrentText("Wipe")
    listed = [panel.source.box.itemText(i) for i in range(panel.source.box.count())]
    assert compared(viewer).name not in listed
    assert xray.name in listed
    panel.close_session()
    assert not [x for x in viewer.layers if x.name.startswith("compare")]


def test_comparison_follows_the_source_and_goes_with_its_layer(panel, viewer, xray, generated):
    generated(xray)
    panel.view.compare.setCurrentText("Wipe")
    panel.view.line.setValue(panel.view.line.maximum())
    panel.view.update_comparison()
    before = np.asarray(compared(viewer).data[0])
    other = viewer.add_image(blobs((117, 150), 5), name="other")
    assert panel.source.layer is other
    assert (np.asarray(compared(viewer).data[0]) != before).mean() > 0.1
    viewer.layers.remove(compared(viewer))
    assert panel.view.compare.currentText() == "Off"
    assert not panel.view.line.isVisible()


@pytest.mark.parametrize("change", ["result", "source", "data"])
def test_comparison_follows_what_it_compares(panel, viewer, ct, generated, change):
    result = panel.scene.result_of(generated(ct))
    panel.view.compare.setCurrentText("Difference")
    begun = np.asarray(compared(viewer).data[0])
    if change == "data":
        ct.data = ct.data[:, ::-1].copy()
    else:
        layer = result if change == "result" else ct
        layer.translate += (0, 10, 0)
    followed = np.asarray(compared(viewer).data[0])
    assert not np.array_equal(followed, begun)
    np.testing.assert_allclose(compared(viewer).translate, result.translate)
    panel.view.compare.setCurrentText("Off")
    panel.view.compare.setCurrentText("Difference")
    np.testing.assert_array_equal(followed, compared(viewer).data[0])


def test_difference_of_a_volume_is_result_minus_source(panel, viewer, ct, generated):
    store = generated(ct)
    panel.view.compare.setCurrentText("Difference")
    layer = compared(viewer)
    ct.contrast_limits = panel.scene.result_of(store).contrast_limits
    shape = store.geometry.shape
    shown = np.asarray(layer.data[0])[tuple(slice(0, n) for n in shape)]
    steps = (0.8, 2.0, 2.0)
    first = [0.5 * step - 0.5 for step in steps]
    source = resample(ct.data, steps, first, Box.of_shape(shape))
    result = view_volume(store, 1).data[tuple(slice(0, n) for n in shape)]
    np.testing.assert_allclose(shown, result - source, atol=1e-2)


def test_hounsfield_units_are_compared_as_they_are(panel, viewer, models, generated):
    hu = blobs((24, 30, 32)).astype(np.int16) * 4 - 1000
    ct = viewer.add_image(hu, name="HU", scale=(2, 2, 2), units=("mm",) * 3)
    store = generated(ct)
    ct.contrast_limits = (-10, 10)
    panel.view.compare.setCurrentText("Wipe")
    panel.view.line.setValue(panel.view.line.maximum())
    panel.view.update_comparison()
    np.testing.assert_array_equal(np.asarray(compared(viewer).data[0])[:24, :30, :32], hu)
    panel.view.windows["Lung"].click()
    assert tuple(ct.contrast_limits) == (-1000, 150)
    viewer.dims.ndisplay = 3
    panel.view.windows["Bone"].click()
    viewer.dims.ndisplay = 2  # the result has its window of slices again, so has the source
    assert tuple(ct.contrast_limits) == (-1000, 150)
    assert tuple(panel.scene.result_of(store).contrast_limits) == (-1000, 150)


def test_comparison_with_another_kind_of_image_is_refused(panel, xray, ct, generated):
    generated(ct)
    panel.source.choose(xray)
    panel.view.compare.setCurrentText("Wipe")
    assert "has 2 axes" in panel.view.problem.text()


def test_refined_box_appears_in_3d_with_its_own_pixels(panel, viewer, ct, generated, finish):
    store = generated(ct)
    panel.refine.region.setCurrentText("Rectangles")
    panel.refine.draw.click()
    z = viewer.dims.point[0]
    points = [[z, 24, 11], [z, 24, 27], [z, 40, 27], [z, 40, 11]]
    shapes = viewer.layers.selection.active
    shapes.add_rectangles([[shapes.world_to_data(point) for point in points]])
    panel.refine_button.click()
    finish()
    (box,) = panel.refine.boxes()
    assert not panel.scene.layers_of(store, "box")
    panel.view.in_3d.click()
    assert viewer.dims.ndisplay == 3
    (layer,) = panel.scene.layers_of(store, "box")
    assert layer.visible
    assert not ct.visible
    np.testing.assert_array_equal(layer.data, store.array(1)[box.slices])
    assert layer.translate == pytest.approx(store.geometry.affine.at(box.start))
    picture = viewer.screenshot(flash=False)
    assert picture[..., :3].std() > 1  # not a black canvas
    panel.view.in_3d.click()
    assert not layer.visible
    assert ct.visible


def test_everything_refined_in_3d_appears_at_once_and_stays(panel, viewer, generated, finish):
    ct = viewer.add_image(blobs((40, 44, 42)), name="CT", units=("mm",) * 3)
    store = generated(ct)
    panel.view.in_3d.click()
    panel.refine.region.setCurrentText("Everything")
    panel.refine.scale.setCurrentIndex(panel.refine.scale.findData(1))
    panel.refine_button.click()
    finish()
    (whole,) = panel.scene.layers_of(store, "box")
    np.testing.assert_array_equal(whole.data, store.array(1)[...])
    viewer.dims.ndisplay = 2
    panel.refine.region.setCurrentText("Current view")
    viewer.scene.camera.zoom *= 8
    small = ShownBox(2, Box((0, 0, 0), (6, 6, 6)))
    refine(store, region=small.region, scale=2)
    panel.scene.remember_box(store, small)
    viewer.dims.ndisplay = 3
    assert whole in panel.scene.layers_of(store, "box")
    assert len(panel.scene.layers_of(store, "box")) == 2
    refine(store, scale=2)
    panel.scene.remember_box(store, ShownBox(2, Box.of_shape(store.geometry.shape)))
    (only,) = panel.scene.layers_of(store, "box")
    np.testing.assert_array_equal(only.data, store.array(2)[...])


def test_a_box_at_its_full_resolution_stays_where_the_whole_cannot_be_drawn_at_it(
    panel, viewer, ct, generated, monkeypatch
):
    store = generated(ct)
    monkeypatch.setattr(to_layer, "MAX_BOX_VOXELS", store.array(0)[...].size)
    refine(store, scale=1)
    small = ShownBox(1, Box((2, 4, 4), (8, 10, 10)))
    for box in (small, ShownBox(1, Box.of_shape(store.geometry.shape))):
        panel.scene.remember_box(store, box)
    panel.view.in_3d.click()
    shown = {
        layer.metadata["napari_msgan"]["scale"] for layer in panel.scene.layers_of(store, "box")
    }
    assert shown == {0, 1}


def test_boxes_go_where_the_result_went(panel, viewer, ct, generated):
    store = generated(ct)
    region = Box((2, 4, 4), (10, 12, 12))
    refine(store, region=region, scale=1)
    panel.view.in_3d.click()
    (before,) = panel.scene.layers_of(store, "box")
    panel.view.in_3d.click()
    result = panel.scene.result_of(store)
    result.translate = np.add(result.translate, (0, 50, 0))
    panel.view.in_3d.click()
    (after,) = panel.scene.layers_of(store, "box")
    np.testing.assert_allclose(np.subtract(after.translate, before.translate), (0, 50, 0))


def test_3d_shows_the_whole_result_also_beside_another_image(panel, viewer, ct, generated):
    viewer.add_image(np.zeros((20, 20, 20)), scale=(9,) * 3, translate=(900,) * 3, units="mm")
    result = panel.scene.result_of(generated(ct))
    panel.view.in_3d.click()
    low, high = result.extent.world
    np.testing.assert_allclose(viewer.scene.camera.center, (low + high) / 2)
    share = viewer.scene.camera.zoom * (high - low).max() / min(viewer.canvas.size)
    assert 0.5 < share < 1


def test_box_of_a_reopened_store_appears_in_3d(panel, viewer, ct, generated):
    store = generated(ct)
    refine(store, region=Box((2, 4, 4), (10, 12, 12)), scale=1)
    path = store.path
    viewer.layers.clear()
    viewer.open(str(path), plugin="napari-msgan")
    panel.view.in_3d.click()
    store = panel.session.opened.store
    (layer,) = panel.scene.layers_of(store, "box")
    assert layer.visible
    assert layer.bounding_box.visible
    region = Box.parse(layer.metadata["napari_msgan"]["region"], store.geometry.axes)
    assert store.is_refined(1, region)
    np.testing.assert_array_equal(layer.data, store.array(1)[region.slices])


def test_a_ct_has_a_window_of_its_own_in_3d_and_gets_its_slices_one_back(
    panel, viewer, ct, generated
):
    store = generated(ct)
    layer = panel.scene.result_of(store)
    panel.view.windows["Lung"].click()
    viewer.dims.ndisplay = 3  # also by napari's own button
    assert layer.rendering == "average"
    assert tuple(layer.contrast_limits) == PROJECTION
    panel.view.windows["Bone"].click()
    other = generated(ct)  # now this one is open
    viewer.dims.ndisplay = 2
    assert tuple(layer.contrast_limits) == (-1000, 150)
    assert tuple(panel.scene.result_of(other).contrast_limits) == (-160, 240)


def test_result_that_is_opened_in_3d_stays_open_while_its_boxes_come(panel, viewer, ct, generated):
    first, second = generated(ct), generated(ct)
    for store in (first, second):
        refine(store, region=Box((2, 4, 4), (10, 12, 12)), scale=1)
    panel.view.in_3d.click()
    viewer.layers.selection.active = panel.scene.result_of(second)
    panel.refine.result.setCurrentIndex(0)
    assert panel.session.opened.store is first
    shown = {layer for layer in viewer.layers if layer.visible}
    assert shown == {*panel.scene.results()[:1], *panel.scene.layers_of(first, "box")}


@pytest.mark.parametrize(
    ("text", "suffix"), [("OME-Zarr", ".ome.zarr"), ("OME-TIFF", ".ome.tif"), ("NIfTI", ".nii.gz")]
)
def test_save_button_writes_what_the_library_exports(
    panel, ct, generated, finish, tmp_path, monkeypatch, text, suffix
):
    store = generated(ct)
    target = tmp_path / f"saved{suffix}"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target), ""))
    panel.save.format.setCurrentText(text)
    panel.save.grid.setCurrentText("the source's grid")
    panel.save.save.click()
    finish()
    assert panel.bar.status.text() == f"Saved {target.name}."
    export(store, tmp_path / f"other{suffix}", grid="source")
    saved, wanted = read_volume(target), read_volume(tmp_path / f"other{suffix}")
    assert saved.shape == ct.data.shape
    whole = tuple(slice(0, n) for n in saved.shape)
    np.testing.assert_array_equal(np.asarray(saved.data[whole]), np.asarray(wanted.data[whole]))
    assert read_description(target)["synthetic"] is True


def test_region_under_refine_is_saved_if_it_is_one(
    panel, viewer, xray, generated, finish, tmp_path, monkeypatch
):
    store = generated(xray)
    target, other = tmp_path / "part.ome.tif", tmp_path / "other.ome.tif"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target), ""))
    panel.save.format.setCurrentText("OME-TIFF")
    panel.save.region.setCurrentText("Region under Refine")
    panel.refine.region.setCurrentText("Rectangles")
    shapes = viewer.add_shapes(
        [[[10, 10], [10, 30], [30, 30], [30, 10]], [[50, 50], [50, 90], [80, 90], [80, 50]]]
    )
    panel.save.save.click()
    assert "one region, 2 are chosen" in panel.job.outcome
    shapes.selected_data = {1}
    panel.save.save.click()
    finish()
    export(store, other, region=Box((50, 50), (81, 91)))
    saved, wanted = read_volume(target), read_volume(other)
    assert saved.shape == (31, 41)
    np.testing.assert_array_equal(saved.data[:, :], wanted.data[:, :])


def test_only_a_picture_can_be_saved_as_one(
    panel, xray, ct, generated, finish, tmp_path, monkeypatch
):
    store = generated(xray)
    target = tmp_path / "saved.png"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target), ""))
    panel.save.format.setCurrentText("PNG")
    panel.save.save.click()
    finish()
    whole = np.s_[:117, :150]
    finest = panel.scene.result_of(store).data[0]
    np.testing.assert_array_equal(read_volume(target).data, np.asarray(finest)[whole])
    generated(ct)
    assert panel.save.format.findText("PNG") < 0
    panel.refine.result.setCurrentIndex(0)
    assert panel.save.format.findText("PNG") >= 0


def test_taken_name_is_told(panel, ct, generated, finish, tmp_path, notes, monkeypatch):
    generated(ct)
    target = tmp_path / "taken.ome.zarr"
    target.mkdir()
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target), ""))
    panel.save.save.click()
    finish()
    (message,) = (note.message for note in notes if "taken.ome.zarr" in note.message)
    assert message.endswith("exists already: choose another name, or delete it first")
    assert panel.save.save.isEnabled()


def test_name_too_long_for_a_file_is_told(panel, xray, generated, finish, tmp_path, monkeypatch):
    generated(xray)
    name = "n" * 300 + ".ome.zarr"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / name), ""))
    panel.save.save.click()
    finish()
    assert panel.job.has_failed
    assert panel.job.outcome != ""


def test_store_is_never_overwritten(panel, xray, generated, notes):
    store = generated(xray)
    panel.source.path.setText(str(store.path))
    panel.generate_button.click()
    assert not panel.job.is_running
    assert any("exists already" in note.message for note in notes)


def test_opened_store_is_refined_on(panel, viewer, xray, generated, finish):
    path = generated(xray).path
    viewer.layers.clear()
    assert panel.session.opened is None
    assert not panel.refine_button.isEnabled()
    viewer.open(str(path), plugin="napari-msgan")
    assert panel.session.opened is not None
    assert len(viewer.layers) == 2
    before = np.asarray(viewer.layers[0].data[0])
    panel.refine.region.setCurrentText("Everything")
    panel.refine_button.click()
    finish()
    assert panel.session.opened.store.refined_fraction(2) == 1
    assert (np.asarray(viewer.layers[0].data[0]) != before).any()


def test_open_button_goes_on_with_a_saved_store_or_says_why_not(
    panel, viewer, xray, generated, monkeypatch, tmp_path
):
    first, second = generated(xray), generated(xray)
    for layer in (*panel.scene.layers_of(first, "result"), *panel.scene.layers_of(first, "sketch")):
        viewer.layers.remove(layer)

    def choose(folder):
        monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
        panel.refine.open.click()
        return panel.session.opened.store

    panel.save.format.setCurrentText("NIfTI")
    assert choose(tmp_path) is second
    assert "is not an OME-Zarr 0.5 group" in panel.refine.open_problem.text()
    assert choose(first.path).path == first.path
    assert panel.refine.open_problem.text() == ""
    assert panel.refine.result.currentText() == panel.scene.result_of(first).name
    assert len(panel.scene.layers_of(first, "sketch")) == 1
    assert panel.save.format.currentText() == "NIfTI"  # as chosen before
    n_layers = len(viewer.layers)
    assert choose("").path == first.path  # the dialog was cancelled
    assert len(viewer.layers) == n_layers


def test_open_button_shows_a_store_only_once(panel, viewer, xray, generated, monkeypatch, tmp_path):
    first, second = generated(xray), generated(xray)

    def choose(folder):
        monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
        panel.refine.open.click()
        return panel.session.opened

    names = [layer.name for layer in viewer.layers]
    assert choose(tmp_path).store is second
    assert "is not an OME-Zarr" in panel.refine.open_problem.text()
    panel.scene.result_of(second).visible = False
    assert choose(second.path).store is second
    assert panel.refine.open_problem.text() == ""
    assert panel.scene.result_of(second).visible
    assert choose(first.path).store is first
    assert [layer.name for layer in viewer.layers] == names
    result, (sketch,) = panel.scene.result_of(first), panel.scene.layers_of(first, "sketch")
    viewer.layers.remove(sketch)
    result.translate = result.translate + 100
    assert choose(first.path).store is first
    (sketch,) = panel.scene.layers_of(first, "sketch")  # it is back, and where the result is now
    np.testing.assert_allclose(sketch.extent.world, result.extent.world)
    assert viewer.layers.selection.active is result

    viewer.layers.remove(result)
    assert choose(first.path).store is first
    result = panel.scene.result_of(first)
    np.testing.assert_allclose(result.extent.world, sketch.extent.world)
    assert viewer.layers.index(result) < viewer.layers.index(sketch)

    viewer.layers.remove(panel.scene.result_of(second))
    away = first.path.rename(tmp_path / "away")
    panel.refine._open_result()
    assert panel.session.opened is None
    away.rename(first.path)
    assert choose(first.path).store.path == first.path
    assert panel.scene.results() == [result]


def test_letters_are_seen_while_they_are_wanted(panel, viewer, ct, generated):
    def written():
        ours = (box for key, box in viewer.canvas.overlays.items() if "msgan" in key)
        return "".join(box.text for box in ours if box.visible)

    generated(ct)
    assert written() == "APRL"
    panel.view.letters.click()
    panel.view.planes["Coronal"].click()
    assert written() == ""
    panel.view.letters.click()
    assert written() == "SIRL"


def test_layers_are_saved_through_the_file_menu(panel, viewer, ct, generated, tmp_path):
    generated(ct)
    layer = panel.scene.results()[0]
    (path,) = layer.save(str(tmp_path / "a.nii.gz"), plugin="napari-msgan")
    assert read_description(path)["synthetic"] is True
    panel.view.compare.setCurrentText("Wipe")
    with pytest.raises(MsganError, match="Save the result"):
        compared(viewer).save(str(tmp_path / "wipe.nii.gz"), plugin="napari-msgan")


def test_plugin_menu_gives_the_panel_and_it_fits_the_screen(viewer, qtbot):
    _, panel = viewer.window.add_plugin_dock_widget("napari-msgan", "Generate and refine")
    assert isinstance(panel, GeneratePanel)
    qtbot.wait(50)
    assert panel.minimumSizeHint().height() < 400
    assert viewer.window._qt_window.height() <= 1000
    panel.close_session()


def test_model_card_shows_its_text(panel, models, qtbot):
    from napari_msgan._napari.model_panel import ModelCard

    panel.model.choose_name("small-xr")
    card = ModelCard(panel, panel.model.folder, panel.model.spec)
    assert "has no card" in card.text.toPlainText()
    card.deleteLater()
    folder = models / "small-xr"
    (folder / "README.md").write_text("# Chest\n\nTrained on *nothing*.", encoding="utf-8")
    card = ModelCard(panel, panel.model.folder, panel.model.spec)
    assert "Trained on nothing." in card.text.toPlainText()
    card.deleteLater()


def test_broken_model_folder_says_why(panel, tmp_path, monkeypatch):
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    panel.model.browse.click()
    assert "has no model.json" in panel.model.problem.text()


@pytest.mark.slow
def test_unattended_demo_leaves_pictures_and_files(
    tmp_path, models, monkeypatch, make_napari_viewer
):
    own = tmp_path / "models"
    write_model(own / "chest-xray", ndim=2, n_scales=3, name="chest-xray")
    write_model(own / "thorax-ct", ndim=3, n_scales=3, name="thorax-ct", base_size=16)
    monkeypatch.setenv("NAPARI_MSGAN_MODELS", str(own))
    xray = Volume(blobs((117, 150)), Affine(np.eye(3)), "pixel")
    ct = Volume(blobs((40, 44, 48)), Affine.of_spacing((2, 2, 2)), "millimeter")
    monkeypatch.setattr(demo_module.sample_data, "chest_xray", lambda: [volume_layer(xray, "X")])
    monkeypatch.setattr(demo_module.sample_data, "thorax_ct", lambda: [volume_layer(ct, "CT")])
    monkeypatch.setattr(demo_module.napari, "Viewer", lambda **_: make_napari_viewer(show=True))
    out = tmp_path / "out"
    demo_module.run(out, unattended=True)
    names = {path.name for path in out.iterdir()}
    assert {"chest-xray_1.ome.zarr", "thorax-ct_1.ome.zarr", "thorax-ct_1.nii.gz"} <= names
    assert len([name for name in names if name.endswith(".png")]) == 9
    assert read_description(out / "thorax-ct_1.nii.gz")["synthetic"] is True


def test_the_image_that_was_chosen_stays_chosen_when_its_job_ends(
    panel, viewer, ct, generated, finish
):
    first, second = generated(ct), generated(ct)
    assert viewer.layers.selection.active is panel.scene.result_of(second)
    panel.refine.result.setCurrentIndex(0)
    assert panel.session.opened.store is first
    panel.refine.region.setCurrentText("Everything")
    panel.refine_button.click()
    finish()
    assert first.refined_fraction(1) == 1
    assert panel.session.opened.store is first


@pytest.mark.parametrize(
    ("text", "typed", "saved"),
    [
        ("NIfTI", "b.nii", "b.nii.gz"),
        ("OME-TIFF", "a.tif", "a.ome.tif"),
        ("OME-Zarr", "a.zarr", "a.ome.zarr"),
        ("OME-TIFF", "a.b", "a.b.ome.tif"),
        ("OME-TIFF", "a.ome.tiff", "a.ome.tif"),
        ("OME-TIFF", "a.ome.zarr", "a.ome.tif"),
        ("NIfTI", "B.NII.GZ", "B.nii.gz"),
    ],
)
def test_half_an_ending_is_completed(
    panel, ct, generated, finish, tmp_path, monkeypatch, text, typed, saved
):
    generated(ct)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / typed), ""))
    panel.save.format.setCurrentText(text)
    panel.save.save.click()
    finish()
    assert (tmp_path / saved).exists()


def test_planes_are_offered_for_volumes_and_keep_the_place(panel, viewer, ct, xray, generated):
    planes = panel.view.planes
    generated(xray)
    assert not any(plane.isVisible() for plane in planes.values())
    store = generated(ct)
    assert all(plane.isVisible() for plane in planes.values())
    middle = np.add(np.mean(panel.scene.result_of(store).extent.world, 0), (2, 3, 5))
    viewer.dims.set_point((0, 1, 2), middle)
    planes["Sagittal"].click()
    assert viewer.dims.order == (2, 0, 1)
    np.testing.assert_allclose(viewer.dims.point, middle, atol=1.3)
    panel.view.in_3d.click()
    planes["Coronal"].click()
    assert (viewer.dims.ndisplay, viewer.dims.order) == (2, (1, 0, 2))
    np.testing.assert_allclose(viewer.dims.point, middle, atol=1.3)


def test_the_scale_that_was_chosen_stays_chosen_when_a_store_is_opened_again(
    panel, viewer, xray, ct, generated
):
    first, second = generated(xray), generated(ct)
    target = panel.refine.target
    panel.refine.result.setCurrentIndex(
        panel.refine.result.findData(key_of(panel.scene.result_of(first)))
    )
    honest = panel.refine.target
    panel.refine.scale.setCurrentIndex(panel.refine.scale.findData(1))
    assert panel.refine.target == 1 != honest
    viewer.open(str(second.path), plugin="napari-msgan")
    assert panel.session.opened.store.path == second.path
    assert panel.refine.target == target
    viewer.open(str(first.path), plugin="napari-msgan")
    assert panel.session.opened.store.path == first.path
    assert panel.refine.target == 1


def test_what_was_said_of_a_job_goes_when_another_store_is_opened(panel, viewer, xray, generated):
    first = generated(xray)
    assert panel.bar.status.text() == "Made the image."
    second = generated(xray)
    assert panel.bar.status.text() == "Made the image."
    viewer.layers.selection.active = panel.scene.result_of(first)
    assert panel.session.opened.store.path == first.path != second.path
    assert panel.bar.status.text() == ""
