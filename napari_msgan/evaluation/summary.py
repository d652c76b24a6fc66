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
    """Mean of a figure over images; `low` to `high` is its 95 % interval, NaN for one image."""

    scale: int
    column: str
    n_images: int
    mean: float
    low: float
    high: float


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean [1]_, 9999 resamples.

    NaN for fewer than two values. With few values it is too narrow: of three patients, it says
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
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def summarise(rows: Sequence[ScaleFigures]) -> list[MeanFigure]:
    """Return the mean of every figure that was taken, for each scale.

    Figures that are not finite (an image too small, PSNR of equal images) are left out of it.
    """
    found = []
    for scale in sorted({row.scale for row in rows}):
        for column in COLUMNS:
            of_scale = [row.value(column.name) for row in rows if row.scale == scale]
            values = [value for value in of_scale if np.isfinite(value)]
            if values:
                mean, interval = float(np.mean(values)), bootstrap_interval(values)
                found.append(MeanFigure(scale, column.name, len(values), mean, *interval))
    return found
