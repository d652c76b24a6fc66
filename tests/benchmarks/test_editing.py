"""What an edit changes is told apart from what it leaves."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.editing import compare, distance, measure, table
from napari_msgan import generate
from tests.models import write_model


@pytest.fixture
def image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (18, 23), np.uint8).repeat(4, 0).repeat(4, 1)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_an_edit_changes_the_rest_less_than_a_given_sketch_does(image, tmp_path):
    model = str(write_model(tmp_path / "model", base_size=22))
    (_, way, inside, outside), (_, other, _, given) = rows = measure(model, image)
    assert (way, other) == ("edited", "given")
    assert inside > 0
    assert outside < given / 2
    assert f"| edited | 1 | {inside:.2f} | {outside:.2f} |" in table(rows)


def test_changes_are_counted_where_they_are(image, tmp_path):
    model = write_model(tmp_path / "model", base_size=22)
    store = generate(image, tmp_path / "a.ome.zarr", model, device="cpu")
    away = distance(store.geometry.shape)
    assert (away[36, 23], away[36, 30]) == (0, 7)

    class Brighter:
        def array(self, scale):
            low, high = store.info.window
            image = np.asarray(store.array(scale)[...], np.float32)
            return image + np.where(away < 9, (high - low) / 50, 0)

    assert compare(store, Brighter(), away, 9) == pytest.approx((2, 0), abs=1e-3)
