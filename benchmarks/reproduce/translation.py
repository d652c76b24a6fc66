"""Images of a domain that a model has not seen, translated into its own domain."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from benchmarks.reproduce.figures import read_csv, write_csv
from benchmarks.reproduce.pictures import panel_sheet
from napari_msgan import generate, load_model
from napari_msgan.evaluation import (
    body_mask,
    compare_sketches,
    edges_of,
    matched_errors,
    structural_similarity,
    tissue_masks,
    units_of,
)
from napari_msgan.geometry import Box
from napari_msgan.io import read_volume
from napari_msgan.model import bundled_folder
from napari_msgan.sketch import lazy_unit, measure_window
from napari_msgan.volume import orient

_LOG = logging.getLogger("reproduce")
FIGURES = ("ssim", "mae", "sketch_f1", "sketch_f1_chance", "dice")


@dataclass(frozen=True)
class Translation:
    """What is translated: `source` becomes an image in the model's domain.

    truth : a true image of the same patient in that domain, or the source itself.
    """

    title: str
    model: str
    source: str
    truth: str | None = None


TRANSLATIONS = (
    Translation(
        "MRI, T2 to T1", "brain-mri", "mri3d/t2_cstar_stroke_1mm_u8.nii.gz",
        "mri3d/t1_cstar_stroke_1mm_u8.nii.gz",
    ),
    Translation(
        "MRI, FLAIR to T1", "brain-mri", "mri3d/flair_cstar_stroke_1mm_u8.nii.gz",
        "mri3d/t1_cstar_stroke_1mm_u8.nii.gz",
    ),
    Translation("CT of another scanner, low dose", "thorax-ct", "ct3d/ct_nlst101287_*.nii.gz"),
    Translation("X-rays of adults (Hannover)", "chest-xray", "xray2d/hannover_*"),
    Translation("X-rays of adults (NIH)", "chest-xray", "xray2d/nih_*"),
)  # fmt: skip


def translate_all(data, places):
    """Measure every image that is not yet in the table; name the models that are missing."""
    folder = places.work / "translation"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "figures.csv"
    rows = read_csv(path) if path.exists() else []
    there = {(row["title"], row["image"]) for row in rows}
    for translation in TRANSLATIONS:
        if not (bundled_folder() / translation.model / "model.json").exists():
            _LOG.warning("%s: left out, there is no model %s", translation.title, translation.model)
            continue
        sources = sorted((data / "heldout").glob(translation.source))
        if not sources:
            raise SystemExit(f"{data}/heldout/{translation.source} is missing: see --data")
        for source in sources:
            if (translation.title, source.name) not in there:
                found = _translate(translation, source, data / "heldout", folder)
                rows.append({"title": translation.title, "image": source.name} | found)
                write_csv(path, rows)
                _LOG.info("%s, %s: %s", translation.title, source.name, found)
    if rows:
        write_csv(places.part("translation") / "figures.csv", rows)
        _draw(rows, folder, places.picture("translation.png"))


def _translate(translation, source, heldout, folder):
    model = load_model(bundled_folder() / translation.model)
    truth_path = heldout / translation.truth if translation.truth else source
    with tempfile.TemporaryDirectory() as work, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that an image is larger than the model's
        out = Path(work) / "out.ome.zarr"
        store = generate(source, out, model, device="cpu", workers=os.cpu_count())
        finest = store.geometry.finest_scale
        stored = store.read(finest, Box.of_shape(store.geometry.shape))
        sketch = np.asarray(store.sketch_array(finest)[...])
    units, spec = units_of(model.spec), model.spec
    made = units.convert(stored)
    true = _on_grid_of(store.geometry.affine, made.shape, read_volume(truth_path), spec, units)
    body = body_mask(true, units)
    matched = matched_errors(made, true)
    adapted = made * np.float32(matched.gain) + np.float32(matched.offset)
    edges = edges_of(lazy_unit(stored, *spec.window), spec.sketch, finest, spec.tile_shape)
    agreement = compare_sketches(edges, sketch > 0)
    values = {
        "ssim": structural_similarity(adapted, true, body, units.window),
        "mae": matched.mae,
        "sketch_f1": agreement.f1,
        "sketch_f1_chance": agreement.chance,
        "dice": _dice_of_organ(made, true, body, units),
    }
    pictures = {"sketch": sketch, "made": _bytes(made, units), "truth": _bytes(true, units)}
    path = folder / f"{translation.model}-{source.name}.npz"
    np.savez_compressed(path, **{name: _plane(array) for name, array in pictures.items()})
    return {name: format(values[name], ".5g") for name in FIGURES} | {"pictures": path.name}


def _on_grid_of(affine, shape, volume, spec, units):
    """Return an image in reported units on another grid of the same world."""
    turned, _ = orient(volume, spec.orientation)
    data = np.asarray(turned.data[tuple(slice(0, n) for n in turned.shape)], np.float32)
    if not units.is_hu:
        low, high = measure_window(turned.data)
        data = (data - low) * np.float32(units.data_range / (high - low))
    data = np.clip(data, *units.window)
    to_source = np.linalg.inv(turned.affine.matrix) @ affine.matrix
    return ndimage.affine_transform(
        data, to_source[:-1, :-1], to_source[:-1, -1], shape, order=1, mode="nearest"
    )


def _dice_of_organ(made, true, body, units):
    """Return the overlap of lungs in CT, of brains in MRI; NaN for pictures."""
    if made.ndim == 2:
        return float("nan")
    masks = body_mask(made, units), body
    if units.is_hu:
        masks = [
            tissue_masks(image, mask)["lung"]
            for image, mask in zip((made, true), masks, strict=True)
        ]
    return dice(*masks)


def dice(a, b):
    """Return the Dice overlap, twice the intersection over the sum; NaN if both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else float("nan")


def _bytes(image, units):
    unit = (image - units.zero) / units.data_range
    return np.rint(255 * np.clip(unit, 0, 1)).astype(np.uint8)


def _plane(array):
    return array if array.ndim == 2 else array[::-1, array.shape[1] // 2]


def _draw(rows, folder, path):
    """Draw the first image of each translation."""
    shown = {row["title"]: row["pictures"] for row in reversed(rows)}
    found = [np.load(folder / name) for name in reversed(shown.values())]
    panel_sheet([{part: one[part] for part in ("sketch", "made", "truth")} for one in found], path)
