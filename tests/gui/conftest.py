"""A real window, real (small, random) models, real buttons."""

from __future__ import annotations

import numpy as np
import pytest
from napari.utils import notifications

from napari_msgan._napari.panel import GeneratePanel
from tests.models import write_model


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A user's model folder with a 2-D and a 3-D model."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "small-xr", ndim=2, n_scales=3, name="small-xr")
    write_model(folder / "small-ct", ndim=3, n_scales=3, name="small-ct", base_size=16)
    return folder


@pytest.fixture(autouse=True)
def folders(models, tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_MSGAN_MODELS", str(models))
    monkeypatch.setenv("NAPARI_MSGAN_STORES", str(tmp_path / "stores"))


@pytest.fixture(autouse=True)
def notes(monkeypatch):
    """The notifications that the user would see."""
    seen = []
    monkeypatch.setattr(
        notifications.notification_manager, "dispatch", lambda note: seen.append(note)
    )
    return seen


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer(show=True)


@pytest.fixture
def panel(viewer):
    panel = GeneratePanel(viewer)
    viewer.window.add_dock_widget(panel, name="Generate and refine", area="right")
    yield panel
    panel.close_session()


@pytest.fixture
def finish(qtbot, panel):
    """Wait until the running job ended."""

    def wait(timeout_s=30):
        qtbot.waitUntil(lambda: not panel.job.is_running, timeout=timeout_s * 1000)

    return wait


def blobs(shape, seed=3):
    """A smooth image with edges, uint8."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape), 3)
    return np.where(smooth > 0, 200, 40).astype(np.uint8) + (smooth * 50).astype(np.int8).astype(
        np.uint8
    )


@pytest.fixture
def xray(viewer):
    """An X-ray of odd size."""
    return viewer.add_image(blobs((117, 150)), name="X-ray")


@pytest.fixture
def ct(viewer):
    """A CT with thick slices, an odd size and a place of its own."""
    return viewer.add_image(
        blobs((21, 45, 39)),
        name="CT",
        scale=(2.5, 1.0, 1.0),
        translate=(-100.0, 20.0, 7.0),
        units=("mm", "mm", "mm"),
    )


@pytest.fixture
def generated(panel, finish):
    """Press Generate for a layer; return the store."""

    def generate(layer):
        panel.source.choose(layer)
        panel.model.choose_name("small-xr" if layer.ndim == 2 else "small-ct")
        panel.generate_button.click()
        finish()
        assert panel.session.opened is not None, panel.job.outcome
        return panel.session.opened.store

    return generate
