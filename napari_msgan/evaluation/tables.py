"""Figures as CSV and Markdown."""

from __future__ import annotations

import csv
import io
import math
import re
from typing import TYPE_CHECKING

from napari_msgan.evaluation.columns import COLUMNS
from napari_msgan.evaluation.summary import summarise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_msgan.evaluation.columns import Group
    from napari_msgan.evaluation.figures import ScaleFigures
    from napari_msgan.evaluation.memorisation import Memorisation
    from napari_msgan.evaluation.summary import MeanFigure

#: What formulas begin with in spreadsheets.
_FORMULA = tuple("=+-@")
_TITLES: dict[Group, str] = {
    "accuracy": "Accuracy",
    "texture": "Texture",
    "fidelity": "Fidelity to sketch and coarse image",
    "seams": "Seams",
}


def figures_csv(rows: Sequence[ScaleFigures]) -> str:
    """Return a CSV table with one line per image and scale."""
    names = ["image", "patient", "scale", "shape", "spacing_mm", *(c.name for c in COLUMNS)]
    lines = [
        [
            _no_formula(row.image),
            _no_formula(row.patient or row.image),
            str(row.scale),
            "x".join(map(str, row.shape)),
            "x".join(f"{mm:g}" for mm in row.spacing_mm or ()),
            *(_exact(row.value(c.name)) for c in COLUMNS),
        ]
        for row in rows
    ]
    return _csv([names, *lines])


def images_of(figures: str) -> set[str]:
    """Return the images in a text made by `figures_csv`; none if the text is something else."""
    try:
        named = [row.get("image") for row in csv.DictReader(io.StringIO(figures))]
    except csv.Error:
        return set()
    return {
        name[1:] if name[1:2] in _FORMULA and name[0] == "'" else name for name in named if name
    }


def summary_csv(rows: Sequence[ScaleFigures]) -> str:
    """Return a CSV table with mean and 95 % interval over patients per scale and figure."""
    names = ["scale", "figure", "images", "patients", "mean", "low_95", "high_95"]
    lines = [
        [
            str(f.scale),
            f.column,
            str(f.n_images),
            str(f.n_patients),
            *(_exact(v) for v in (f.mean, f.low, f.high)),
        ]
        for f in summarise(rows)
    ]
    return _csv([names, *lines])


def _no_formula(name: str) -> str:
    """Return a name that spreadsheets take as text, not as a formula."""
    return f"'{name}" if name[:1] in _FORMULA else name


def _exact(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def _cell(name: str) -> str:
    """Escape a name for one cell of a Markdown table."""
    return re.sub(r"([\\|<`*_\[\]])", r"\\\1", " ".join(name.split()))


def _csv(lines: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def report_markdown(
    rows: Sequence[ScaleFigures],
    *,
    model_name: str,
    units: str,
    made_by: str,
    memorisation: Memorisation | None = None,
    problems: Sequence[str] = (),
) -> str:
    """Return a report with all tables and a legend, one group of figures after the other.

    made_by : program, model and machine, so that the figures can be cited.
    problems : one text each for what could not be measured, and why.
    """
    n_images = len({row.image for row in rows})
    n_patients = len({row.patient or row.image for row in rows})
    of = f" of {n_patients} patient(s), averaged for each patient first" * (n_patients < n_images)
    lines = [
        f"# Evaluation of {model_name}",
        "",
        f"{n_images} image(s){of}; one row per image and scale, then the mean of each scale with "
        f"its 95 % bootstrap interval over patients. Errors and seams in {units}. A generated "
        "image is compared with the one that its sketch was made from; 'from true' starts from the "
        "true previous scale.",
        "",
        f"Made by {made_by}.",
    ]
    if problems:
        lines += ["", "**Not measured:**", "", *(f"- {' '.join(p.split())}" for p in problems)]
    means = {(f.scale, f.column): f for f in summarise(rows)}
    for group, title in _TITLES.items():
        lines += ["", f"## {title}", *_group_table(group, rows, means)]
    if memorisation is not None:
        lines += ["", "## Memorisation", *_memorisation_lines(memorisation)]
    return "\n".join(lines) + "\n"


def _group_table(
    group: Group, rows: Sequence[ScaleFigures], means: dict[tuple[int, str], MeanFigure]
) -> list[str]:
    taken = {name for _, name in means}
    columns = [c for c in COLUMNS if c.group == group and c.name in taken]
    if not columns:
        return ["", "No image is large enough for these figures."]
    table = [
        ["image", "scale", *(c.title for c in columns)],
        ["---", *["---:"] * (1 + len(columns))],
    ]
    for row in rows:
        cells = [c.write(row.value(c.name)) for c in columns]
        if not any(cells):  # scale 0 has no seams
            continue
        table.append([_cell(row.image), str(row.scale), *cells])
    scales = sorted({row.scale for row in rows})
    for scale in scales if len({row.image for row in rows}) > 1 else ():
        cells = []
        most = max((f.n_patients for (s, _), f in means.items() if s == scale), default=0)
        for column in columns:
            mean = means.get((scale, column.name))
            text = "" if mean is None else column.write(mean.mean)
            if mean is not None and mean.n_patients > 1:
                text += f" ({column.write(mean.low)} to {column.write(mean.high)})"
            if mean is not None and mean.n_patients < most:
                text += f", n = {mean.n_patients}"
            cells.append(text)
        if not any(cells):
            continue
        table.append([f"**mean of {most} (95 %)**", str(scale), *cells])
    legend = "; ".join(f"*{c.title}*: {c.meaning}" for c in columns)
    return ["", *(f"| {' | '.join(cells)} |" for cells in table), "", f"{legend}."]


def _memorisation_lines(memorisation: Memorisation) -> list[str]:
    return [
        "",
        "| patches | training images | median | 1st percentile | median, exchanged |",
        "|---:|---:|---:|---:|---:|",
        f"| {memorisation.n_patches} | {memorisation.n_images} | {memorisation.median:.2f} "
        f"| {memorisation.percentile_1:.2f} | {memorisation.reference:.2f} |",
        "",
        "Distance of a generated patch to its nearest training patch over that of the true patch "
        "to it, details only; near 0 is a copy of training data. *Exchanged*: the same with true "
        "and generated patches exchanged; without memory both medians are alike, but blur lowers "
        "the first. " + _searched_sizes(memorisation.zooms),
    ]


def _searched_sizes(zooms: Sequence[float]) -> str:
    if not zooms:
        return (
            "Training images were searched at their own size only: the model has no training.json "
            "that says over which range training resampled them, so a copy at another size is "
            "hardly found."
        )
    return (
        f"Training images were searched at their own size and at {len(zooms)} others, "
        f"{min(zooms):.2f} to {max(zooms):.2f} of it, as training resampled them."
    )
