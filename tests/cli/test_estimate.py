from __future__ import annotations

import numpy as np
import pytest

from napari_msgan.geometry import Affine
from napari_msgan.io import write_volume
from napari_msgan.volume import Volume
from tests.models import write_model
from tests.test_estimating import KNOWN


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Give every model and machine the same costs, as if measured before."""
    monkeypatch.setattr(
        "napari_msgan.estimating._calibration.calibration_file", lambda *a: tmp_path / "k.json"
    )
    (tmp_path / "k.json").write_text(KNOWN.model_dump_json())


def test_time_memory_and_disk_are_printed(cli, image, model, tmp_path):
    ended = cli("estimate", image, "--model", model, "--out", tmp_path, "--workers", "2")
    assert ended.code == 0
    assert ended.err == ""
    facts = dict(line.split(maxsplit=1) for line in ended.out.splitlines() if line.strip())
    assert facts["result"].strip() == "90 x 110 voxels"
    assert facts["tiles"].split(", ")[-1].strip() == "12 of scale 2"
    # 2.5 s to start, 4 tiles of scale 1 and 12 of scale 2, 0.5 s each, a tenth for the rest
    assert facts["time"].strip() == "10.6 s"
    assert "500 MB" in facts["memory"]
    assert "are free" in facts["disk"]
    assert "temporary" not in ended.out
    assert list(tmp_path.iterdir()) == [tmp_path / "k.json"]


def test_a_region_takes_less(cli, image, model):
    whole = cli("estimate", image, "--model", model)
    part = cli("estimate", image, "--model", model, "--region", "0:32,0:32")
    assert "12 of scale 2" in whole.out
    assert "1 of scale 2" in part.out


def test_a_compressed_volume_is_not_unpacked(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_msgan.io._dispatch.IN_MEMORY_BYTES", 0)
    write_model(tmp_path / "m", ndim=3, n_scales=2, tile=16, chunk=8)
    data = np.zeros((20, 20, 20), np.int16)
    volume = Volume(data, Affine.of_spacing((1, 1, 1)), "millimeter")
    write_volume(tmp_path / "a.nii.gz", [volume], description={})
    ended = cli("estimate", tmp_path / "a.nii.gz", "--model", tmp_path / "m")
    assert ended.code == 0, ended.err
    assert "temporary files" in ended.out


def test_what_does_not_fit_is_said(cli, image, model, tmp_path):
    (tmp_path / "k.json").write_text(
        KNOWN.model_copy(update={"tile_bytes": 10**15}).model_dump_json()
    )
    ended = cli("estimate", image, "--model", model)
    assert ended.code == 0
    assert "warning: there is not enough free memory: use fewer --workers" in ended.err


def test_a_missing_image_is_refused(cli, model, tmp_path):
    cli("estimate", tmp_path / "none.tif", "--model", model).check_refused("does not exist")


def test_a_scale_that_does_not_exist_is_refused(cli, image, model):
    cli("estimate", image, "--model", model, "--scale", "9").check_refused("scale 9 does not exist")
