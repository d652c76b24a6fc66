"""The share of voxels within one grey level is counted, over every block of every scale."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from benchmarks.precision import compare, measure, table
from napari_msgan import open_pyramid
from napari_msgan.geometry import Box
from tests.models import write_model


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "a.png"
    pixels = np.random.default_rng(0).integers(0, 255, (90, 70), np.uint8)
    Image.fromarray(np.sort(pixels, axis=1)).save(path)
    return path


def test_every_scale_is_compared(picture, tmp_path):
    model = write_model(tmp_path / "model", n_scales=4, base_size=11)
    rows = measure(str(model), picture)
    assert [row[:2] for row in rows] == [("a.png", scale) for scale in range(4)]
    assert rows[3][2] == 90 * 70
    assert [row[3:] for row in rows[:3]] == [(1, 0)] * 3  # both in float32
    assert 0 < rows[3][4] < 3
    other = [(*row[:3], 0.5, 9.0) for row in rows]
    assert "| 3 | 2 | 50.000 % |" in table([*rows, *other])


def test_voxels_that_differ_by_more_than_a_grey_level_are_counted(store, tmp_path):
    exact = store
    rounded = open_pyramid(shutil.copytree(exact.path, tmp_path / "b.ome.zarr"), writable=True)
    assert compare(exact, rounded, 2) == (90 * 70, 1.0, 0.0)
    low, high = exact.info.window
    level, box = (high - low) / 255, Box((0, 0), exact.info.chunk_shape)
    pixels = exact.read(2, box).astype(np.float64)
    pixels.flat[:2] += np.array([0.9, 2.1]) * level
    with rounded.writing():
        rounded.write(2, box, np.rint(pixels).astype(exact.info.dtype))
    n_voxels, near, largest = compare(exact, rounded, 2)
    assert near == 1 - 1 / n_voxels
    assert largest == pytest.approx(2.1, abs=1 / level)


@pytest.fixture
def store(picture, tmp_path):
    from napari_msgan import generate

    model = write_model(tmp_path / "model", base_size=22)
    return generate(picture, tmp_path / "a.ome.zarr", str(model), device="cpu")
