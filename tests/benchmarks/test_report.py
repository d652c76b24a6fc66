"""From figures to the tables of docs/results.md."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.reproduce.figures import write_csv
from benchmarks.reproduce.memory import in_proportion
from benchmarks.reproduce.places import Places
from benchmarks.reproduce.report import (
    COMPARED,
    difference_table,
    figure_table,
    training_table,
    write_report,
)
from benchmarks.reproduce.translation import dice

_SSIM = 1 + list(COMPARED).index("ssim")


def _rows(title, ssims, images=None, **values):
    """Return figures of a method: `ssims` and, of every other figure, 1."""
    names = images or [f"kermany_{i}.png" for i in range(len(ssims))]
    return [
        dict.fromkeys((*COMPARED, "swd_floor"), 1.0)
        | {"method": title, "title": title, "image": name, "ssim": ssim}
        | values
        for name, ssim in zip(names, ssims, strict=True)
    ]


def _cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_means_are_those_of_the_images():
    lines = figure_table(_rows("ours", [0.4, 0.6]) + _rows("other", [0.1, 0.2]))
    assert _cells(lines[2])[_SSIM] == "0.500"
    assert _cells(lines[3])[_SSIM] == "0.150"


def test_differences_pair_images_by_name_not_by_place():
    ours = _rows("ours", [0.4, 0.6, 0.8], ["a", "b", "c"])
    other = _rows("other", [0.5, 0.7, 0.9], ["a", "b", "c"])[::-1]
    lines = difference_table(ours + other)
    assert _cells(lines[2])[_SSIM] == "**+0.100 (0.100 to 0.100)**"


def test_difference_that_may_be_chance_is_not_bold():
    rng = np.random.default_rng(1)
    ours, other = _rows("ours", rng.normal(size=12)), _rows("other", rng.normal(size=12))
    cell = _cells(difference_table(ours + other)[2])[_SSIM]
    assert "to" in cell
    assert "**" not in cell


def test_figures_that_could_not_be_taken_leave_their_cell_empty():
    rows = _rows("ours", [0.4, 0.6]) + _rows("whole", [0.4, 0.6], seam_max_near=float("nan"))
    assert _cells(figure_table(rows)[3])[-1] == ""
    assert _cells(difference_table(rows)[2])[-1] == ""


def test_training_table_adds_the_scales():
    run = {"title": "ours", "steps": 10, "minutes": "1.4", "patches": 5}
    lines = training_table([run | {"scale": 0}, run | {"scale": 1}])
    assert _cells(lines[2]) == ["ours", "0: 10, 1: 10", "2.8", "10"]


def test_page_names_the_parts_that_were_not_run(tmp_path):
    places = Places(tmp_path / "work", tmp_path / "results", tmp_path / "docs")
    write_report(places)
    page = (tmp_path / "docs" / "results.md").read_text()
    assert page.count("Not run yet") == 8
    row = {"job": "generate", "axes": 2, "size": 256, "peak_mb": 10, "seconds": 1, "needs_mb": ""}
    write_csv(places.part("memory") / "memory.csv", [row, row | {"size": 512, "peak_mb": 10.5}])
    places.sign("memory", "make reproduce")
    (places.part("memory") / "notes.md").write_text("Measured at night.\n")
    write_report(places)
    page = (tmp_path / "docs" / "results.md").read_text()
    assert page.count("Not run yet") == 7
    assert "\nMeasured at night.\n" in page
    assert "1.05, flat" in page
    about = json.loads((tmp_path / "results" / "memory" / "about.json").read_text())
    assert about["date"] in page


def test_memory_that_there_is_not_is_in_proportion_to_the_largest_that_was_measured():
    before = [
        {"job": "train", "axes": "2", "size": "256", "peak_mb": "90"},
        {"job": "train", "axes": 2, "size": 512, "peak_mb": 100},
        {"job": "train", "axes": 2, "size": 1024, "peak_mb": ""},
        {"job": "train", "axes": 3, "size": 512, "peak_mb": 7000},
        {"job": "generate", "axes": 2, "size": 1024, "peak_mb": 50},
    ]
    assert in_proportion("train", 2, 2048, before) == 1600
    assert in_proportion("train", 3, 1024, before) == 56000
    assert in_proportion("generate", 3, 64, before) == 0


def test_memory_that_grows_is_not_called_flat(tmp_path):
    places = Places(tmp_path / "work", tmp_path / "results", tmp_path / "docs")
    row = {"job": "generate", "axes": 2, "size": 256, "peak_mb": 10, "seconds": 1, "needs_mb": ""}
    write_csv(places.part("memory") / "memory.csv", [row, row | {"size": 512, "peak_mb": 40}])
    places.sign("memory", "make reproduce")
    write_report(places)
    assert ", flat" not in (tmp_path / "docs" / "results.md").read_text()
    rows = [
        row,
        row | {"size": 512, "peak_mb": 40},
        row | {"size": 1024, "peak_mb": "", "needs_mb": 99},
    ]
    write_csv(places.part("memory") / "memory.csv", rows)
    write_report(places)
    assert "| 4.00 (measured) |" in (tmp_path / "docs" / "results.md").read_text()


def test_dice_of_known_masks():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    a[:2], b[1:3] = True, True
    assert dice(a, b) == pytest.approx(0.5)
    assert dice(a, a) == 1
    assert np.isnan(dice(a & False, b & False))
