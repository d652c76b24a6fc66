"""Plots and pictures of the results."""

from __future__ import annotations

import json
import math

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
_PANEL = 260
_TITLE = 16
_GAP = 4
#: Images of a sheet, and the part of each that is shown larger.
_SHOWN, _ZOOM = 2, 0.3
#: Where a sheet says what its columns show.
_COLUMNS = "columns"


def curve_plot(points, path):
    """Draw the L1 of validation (or of training, without one) against the share of the steps.

    There is one panel per scale; a method has the same colour in all of them.
    """
    scales = sorted({row["scale"] for row in points})
    titles = list(dict.fromkeys(row["title"] for row in points))
    figure = Figure(figsize=(3.6 * len(scales), 3.6), layout="constrained")
    axes = figure.subplots(1, len(scales), squeeze=False)[0]
    lines = {}
    for axis, scale in zip(axes, scales, strict=True):
        for number, title in enumerate(titles):
            of_one = [r for r in points if (r["scale"], r["title"]) == (scale, title)]
            if of_one:
                shares = [float(r["share"]) for r in of_one]
                values = [_watched(r) for r in of_one]
                (lines[title],) = axis.plot(shares, values, color=f"C{number}", linewidth=1.2)
        axis.set(title=f"scale {scale}", xlabel="share of the steps")
    axes[0].set_ylabel("L1, values in [-1, 1]")
    shown = [title for title in titles if title in lines]
    figure.legend(
        [lines[title] for title in shown], shown, loc="outside lower center", ncols=3, fontsize=7
    )
    figure.savefig(path, dpi=110)


def _watched(row):
    validation = float(row["validation_l1"])
    return float(row["l1"]) if math.isnan(validation) else validation


def memory_plot(rows, path):
    """Draw peak memory above idle against side length; memory that would be needed is dotted."""
    dimensions = sorted({row["axes"] for row in rows})
    figure = Figure(figsize=(4.2 * len(dimensions), 3.2), layout="constrained")
    axes = figure.subplots(1, len(dimensions), squeeze=False)[0]
    for axis, ndim in zip(axes, dimensions, strict=True):
        sizes = sorted({int(row["size"]) for row in rows if row["axes"] == ndim})
        for job in dict.fromkeys(row["job"] for row in rows):
            of_job = [row for row in rows if (row["axes"], row["job"]) == (ndim, job)]
            run = [row for row in of_job if row["peak_mb"]]
            (line,) = axis.plot(*_sizes_and_gb(run, "peak_mb"), "o-", label=job)
            needed = [row for row in of_job if row["needs_mb"]]
            axis.plot(*_sizes_and_gb(needed, "needs_mb"), "s:", color=line.get_color(), mfc="none")
        axis.set(title=f"{ndim}-D", xlabel="voxels per side", xscale="log", yscale="log")
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.yaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
        axis.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel("GB above idle")
    axes[0].legend(fontsize=7, loc="upper left")
    figure.savefig(path, dpi=110)


def _sizes_and_gb(rows, column):
    return [int(row["size"]) for row in rows], [float(row[column]) / 1000 for row in rows]


def picture_sheet(folders, path, order):
    """Draw sketch, the result of each method, and truth, both whole and with a part enlarged.

    Parameters
    ----------
    folders : folder with the figures of each method, by its title.
    order : titles of all methods of the sheet; those without a folder come from the existing sheet.
    """
    first = next(iter(folders.values()))
    names = sorted(file.name for file in (first / "pictures").glob("*.npz"))[:_SHOWN]
    rows = []
    for name in names:
        made = {title: np.load(folder / "pictures" / name) for title, folder in folders.items()}
        known = next(iter(made.values()))
        panels = {"sketch": known["sketch"]}
        panels |= {title: found["made"] for title, found in made.items()}
        panels["truth"] = known["truth"]
        rows += [panels, {title: _part(grey) for title, grey in panels.items()}]
    sheet = _sheet(rows)
    columns = _columns(sheet, [*rows[0]])
    if set(order) - columns.keys():
        with Image.open(path) as before:
            columns = _columns(before, json.loads(before.info[_COLUMNS])) | columns
    titles = ["sketch", *order, "truth"]
    whole = Image.new("L", (sum(columns[title].width for title in titles), sheet.height), 255)
    for number, title in enumerate(titles):
        whole.paste(columns[title], (number * columns[title].width, 0))
    named = PngInfo()
    named.add_text(_COLUMNS, json.dumps(titles))
    whole.save(path, optimize=True, pnginfo=named)


def _columns(sheet, titles):
    """Return the columns of a sheet by their titles."""
    width = sheet.width // len(titles)
    return {
        title: sheet.crop((number * width, 0, (number + 1) * width, sheet.height))
        for number, title in enumerate(titles)
    }


def panel_sheet(rows, path):
    """Write rows of titled grey pictures (uint8, 2-D) as one picture."""
    _sheet(rows).save(path, optimize=True)


def _sheet(rows):
    scale = _PANEL / max(max(grey.shape) for grey in rows[0].values())
    width = max(round(grey.shape[1] * scale) for grey in rows[0].values())
    pictures = [
        [_resized(grey, width, width * grey.shape[0] // grey.shape[1]) for grey in row.values()]
        for row in rows
    ]
    heights = [max(picture.height for picture in row) for row in pictures]
    size = (width + _GAP) * len(rows[0]), _TITLE + sum(heights) + _GAP * len(rows)
    sheet = Image.new("L", size, 255)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(rows[0]):
        draw.text((column * (width + _GAP) + 2, 2), _short(title, draw, width), fill=0)
        top = _TITLE
        for row, height in zip(pictures, heights, strict=True):
            sheet.paste(row[column], (column * (width + _GAP), top))
            top += height + _GAP
    return sheet


def _short(title, draw, width):
    while draw.textlength(title) > width - 4:
        title = title[:-1]
    return title


def _part(grey):
    start = [round(n * c) for n, c in zip(grey.shape, (0.35, 0.15), strict=True)]
    stop = [a + round(n * _ZOOM) for a, n in zip(start, grey.shape, strict=True)]
    return grey[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]


def _resized(grey, width, height):
    picture = Image.fromarray(grey)
    kind = Image.Resampling.LANCZOS if width < picture.width else Image.Resampling.NEAREST
    return picture.resize((width, max(1, height)), kind)
