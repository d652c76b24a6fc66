"""Images of several seeds are compared pair by pair."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.precision import measure as measure_precision
from benchmarks.seeds import compare, measure, table
from tests.models import write_model


def test_differences_of_known_images():
    flat = np.zeros((16, 24), np.float32)
    texture = np.indices(flat.shape).sum(0) % 2 * 4.0 - 2
    assert compare([flat, flat]) == (0, 0, 0)
    assert compare([flat, texture.astype(np.float32)]) == (2, 0, 2)  # no more than texture
    assert compare([flat, flat + 3]) == (3, 3, 3)
    mean, low_pass, largest = compare([flat, flat + 3, flat + 6])
    assert (mean, low_pass, largest) == (4, 4, 6)


@pytest.mark.parametrize("noise", [0, 0.2])
def test_only_noise_makes_seeds_differ_and_only_above_scale_0(tmp_path, noise):
    pixels = np.sort(np.random.default_rng(0).integers(0, 255, (90, 70), np.uint8), axis=1)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    model = write_model(tmp_path / "model", base_size=22, noise=noise)
    if noise:
        rows = measure(str(model), tmp_path / "a.png", 2)
    else:
        with pytest.warns(UserWarning, match="has no random part"):
            rows = measure(str(model), tmp_path / "a.png", 2)
    assert [row[1] for row in rows] == [0, 1, 2]
    assert rows[0][2:] == (0, 0, 0)
    assert all((row[2] > 0) == bool(noise) for row in rows[1:])
    assert "| 0 | 1 | 0.00 | 0.00 | 0.0 |" in table(rows)


def test_scales_that_were_not_made_have_no_row(tmp_path):
    pixels = np.sort(np.random.default_rng(0).integers(0, 255, (90, 70), np.uint8), axis=1)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    model = str(write_model(tmp_path / "model", base_size=22, noise=0.2))
    assert [row[1] for row in measure(model, tmp_path / "a.png", 2, scale=1)] == [0, 1]
    assert [row[1] for row in measure_precision(model, tmp_path / "a.png", scale=1)] == [0, 1]
