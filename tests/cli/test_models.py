import json

import pytest

from napari_msgan.model import bundled_folder
from tests.models import write_model


@pytest.fixture
def two(own_models):
    """Two models in the user's folder."""
    write_model(own_models / "flat", name="flat")
    write_model(own_models / "solid", name="solid", ndim=3, n_scales=2)
    return own_models


def test_table_has_a_row_per_model_and_names_the_folder(cli, two):
    ended = cli("models")
    assert ended.code == 0
    rows = {line.split()[0]: line for line in ended.out.splitlines() if " user " in line}
    assert set(rows) == {"flat", "solid"}
    assert all(word in rows["flat"] for word in ("XR", "y x", "32, 64, 128 px", "MB"))
    assert all(word in rows["solid"] for word in ("CT", "z y x", "2, 1 mm"))
    assert f"Your own models belong in {two};" in ended.out
    assert "problem" not in ended.out


def test_bundled_models_are_listed(cli):
    listed = json.loads(cli("models", "--json").out)
    bundled = {path.parent.name for path in bundled_folder().glob("*/model.json")}
    assert {model["name"] for model in listed if model["origin"] == "bundled"} == bundled
    assert not [model["problem"] for model in listed if model["problem"]]


def test_json_says_what_the_table_says(cli, two):
    listed = {model["name"]: model for model in json.loads(cli("models", "--json").out)}
    solid = listed["solid"]
    assert solid["origin"] == "user"
    assert solid["spec"]["scales"][1]["spacing_mm"] == [1, 1, 1]
    assert solid["size_bytes"] == sum(f.stat().st_size for f in (two / "solid").iterdir())
    assert solid["problem"] is None


def test_problem_of_a_model_is_said_and_the_others_are_listed(cli, two):
    path = two / "flat" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 9}))
    (two / "solid" / "scale_1.safetensors").unlink()
    ended = cli("models")
    assert ended.code == 0
    assert "cannot be used" in next(line for line in ended.out.splitlines() if "flat" in line)
    assert "problem with flat: " in ended.out
    assert "schema version 9" in ended.out
    assert "problem with solid: scale_1.safetensors is missing" in ended.out


def test_card_of_a_model_by_name_and_by_folder(cli, two):
    (two / "flat" / "README.md").write_text("# A flat model\n\nMade for tests.\n")
    for given in ("flat", two / "flat"):
        ended = cli("models", given)
        assert ended.code == 0
        assert "# A flat model\n\nMade for tests." in ended.out
        assert f"Folder: {two / 'flat'}" in ended.out


def test_card_from_windows_is_shown_without_its_codes(cli, two):
    content = "\ufeff# Flat\r\n\r\n1\u00a0mm\tper pixel\r\n"
    (two / "flat" / "README.md").write_bytes(content.encode())
    shown, _, folder = cli("models", "flat").out.rpartition("\n\n")
    assert shown == "# Flat\n\n1\u00a0mm    per pixel"
    assert folder.startswith("Folder: ")


def test_model_without_card_is_described(cli, two):
    ended = cli("models", "solid")
    assert ended.code == 0
    assert "solid: CT, z y x, 2, 1 mm" in ended.out
    assert "has no card" in ended.out


def test_unknown_model_is_refused_and_the_known_ones_are_named(cli, two):
    cli("models", "nope").check_refused("there is no model 'nope'")
    assert "flat, solid" in cli("models", "nope").err
