import numpy as np
import pytest

from napari_msgan._napari.from_layer import to_volume
from napari_msgan._napari.sketch_widget import sketch_widget
from napari_msgan.config import SketchSettings
from napari_msgan.sketch import lazy_sketch


@pytest.fixture
def image(viewer):
    rng = np.random.default_rng(0)
    rings = np.sin(np.hypot(*np.indices((90, 70))) / 4) + 0.05 * rng.standard_normal((90, 70))
    return viewer.add_image(rings.astype(np.float32), scale=(2, 3), translate=(5, 7), name="rings")


def test_sketch_lies_on_its_image_and_equals_the_librarys(viewer, image, qtbot):
    widget = sketch_widget()
    viewer.window.add_dock_widget(widget, name="Edge sketch of an image")
    widget.image.reset_choices()
    widget.density.value = 9.0
    widget.call_button.native.click()
    qtbot.waitUntil(lambda: "rings (sketch)" in viewer.layers, timeout=5000)
    made = viewer.layers["rings (sketch)"]
    expected = lazy_sketch(image.data, SketchSettings(low_density=0.09, high_density=0.05))
    whole = (slice(0, 90), slice(0, 70))
    np.testing.assert_array_equal(made.data, expected[whole])
    assert tuple(made.scale) == (2, 3)
    np.testing.assert_allclose(made.translate, (5, 7))
    assert 0.04 < (made.data > 0).mean() < 0.1


def test_painted_line_changes_the_generated_image(viewer, image, panel, finish, qtbot):
    widget = sketch_widget()
    viewer.window.add_dock_widget(widget, name="Edge sketch of an image")
    widget.image.reset_choices()
    widget.call_button.native.click()
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
