"""Measure a model on held-out images and write the figures into its folder.

    python benchmarks/model_card.py MODEL_FOLDER IMAGE [IMAGE ...] [--append] [--scale S]

Writes ``heldout.csv`` (a row per image and scale), the table between the markers of
``README.md``, and ``preview.png`` of the first image: sketch, each scale, truth.
Each scale is measured twice: from the generated scale before it (what a user gets) and from
the true one (what the scale does by itself).
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.metrics import structural_similarity

from napari_msgan import jobs, load_model, read_volume
from napari_msgan.geometry import Box
from napari_msgan.intensity import Window
from napari_msgan.refiner import TileContext, run_tile
from napari_msgan.source import image_pyramid, plan_source

START, STOP = "<!-- figures: benchmarks/model_card.py -->", "<!-- end of figures -->"
COLUMNS = (
    "image", "scale", "shape", "spacing", "edge_density", "mae", "psnr", "ssim", "correlation",
    "mae_from_true", "psnr_from_true", "ssim_from_true",
)  # fmt: skip


def truth_pyramid(volume, model, scale):
    """Return the source at every scale in the stored type of the model."""
    plan = plan_source(volume, model.spec, scale)
    window = Window(*model.spec.window, np.dtype(model.spec.dtype))
    with image_pyramid(plan, model.spec.sketch, 2) as images:
        whole = [image[tuple(slice(0, n) for n in image.shape)] for image in images]
    return [window.to_stored(image * 2 - 1) for image in whole]


def from_true_coarse(store, model, truth, folder):
    """Return what each scale makes of the true scale before it."""
    other = jobs.open_pyramid(folder, writable=True)
    with other.writing():
        for scale in range(other.n_scales - 1):
            for box in Box.of_shape(truth[scale].shape).blocks(model.spec.chunk_shape):
                other.write(scale, box, truth[scale][box.slices])
    context = TileContext(other, model, "cpu", "fp32")
    context.prepare(range(store.n_scales))
    made = [None]
    for scale in range(1, store.n_scales):
        image = np.empty_like(truth[scale])
        for tile in other.tiling.tiles(scale, Box.of_shape(image.shape)):
            image[other.tiling.core(tile).slices] = run_tile(context, tile)
        made.append(image)
    return made


def measure(made, true, model, *, by_slice):
    """Return MAE (HU, or grey levels of 255), PSNR in dB, SSIM and correlation."""
    low, high = model.spec.window
    unit = 255 / (high - low) if model.spec.modality != "CT" else 1
    a, b = made.astype(np.float32), true.astype(np.float32)
    mae = float(np.abs(a - b).mean()) * unit
    mse = float(np.square(a - b).mean())
    options = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": high - low,
    }
    if by_slice:
        pairs = list(zip(a, b, strict=True))[:: max(1, len(a) // 24)]
        ssim = float(np.mean([structural_similarity(x, y, **options) for x, y in pairs]))
    else:
        ssim = float(structural_similarity(a, b, **options)) if min(a.shape) > 10 else float("nan")
    correlation = float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    return mae, 10 * np.log10((high - low) ** 2 / mse), ssim, correlation


def evaluate(path, model, scale, work):
    """Return store, truth and table rows of one held-out image."""
    volume = read_volume(path)
    store = jobs.generate(volume, work / "s.ome.zarr", model, scale=scale, device="cpu")
    _with_scale_0_only(volume, model, scale, work / "t.ome.zarr")
    truth = truth_pyramid(volume, model, scale)
    by_true = from_true_coarse(store, model, truth, work / "t.ome.zarr")
    rows = []
    for s in range(store.n_scales):
        made = np.asarray(store.array(s)[...])
        by_slice = made.ndim == 3 and made.size > 1 << 23
        mae, psnr, ssim, correlation = measure(made, truth[s], model, by_slice=by_slice)
        row = {
            "image": path.name,
            "scale": s,
            "shape": "x".join(map(str, made.shape)),
            "spacing": f"{max(store.geometry.spacing_at(s)):g}" if made.ndim == 3 else "",
            "edge_density": f"{store.info.sketch.thresholds[s].density:.3f}",
            "mae": f"{mae:.2f}",
            "psnr": f"{psnr:.2f}",
            "ssim": f"{ssim:.3f}",
            "correlation": f"{correlation:.3f}",
        }
        if s:
            values = measure(by_true[s], truth[s], model, by_slice=by_slice)
            row |= {
                "mae_from_true": f"{values[0]:.2f}",
                "psnr_from_true": f"{values[1]:.2f}",
                "ssim_from_true": f"{values[2]:.3f}",
            }
        rows.append(row)
        print(*(row.get(c, "") for c in COLUMNS), flush=True)
    return store, truth, rows


def _with_scale_0_only(volume, model, scale, path):
    steps = jobs.iter_generate(volume, path, model, scale=0, finest=scale, device="cpu")
    for _ in steps:
        pass


def preview(store, truth, path, size=420):
    """Write sketch, every scale and the truth side by side, a middle coronal slice of volumes."""

    def picture(array, window):
        if array.ndim == 3:
            array = array[::-1, array.shape[1] // 2]
        low, high = window
        grey = np.clip((array.astype(float) - low) / (high - low), 0, 1) * 255
        image = Image.fromarray(grey.astype(np.uint8))
        ratio = size / max(image.size)
        return image.resize(
            [round(n * ratio) for n in image.size],
            Image.Resampling.LANCZOS if ratio < 1 else Image.Resampling.NEAREST,
        )

    finest, window = store.n_scales - 1, store.info.window
    sketch_scale = min(finest, 2)
    panels = [picture(np.asarray(store.sketch_array(sketch_scale)[...]), (0, 160))]
    panels += [picture(np.asarray(store.array(s)[...]), window) for s in range(store.n_scales)]
    panels.append(picture(truth[finest], window))
    height = max(p.size[1] for p in panels)
    sheet = Image.new("L", (sum(p.size[0] + 6 for p in panels) - 6, height), 128)
    x = 0
    for panel in panels:
        sheet.paste(panel, (x, 0))
        x += panel.size[0] + 6
    sheet.save(path)


def table(rows, modality):
    """Return the lines of the Markdown table, a row per scale."""
    unit = "HU" if modality == "CT" else "grey levels of 255"
    lines = [
        f"MAE in {unit}; PSNR in dB over the output window; SSIM Gaussian, sigma 1.5. "
        "'from true' starts from the true previous scale. Mean over images (lowest to highest).",
        "",
        "| scale | images | edge density | MAE | PSNR | SSIM | correlation "
        "| MAE from true | PSNR from true | SSIM from true |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for scale in sorted({int(r["scale"]) for r in rows}):
        of_scale = [r for r in rows if int(r["scale"]) == scale]
        cells = []
        for column in (
            "edge_density",
            "mae",
            "psnr",
            "ssim",
            "correlation",
            "mae_from_true",
            "psnr_from_true",
            "ssim_from_true",
        ):
            values = [float(r[column]) for r in of_scale if r.get(column)]
            digits = 3 if column in ("edge_density", "ssim", "ssim_from_true", "correlation") else 1
            text = "" if not values else f"{np.mean(values):.{digits}f}"
            if len(values) > 1:
                text += f" ({min(values):.{digits}f} to {max(values):.{digits}f})"
            cells.append(text)
        size = of_scale[0]["spacing"]
        name = f"{scale} ({size} mm)" if size else str(scale)
        lines.append(f"| {name} | {len(of_scale)} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Measure, write, draw."""
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
    rows = list(csv.DictReader(path.open())) if options.append and path.exists() else []
    for number, image in enumerate(options.images):
        with tempfile.TemporaryDirectory() as work:
            store, truth, new = evaluate(image, model, options.scale, Path(work))
            rows += [r for r in new if options.only_scale in (None, r["scale"])]
            if number == 0 and not options.append:
                preview(store, truth, options.model / "preview.png")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    card = options.model / "README.md"
    if card.exists() and START in (text := card.read_text()):
        before, after = text.split(START)[0], text.split(STOP)[1]
        figures = "\n".join(table(rows, model.spec.modality))
        card.write_text(f"{before}{START}\n{figures}\n{STOP}{after}")


if __name__ == "__main__":
    main()
