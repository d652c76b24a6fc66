"""Models with a random part offer a seed; others do not."""

import numpy as np
import pytest

from napari_msgan import generate
from napari_msgan._napari.from_layer import to_volume
from napari_msgan._napari.panel import GeneratePanel
from tests.models import write_model


@pytest.fixture
def panel(viewer, tmp_path, monkeypatch):
    """A panel with a model of either kind."""
    folder = tmp_path / "models"
    write_model(folder / "plain", name="plain")
    write_model(folder / "noisy", name="noisy", noise=0.2)
    monkeypatch.setenv("NAPARI_MSGAN_MODELS", str(folder))
    panel = GeneratePanel(viewer)
    viewer.window.add_dock_widget(panel, area="right")
    yield panel
    panel.close_session()


def test_seed_is_offered_where_it_changes_the_image(panel, xray, finish, tmp_path):
    seed = panel.source.seed
    label = panel.source.form.labelForField(seed)
    panel.source.choose(xray)
    panel.model.choose_name("noisy")
    assert seed.isVisible()
    assert label.isVisible()
    seed.setValue(3)
    panel.model.choose_name("plain")
    assert not seed.isVisible()
    assert not label.isVisible()
    panel.model.choose_name("noisy")
    panel.generate_button.click()
    finish()
    store = panel.session.opened.store
    assert store.info.seed == 3
    assert panel.refine.result.currentText().endswith(", seed 3")
    panel.refine.region.setCurrentText("Everything")
    panel.refine_button.click()
    finish()
    same, other = (
        generate(to_volume(xray), tmp_path / f"{n}.ome.zarr", panel.model.folder, seed=n)
        for n in (3, 4)
    )
    made = np.asarray(store.array(2)[...])
    np.testing.assert_array_equal(made, same.array(2)[...])
    assert (made != other.array(2)[...]).mean() > 0.5


def test_seed_of_a_model_without_a_random_part_is_not_taken(panel, xray, finish):
    panel.source.choose(xray)
    panel.model.choose_name("noisy")
    panel.source.seed.setValue(3)
    panel.model.choose_name("plain")
    panel.generate_button.click()
    finish()
    assert panel.session.opened.store.info.seed == 0
    assert "seed" not in panel.refine.result.currentText()
