"""Painting on the sketch of a result."""

import shutil

import numpy as np
import pytest
from napari.layers import Labels

from napari_msgan import generate, refine
from napari_msgan._napari import painting
from napari_msgan.geometry import Affine
from napari_msgan.volume import Volume
from tests.gui.conftest import blobs
from tests.models import write_model


@pytest.fixture
def painted(panel, finish, viewer):
    """Press *Paint on the sketch*; return the layer to paint on."""

    def press():
        panel.paint_button.click()
        finish()
        layer = viewer.layers.selection.active
        assert isinstance(layer, Labels), panel.job.outcome
        return layer

    return press


def finest_sketch(store):
    return np.asarray(store.sketch_array(store.geometry.finest_scale)[...])


def generate_again(panel, finish):
    panel.generate_button.click()
    finish()
    return panel.session.opened.store


@pytest.mark.parametrize("is_there", [False, True])
def test_one_paints_on_slices_also_coming_from_3d(panel, viewer, ct, generated, painted, is_there):
    store = generated(ct)
    if is_there:
        painted()
    viewer.dims.set_point(0, ct.data_to_world((4, 0, 0))[0])
    point = viewer.dims.point
    panel.view.in_3d.click()
    layer = painted()
    assert viewer.dims.ndisplay == 2
    assert viewer.dims.point == pytest.approx(point)
    assert layer.visible
    assert [x.visible for x in panel.scene.layers_of(store, "sketch")] == [False]


@pytest.mark.parametrize("name", ["xray", "ct"])
def test_copy_of_the_sketch_is_painted_on_and_changes_what_was_painted_only(
    request, panel, viewer, generated, painted, finish, name
):
    assert not panel.paint_button.isEnabled()
    first = generated(request.getfixturevalue(name))
    layer = painted()
    np.testing.assert_array_equal(layer.data, finest_sketch(first))
    result = panel.scene.result_of(first)
    np.testing.assert_allclose(layer.extent.world[0], result.extent.world[0])
    assert (layer.mode, layer.selected_label) == ("paint", 255)
    assert [x.visible for x in panel.scene.layers_of(first, "sketch")] == [False]
    assert panel.source.layer is layer
    assert panel.source.is_sketch.isChecked()
    assert f"a copy of the sketch of {first.path.name}" in panel.source.hint.text()
    assert painted() is layer  # not a second one

    same = generate_again(panel, finish)
    for scale in range(first.n_scales):
        np.testing.assert_array_equal(same.sketch_array(scale)[...], first.sketch_array(scale)[...])
    np.testing.assert_array_equal(same.array(0)[...], first.array(0)[...])

    layer.brush_size = 5
    layer.paint((9,) * layer.ndim, 255)
    other = generate_again(panel, finish)
    assert other.path != same.path
    np.testing.assert_array_equal(finest_sketch(other), layer.data)
    coarsest = np.asarray(other.sketch_array(0)[...]) != np.asarray(first.sketch_array(0)[...])
    assert 0 < coarsest.sum() <= 4**layer.ndim
    assert not np.array_equal(other.array(0)[...], first.array(0)[...])


def test_model_and_seed_are_those_of_the_store_that_was_opened(
    panel, viewer, painted, finish, tmp_path, monkeypatch
):
    folder = tmp_path / "two models"
    write_model(folder / "first", name="first")
    write_model(folder / "second", name="second", noise=0.5)
    monkeypatch.setenv("NAPARI_MSGAN_MODELS", str(folder))
    panel.model.reload()
    source = Volume(blobs((70, 61)), Affine.of_spacing((1.0, 1.0)), "pixel")
    first = generate(
        source, tmp_path / "a.ome.zarr", folder / "second", device="cpu", seed=7, precision="bf16"
    )
    viewer.open(str(first.path), plugin="napari-msgan")
    painted()
    assert panel.model.spec.name == "second"
    assert f"a copy of the sketch of {first.path.name}" in panel.source.hint.text()
    second = refine(generate_again(panel, finish), device="cpu")
    assert (second.info.seed, second.info.fingerprint.precision) == (7, "bf16")
    for scale in range(first.n_scales):
        np.testing.assert_array_equal(second.array(scale)[...], first.array(scale)[...])


def test_edited_image_is_compared_with_the_one_before(
    panel, viewer, generated, painted, finish, xray
):
    first = generated(xray)
    painted()
    second = generate_again(panel, finish)
    assert panel.session.opened.store is second
    panel.view.compare.setCurrentText("Difference")
    comparison = panel.view._comparison
    assert comparison.source is panel.scene.result_of(first)
    assert comparison.result is panel.scene.result_of(second)
    panel.source.choose(xray)
    assert panel.view._comparison.source is xray


def test_copy_that_was_made_an_image_is_a_sketch(panel, viewer, generated, painted, xray):
    generated(xray)
    layer = painted()
    place = {name: getattr(layer, name) for name in ("scale", "translate", "units", "metadata")}
    panel.source.choose(viewer.add_image(layer.data, **place))
    assert panel.source.is_sketch.isChecked()


def test_strengths_count_as_they_are_though_the_strongest_are_gone(
    panel, generated, painted, finish, xray
):
    generated(xray)
    layer = painted()
    layer.data = layer.data // 3
    second = generate_again(panel, finish)
    np.testing.assert_array_equal(finest_sketch(second), layer.data)
    assert layer.data.max() == 85


def test_copy_without_its_store_or_of_another_model_is_any_sketch(
    panel, viewer, generated, painted, finish, xray, models
):
    first = generated(xray)
    painted()
    viewer.layers.remove(panel.scene.result_of(first))
    viewer.layers.remove(panel.scene.layers_of(first, "sketch")[0])
    shutil.rmtree(first.path)
    panel.source._check()
    assert "used like any other sketch" in panel.source.hint.text()
    second = generate_again(panel, finish)
    assert second.info.sketch.edited is None
    assert second.info.source.is_sketch


def test_sketch_with_a_gap_is_not_copied(panel, viewer, generated, finish, xray, notes):
    first = generated(xray)
    before = list(viewer.layers)
    (first.path / "sketch" / "0" / "c" / "2" / "2").unlink()
    panel.paint_button.click()
    finish()
    assert "sketch/0/c/2/2 is missing" in panel.job.outcome
    assert list(viewer.layers) == before
    notes.clear()


def test_cancelled_copy_adds_nothing(panel, viewer, generated, finish, xray, monkeypatch):
    generated(xray)
    before = list(viewer.layers)
    panel.paint_button.click()
    panel.bar.cancel.click()
    finish()
    assert panel.job.outcome == "Cancelled. Nothing was added."
    assert list(viewer.layers) == before


def test_sketch_too_large_for_memory_is_refused_in_words(
    panel, viewer, generated, xray, monkeypatch
):
    generated(xray)
    before = list(viewer.layers)
    monkeypatch.setattr(painting, "_MAX_VOXELS", 1000)
    panel.paint_button.click()
    assert "too large to paint on here" in panel.bar.status.text()
    assert list(viewer.layers) == before
