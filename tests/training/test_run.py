"""A run that is begun again: with what it began, and with nothing that was left half-made."""

import json
import os

import pytest
import tifffile

from napari_msgan.errors import TrainingError
from napari_msgan.training import iter_train, sources, survey
from napari_msgan.training.record import Record
from napari_msgan.training.run import open_fabric
from tests.training.made import blobs, config_of, write_image


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for index, side in enumerate((128, 260)):
        write_image(folder / f"{index}.tif", blobs((side, side), index))
    return folder


def train(data, out, config, given=None):
    for _ in iter_train(survey(data, config, given), out, config):
        pass


def weights(out):
    return [path.read_bytes() for path in sorted(out.glob("*.safetensors"))]


def test_images_that_were_half_made_with_other_settings_are_made_again(data, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    config = config_of(2, base_size=64)
    with monkeypatch.context() as patched:
        patched.setattr(sources, "iter_sketch_scales", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "model", config_of(2))
    assert list((tmp_path / "model" / ".training" / "cache").rglob("image_2.npy"))
    train(data, tmp_path / "model", config)
    train(data, tmp_path / "clean", config)
    assert weights(tmp_path / "model") == weights(tmp_path / "clean")


def test_a_run_goes_on_with_the_same_sketches_only(data, tmp_path):
    config, given = config_of(2), tmp_path / "given"
    given.mkdir()
    for index, side in enumerate((128, 260)):
        write_image(given / f"{index}.tif", blobs((side, side), 7))
    train(data, tmp_path / "model", config)
    with pytest.raises(TrainingError, match=r"2 new \(sketch of 0.tif, sketch of 1.tif\)"):
        train(data, tmp_path / "model", config, given)


def test_an_image_that_kept_its_size_but_not_its_values_is_noticed(data, tmp_path):
    tifffile.imwrite(data / "0.tif", blobs((128, 128), 0))
    size = (data / "0.tif").stat().st_size
    train(data, tmp_path / "model", config_of(2))
    tifffile.imwrite(data / "0.tif", blobs((128, 128), 5))
    assert (data / "0.tif").stat().st_size == size
    with pytest.raises(TrainingError, match=r"1 changed \(0.tif\)"):
        train(data, tmp_path / "model", config_of(2))


def test_long_names_of_any_script_are_no_obstacle(data, tmp_path):
    (data / "0.tif").rename(data / ("胸部CT画像データ" * 6 + "一.tif"))
    (data / "1.tif").rename(data / ("胸部CT画像データ" * 6 + "二.tif"))
    train(data, tmp_path / "model", config_of(2))
    assert len(list((tmp_path / "model" / ".training" / "cache").iterdir())) == 2


@pytest.mark.parametrize("in_a_job", [False, True], ids=["login node", "job"])
def test_slurm_is_neither_asked_nor_told(in_a_job, tmp_path, monkeypatch):
    """A warning would be an error here, and so would be a job of three tasks for one process."""
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    if in_a_job:
        job = {"NTASKS": "3", "JOB_NAME": "train", "NODELIST": "a", "PROCID": "1", "LOCALID": "1"}
        for name, value in {**job, "JOB_ID": "7", "NODEID": "0", "NNODES": "1"}.items():
            monkeypatch.setenv(f"SLURM_{name}", value)
    fabric = open_fabric(config_of(2))
    assert (fabric.world_size, fabric.global_rank) == (1, 0)


def test_half_a_line_that_a_full_disk_left_is_dropped(tmp_path):
    path = tmp_path / "scale_0.jsonl"
    path.write_text('{"step": 1, "l1": 0.5}\n{"step": 9, "l1": 0.4}\n{"step": 2, "l')
    Record(tmp_path, 0, 5).close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1]
