"""Imported models in stores: what the authors' pipeline gives, in any order, for any shape."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from napari_msgan import jobs
from napari_msgan.computing import TileContext
from napari_msgan.config import INEXACT_NOTE
from napari_msgan.exporting import provenance
from napari_msgan.geometry import Affine, Box
from napari_msgan.megan_import import import_megan
from napari_msgan.model import load_folder
from napari_msgan.networks import patchwork
from napari_msgan.pyramid import open_pyramid
from napari_msgan.volume import Volume
from tests.megan import write_checkpoints

REFERENCE = Path(__file__).parents[2] / "shared" / "megan"
#: The reference is stored as float16.
TOLERANCE = 2e-3

needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="no reference data of the authors' pipeline in ../shared/megan"
)


def volume(sketch):
    return Volume(sketch, Affine.of_spacing((1.0,) * 3), "pixel")


def random_sketch(shape):
    rng = np.random.default_rng(0)
    return np.where(rng.random(shape) < 0.1, rng.integers(1, 256, shape), 0).astype(np.uint8)


def contents(store):
    return [np.asarray(store.array(s)[...]) for s in range(store.n_scales)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The imported model, the sketch and what is expected of it."""
    folder = tmp_path_factory.mktemp("reference") / "model"
    import_megan(REFERENCE, folder)
    with np.load(REFERENCE / "sketch.npz") as file:
        sketch = volume(file["sketch"])
    with np.load(REFERENCE / "expected.npz") as file:
        expected = [file[f"scale_{scale}"].astype(np.float32) for scale in range(3)]
    return load_folder(folder), sketch, expected


def differences(reference, out, last_scale):
    """Return the largest difference to the authors' pipeline at each scale."""
    model, sketch, expected = reference
    store = jobs.generate(
        sketch, out, model, input_is_sketch=True, device="cpu", scale=last_scale, workers=2
    )
    return [
        float(np.abs(np.asarray(store.array(s)[...]) - expected[s]).max())
        for s in range(last_scale + 1)
    ]


@needs_reference
def test_every_scale_is_that_of_the_authors_pipeline(reference, tmp_path):
    assert max(differences(reference, tmp_path / "a.ome.zarr", 2)) < TOLERANCE


@needs_reference
@pytest.mark.parametrize(
    ("constant", "value"),
    [("STRIDE", 16), ("MARGIN", 5), ("_LAST_COUNTS", 1)],
    ids=["stride", "crop", "last patch"],
)
def test_another_patchwork_is_not_that_of_the_authors(
    reference, tmp_path, monkeypatch, constant, value
):
    monkeypatch.setattr(patchwork, constant, value)
    low_res, high_res = differences(reference, tmp_path / "a.ome.zarr", 1)
    assert low_res < TOLERANCE
    assert high_res > 10 * TOLERANCE


@needs_reference
def test_rounded_sketches_would_not_be_accurate_enough(reference, tmp_path, monkeypatch):
    def stored(self, scale):
        return self.store.sketch_array(scale)

    monkeypatch.setattr(TileContext, "sketch", stored)
    assert min(differences(reference, tmp_path / "a.ome.zarr", 1)) > 5 * TOLERANCE


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """An imported model with small tiles, and a finished store of an odd shape."""
    folder = tmp_path_factory.mktemp("small")
    import_megan(write_checkpoints(folder / "theirs"), folder / "model", window=(-1000, 600))
    path = folder / "model" / "model.json"
    content = json.loads(path.read_text()) | {"tile_shape": [40] * 3, "chunk_shape": [20] * 3}
    path.write_text(json.dumps(content))
    model, sketch = load_folder(folder / "model"), volume(random_sketch((45, 70, 101)))
    options = {"input_is_sketch": True, "device": "cpu"}
    start = jobs.generate(sketch, folder / "start.ome.zarr", model, scale=0, **options)
    whole = jobs.generate(sketch, folder / "whole.ome.zarr", model, workers=1, **options)
    return model, start, whole


def test_any_shape_is_made_and_uses_the_window(small):
    _, _, whole = small
    assert [a.shape for a in contents(whole)] == [(12, 18, 26), (23, 35, 51), (45, 70, 101)]
    for image in contents(whole):
        assert image.dtype == np.float32
        assert -1000 <= image.min() < -300 < 0 < image.max() <= 600


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["A-B", "B-A"])
def test_regions_in_any_order_give_the_same_bits(small, tmp_path, order, workers):
    model, start, whole = small
    copy = shutil.copytree(start.path, tmp_path / "copy.ome.zarr")
    regions = [Box((0, 0, 0), (45, 70, 60)), Box((0, 0, 50), (45, 70, 101))]
    for index in order:
        store = jobs.refine(copy, region=regions[index], model=model, device="cpu", workers=workers)
    for mine, theirs in zip(contents(store), contents(whole), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_region_computes_its_tiles_only(small, tmp_path):
    model, start, _ = small
    copy = shutil.copytree(start.path, tmp_path / "copy.ome.zarr")
    store = jobs.refine(copy, region=Box((0, 0, 0), (9, 9, 9)), model=model, device="cpu")
    assert store.is_refined(2, Box((0, 0, 0), (40, 40, 40)))
    assert store.refined_fraction(2) < 0.3


def test_image_in_place_of_a_sketch_is_made_too(small, tmp_path):
    rng = np.random.default_rng(1)
    image = volume(rng.random((40, 45, 50)).astype(np.float32))
    store = jobs.generate(image, tmp_path / "a.ome.zarr", small[0], device="cpu")
    assert store.info.sketch.thresholds is not None
    assert store.refined_fraction(store.geometry.finest_scale) == 1


def test_store_and_saved_files_say_that_tiles_are_not_exact(small):
    _, _, whole = small
    store = open_pyramid(whole.path)
    assert not store.info.exact
    said = provenance(store, 2, Box.of_shape(store.geometry.shape), "store")
    assert (said["exact"], said["tiles"]) == (False, INEXACT_NOTE)
