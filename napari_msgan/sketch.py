"""Make sketches: the edges of an image, weighted by their gradient.

Edges are found by gradient magnitude, non-maximum suppression along the gradient, and hysteresis
[1]_. Two changes make this local, so that any block can be computed by itself: the thresholds are
quantiles per scale, measured once, and hysteresis follows an edge for a bounded number of voxels.

References
----------
.. [1] Canny, "A computational approach to edge detection", IEEE PAMI 8(6), 1986.
"""

from __future__ import annotations

import math
import warnings
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_msgan.errors import VolumeError
from napari_msgan.geometry import Box, Ints
from napari_msgan.resampling import interpolate, reduce_max
from napari_msgan.sketch_settings import SketchSettings, SketchThresholds
from napari_msgan.steps import iter_in_threads, run_to_end
from napari_msgan.volume import ArrayLike, LazyArray, read_padded

if TYPE_CHECKING:
    from napari_msgan.intensity import Float32Array

Uint8Array = npt.NDArray[np.uint8]

#: Thresholds and percentiles are measured on about this many voxels, spread evenly, and on at most
#: 1.5 times as many.
SAMPLE_SIZE, _MOST_SAMPLES = 1 << 24, 1.5
_SAMPLE_BLOCK = {2: 512, 3: 64}
#: Side of the blocks that `lazy_sketch` computes at a time; smaller ones would need more halo.
_LAZY_SIDE = {2: 1024, 3: 128}
#: Gradients below this share of the window are rounding noise of a flat image.
_FLAT = 1e-5
_TRUNCATE = 3.0
#: Voxels whose neighbours are gathered at a time: they fit into the cache of a core.
_AT_ONCE = 1 << 14
#: Fewest steps of float32 between the darkest and the brightest value, and its largest value.
_FEWEST_STEPS, _LARGEST = 1024, 3e38
#: How far `reduce_sketch` looks around a coarse voxel.
REDUCE_HALO = 4
#: `interpolate_sketch` reads blocks of about this many voxels a side.
_READ_SIDE = 128


def required_halo(settings: SketchSettings) -> int:
    """Return how many voxels of the image around a block the sketch of that block depends on."""
    return _ridge_halo(settings.sigma) + settings.dilations


def _ridge_halo(sigma: float) -> int:
    return int(_TRUNCATE * sigma + 0.5) + 2


def _gradient(image: Float32Array, sigma: float) -> tuple[Float32Array, list[Float32Array]]:
    """Return the gradient magnitude and its components, one voxel smaller on every side."""
    smooth = ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=_TRUNCATE)
    inside = [slice(1, -1)] * image.ndim
    parts = []
    for axis in range(image.ndim):
        ahead, behind = list(inside), list(inside)
        ahead[axis], behind[axis] = slice(2, None), slice(None, -2)
        part = smooth[tuple(ahead)] - smooth[tuple(behind)]
        part *= np.float32(0.5)
        parts.append(part)
    del smooth
    magnitude = parts[0] ** 2
    for part in parts[1:]:
        magnitude += part**2
    return np.sqrt(magnitude, out=magnitude), parts


def _ridge(
    image: Float32Array, sigma: float, floor: float
) -> tuple[Float32Array, npt.NDArray[np.bool_]]:
    """Return the gradient magnitude, and where it exceeds `floor` and peaks along the gradient.

    Both are smaller than the image by `_ridge_halo` on every side.
    """
    magnitude, parts = _gradient(image, sigma)
    inside = (slice(1, -1),) * image.ndim
    ridge = np.zeros(magnitude.shape, bool)
    ridge[inside] = magnitude[inside] > floor
    candidates = np.flatnonzero(ridge)
    strides = np.array(magnitude.strides)[:, None] // magnitude.itemsize
    flat, components, is_ridge = magnitude.ravel(), [part.ravel() for part in parts], ridge.ravel()
    for start in range(0, len(candidates), _AT_ONCE):
        some = candidates[start : start + _AT_ONCE]
        direction = np.stack([component[some] for component in components])
        direction /= np.abs(direction).max(axis=0, initial=np.finfo(np.float32).tiny)
        offset = (np.rint(direction).astype(np.intp) * strides).sum(axis=0)
        value = flat[some]
        is_ridge[some] = (value >= flat[some - offset]) & (value > flat[some + offset])
    margin = _ridge_halo(sigma) - 1  # the gradient is already smaller by one
    crop = (slice(margin, -margin),) * image.ndim
    return magnitude[crop], ridge[crop]


def measure_window(image: ArrayLike) -> tuple[float, float]:
    """Return the 0.5 and 99.5 percentiles of an evenly spread sample of an image.

    Raises
    ------
    VolumeError
        If no value is finite.
    """
    sample = np.concatenate([np.ravel(image[b.slices]) for b in _sample_boxes(image.shape)])
    if sample.dtype.kind == "b":  # a mask, which has no percentiles
        sample = sample.astype(np.uint8)
    finite = sample[np.isfinite(sample)]
    if not finite.size:
        raise VolumeError("the image has no finite value")
    low, high = (float(v) for v in np.percentile(finite, (0.5, 99.5)))
    if finite.dtype.itemsize > 2:
        _warn_of_rounding(low, high)
    if high > low:
        return low, high
    lowest, highest = float(finite.min()), float(finite.max())
    return lowest, max(highest + 1e-6, math.nextafter(highest, math.inf))


def _warn_of_rounding(low: float, high: float) -> None:
    """Warn if rounding to float32 would lose much of the differences between values."""
    largest = max(abs(low), abs(high))
    if low < high < low + _FEWEST_STEPS * 2.0**-23 * largest or largest > _LARGEST:
        warnings.warn(
            f"the values of the image, {low:g} to {high:g}, are rounded to what float32 can tell, "
            "which takes edges away: first subtract what all have in common, or scale them",
            stacklevel=3,
        )


def _sample_boxes(shape: Ints) -> list[Box]:
    side = _SAMPLE_BLOCK[len(shape)]
    boxes = Box.of_shape(shape).blocks((side,) * len(shape))
    wanted = max(1, round(math.prod(shape) / SAMPLE_SIZE))
    in_a_slice = math.prod(-(-n // side) for n in shape[1:])
    # With a common factor, every slice would be read at the same places.
    distances = (wanted + sign * i for i in count() for sign in (1, -1))
    every = next(
        n for n in distances if n >= wanted / _MOST_SAMPLES and math.gcd(n, 2 * in_a_slice) == 1
    )
    return boxes[::every]


def measure_thresholds(
    image: ArrayLike, settings: SketchSettings, workers: int = 1
) -> SketchThresholds:
    """Measure the thresholds that give the sketch of an image the density in `settings`.

    Parameters
    ----------
    image : array-like, the image at one scale, with its window as [0, 1].
    workers : number of threads, on which the thresholds do not depend.
    """
    halo = _ridge_halo(settings.sigma)
    boxes = _sample_boxes(tuple(image.shape))
    values: list[Float32Array] = []

    def measure(box: Box) -> None:
        window = box.grow(halo)
        block = read_padded(image, window.start, window.stop).astype(np.float32, copy=False)
        magnitude, ridge = _ridge(block, settings.sigma, _FLAT)
        values.append(magnitude[ridge])

    run_to_end(iter_in_threads(measure, boxes, workers))
    total = sum(box.size for box in boxes)
    ridges = np.concatenate(values)
    values.clear()  # there may be millions
    wanted = settings.low_density, settings.high_density, 0.1 * settings.high_density
    ranks = [len(ridges) - 1 - int(density * total) for density in wanted]
    there = [rank for rank in ranks if rank >= 0]
    if there:
        ridges.partition(there)
    low, high, normaliser = (float(ridges[r]) if r >= 0 else _FLAT for r in ranks)
    density = min(len(ridges) / total, settings.low_density)
    return SketchThresholds(low=low, high=high, normaliser=normaliser, density=density)


def sketch_block(
    image: ArrayLike, box: Box, thresholds: SketchThresholds, settings: SketchSettings
) -> Uint8Array:
    """Compute the sketch of a block of an image whose window is [0, 1].

    Returns
    -------
    array, uint8, shape ``box.shape``
        0 where there is no edge, else 1 to 255 in proportion to the gradient.
    """
    window = box.grow(required_halo(settings))
    block = read_padded(image, window.start, window.stop).astype(np.float32, copy=False)
    magnitude, weak = _ridge(block, settings.sigma, thresholds.low)
    edges = weak & (magnitude > thresholds.high)
    if settings.dilations and edges.any():
        neighbours = np.ones((3,) * edges.ndim, bool)
        edges = ndimage.binary_dilation(edges, neighbours, settings.dilations, mask=weak)
    if settings.dilations:
        crop = (slice(settings.dilations, -settings.dilations),) * edges.ndim
        edges, magnitude = edges[crop], magnitude[crop]
    strength = np.clip(np.rint(magnitude * (255 / thresholds.normaliser)), 1, 255)
    return np.where(edges, strength, 0).astype(np.uint8)


def in_window_of(image: ArrayLike, settings: SketchSettings, scale: int) -> ArrayLike:
    """Return an image whose window is [0, 1] with the window of its scale's sketch as [0, 1]."""
    window = settings.window_at(scale)
    return image if window == (0, 1) else lazy_unit(image, *window)


def sketch_of(image: ArrayLike, settings: SketchSettings) -> Uint8Array:
    """Compute the sketch of a whole array whose window is [0, 1]."""
    thresholds = measure_thresholds(image, settings)
    return sketch_block(image, Box.of_shape(image.shape), thresholds, settings)


def thin(sketch: npt.NDArray[np.uint8]) -> Uint8Array:
    """Keep only the voxels that are largest across their line, among the directions of the axes."""
    smooth = ndimage.gaussian_filter(sketch.astype(np.float32), 0.7, mode="nearest", truncate=3.0)
    padded = np.pad(smooth, 1, mode="edge")
    best = np.zeros(sketch.shape, np.float32)
    kept = np.zeros(sketch.shape, bool)
    for axis in range(sketch.ndim):
        ahead = [slice(1, -1)] * sketch.ndim
        behind = list(ahead)
        ahead[axis], behind[axis] = slice(2, None), slice(None, -2)
        after, before = padded[tuple(ahead)], padded[tuple(behind)]
        curvature = 2 * smooth - after - before
        ridge = (smooth >= before) & (smooth > after)
        kept = np.where(curvature > best, ridge, kept)
        best = np.maximum(best, curvature)
    return np.where(kept, sketch, 0).astype(np.uint8)


def reduce_sketch(sketch: Uint8Array, factor: Ints) -> Uint8Array:
    """Reduce a given sketch to the next coarser scale: block maxima, then thinned."""
    return thin(reduce_max(sketch, factor).astype(np.uint8))


def weakest_kept(strengths: npt.NDArray[np.int64], density: float) -> int:
    """Return the weakest strength to keep so that at most a share `density` of voxels are edges.

    Block maxima make lines denser from scale to scale. The strongest edges are always kept.

    Parameters
    ----------
    strengths : number of voxels of each strength, shape (256,).
    """
    at_least = np.cumsum(strengths[::-1])[::-1]
    fitting = np.flatnonzero(at_least <= density * strengths.sum())
    strongest = int(np.flatnonzero(strengths)[-1])
    return max(1, min(int(fitting[0]) if fitting.size else strongest, strongest))


def interpolate_sketch(sketch: ArrayLike, shape: Ints) -> LazyArray:
    """Interpolate a sketch to a coarser grid with the same corner voxels.

    Values are interpolated linearly between the nearest voxels, without smoothing, so lines become
    thinner or vanish. The generators of the method's authors were trained on such sketches. It is
    read in blocks, so memory does not grow with the finer sketch.

    Parameters
    ----------
    sketch : array-like, uint8
    shape : shape of the coarser grid.

    Returns
    -------
    array-like, float32, in [0, 255]
    """
    step = [(n - 1) / max(1, m - 1) for n, m in zip(sketch.shape, shape, strict=True)]
    first = (0.0,) * len(shape)
    block_shape = tuple(max(1, int(_READ_SIDE / max(1.0, s))) for s in step)

    def read(block: Box) -> Float32Array:
        return interpolate(sketch, step, first, block)

    return LazyArray(shape, np.float32, read, block_shape)


def lazy_sketch(image: ArrayLike, settings: SketchSettings) -> LazyArray:
    """Return the sketch of an image at its own resolution, uint8, computed as it is read.

    Thresholds, and percentiles if needed, are measured at once.
    """
    percentiles = settings.window == "percentiles"
    unit = lazy_unit(image, *(measure_window(image) if percentiles else settings.window))
    thresholds = measure_thresholds(unit, settings)
    shape = tuple(image.shape)
    return LazyArray(
        shape,
        np.uint8,
        lambda box: sketch_block(unit, box, thresholds, settings),
        (_LAZY_SIDE[len(shape)],) * len(shape),
    )


def lazy_unit(image: ArrayLike, low: float, high: float) -> LazyArray:
    """Return an image as float32, with `low` to `high` as [0, 1] and the rest clipped.

    It is converted as it is read. NaN becomes 0, the darkest value.
    """

    def read(box: Box) -> Float32Array:
        block: Float32Array = np.array(image[box.slices], np.float32)
        block -= np.float32(low)
        block /= np.float32(high - low)
        np.nan_to_num(block, copy=False)
        return np.clip(block, 0, 1, out=block)

    return LazyArray(tuple(image.shape), np.float32, read)
