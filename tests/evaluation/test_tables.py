import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest

from napari_msgan.errors import VolumeError
from napari_msgan.evaluation import (
    COLUMNS,
    Memorisation,
    ScaleFigures,
    bootstrap_interval,
    figures_csv,
    patients_of,
    report_markdown,
    summarise,
    summary_csv,
)
from napari_msgan.evaluation.places import names_of
from napari_msgan.evaluation.tables import images_of


def row(image, scale, **values):
    return ScaleFigures(image, scale, (64, 48), None, values)


ROWS = [
    row("a.png", 0, mae=1.0, psnr=np.inf),
    row("a.png", 1, mae=2.0, ssim=0.5),
    row("b|c.png", 0, mae=3.0, psnr=30.0),
    row("b|c.png", 1, mae=5.0, ssim=0.7, seam_max_near=2e-6),
]


def test_bootstrap_interval_holds_the_mean_and_shrinks_with_more_patients(rng):
    few, many = rng.normal(10, 2, 10), rng.normal(10, 2, 400)
    low, high = bootstrap_interval(many)
    assert low < many.mean() < high
    # of the mean of a normal sample: 1.96 standard errors to each side
    assert (high - low) / 2 == pytest.approx(1.96 * many.std() / 20, rel=0.1)
    assert np.ptp(bootstrap_interval(few)) > 2 * (high - low)
    assert bootstrap_interval(few) == bootstrap_interval(few)


def test_interval_is_that_of_the_percentiles_of_means_of_resampled_patients(rng):
    values = [0.0] * 7 + [1.0, 10.0, 30.0]  # skewed, so corrected intervals differ
    means = rng.choice(values, (20_000, len(values))).mean(1)
    found = bootstrap_interval(values)
    assert found == pytest.approx(np.percentile(means, (2.5, 97.5)), rel=0.05, abs=0.01)


def test_interval_of_one_or_of_equal_patients():
    assert np.isnan(bootstrap_interval([3.0])).all()
    assert bootstrap_interval([3.0, 3.0]) == (3.0, 3.0)


def test_summary_takes_finite_figures_of_one_scale_only():
    found = {(f.scale, f.column): f for f in summarise(ROWS)}
    assert found[0, "mae"].mean == 2
    assert (found[0, "psnr"].mean, found[0, "psnr"].n_images) == (30, 1)
    assert found[1, "ssim"].mean == pytest.approx(0.6)
    assert (0, "ssim") not in found


def test_images_of_a_patient_count_once():
    several = [
        ScaleFigures(f"{patient}{n}.png", 0, (64, 48), None, {"mae": mae}, patient)
        for patient, maes in (("a", (1.0, 1.2, 1.1, 1.1)), ("b", (5.0,)), ("c", (3.0,)))
        for n, mae in enumerate(maes)
    ]
    (found,) = summarise(several)
    assert (found.n_images, found.n_patients) == (6, 3)
    assert found.mean == pytest.approx((1.1 + 5 + 3) / 3)
    (each,) = summarise([row(f.image, 0, **f.values) for f in several])
    assert each.n_patients == 6
    assert each.mean == pytest.approx(np.mean([1.0, 1.2, 1.1, 1.1, 5, 3]))
    assert each.high - each.low < found.high - found.low  # as if there were more patients
    report = report_markdown(several, model_name="small", units="HU", made_by="us")
    assert "6 image(s) of 3 patient(s)" in report
    line = next(csv.DictReader(io.StringIO(summary_csv(several))))
    assert (line["images"], line["patients"]) == ("6", "3")
    lines = list(csv.DictReader(io.StringIO(figures_csv(several))))
    assert [line["patient"] for line in lines] == list("aaaabc")


def test_patients_are_found_in_names():
    images = [Path("x/p1_a.png"), Path("x/p1_b.png"), Path("x/p22_a.png")]
    assert list(patients_of(images, "^[^_]+").values()) == ["p1", "p1", "p22"]
    assert list(patients_of(images, "p([0-9]+)").values()) == ["1", "1", "22"]
    with pytest.raises(VolumeError, match="finds no patient in the name p1_a"):
        patients_of(images, "q[0-9]")
    with pytest.raises(VolumeError, match="not a regular expression"):
        patients_of(images, "(")


def test_folders_in_some_names_decide_no_patient_unnoticed():
    images = [Path("s1/p1_x.png"), Path("s1/p2_x.png"), Path("s2/p1_x.png")]
    assert list(names_of(images).values()) == ["s1_p1_x.png", "s1_p2_x.png", "s2_p1_x.png"]
    assert list(patients_of(images, "p[0-9]+").values()) == ["p1", "p2", "p1"]
    assert list(patients_of(images, "^s[0-9]+").values()) == ["s1", "s1", "s2"]
    with pytest.raises(VolumeError, match=r"finds 's1' in the name s1_p1_x.*, but 'p1' in that"):
        patients_of(images, "^[^_]+")


def test_names_are_told_apart_whatever_folders_are_called():
    images = [Path("a/b_c.png"), Path("a_b/c.png"), Path("q/c.png")]
    names = list(names_of(images).values())
    assert len(set(names)) == 3
    assert all(n.endswith(path.name) for n, path in zip(names, images, strict=True))


def test_csv_has_a_row_per_image_and_scale():
    lines = list(csv.DictReader(io.StringIO(figures_csv(ROWS))))
    assert [(line["image"], line["scale"], line["mae"]) for line in lines] == [
        ("a.png", "0", "1"),
        ("a.png", "1", "2"),
        ("b|c.png", "0", "3"),
        ("b|c.png", "1", "5"),
    ]
    assert lines[0]["shape"] == "64x48"
    assert lines[0]["ssim"] == ""
    assert {column.name for column in COLUMNS} < set(lines[0])
    assert "\r" not in figures_csv(ROWS)
    summary = list(csv.DictReader(io.StringIO(summary_csv(ROWS))))
    assert summary[0] == {
        "scale": "0",
        "figure": "mae",
        "images": "2",
        "patients": "2",
        "mean": "2",
        "low_95": "1",
        "high_95": "3",
    }


def test_report_has_rows_means_intervals_and_legend():
    report = report_markdown(
        ROWS,
        model_name="small",
        units="HU",
        made_by="us",
        memorisation=Memorisation(0.9, 0.1, 0.95, 48, 5),
    )
    assert "| b\\|c.png | 1 | 5.00 |  | 0.700 |" in report
    assert "| **mean of 2 (95 %)** | 0 | 2.00 (1.00 to 3.00) | 30.00, n = 1 |" in report
    assert "*MAE*: mean absolute error" in report
    assert "| 48 | 5 | 0.90 | 0.10 | 0.95 |" in report
    assert "at their own size only: the model has no training.json" in report
    assert report.count("| a.png | 0 |") == 1  # accuracy, no row of scale 0 among the seams
    assert "| b\\|c.png | 1 | 2e-06 |" in report
    assert "2 image(s); one row" in report
    assert "sketch F1" not in report  # nobody took it
    assert "Not measured" not in report
    assert "Memorisation" not in report_markdown(ROWS, model_name="small", units="HU", made_by="us")


def test_report_tells_at_which_sizes_training_images_were_searched():
    found = Memorisation(0.9, 0.1, 0.95, 48, 5, (0.85, 1.0, 1.15))
    report = report_markdown(ROWS, model_name="small", units="HU", made_by="us", memorisation=found)
    assert "and at 3 others, 0.85 to 1.15 of it" in report


def test_report_names_what_was_not_measured_each_in_a_line():
    report = report_markdown(
        ROWS, model_name="small", units="HU", made_by="us", problems=["no\nmemory", "damaged"]
    )
    assert "\n\n**Not measured:**\n\n- no memory\n- damaged\n\n" in report


def test_each_scale_counts_its_own_patients():
    """Scale 0 has no seams, and a smaller image lacks scale 1."""
    rows = [
        *(row(name, 0, mae=mae) for name, mae in (("a", 1.0), ("b", 2.0), ("c", 6.0))),
        *(row(name, 1, mae=mae, seam_max_near=0.5) for name, mae in (("a", 3.0), ("b", 5.0))),
        row("a", 2),
    ]
    report = report_markdown(rows, model_name="small", units="HU", made_by="us")
    means = [line for line in report.splitlines() if line.startswith("| **mean")]
    assert [line.split(" (")[0] + line[line.index(")** |") + 4 :][:4] for line in means] == [
        "| **mean of 3| 0 ",
        "| **mean of 2| 1 ",
        "| **mean of 2| 1 ",
    ]
    assert "| **mean of 2 (95 %)** | 1 | 4.00 (3.00 to 5.00) |" in report
    assert ", n = " not in report


def test_one_image_has_no_mean():
    assert "**mean" not in report_markdown(ROWS[:2], model_name="small", units="HU", made_by="us")


def test_a_scale_without_any_figure_is_no_error():
    rows = [ScaleFigures(name, 0, (8, 8), None, {"mae": float("nan")}) for name in "ab"]
    assert "No image is large enough" in report_markdown(
        rows, model_name="small", units="HU", made_by="us"
    )


def test_odd_names_break_no_table_and_are_no_formula():
    names = ["a\\|b.png", "new\nline.png", "<img src=x>.png", "=1+1.png", "'quoted'.png"]
    rows = [row(name, 0, mae=1.0) for name in names]
    report = report_markdown(rows, model_name="small", units="HU", made_by="us")
    table = [line for line in report.splitlines() if line.startswith("| ")]
    assert len({len(re.split(r"(?<!\\)(?:\\\\)*\|", line)) for line in table}) == 1
    assert "<img" not in report.replace("\\<", "")
    text = figures_csv(rows)
    assert "\n'=1+1.png,'=1+1.png," in text
    assert images_of(text) == set(names)
    assert images_of("picture,scale\na,0\n") == set()
    assert images_of("image\n" + '"' + "x" * 200_000 + '"\n') == set()
