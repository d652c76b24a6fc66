"""Figures of trained methods on held-out images, and differences between methods."""

from __future__ import annotations

import csv
import logging
import math
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np

from napari_msgan.config import PatchNetwork, ScaleSpec
from napari_msgan.evaluation import (
    COLUMNS,
    Computing,
    bootstrap_interval,
    iter_measure,
    iter_open_case,
)
from napari_msgan.model import Model
from napari_msgan.steps import run_to_end
from napari_msgan.training.checks import model_spec

_LOG = logging.getLogger("reproduce")
#: The day from which figures are taken as now.
_SINCE = "2026-11-29"


def measures_of(data):
    """Return how figures of a data set are measured; others are not compared with them."""
    return f"{_SINCE}, noise {data.config.noise:g}" if data.config.noise else _SINCE


def model_of(data, generators, tile, folder):
    """Return a model with any generators, so that images are made as users make them.

    Its description says where voxels lie; its networks are passed in, and need no files.
    """
    scales = [
        ScaleSpec(
            network=data.config.scales[0].network if scale == 0 else PatchNetwork(),
            factor=plan.factor,
            spacing_mm=plan.spacing_mm,
            file=f"scale_{scale}.safetensors",
            sha256="0" * 64,
        )
        for scale, plan in enumerate(data.config.scales)
    ]
    tiles = (tile,) * data.ndim
    config = data.config.model_copy(update={"tile_shape": tiles, "chunk_shape": tiles})
    prepared = tuple(generator.eval().requires_grad_(False) for generator in generators)
    return Model(model_spec(config, scales), folder, prepared)


def measure_heldout(data, model, folder):
    """Write a row for each held-out image to ``figures.csv``.

    Existing rows are kept, unless they were measured in another way. The images themselves are
    kept beside it, as uint8 over the window of the model.
    """
    rows = measured(data, folder)
    there = {row["image"] for row in rows}
    for image in data.heldout:
        if image.name in there:
            continue
        values = _measure(data, model, image, folder)
        taken = {name: format(value, ".6g") for name, value in values.items()}
        rows.append({"image": image.name, "measures": measures_of(data)} | taken)
        write_csv(folder / "figures.csv", rows)
        _LOG.info("%s: SSIM %.3f, SWD %.1f", image.name, values["ssim"], values["swd"])


def measured(data, folder):
    """Return the rows of ``figures.csv`` that were measured in the current way."""
    path = folder / "figures.csv"
    rows = read_csv(path) if path.exists() else []
    return [row for row in rows if is_comparable(data, row)]


def is_comparable(data, row):
    """Return whether figures of a data set were measured in the current way."""
    return row.get("measures") == measures_of(data)


def _measure(data, model, image, folder):
    computing = Computing(workers=os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as work, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a CT is finer than its slices
        case = run_to_end(iter_open_case(image, model, Path(work), computing, data.finest))
        row = run_to_end(iter_measure(case, data.finest))
        pictures = {
            "made": _as_bytes(case.made(data.finest), model.spec.window),
            "truth": _as_bytes(case.truth[data.finest], model.spec.window),
            "sketch": _plane(np.asarray(case.store.sketch_array(data.finest)[...])),
        }
    (folder / "pictures").mkdir(exist_ok=True)
    np.savez_compressed(folder / "pictures" / f"{image.name}.npz", **pictures)
    return {column.name: row.value(column.name) for column in COLUMNS}


def _as_bytes(stored, window):
    low, high = window
    unit = (_plane(np.asarray(stored)).astype(np.float32) - low) / (high - low)
    return np.rint(255 * np.clip(unit, 0, 1)).astype(np.uint8)


def _plane(array):
    """Return a 2-D image, or the middle coronal slice of a volume, head up."""
    return array if array.ndim == 2 else array[::-1, array.shape[1] // 2]


def read_csv(path):
    """Return the rows of a CSV file as dicts of text."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_csv(path, rows):
    """Write rows with the columns of the first one."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def mean_and_interval(values):
    """Return mean and 95 % bootstrap interval of the finite values; NaN if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    mean = sum(finite) / len(finite) if finite else math.nan
    return mean, *bootstrap_interval(finite)


def paired_difference(ours, other):
    """Return mean and 95 % bootstrap interval of other - ours, image by image.

    Parameters
    ----------
    ours, other : a figure by image name; only images in both count.
    """
    return mean_and_interval([other[image] - ours[image] for image in ours if image in other])
