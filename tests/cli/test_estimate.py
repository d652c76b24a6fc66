from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_msgan.estimating import read_calibration
from napari_msgan.geometry import Affine
from napari_msgan.io import write_volume
from napari_msgan.volume import Volume
from tests.cli.helpers import names_in
from tests.models import write_model
from tests.test_estimating import KNOWN


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Give every model and machine the same costs, as if measured before."""
    kept = {precision: tmp_path / f"{precision}.json" for precision in ("fp32", "bf16")}
    monkeypatch.setattr(
        "napari_msgan.estimating._calibration.calibration_file",
        lambda model, device, precision, workers: kept[precision],
    )
    kept["fp32"].write_text(KNOWN.model_dump_json())
    kept["bf16"].write_text(KNOWN.model_copy(update={"tile_s": 0.25}).model_dump_json())
    return kept


def test_time_memory_and_disk_are_printed(cli, image, model, tmp_path):
    before = names_in(tmp_path)
    ended = cli("estimate", image, "--model", model, "--out", tmp_path, "--workers", "2")
    assert ended.code == 0
    assert ended.err == ""
    facts = dict(line.split(maxsplit=1) for line in ended.out.splitlines() if line.strip())
    assert facts["result"].strip() == "90 x 110 voxels"
    assert facts["tiles"].split(", ")[-1].strip() == "12 of scale 2"
    # 2.5 s to start, 4 tiles of scale 1 and 12 of scale 2, 0.5 s each, a tenth for the rest
    assert facts["time"].strip() == "10.6 s"
    assert "500 MB" in facts["memory"]
    # 1.7 bytes for each of 90 x 110, 45 x 55 and 23 x 28 voxels
    assert facts["store"].strip() == "22 kB"
    assert f" at most in {tmp_path}, " in facts["disk"]
    assert "are free" in facts["disk"]
    assert "temporary" not in ended.out
    assert names_in(tmp_path) == before


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


def test_a_lower_precision_has_costs_of_its_own(cli, model, tmp_path):
    tifffile.imwrite(tmp_path / "large.tif", np.zeros((260, 260), np.uint8))
    estimate = ("estimate", tmp_path / "large.tif", "--model", model, "--workers", "2")
    times = []
    for precision in ("fp32", "bf16"):
        lines = cli(*estimate, "--precision", precision).out.splitlines()
        times += [line.split(maxsplit=1)[1].strip() for line in lines if line.startswith("time ")]
    # 2.6 s without tiles; 9 tiles of scale 1, 25 of scale 2 and 81 of scale 3
    assert times == ["1 min 0 s", "31.4 s"]


def test_again_measures_what_is_known(cli, image, model, own_cache):
    assert cli("estimate", image, "--model", model, "--workers", "1", "--again").code == 0
    assert read_calibration(own_cache["fp32"]) != KNOWN


def test_the_space_at_a_url_is_not_known(cli, image, model):
    ended = cli("estimate", image, "--model", model, "--out", "s3://bucket/a.ome.zarr")
    ended.check_refused("the free space at s3://bucket/a.ome.zarr is not known")


def test_what_does_not_fit_is_said(cli, image, model, own_cache):
    own_cache["fp32"].write_text(KNOWN.model_copy(update={"tile_bytes": 10**15}).model_dump_json())
    ended = cli("estimate", image, "--model", model)
    assert ended.code == 0
    assert "warning: there is not enough free memory: use fewer --workers" in ended.err


def test_a_missing_image_is_refused(cli, model, tmp_path):
    cli("estimate", tmp_path / "none.tif", "--model", model).check_refused("does not exist")


def test_a_scale_that_does_not_exist_is_refused(cli, image, model):
    cli("estimate", image, "--model", model, "--scale", "9").check_refused("scale 9 does not exist")
