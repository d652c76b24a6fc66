"""evaluate: tables in a folder, a summary on the terminal, one line where something is wrong."""

import csv
import sys

import pytest
import tifffile

from tests.cli.helpers import names_in, picture


@pytest.fixture
def training(tmp_path):
    folder = tmp_path / "training"
    folder.mkdir()
    tifffile.imwrite(folder / "t.tif", picture((140, 130), seed=6))
    return folder


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name, seed in (("a1.tif", 3), ("a2.tif", 4), ("b.tif", 5)):
        tifffile.imwrite(folder / name, picture((70, 60), seed))
    return folder


def test_tables_are_written_and_summed_up(cli, model, data, tmp_path):
    out = tmp_path / "out"
    ended = cli("evaluate", model, data, out, "--include", "a*", "--reader-study")
    assert ended.code == 0, ended.err
    assert names_in(out) == [
        "figures.csv",
        "pictures",
        "reader-study.html",
        "report.md",
        "summary.csv",
    ]
    assert names_in(out / "pictures") == ["a1.tif.png", "a2.tif.png"]
    lines = [line.split() for line in ended.out.splitlines()]
    assert lines[0][:4] == ["scale", "patients", "mae", "psnr"]
    assert ["1", "2"] in [line[:2] for line in lines]
    n_regions = (out / "reader-study.html").read_text().count("data:image/")
    assert f"{out / 'reader-study.html'} in a browser. It shows {n_regions} regions" in ended.out
    assert ("; more or larger images" in ended.out) == (n_regions < 20)
    assert "evaluating: 100 %" in ended.err
    assert "Traceback" not in ended.err


def test_figures_stop_at_the_scale_asked_for(cli, model, data, tmp_path):
    out = tmp_path / "out"
    options = ("--limit", "1", "--scale", "1", "--precision", "bf16", "-q")
    assert cli("evaluate", model, data, out, *options).code == 0
    rows = csv.DictReader((out / "figures.csv").read_text().splitlines())
    assert {row["scale"] for row in rows} == {"0", "1"}
    assert "bf16 on cpu" in (out / "report.md").read_text()


def test_nearness_to_training_images_is_told(cli, model, data, training, tmp_path):
    out = tmp_path / "out"
    tifffile.imwrite(data / "a1.tif", picture((140, 130), 3))
    ended = cli("evaluate", model, data, out, "--limit", "1", "--training", training)
    assert ended.code == 0, ended.err
    assert "patches against 1 training images. Near 0 is a copy." in ended.out


def test_warning_that_all_images_share_is_told_once(cli, model, data, tmp_path):
    for path in data.iterdir():
        tifffile.imwrite(path, picture((36, 32), seed=len(path.name)))
    ended = cli("evaluate", model, data, tmp_path / "out")
    assert ended.err.count("warning: the image has 36 pixels on its longest side") == 1


def test_images_of_a_patient_are_averaged_first(cli, model, data, tmp_path):
    out = tmp_path / "out"
    assert cli("evaluate", model, data, out, "--patient", "^[ab]", "-q").code == 0
    assert "3 image(s) of 2 patient(s)" in (out / "report.md").read_text()
    other = ("evaluate", model, data, tmp_path / "other", "--patient", "^a")
    cli(*other).check_refused("'^a' finds no patient in the name b.tif")
    assert not (tmp_path / "other").exists()


def test_quiet_says_nothing_and_a_second_run_needs_overwrite(cli, model, data, tmp_path):
    evaluate = ("evaluate", model, data, tmp_path / "out", "--limit", "1", "-q")
    ended = cli(*evaluate)
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    before = (tmp_path / "out" / "figures.csv").read_text()
    cli(*evaluate).check_refused("is not empty: name another folder")
    assert cli(*evaluate, "--overwrite").code == 0
    assert (tmp_path / "out" / "figures.csv").read_text() == before
    assert before.count("a1.tif") == before.count("tif") > 1


def test_wrong_input_is_refused_in_one_line(cli, model, data, tmp_path):
    empty, out = tmp_path / "empty", tmp_path / "out"
    empty.mkdir()
    cli("evaluate", model, empty, out).check_refused("holds no image that matches *")
    cli("evaluate", model, data, out, "--include", "c*").check_refused("matches c*")
    cli("evaluate", model, data / "no.tif", out).check_refused("no.tif does not exist")
    cli("evaluate", "nobody", data, out).check_refused("there is no model 'nobody'")
    cli("evaluate", model, data, data).check_refused("lies in")
    cli("evaluate", model, data / "b.tif", data).check_refused("is not empty")
    cli("evaluate", model, data, data / "b.tif").check_refused("is a file")
    cli("evaluate", model, data, out, "--training", empty).check_refused("holds no image")
    cli("evaluate", model, data, out, "--limit", "0").check_refused("not a whole number of 1")


def test_held_out_images_must_not_be_training_images(cli, model, data, tmp_path):
    ended = cli("evaluate", model, data, tmp_path / "out", "--training", data)
    ended.check_refused("a1.tif is in DATA and in --training")


def test_missing_torchmetrics_is_said_before_anything_is_done(
    cli, model, data, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    ended = cli("evaluate", model, data, tmp_path / "out")
    ended.check_refused('pip install "napari-msgan[train]"')
    assert not (tmp_path / "out").exists()


def test_reader_study_of_one_region_is_refused_before_anything_is_made(cli, model, data, tmp_path):
    out = tmp_path / "out"
    ended = cli("evaluate", model, data, out, "--limit", "1", "--reader-study", "-q")
    ended.check_refused("needs at least two regions")
    assert not out.exists()


def test_damaged_image_is_named_at_the_end_and_the_others_are_measured(cli, model, data, tmp_path):
    """Its header can be read."""
    tifffile.imwrite(data / "a1.tif", picture((70, 60), 3), compression="zlib", rowsperstrip=16)
    content = bytearray((data / "a1.tif").read_bytes())
    with tifffile.TiffFile(data / "a1.tif") as file:
        start = file.pages[0].dataoffsets[1]
    content[start : start + 40] = bytes(40)
    (data / "a1.tif").write_bytes(content)
    out = tmp_path / "out"
    ended = cli("evaluate", model, data, out)
    assert ended.code == 2
    assert len(ended.errors) == 1
    assert "lacks what could not be measured: a1.tif: " in " ".join(ended.errors[0].split())
    assert ended.out.splitlines()[0].split()[0] == "scale"
    assert names_in(out / "pictures") == ["a2.tif.png", "b.tif.png"]
    assert "a1.tif" in (out / "report.md").read_text()


def test_image_of_another_kind_is_named(cli, originals, data, tmp_path):
    ended = cli("evaluate", originals / "solid", data, tmp_path / "out", "-q")
    ended.check_refused("is for 3-D images")
    assert "a1.tif" in ended.err
