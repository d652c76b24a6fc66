"""The card of a trained model: true numbers, nobody's name, and never over what somebody wrote."""

import json

import pytest

from napari_msgan.cli import main
from napari_msgan.training import iter_train, survey
from tests.training.made import blobs, config_of, write_image


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for index in range(3):
        write_image(folder / f"DOE_JANE_{index}.tif", blobs((128, 128), index))
    return folder


def train(data, out, config):
    for _ in iter_train(survey(data, config), out, config):
        pass
    return (out / "README.md").read_text()


def test_it_says_what_was_learned_from_and_how_far_it_came(data, tmp_path, capsys):
    out = tmp_path / "model"
    card = train(data, out, config_of(2, 3, validation_every=3, title="Blobs *of* noise"))
    assert "# Blobs *of* noise" in card
    assert "2 images, and 1 more that were kept out" in card
    rows = [
        line.split(" | ") for line in card.splitlines() if line.startswith("| ") and "." in line
    ]
    assert [(row[0], row[1], row[2]) for row in rows] == [
        ("| 0", "32", "2"),
        ("| 1", "64", "2"),
        ("| 2", "128", "2"),
    ]
    for scale, row in enumerate(rows):
        written = (out / ".training" / f"scale_{scale}.jsonl").read_text().splitlines()
        loss = json.loads(written[-1])["validation_l1"]
        assert float(row[3].rstrip(" |")) == pytest.approx(50 * loss, abs=0.005)
    assert "passed on?*" in card
    assert "DOE" not in card
    assert str(tmp_path) not in card
    assert main(["models", str(out)]) == 0
    assert "2 images, and 1 more" in capsys.readouterr().out


def test_it_is_written_anew_until_somebody_edits_it(data, tmp_path):
    out, config = tmp_path / "model", config_of(2)
    card = train(data, out, config)
    first, *rest = card.splitlines(keepends=True)
    (out / "README.md").write_text(first + "old")
    assert train(data, out, config) == card
    licensed = train(data, tmp_path / "licensed", config_of(2, licence="CC BY 4.0"))
    assert licensed == card.replace("passed on?*", "passed on (in model.json: CC BY 4.0)?*")
    mine = "".join(rest).replace("*Who are the patients", "Two people, *who are the patients")
    (out / "README.md").write_text(mine)
    assert train(data, out, config) == mine


def test_a_record_that_is_gone_or_cut_costs_its_row_only(data, tmp_path):
    out, config = tmp_path / "model", config_of(2)
    train(data, out, config)
    (out / ".training" / "scale_0.jsonl").unlink()
    (out / ".training" / "scale_1.jsonl").write_bytes(b'{"step": 2, "l1": 0.')
    card = train(data, out, config)
    assert "| 0 | 32 | 0 |" in card
    assert "| 1 | 64 | 0 |" in card


def test_scales_of_another_model_are_told(data, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    train(data, first, config_of(2))
    config = config_of(2, seed=2, start_from=str(first))
    plans = [config.scales[0].model_copy(update={"steps": 0}), *config.scales[1:]]
    card = train(data, second, config.model_copy(update={"scales": tuple(plans)}))
    assert "| 0 | 32 | 0 (another model's) |" in card
