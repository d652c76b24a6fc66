"""Measure a model on held-out images and write the figures into its folder.

    python benchmarks/model_card.py MODEL_FOLDER IMAGE [IMAGE ...] [--append] [--scale S]

Writes ``heldout.csv`` (one row per image and scale), the table between the markers in
``README.md``, and ``preview.png`` of the first image: sketch, each scale, truth. The figures are
those of ``napari-msgan evaluate``, which measures many more. Each scale is measured twice: made
from the generated coarser scale (what a user gets), and from the true one (what the scale itself
contributes).
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import warnings
from pathlib import Path

import numpy as np

from napari_msgan import load_model
from napari_msgan.evaluation import (
    COLUMNS,
    Computing,
    iter_evaluate_image,
    overview,
    units_of,
)
from napari_msgan.steps import run_to_end

START, STOP = "<!-- figures: benchmarks/model_card.py -->", "<!-- end of figures -->"
FIGURES = (
    "edge_density", "mae", "psnr", "ssim", "correlation",
    "mae_from_true", "psnr_from_true", "ssim_from_true",
)  # fmt: skip
NAMES = ("image", "scale", "shape", "spacing", *FIGURES)


def as_record(row):
    """Return a row as a line of ``heldout.csv``."""
    columns = {column.name: column for column in COLUMNS}
    return {
        "image": row.image,
        "scale": row.scale,
        "shape": "x".join(map(str, row.shape)),
        "spacing": f"{max(row.spacing_mm):g}" if row.spacing_mm else "",
        **{name: columns[name].write(row.value(name)) for name in FIGURES},
    }


def table(records, units):
    """Return the lines of the Markdown table, one row per scale."""
    lines = [
        f"MAE in {units}; PSNR in dB over the output window; SSIM Gaussian, sigma 1.5, inside the "
        "body. 'from true' starts from the true previous scale. Mean over images (lowest to "
        "highest).",
        "",
        "| scale | images | edge density | MAE | PSNR | SSIM | correlation "
        "| MAE from true | PSNR from true | SSIM from true |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for scale in sorted({int(r["scale"]) for r in records}):
        of_scale = [r for r in records if int(r["scale"]) == scale]
        cells = [_cell(name, [float(r[name]) for r in of_scale if r[name]]) for name in FIGURES]
        size = of_scale[0]["spacing"]
        name = f"{scale} ({size} mm)" if size else str(scale)
        lines.append(f"| {name} | {len(of_scale)} | " + " | ".join(cells) + " |")
    return lines


def _cell(name, values):
    is_share = name in ("edge_density", "ssim", "ssim_from_true", "correlation")
    digits = 3 if is_share else 1
    text = f"{np.mean(values):.{digits}f}" if values else ""
    if len(values) > 1:
        text += f" ({min(values):.{digits}f} to {max(values):.{digits}f})"
    return text


def measure(image, model, scale, work):
    """Measure one image, print its rows, and return the case and the rows."""
    case, rows = run_to_end(iter_evaluate_image(image, model, work, Computing(), scale))
    records = [as_record(row) for row in rows]
    for record in records:
        print(*record.values(), flush=True)
    return case, records


def main() -> None:
    """Measure the images, write the figures and draw the preview."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--scale", type=int, help="finest scale, also beyond the source")
    parser.add_argument("--append", action="store_true", help="keep the rows of other images")
    parser.add_argument("--only-scale", type=int, help="keep the rows of this scale only")
    options = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    model = load_model(options.model)
    path = options.model / "heldout.csv"
    records = list(csv.DictReader(path.open())) if options.append and path.exists() else []
    for number, image in enumerate(options.images):
        with tempfile.TemporaryDirectory() as work:
            case, new = measure(image, model, options.scale, Path(work))
            records += [r for r in new if options.only_scale in (None, r["scale"])]
            if number == 0 and not options.append:
                overview(case, with_difference=False).save(options.model / "preview.png")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, NAMES, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    card = options.model / "README.md"
    if card.exists() and START in (text := card.read_text()):
        before, after = text.split(START)[0], text.split(STOP)[1]
        figures = "\n".join(table(records, units_of(model.spec).name))
        card.write_text(f"{before}{START}\n{figures}\n{STOP}{after}")


if __name__ == "__main__":
    main()
