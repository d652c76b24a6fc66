"""What strangers wrote is shown, but does not rule the terminal; their links are not followed."""

import json
import os
import shutil

import pytest

from tests.models import write_model
from tests.training.made import config_of


@pytest.fixture
def folder(model, tmp_path):
    return shutil.copytree(model, tmp_path / "model")


def test_control_characters_of_a_card_are_spelt_out(cli, folder):
    (folder / "README.md").write_text("\x1b[2J\x1b]0;owned\x07 a card\n")
    ended = cli("models", folder)
    assert ended.code == 0
    assert "\x1b" not in ended.out
    assert "\\x1b[2J" in ended.out


def test_control_characters_of_an_image_are_spelt_out_in_a_table(cli, image, model, tmp_path):
    named, out = tmp_path / "a\x1b[2J.tif", tmp_path / "a.ome.zarr"
    shutil.copy(image, named)
    options = ("--model", model, "--scale", "0", "--keep-name", "-q")
    assert cli("generate", named, out, *options).code == 0
    shown = cli("info", out).out
    assert "\x1b" not in shown
    assert "a\\x1b[2J.tif" in shown


def test_control_characters_of_names_are_spelt_out_in_one_line(cli):
    ended = cli("info", "a\nb\x1b[31m")
    ended.check_refused("there is no store at")
    assert "\x1b" not in ended.err


def test_card_that_is_a_link_outside_is_not_shown(cli, folder, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (folder / "README.md").symlink_to(tmp_path / "secret")
    cli("models", folder).check_refused("leads out of")


def test_weights_that_are_a_pipe_do_not_hang(cli, image, folder, tmp_path):
    (folder / "scale_1.safetensors").unlink()
    os.mkfifo(folder / "scale_1.safetensors")
    ended = cli("generate", image, tmp_path / "a.ome.zarr", "--model", folder)
    ended.check_refused("a pipe or a device")


def test_weights_larger_than_the_network_are_not_read(cli, image, folder, tmp_path):
    with (folder / "scale_1.safetensors").open("r+b") as file:
        file.truncate(2**40)  # takes no room on the disk
    ended = cli("generate", image, tmp_path / "a.ome.zarr", "--model", folder)
    ended.check_refused("these are not weights of this model")


@pytest.mark.parametrize("field", ["tile_shape", "base_size"])
def test_model_that_asks_for_absurd_memory_is_refused(cli, tmp_path, field):
    path = write_model(tmp_path / "model", ndim=3) / "model.json"
    absurd = {"tile_shape": [8192] * 3, "base_size": 4096}[field]
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: absurd}))
    cli("models", path.parent).check_refused("voxels at once")


def test_name_of_a_store_that_is_no_text_is_shown(cli, image, model, tmp_path):
    out = tmp_path / "a\udcff.ome.zarr"
    assert cli("generate", image, out, "--model", model).code == 0
    assert cli("info", out).code == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("patch_shape", [8192] * 3), ("batch", 10**30), ("discriminator_width", 2**63)],
)
def test_training_settings_of_absurd_size_are_refused(cli, tmp_path, field, value):
    settings = json.loads(config_of(3).model_dump_json())
    settings["scales"][1][field] = value
    (tmp_path / "plan.json").write_text(json.dumps(settings))
    ended = cli("train", tmp_path, tmp_path / "out", "--config", tmp_path / "plan.json")
    ended.check_refused("plan.json: scales.1")
