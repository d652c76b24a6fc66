"""Whether a result agrees with what it was made from: its sketch, and the coarser scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_msgan.geometry import Box
from napari_msgan.resampling import reduce_mean
from napari_msgan.sketch import in_window_of, measure_thresholds, sketch_block

if TYPE_CHECKING:
    from napari_msgan.evaluation.regions import BoolArray
    from napari_msgan.geometry import Ints
    from napari_msgan.intensity import Float32Array
    from napari_msgan.sketch_settings import SketchSettings
    from napari_msgan.volume import ArrayLike


@dataclass(frozen=True, slots=True)
class SketchFidelity:
    """Agreement of two sketches to within one voxel.

    f1 : harmonic mean of precision and recall.
    chance : what as many edges would reach if placed independently; large in dense 3-D sketches.
    """

    f1: float
    chance: float


def compare_sketches(made: BoolArray, given: BoolArray) -> SketchFidelity:
    """Measure how many edges of each sketch have an edge of the other within one voxel.

    NaN if the given sketch is empty: there is nothing to be faithful to.

    Parameters
    ----------
    made, given : bool arrays of one shape: edges of the result, and those it was made from.
    """
    if not given.any():
        return SketchFidelity(float("nan"), float("nan"))
    near_made, near_given = (_dilated(edges) for edges in (made, given))
    precision = float(near_given[made].mean()) if made.any() else 0.0
    recall = float(near_made[given].mean())
    chance = _harmonic_mean(float(near_given.mean()), float(near_made.mean()))
    return SketchFidelity(_harmonic_mean(precision, recall), chance)


def _dilated(edges: BoolArray) -> BoolArray:
    wide: BoolArray = ndimage.binary_dilation(edges, np.ones((3,) * edges.ndim, bool))
    return wide


def _harmonic_mean(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b else 0.0


def edges_of(
    image: ArrayLike, settings: SketchSettings, scale: int, block_shape: Ints
) -> BoolArray:
    """Return a bool array that is True where the sketch of an image at a scale has edges.

    It is computed block by block.

    Parameters
    ----------
    image : array-like, with the window of the model mapped to [0, 1].
    """
    image = in_window_of(image, settings, scale)
    thresholds = measure_thresholds(image, settings)
    edges = np.zeros(tuple(image.shape), bool)
    for box in Box.of_shape(edges.shape).blocks(block_shape):
        edges[box.slices] = sketch_block(image, box, thresholds, settings) > 0
    return edges


def coarse_inconsistency(fine: Float32Array, coarse: Float32Array, factor: Ints) -> float:
    """Return mean |block mean of a scale - coarser scale|, in the unit of the images."""
    return float(np.abs(reduce_mean(fine, factor) - coarse).mean(dtype=np.float64))
