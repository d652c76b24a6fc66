"""Mean figures over patients, with their uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_msgan.evaluation.columns import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_msgan.evaluation.figures import ScaleFigures

_CONFIDENCE = 0.95
_RESAMPLES = 9999


@dataclass(frozen=True, slots=True)
class MeanFigure:
    """Mean of a figure over patients; `low` to `high` is its 95 % interval, NaN for one patient."""

    scale: int
    column: str
    n_images: int
    n_patients: int
    mean: float
    low: float
    high: float


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean [1]_, from 9999 resamples.

    NaN for fewer than two values. For few values it is too narrow: for three patients, it says
    little more than their range.

    References
    ----------
    .. [1] Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13.
    """
    from scipy.stats import bootstrap

    if len(values) < 2:
        return float("nan"), float("nan")
    if min(values) == max(values):
        return min(values), max(values)
    interval = bootstrap(
        (np.asarray(values, np.float64),),
        np.mean,
        confidence_level=_CONFIDENCE,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def summarise(rows: Sequence[ScaleFigures]) -> list[MeanFigure]:
    """Return the mean of every measured figure at each scale.

    The images of one patient are averaged first: they are alike, and counting each of them would
    make the interval too narrow. Figures that are not finite (image too small, PSNR of equal
    images) are left out.
    """
    found = []
    for scale in sorted({row.scale for row in rows}):
        for column in COLUMNS:
            of_patients: dict[str, list[float]] = {}
            for row in rows:
                if row.scale == scale and np.isfinite(row.value(column.name)):
                    values = of_patients.setdefault(row.patient or row.image, [])
                    values.append(row.value(column.name))
            if of_patients:
                means = [float(np.mean(values)) for values in of_patients.values()]
                n_images, mean = sum(map(len, of_patients.values())), float(np.mean(means))
                interval = bootstrap_interval(means)
                found.append(MeanFigure(scale, column.name, n_images, len(means), mean, *interval))
    return found
