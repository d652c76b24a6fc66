"""train: from images to a model that generate uses; interrupted runs end with the same weights."""

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import tifffile
import torch

from napari_msgan.model import load_folder
from tests.cli.helpers import command, names_in, picture, pixels

CONFIG = {
    "name": "tiny",
    "kind": "relative",
    "axes": ["y", "x"],
    "modality": "XR",
    "base_size": 32,
    "tile_shape": [32, 32],
    "chunk_shape": [16, 16],
    "window": [0, 65535],
    "dtype": "uint16",
    "scales": [
        {
            "network": {"type": "low_res", "widths": [4, 8]},
            "factor": [2, 2],
            "steps": 6,
            "batch": 2,
            "patch_shape": [32, 32],
            "discriminator_width": 4,
            "discriminator_strides": [2],
            "gan_from": 0.5,
        },
        {
            "network": {"type": "patch", "width": 4, "blocks": 1},
            "factor": [2, 2],
            "steps": 6,
            "batch": 2,
            "patch_shape": [32, 32],
            "discriminator_width": 4,
            "discriminator_strides": [2],
            "gan_from": 0.5,
        },
    ],
    "include": ["*.tif"],
    "pool": 6,
}


@pytest.fixture(autouse=True)
def one_thread():
    """Sums of floats depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for index in range(3):
        tifffile.imwrite(folder / f"{index}.tif", picture((96, 80), seed=10 + index))
    return folder


@pytest.fixture
def write_config(tmp_path):
    def write(**changes):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(CONFIG | changes))
        return path

    return write


def hashes(folder):
    return [s["sha256"] for s in json.loads((folder / "model.json").read_text())["scales"]]


def test_trained_model_can_be_used_and_training_again_changes_nothing(
    cli, data, image, write_config, tmp_path
):
    out, store = tmp_path / "model", tmp_path / "a.ome.zarr"
    train = ("train", data, out, "--config", write_config(), "--device", "cpu")
    ended = cli(*train)
    assert ended.code == 0
    assert f"napari-msgan generate IMAGE NAME.ome.zarr --model {out}" in ended.out
    for stage in ("preparing images: 3 of 3", "training scale 0 of 1: 6 of 6", "applying scale 0"):
        assert stage in ended.err
    assert ", l1 0." in ended.err
    assert load_folder(out).spec.name == "tiny"
    assert cli("generate", image, store, "--model", out, "-q").code == 0
    assert pixels(store)[-1].std() > 0
    before = hashes(out)
    again = cli(*train)
    assert again.code == 0
    assert "training" not in again.err
    assert hashes(out) == before
    assert {"model.json", "training.json"} <= set(names_in(out))


STOPS = {
    "while preparing": ("preparing images", 2),
    "in scale 0": ("training scale 0 of 1", 4),
    "between the scales": ("applying scale 0", 1),
    "in scale 1": ("training scale 1 of 1", 3),
}


@pytest.mark.parametrize(("stage", "step"), STOPS.values(), ids=STOPS)
def test_stopped_training_resumes_and_ends_with_the_same_weights(
    cli, data, write_config, tmp_path, monkeypatch, stage, step
):
    seen = []

    @contextmanager
    def watched(*, quiet):
        def show(name, done, total, note=""):
            seen.append((name, done))
            if stop_there and (name, done) == (stage, step):
                raise KeyboardInterrupt

        yield show

    monkeypatch.setattr("napari_msgan.cli._train.progress_shown", watched)
    monkeypatch.setattr("napari_msgan.training.scale._CHECKPOINT_EVERY_S", -1)
    options = ("--config", write_config(), "--device", "cpu")
    stop_there = True
    ended = cli("train", data, tmp_path / "model", *options)
    assert ended.code == 130
    assert "The same command resumes" in ended.err
    stop_there = False
    seen.clear()
    assert cli("train", data, tmp_path / "model", *options).code == 0
    trained = [done for name, done in seen if name == stage]
    assert len(trained) == (6 - (step - 1) if "training" in stage else trained[-1])
    assert cli("train", data, tmp_path / "whole", *options).code == 0
    assert hashes(tmp_path / "model") == hashes(tmp_path / "whole")


def test_another_seed_gives_other_weights(cli, data, write_config, tmp_path):
    for seed in (0, 1):
        options = ("--config", write_config(seed=seed), "--device", "cpu", "-q")
        assert cli("train", data, tmp_path / f"seed {seed}", *options).code == 0
    assert set(hashes(tmp_path / "seed 0")).isdisjoint(hashes(tmp_path / "seed 1"))


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for other processes there")
def test_ctrl_c_stops_a_real_process(data, write_config, tmp_path):
    long = [scale | {"steps": 100_000} for scale in CONFIG["scales"]]
    out = tmp_path / "model"
    options = ("--config", write_config(scales=long), "--device", "cpu")
    with subprocess.Popen(
        command("train", data, out, *options), stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and not (out / ".training" / "pool_0_image.npy").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped. The same command resumes" in err
    assert "Traceback" not in err
    assert not (out / "model.json").exists()


def test_without_settings_the_bundled_ones_are_listed(cli, data, tmp_path):
    cli("train", data, tmp_path / "model").check_refused("chest-xray, thorax-ct")
    other = cli("train", data, tmp_path / "model", "--config", "brain")
    other.check_refused("'brain' is no file, and the bundled ones are chest-xray, thorax-ct")
    assert names_in(tmp_path) == []


def test_bundled_settings_are_found_by_name(cli, data, tmp_path):
    # They ask for other files than these: so they were read.
    ended = cli("train", data, tmp_path / "model", "--config", "chest-xray")
    ended.check_refused("holds no image that matches kermany_*.jpg")
    assert names_in(tmp_path) == []


BAD_CONFIGS = {
    "misspelt": ({"colour": "red"}, "colour: Extra inputs are not permitted"),
    "one scale": ({"scales": CONFIG["scales"][:1]}, "scales: "),
    "two low-res scales": ({"scales": CONFIG["scales"][:1] * 2}, "scale 1 cannot have a network"),
    "tile of no whole chunks": ({"tile_shape": [40, 40]}, "must be whole chunks"),
    "name": ({"name": "A Model"}, "name: "),
    "patch of three axes": (
        {"scales": [s | {"patch_shape": [32] * 3} for s in CONFIG["scales"]]},
        "patch_shape (32, 32, 32) needs 2 numbers",
    ),
    "patch below the window": (
        {"scales": [s | {"discriminator_strides": [2, 2, 1]} for s in CONFIG["scales"]]},
        "smaller than the 34 voxels",
    ),
    "no such files": ({"include": ["*.nii.gz"]}, "holds no image that matches *.nii.gz"),
}


@pytest.mark.parametrize(("changes", "advice"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_bad_settings_are_refused_before_anything_is_written(
    cli, data, write_config, tmp_path, changes, advice
):
    config = write_config(**changes)
    cli("train", data, tmp_path / "model", "--config", config).check_refused(advice)
    assert names_in(tmp_path) == ["config.json"]


def test_file_that_is_no_json_is_refused(cli, data, image, tmp_path):
    cli("train", data, tmp_path / "model", "--config", image).check_refused("Invalid JSON")


def test_images_that_cannot_be_used_are_all_named(cli, write_config, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.tif").write_bytes(b"hello")
    tifffile.imwrite(data / "b.tif", picture((8, 20, 24), seed=0))
    ended = cli("train", data, tmp_path / "model", "--config", write_config())
    assert ended.code == 2
    assert len(ended.errors) == 1
    assert "a.tif: " in ended.err
    assert "b.tif: has shape (8, 20, 24), the model is 2-D" in ended.err
    assert not (tmp_path / "model").exists()


def test_images_that_are_too_coarse_are_refused_before_training(cli, data, write_config, tmp_path):
    scales = [*CONFIG["scales"], *[CONFIG["scales"][1]] * 3]
    options = ("--config", write_config(scales=scales), "--device", "cpu", "-q")
    ended = cli("train", data, tmp_path / "model", *options)
    ended.check_refused(
        "no training image is fine enough for scale 4, the finest that they reach is 1"
    )


def test_folder_of_another_run_is_refused(cli, data, write_config, tmp_path):
    out = tmp_path / "model"
    train = ("train", data, out, "--device", "cpu", "-q", "--config")
    assert cli(*train, write_config()).code == 0
    before = hashes(out)
    cli(*train, write_config(seed=3)).check_refused("holds a training run with other settings")
    assert hashes(out) == before
    (tmp_path / "file").write_text("mine")
    cli("train", data, tmp_path / "file", "--config", write_config()).check_refused("file")
