from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_msgan import generate
from napari_msgan.geometry import Affine
from napari_msgan.volume import Volume
from tests.models import write_model


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "small-xr", ndim=2, n_scales=3, name="small-xr")
    write_model(
        folder / "small-ct", ndim=3, n_scales=3, name="small-ct", base_size=16, tile=16, chunk=8
    )
    return folder


@pytest.fixture(autouse=True)
def folders(models, tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_MSGAN_MODELS", str(models))
    monkeypatch.setenv("NAPARI_MSGAN_STORES", str(tmp_path / "stores"))


@pytest.fixture
def viewer():
    return ViewerModel()


def ball(shape, centre, radius, spacing=None):
    """A bright ball in the dark, uint8; centre and radius in mm from the middle of voxel 0."""
    axes = [np.arange(n) * s for n, s in zip(shape, spacing or [1] * len(shape), strict=True)]
    grids = np.meshgrid(*axes, indexing="ij")
    distance = sum((g - c) ** 2 for g, c in zip(grids, centre, strict=True)) ** 0.5
    return np.clip(255 * (radius - distance) / 4, 0, 255).astype(np.uint8)


@pytest.fixture
def ct_store(models, tmp_path):
    """A store of a small CT at a place of its own, low resolution only."""
    data = ball((21, 45, 39), (25, 20, 18), 12, (2.5, 1, 1))
    volume = Volume(data, Affine.of_spacing((2.5, 1, 1), (-100, 20, 7)), "millimeter")
    return generate(volume, tmp_path / "ct.ome.zarr", models / "small-ct", scale=0)


@pytest.fixture
def xray_store(models, tmp_path):
    data = ball((117, 150), (60, 70), 40)
    volume = Volume(data, Affine(np.eye(3)), "pixel")
    return generate(volume, tmp_path / "xray.ome.zarr", models / "small-xr")
