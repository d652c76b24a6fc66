"""A model folder that is not as it was made: exit 2, one line, nothing written."""

import hashlib
import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file


@pytest.fixture
def folder(model, tmp_path):
    return shutil.copytree(model, tmp_path / "model")


def edit(folder, **changes):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def declare(folder, scale):
    """Write the hash of a changed file into model.json, as somebody might who means harm."""
    path = folder / f"scale_{scale}.safetensors"
    scales = json.loads((folder / "model.json").read_text())["scales"]
    scales[scale]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    edit(folder, scales=scales)


def change_weights(folder, change):
    path = folder / "scale_1.safetensors"
    weights = load_file(path)
    key = sorted(key for key, value in weights.items() if value.ndim > 1)[0]
    weights[key] = change(weights[key])
    save_file(weights, path)
    declare(folder, 1)


def flip_a_bit(folder):
    path = folder / "scale_2.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, sprung):
        self.sprung = sprung

    def __reduce__(self):
        return os.mkdir, (self.sprung,)


def replace_by_pickle(folder):
    path = folder / "scale_0.safetensors"
    path.write_bytes(pickle.dumps(Trap(str(folder.parent / "sprung"))))
    declare(folder, 0)


DAMAGE = {
    "missing weights": (
        lambda folder: (folder / "scale_1.safetensors").unlink(),
        "scale_1.safetensors cannot be read",
    ),
    "altered weights": (
        flip_a_bit,
        "is not the file that model.json describes",
    ),
    "missing description": (
        lambda folder: (folder / "model.json").unlink(),
        "it has no model.json",
    ),
    "broken description": (
        lambda folder: (folder / "model.json").write_text("{"),
        "model.json: Invalid JSON",
    ),
    "unknown version": (
        lambda folder: edit(folder, schema_version=2),
        "has schema version 2, this program reads version 1",
    ),
    "misspelt field": (lambda folder: edit(folder, colour="red"), "model.json: colour"),
    "wrong shape": (
        lambda folder: change_weights(folder, lambda w: w[:1].clone()),
        "its network needs",
    ),
    "NaN weights": (
        lambda folder: change_weights(folder, lambda w: w * torch.nan),
        "holds values that are not finite",
    ),
    "pickle": (replace_by_pickle, "is not a safetensors file"),
}


@pytest.mark.parametrize(("damage", "advice"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_model_is_refused_and_nothing_is_written(
    cli, image, folder, store, tmp_path, damage, advice
):
    damage(folder)
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    out = tmp_path / "out.ome.zarr"
    cli("generate", image, out, "--model", folder).check_refused(advice)
    ended = cli("refine", store, "--region", "0:8,0:8", "--model", folder)
    ended.check_refused(advice)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before
    assert not (tmp_path / "sprung").exists()


def test_copy_that_is_only_rewritten_is_the_same_model(cli, image, folder, store):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert cli("generate", image, store, "--model", folder).code == 0


def test_trap_works_where_a_pickle_is_loaded(folder):
    replace_by_pickle(folder)
    pickle.loads((folder / "scale_0.safetensors").read_bytes())
    assert (folder.parent / "sprung").exists()
