"""docs/results.md, made from the tables of the parts that have been run.

Comments on a part are read from `notes.md` beside its tables.
"""

from __future__ import annotations

import json
import math

from benchmarks.reproduce.data import IN_DOMAIN
from benchmarks.reproduce.figures import mean_and_interval, paired_difference, read_csv
from benchmarks.reproduce.memory import JOBS
from benchmarks.reproduce.translation import FIGURES, TRANSLATIONS

#: Heading and format of the figures of the comparisons.
COMPARED = {
    "mae_matched_low": ("MAE, low-pass", ".2f"),
    "mae_matched_high": ("MAE, high-pass", ".2f"),
    "ssim": ("SSIM", ".3f"),
    "swd": ("SWD", ".1f"),
    "spectrum_db": ("spectrum, dB", ".2f"),
    "fine_power": ("fine power", ".2f"),
    "sketch_f1": ("sketch F1", ".3f"),
    "seam_max_near": ("seam", ".1e"),
}
#: Methods that make the image in one tile have no seams.
_WITHOUT_SEAMS = ("whole",)
_TITLES = {
    "xray-time": "X-rays, equal time",
    "xray-patches": "X-rays, equal number of patches",
    "ct-time": "Thorax CT, equal time",
    "ct-patches": "Thorax CT, equal number of patches",
    "ablations": "Our settings, one changed at a time (X-rays)",
    "losses": "What patches learn from generated coarse images (X-rays)",
    "memory": "Memory",
    "translation": "Domain translation",
}
_FLAT = 0.10
#: Widths of the output windows, in the units of the figures.
_HOUNSFIELD, _GREY_LEVELS = 1600.0, 255.0


def write_report(places):
    """Write the page; parts without tables are listed as not run."""
    lines = [places.introduction.strip(), ""]
    for part, title in _TITLES.items():
        lines += [f"## {title}", ""]
        folder = places.results / part
        if not (folder / "about.json").exists():
            lines += [f"Not run yet (`make reproduce PARTS={part}`).", ""]
            continue
        lines += [_about(folder), ""]
        if (folder / "notes.md").exists():
            lines += [(folder / "notes.md").read_text(encoding="utf-8").strip(), ""]
        if part == "memory":
            lines += _memory_lines(read_csv(folder / "memory.csv"))
        elif part == "translation":
            lines += _translation_lines(read_csv(folder / "figures.csv"))
        else:
            lines += _comparison_lines(part, folder)
    places.page.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _about(folder):
    about = json.loads((folder / "about.json").read_text())
    return f"`{about['command']}`, {about['date']}, {about['machine']}."


def _comparison_lines(part, folder):
    rows, runs = read_csv(folder / "figures.csv"), read_csv(folder / "runs.csv")
    window = _HOUNSFIELD if part.startswith("ct") else _GREY_LEVELS
    for row in rows:
        row["seam_max_near"] = float(row["seam_max_near"]) / window
        if row["method"] in _WITHOUT_SEAMS:
            row["seam_max_near"] = math.nan
    inside = [row for row in rows if row["image"].startswith(IN_DOMAIN)]
    outside = [row for row in rows if not row["image"].startswith(IN_DOMAIN)]
    lines = [*training_table(runs), ""]
    if inside:
        lines += ["Held-out images of the hospital of the training images:", ""]
    lines += [*figure_table(inside or outside), ""]
    if inside and outside:
        lines += ["Images of other hospitals, adults:", "", *figure_table(outside), ""]
    lines += ["Difference to the first row over all images, with its 95 % interval:", ""]
    lines += [*difference_table(rows), ""]
    pictures = f"![sketch, methods, truth](images/results/{part}.png)"
    curves = f"![L1 during training](images/results/{part}-curves.png)"
    return [*lines, pictures, "", curves, ""]


def training_table(runs):
    """Return how long each method was trained, and on how much."""
    columns = "| method | scale: steps | minutes on the clock | patches seen |"
    lines = [columns, "|---|---|---:|---:|"]
    for title, of_one in _by_title(runs).items():
        steps = ", ".join(f"{row['scale']}: {row['steps']}" for row in of_one)
        minutes = sum(float(row["minutes"]) for row in of_one)
        patches = sum(int(row["patches"]) for row in of_one)
        lines.append(f"| {title} | {steps} | {minutes:.1f} | {patches} |")
    return lines


def figure_table(rows):
    """Return the mean of every figure over images, one line per method."""
    titles = _by_title(rows)
    n_images = len(next(iter(titles.values())))
    lines = _heading(f"mean of {n_images}")
    for title, of_one in titles.items():
        cells = []
        for name, (_, form) in COMPARED.items():
            mean, _, _ = mean_and_interval([float(row[name]) for row in of_one])
            cells.append("" if math.isnan(mean) else format(mean, form))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    floors = [float(row["swd_floor"]) for row in rows]
    return [*lines, "", f"SWD of the truth against itself: {mean_and_interval(floors)[0]:.1f}."]


def difference_table(rows):
    """Return differences from the first method, image by image; bold if the interval excludes 0."""
    titles = _by_title(rows)
    first, *others = titles
    lines = _heading(f"minus {first}, mean of {len(titles[first])}")
    for title in others:
        cells = []
        for name, (_, form) in COMPARED.items():
            ours, other = (_by_image(titles[t], name) for t in (first, title))
            mean, low, high = paired_difference(ours, other)
            text = "" if math.isnan(mean) else format(mean, f"+{form}")
            if not math.isnan(low):
                text += f" ({format(low, form)} to {format(high, form)})"
                text = f"**{text}**" if low > 0 or high < 0 else text
            cells.append(text)
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def _heading(first):
    names = [title for title, _ in COMPARED.values()]
    return [f"| {first} | {' | '.join(names)} |", "|---" + "|---:" * len(names) + "|"]


def _by_title(rows):
    found = {}
    for row in rows:
        found.setdefault(row["title"], []).append(row)
    return found


def _by_image(rows, name):
    values = {row["image"]: float(row[name]) for row in rows}
    return {image: value for image, value in values.items() if math.isfinite(value)}


def _memory_lines(rows):
    lines = [
        "Peak above the idle process, in MB; *about*: not run for lack of memory, the last one in "
        "proportion to the voxels.",
        "",
    ]
    for ndim in sorted({row["axes"] for row in rows}):
        of_ndim = [row for row in rows if row["axes"] == ndim]
        sizes = sorted({int(row["size"]) for row in of_ndim})
        lines += [f"| {ndim}-D | {' | '.join(map(str, sizes))} | largest over smallest |"]
        lines += ["|---" + "|---:" * (len(sizes) + 1) + "|"]
        for job in JOBS:
            found = {int(row["size"]): row for row in of_ndim if row["job"] == job}
            cells = [_megabytes(found.get(size)) for size in sizes]
            peaks = [float(row["peak_mb"]) for row in found.values() if row["peak_mb"]]
            ratio = max(peaks) / min(peaks) if peaks else math.nan
            said = ", flat" if ratio <= 1 + _FLAT else ""
            if len(peaks) < len(found):
                said += " (measured)"
            lines.append(f"| {job} | {' | '.join(cells)} | {ratio:.2f}{said} |")
        lines.append("")
    return [*lines, "![peak memory against the size](images/results/memory.png)", ""]


def _megabytes(row):
    if row is None:
        return ""
    return row["peak_mb"] or f"about {int(row['needs_mb']):d}"


def _translation_lines(rows):
    lines = [
        "SSIM and MAE after the best change of brightness and contrast; MAE in HU or grey levels "
        "of 255; Dice of lungs (CT) or of the brain (MRI). Where there is no other image of the "
        "patient, the truth is the source itself.",
        "",
        "| translation | images | SSIM | MAE | sketch F1 | F1 by chance | Dice |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for title, of_one in _by_title(rows).items():
        cells = []
        for name in FIGURES:
            mean, _, _ = mean_and_interval([float(row[name]) for row in of_one])
            cells.append("" if math.isnan(mean) else f"{mean:.{1 if name == 'mae' else 3}f}")
        lines.append(f"| {title} | {len(of_one)} | {' | '.join(cells)} |")
    missing = [t.title for t in TRANSLATIONS if t.title not in _by_title(rows)]
    if missing:
        lines += ["", f"Not run, because their model is missing: {', '.join(missing)}."]
    return [*lines, "", "![sketch, result, truth](images/results/translation.png)", ""]
