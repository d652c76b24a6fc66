from threading import Event

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_msgan._napari import sketch_widget as module
from napari_msgan._napari.from_layer import to_volume
from napari_msgan._napari.sketch_widget import SketchWidget
from napari_msgan._napari.to_layer import volume_layer
from napari_msgan.geometry import Affine
from napari_msgan.sketch import lazy_sketch
from napari_msgan.sketch_settings import SketchSettings
from napari_msgan.volume import Volume


@pytest.fixture
def image(viewer):
    rng = np.random.default_rng(0)
    rings = np.sin(np.hypot(*np.indices((90, 70))) / 4) + 0.05 * rng.standard_normal((90, 70))
    return viewer.add_image(rings.astype(np.float32), scale=(2, 3), translate=(5, 7), name="rings")


@pytest.fixture
def widget(viewer, image):
    widget = SketchWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Edge sketch of an image")
    yield widget
    widget.close_session()


def press(widget):
    widget.make.native.click()


@pytest.fixture
def gate(monkeypatch):
    """Hold the sketch back until `gate.set()`."""
    event = Event()

    def slow(*arguments):
        event.wait(20)
        return lazy_sketch(*arguments)

    monkeypatch.setattr(module, "lazy_sketch", slow)
    yield event
    event.set()


def test_sketch_lies_on_its_image_and_equals_the_librarys(
    viewer, image, widget, qtbot, monkeypatch
):
    monkeypatch.setattr(module, "_BLOCK", {2: (32, 32)})
    widget.density.value = 9
    press(widget)
    qtbot.waitUntil(lambda: "rings (sketch)" in viewer.layers, timeout=5000)
    made = viewer.layers["rings (sketch)"]
    expected = lazy_sketch(image.data, SketchSettings(low_density=0.09, high_density=0.05))
    whole = (slice(0, 90), slice(0, 70))
    np.testing.assert_array_equal(made.data, expected[whole])
    assert tuple(made.scale) == (2, 3)
    np.testing.assert_allclose(made.translate, (5, 7))
    assert 0.04 < (made.data > 0).mean() < 0.1
    brightness = [made.get_color(value)[:3].sum() for value in (64, 128, 255)]
    assert 0 < brightness[0] < brightness[1] < brightness[2]
    assert made.selected_label == 255
    assert widget.bar.status.text().startswith("Made the sketch.")
    assert made.selected_label == 255


def test_sketch_of_an_oblique_image_keeps_its_place(viewer, widget, qtbot):
    turn = Rotation.from_rotvec((0, 0, 0.3)).as_matrix()
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn * 2, (5, 6, 7)
    volume = Volume(np.zeros((9, 10, 11)), Affine(matrix), "millimeter")
    data, options, _ = volume_layer(volume, "oblique")
    oblique = widget.image.value = viewer.add_image(data, **options)
    press(widget)
    qtbot.waitUntil(lambda: "oblique (sketch)" in viewer.layers, timeout=5000)
    found = to_volume(viewer.layers["oblique (sketch)"])
    np.testing.assert_allclose(found.affine.matrix, to_volume(oblique).affine.matrix)
    assert found.affine.is_oblique


def test_window_stays_awake_and_no_second_sketch_is_begun(viewer, image, widget, gate, qtbot):
    press(widget)
    assert not widget.make.enabled
    qtbot.waitUntil(lambda: widget.bar.status.text() == "Finding edges", timeout=5000)
    assert widget.bar.bar.isVisible()
    press(widget)
    widget._make()  # as if the button had been pressed
    assert "running already" in widget.problem.text()
    assert list(viewer.layers) == [image]
    gate.set()
    qtbot.waitUntil(lambda: not widget.job.is_running, timeout=5000)
    assert [layer.name for layer in viewer.layers] == ["rings", "rings (sketch)"]
    assert not widget.bar.bar.isVisible()
    assert widget.make.enabled


def test_cancelled_sketch_adds_nothing(viewer, image, widget, gate, qtbot):
    press(widget)
    qtbot.waitUntil(lambda: widget.bar.status.text() == "Finding edges", timeout=5000)
    widget.bar.cancel.click()
    gate.set()
    qtbot.waitUntil(lambda: not widget.job.is_running, timeout=5000)
    assert widget.bar.status.text() == "Cancelled. Nothing was added."
    assert list(viewer.layers) == [image]


@pytest.mark.parametrize("error", [RuntimeError("no threads"), MemoryError("too large")])
def test_failing_sketch_is_told(viewer, image, widget, notes, qtbot, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(module, "lazy_sketch", fail)
    press(widget)
    qtbot.waitUntil(lambda: not widget.job.is_running, timeout=5000)
    assert str(error) in widget.bar.status.text()
    assert any(str(error) in note.message for note in notes)
    assert widget.make.enabled


def test_image_that_cannot_be_read_is_refused_in_words(viewer, widget):
    turned = viewer.add_image(np.zeros((9, 9), np.uint8), rotate=10, name="turned")
    widget.image.value = turned
    press(widget)
    assert "rotated" in widget.problem.text()
    viewer.layers.remove(turned)
    assert widget.image.value.name == "rings"
    viewer.layers.clear()
    assert not widget.make.enabled


def test_closing_the_dock_stops_the_sketch(viewer, image, widget, gate, qtbot):
    press(widget)
    qtbot.waitUntil(lambda: widget.bar.status.text() == "Finding edges", timeout=5000)
    job = widget.jobs._job
    gate.set()
    n_listeners = len(viewer.layers.events.removing.callbacks)
    viewer.window.remove_dock_widget(widget)
    assert job.ended.is_set()
    assert len(viewer.layers.events.removing.callbacks) == n_listeners - 1
    qtbot.wait(50)
    assert list(viewer.layers) == [image]
    widget.deleteLater()


def test_menu_gives_the_widget(viewer, qtbot):
    _, widget = viewer.window.add_plugin_dock_widget("napari-msgan", "Edge sketch of an image")
    assert isinstance(widget, module.SketchWidget)
    qtbot.wait(20)
    widget.close_session()


def test_painted_line_changes_the_generated_image(viewer, image, widget, panel, finish, qtbot):
    press(widget)
    qtbot.waitUntil(lambda: "rings (sketch)" in viewer.layers, timeout=5000)
    sketch = viewer.layers["rings (sketch)"]
    results = []
    for painted in (False, True):
        if painted:
            sketch.data_setitem((np.full(60, 45), np.arange(5, 65)), 255)
        panel.model.choose_name("small-xr")
        panel.source.choose(sketch)
        panel.source.is_sketch.setChecked(True)
        panel.generate_button.click()
        finish()
        results.append(np.asarray(panel.session.opened.store.array(0)[...]))
    assert to_volume(sketch).data.shape == (90, 70)
    assert not np.array_equal(*results)


def test_sketch_leaves_room_to_the_panel(viewer, panel, qtbot):
    viewer.window._qt_window.resize(1500, 900)
    qtbot.wait(100)
    viewer.window.add_plugin_dock_widget("napari-msgan", "Edge sketch of an image")
    qtbot.wait(300)
    assert panel.height() > 250


def test_edges_of_a_result_are_not_proposed(viewer, xray, generated):
    generated(xray)
    widget = SketchWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Edge sketch of an image")
    result = viewer.layers.selection.active
    assert result is not xray
    assert widget.image.value is xray
    widget.image.value = result  # by who wants to
    widget.reset_choices()
    assert widget.image.value is result
    widget.close_session()


def test_image_stays_chosen_while_the_widget_is_hidden(viewer, image, widget, qtbot):
    other = viewer.add_image(np.zeros((9, 9)), name="other")
    widget.image.value = image
    viewer.layers.selection.active = other
    widget.hide()
    widget.show()
    assert widget.image.value is image
