"""Make the sketch of every scale, from an image pyramid or from a given sketch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_msgan.buffers import large_buffers_kept
from napari_msgan.errors import VolumeError
from napari_msgan.geometry import Box
from napari_msgan.labels import blocks_of, borders_of, is_filled, is_label_map, is_picture
from napari_msgan.resampling import resample_max
from napari_msgan.sketch import (
    REDUCE_HALO,
    Uint8Array,
    in_window_of,
    interpolate_sketch,
    measure_thresholds,
    reduce_sketch,
    sketch_block,
    thin,
    weakest_kept,
)
from napari_msgan.source._images import image_pyramid
from napari_msgan.steps import iter_in_threads
from napari_msgan.volume import LazyArray, Volume, read_padded

if TYPE_CHECKING:
    from pathlib import Path

    from napari_msgan.geometry import PyramidGeometry
    from napari_msgan.sketch_settings import SketchSettings, SketchThresholds
    from napari_msgan.source._plan import SourcePlan
    from napari_msgan.volume import ArrayLike

#: A warning is given if the strongest edge of a given sketch is below this share of the maximum.
_FAINT = 0.1
_TOP_8_BITS = 255

ReadSketch = Callable[[int, Box], Uint8Array]
WriteSketch = Callable[[int, Box, Uint8Array], None]
SketchSteps = Generator[tuple[int, int], None, "list[SketchThresholds]"]


def iter_sketch_image(
    plan: SourcePlan,
    settings: SketchSettings,
    write: WriteSketch,
    workers: int,
    scratch: Path | None = None,
) -> SketchSteps:
    """Sketch an image at every scale; yield (done, total), and return the thresholds per scale.

    write : called with each block of each scale, by `workers` threads.
    scratch : folder for temporary files; None for that of the system.
    """
    with (
        large_buffers_kept(workers),
        image_pyramid(plan, settings, workers, scratch) as images,
    ):
        return (yield from iter_sketch_scales(images, plan, settings, write, workers))


def iter_sketch_scales(
    images: Sequence[ArrayLike],
    plan: SourcePlan,
    settings: SketchSettings,
    write: WriteSketch,
    workers: int,
) -> SketchSteps:
    """Sketch every image of a pyramid; yields and returns as `iter_sketch_image` does."""
    images = [in_window_of(image, settings, scale) for scale, image in enumerate(images)]
    work = [(s, box) for s in range(plan.geometry.n_scales) for box in plan.blocks(s)]
    thresholds = [measure_thresholds(image, settings, workers) for image in images]

    def sketch_one(place: tuple[int, Box]) -> None:
        scale, box = place
        write(scale, box, sketch_block(images[scale], box, thresholds[scale], settings))

    for done, _ in enumerate(iter_in_threads(sketch_one, work, workers), 1):
        yield done, len(work)
    return thresholds


def iter_sketch_given(
    plan: SourcePlan,
    settings: SketchSettings,
    read_sketch: ReadSketch,
    write: WriteSketch,
) -> SketchSteps:
    """Write a given sketch at every scale; yields as `iter_sketch_image`, returns no thresholds.

    A label map is turned into the borders between its labels, with a warning; models of the
    method's authors take labels as they are. The finest scale is the maximum over source voxels,
    thinned if the grids differ. Coarser scales are block maxima, thinned, and without the weakest
    edges beyond the model's density; or they are interpolated from the finest, if the model was
    trained on that.
    """
    geometry = plan.geometry
    is_thinned = settings.given == "thinned"
    strongest, volume = check_given(plan.volume), plan.volume
    top = type_top(volume.data.dtype)
    if is_thinned:
        volume, top = _with_lines(volume, strongest)
    written = sketch_levels(geometry, read_sketch)
    same_grid = all(step == 1 for step in plan.step)

    def finest(box: Box) -> Uint8Array:
        wide = box if same_grid else box.grow(REDUCE_HALO)
        given = resample_max(volume.data, plan.step, plan.first, wide)
        lines = strengths_of(given, top)
        return lines if same_grid else thin(lines)[box.relative_to(wide.start).slices]

    total = sum(len(plan.blocks(s)) for s in range(geometry.n_scales))
    done = 0
    for scale in range(geometry.finest_scale, -1, -1):
        strengths = np.zeros(256, np.int64)
        for box in plan.blocks(scale):
            if scale == geometry.finest_scale:
                block = finest(box)
            else:
                block = coarser_sketch(written, geometry, settings, scale, box)
            write(scale, box, block)
            strengths += np.bincount(block.ravel(), minlength=256)
            done += 1
            yield done, total
        weakest = weakest_kept(strengths, settings.low_density)
        if is_thinned and scale < geometry.finest_scale and weakest > 1:
            for box in plan.blocks(scale):
                block = read_sketch(scale, box)
                write(scale, box, np.where(block < weakest, 0, block).astype(np.uint8))
    return []


def sketch_levels(geometry: PyramidGeometry, read: ReadSketch) -> list[LazyArray]:
    """Return the sketch of every scale as an array-like, coarsest first."""
    return [
        LazyArray(geometry.shape_at(scale), np.uint8, partial(read, scale))
        for scale in range(geometry.n_scales)
    ]


def coarser_sketch(
    finer: Sequence[LazyArray],
    geometry: PyramidGeometry,
    settings: SketchSettings,
    scale: int,
    box: Box,
) -> Uint8Array:
    """Return a box of a scale of a given sketch, made from the finer scales."""
    if settings.given == "interpolated":
        values = interpolate_sketch(finer[-1], geometry.shape_at(scale))[box.slices]
        rounded: Uint8Array = np.rint(values).astype(np.uint8)
        return rounded
    factor, wide = geometry.factor(scale + 1), box.grow(REDUCE_HALO)
    read = wide.multiply(factor)
    reduced = reduce_sketch(read_padded(finer[scale + 1], read.start, read.stop), factor)
    return reduced[box.relative_to(wide.start).slices]


def check_given(volume: Volume) -> float:
    """Check that a volume can be a sketch, and return its strongest edge.

    Call it before other warnings are given or anything is written.

    Returns
    -------
    float
        The largest value, in the units of the given sketch.

    Raises
    ------
    VolumeError
        If there are NaN, negative integers, or floats outside [0, 1].
    """
    is_integer = volume.data.dtype.kind in "iu"
    strongest = 0.0
    for box in blocks_of(volume.data):
        block = np.asarray(volume.data[box.slices])
        low, high = float(block.min()), float(block.max())
        if is_integer and low < 0:
            raise VolumeError(
                f"a sketch of integers must have no values below 0, this one has {low:g}"
            )
        if math.isnan(low):
            raise VolumeError(
                "the given sketch has NaN, which is not an edge strength: set it to 0 where there "
                "is no edge"
            )
        if not is_integer and (low < -1e-3 or high > 1 + 1e-3):
            raise VolumeError(
                f"a sketch of floats must lie in [0, 1], this one goes from {low:g} to {high:g}. "
                "Divide it by its maximum; save labels as integers; or give it as an image, not as "
                "a sketch"
            )
        strongest = max(strongest, high)
    return strongest


def strengths_of(block: npt.NDArray[Any], top: int) -> Uint8Array:
    """Convert given edges to stored strengths, uint8 in [0, 255], where `top` becomes 255."""
    strengths = np.clip(block.astype(np.float32) / np.float32(top), 0, 1)
    stored: Uint8Array = np.rint(strengths * 255).astype(np.uint8)
    return stored


def type_top(dtype: np.dtype[Any]) -> int:
    """Return the largest value of an integer type; 1 for floats and booleans."""
    return int(np.iinfo(dtype).max) if dtype.kind in "iu" else 1


def top_of(dtype: np.dtype[Any], strongest: float) -> int:
    """Return the value that stands for the strongest possible edge in a given sketch of lines.

    That is the largest value of its type (floats: 1); but 1 if no value is larger, and 255 if a
    wider type holds no larger value: some programs save 8-bit images that way.
    """
    top = type_top(dtype)
    if strongest == 1:
        return 1
    return _TOP_8_BITS if strongest <= _TOP_8_BITS < top else top


def _with_lines(volume: Volume, strongest: float) -> tuple[Volume, int]:
    """Return a given sketch as lines, and the value of the strongest possible edge in it."""
    if is_label_map(volume.data):
        warnings.warn(
            "the given sketch is a label map: the borders between its labels are the edges",
            stacklevel=2,
        )
        return replace(volume, data=borders_of(volume.data)), _TOP_8_BITS
    if is_picture(volume.data):
        warnings.warn(
            "most of the given sketch is not 0, so it looks like an image: the result will show "
            "its grey values as edges. Give an image as an image, and its sketch will be made",
            stacklevel=2,
        )
    elif is_filled(volume.data):
        warnings.warn(
            "the given sketch fills regions, where edges are lines: the result will hardly show "
            "them. For the borders of regions give integers from 1 on (labels)",
            stacklevel=2,
        )
    top = top_of(volume.data.dtype, strongest)
    if 0 < strongest < _FAINT * top:
        warnings.warn(
            f"the strongest edge of the given sketch is {strongest:g}, where {volume.data.dtype} "
            f"counts {top} as strongest: it hardly counts. Multiply the sketch",
            stacklevel=2,
        )
    return volume, top
