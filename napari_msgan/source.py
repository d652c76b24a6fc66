"""What a model makes of a source image: its pyramid, and the sketch of every scale."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_msgan.durable import create_array_file
from napari_msgan.errors import GeometryError, VolumeError
from napari_msgan.geometry import Box, Floats, Ints, PyramidGeometry
from napari_msgan.resampling import corner_aligned_first, reduce_mean, resample, resample_max
from napari_msgan.sketch import (
    REDUCE_HALO,
    Uint8Array,
    interpolate_sketch,
    lazy_unit,
    measure_thresholds,
    measure_window,
    reduce_sketch,
    sketch_block,
    thin,
    weakest_kept,
)
from napari_msgan.steps import iter_in_threads, run_to_end
from napari_msgan.volume import LazyArray, Orientation, Volume, orient, read_padded

if TYPE_CHECKING:
    from napari_msgan.config import (
        ModelSpec,
        ScaleGrid,
        SketchSettings,
        SketchThresholds,
    )
    from napari_msgan.intensity import Float32Array
    from napari_msgan.volume import ArrayLike

    Uint16Array = npt.NDArray[np.uint16]

#: A scale may be this much finer than the thickest axis of the source.
HONEST_RATIO = 0.7
_TOP = 65535

WriteSketch = Callable[[int, Box, Uint8Array], None]


@dataclass(frozen=True)
class SourcePlan:
    """A source on the grids of a model.

    volume : turned to the model's orientation.
    step, first : voxel i of the finest scale lies at ``first + step * i`` of `volume`.
    honest_scale : the finest scale that the resolution of the source supports.
    extra_scales : how many scales apply the last generator once more.
    block_shape : what is worked on at a time, whole chunks of the store.
    """

    volume: Volume
    orientation: Orientation
    geometry: PyramidGeometry
    step: Floats
    first: Floats
    honest_scale: int
    extra_scales: int
    block_shape: Ints


def plan_source(volume: Volume, spec: ModelSpec, scale: int | None = None) -> SourcePlan:
    """Return the pyramid of a source under a model.

    Parameters
    ----------
    scale : finest scale of the pyramid, or None for the finest honest one.

    Raises
    ------
    VolumeError
        If the source has another number of axes, or no voxel size where the model needs one.
    GeometryError
        If the scale does not exist.
    """
    if len(volume.shape) != len(spec.axes):
        raise VolumeError(
            f"the image has shape {volume.shape}, but model {spec.name!r} is for "
            f"{len(spec.axes)}-D images ({', '.join(spec.axes)})"
        )
    if spec.kind == "relative":
        return _plan_relative(volume, spec, scale)
    return _plan_physical(volume, spec, scale)


def n_scales_of(longest: int, base_size: int, factor: int) -> int:
    """Return how many scales (2 or more) bring the longest side closest to `base_size`."""
    return max(2, 1 + round(math.log(longest / base_size) / math.log(factor)))


def _plan_relative(volume: Volume, spec: ModelSpec, scale: int | None) -> SourcePlan:
    factor = spec.scales[-1].factor
    n_scales = n_scales_of(max(volume.shape), spec.base_size, factor[-1])
    if scale is not None and not 0 <= scale < n_scales:
        raise GeometryError(
            f"scale {scale} does not exist: an image of {volume.shape} has the scales 0 to "
            f"{n_scales - 1}, the finest has the pixels of the image"
        )
    extra = max(0, n_scales - spec.n_scales)
    if extra:
        warnings.warn(
            f"the image is larger than model {spec.name!r} was trained for: its last generator "
            f"is applied {extra} more time(s)",
            stacklevel=2,
        )
    known = [s.factor for s in spec.scales[1:]]
    factors = tuple((known + [factor] * extra)[: n_scales - 1])
    geometry = PyramidGeometry(volume.axes, volume.shape, factors, volume.affine, volume.unit)
    same = Orientation.identity(len(volume.shape))
    ones, zeros = (1.0,) * len(volume.shape), (0.0,) * len(volume.shape)
    return SourcePlan(volume, same, geometry, ones, zeros, n_scales - 1, extra, spec.tile_shape)


def honest_scale(scales: Sequence[ScaleGrid], spacing_mm: Floats) -> int:
    """Return the finest scale of at least 0.7 times the voxel size per axis; -1: there is none."""
    fits = [
        index
        for index, scale in enumerate(scales)
        if scale.spacing_mm
        and all(
            mm >= HONEST_RATIO * own * (1 - 1e-6)
            for mm, own in zip(scale.spacing_mm, spacing_mm, strict=True)
        )
    ]
    return max(fits, default=-1)


def _plan_physical(volume: Volume, spec: ModelSpec, scale: int | None) -> SourcePlan:
    if volume.unit != "millimeter":
        raise VolumeError(
            f"the image has no voxel size in mm, which model {spec.name!r} needs. Save it with "
            "its voxel size (NIfTI, OME-TIFF), or set the layer's scale and units in napari."
        )
    turned, orientation = orient(volume, spec.orientation)
    honest = max(0, honest_scale(spec.scales, turned.spacing))
    finest = max(1, honest if scale is None else max(scale, honest))
    if finest >= spec.n_scales:
        raise GeometryError(
            f"scale {scale} does not exist: model {spec.name!r} has the scales 0 to "
            f"{spec.n_scales - 1}"
        )
    spacing = spec.scales[finest].spacing_mm
    assert spacing is not None
    if finest > honest:
        warnings.warn(
            f"scale {finest} ({min(spacing):g} mm) is finer than the source, whose voxels are up "
            f"to {max(turned.spacing):g} mm: details beyond scale {honest} are invented",
            stacklevel=2,
        )
    step = tuple(mm / own for mm, own in zip(spacing, turned.spacing, strict=True))
    first = corner_aligned_first(step)
    shape = tuple(max(1, math.ceil(n / s - 1e-6)) for n, s in zip(turned.shape, step, strict=True))
    factors = tuple(s.factor for s in spec.scales[1 : finest + 1])
    affine = turned.affine.rescaled(step, first)
    geometry = PyramidGeometry(turned.axes, shape, factors, affine, "millimeter")
    return SourcePlan(turned, orientation, geometry, step, first, honest, 0, spec.tile_shape)


def hash_pixels(volume: Volume) -> str:
    """Return the sha256 of shape, type and pixels, read slab by slab."""
    digest = hashlib.sha256(f"{volume.shape} {volume.data.dtype}".encode())
    rows = max(1, (1 << 24) // max(1, Box.of_shape(volume.shape[1:]).size))
    for start in range(0, volume.shape[0], rows):
        key = (
            slice(start, min(start + rows, volume.shape[0])),
            *(slice(0, n) for n in volume.shape[1:]),
        )
        digest.update(np.ascontiguousarray(volume.data[key]).data)
    return digest.hexdigest()


def write_image_pyramid(
    plan: SourcePlan, settings: SketchSettings, folder: Path, workers: int
) -> list[Uint16Array]:
    """Write the source at every scale to ``folder/image_<scale>.npy`` (its window as uint16).

    Returns
    -------
    list of these files, mapped; the first is the coarsest scale. See `lazy_image`.
    """
    geometry = plan.geometry
    window = (
        measure_window(plan.volume.data) if settings.window == "percentiles" else settings.window
    )
    images: list[Uint16Array] = [
        create_array_file(folder / f"image_{scale}.npy", np.uint16, geometry.shape_at(scale))
        for scale in range(geometry.n_scales)
    ]

    def write_finest(box: Box) -> None:
        block = resample(plan.volume.data, plan.step, plan.first, box)
        unit = np.clip((block - window[0]) / (window[1] - window[0]), 0, 1)
        images[-1][box.slices] = np.rint(np.nan_to_num(unit) * _TOP).astype(np.uint16)

    def write_coarser(scale: int, box: Box) -> None:
        finer = box.multiply(geometry.factor(scale + 1))
        block = read_padded(images[scale + 1], finer.start, finer.stop)
        means = reduce_mean(block, geometry.factor(scale + 1))
        images[scale][box.slices] = np.rint(means).astype(np.uint16)

    run_to_end(iter_in_threads(write_finest, _blocks(plan, geometry.finest_scale), workers))
    for scale in range(geometry.finest_scale - 1, -1, -1):
        write = partial(write_coarser, scale)
        run_to_end(iter_in_threads(write, _blocks(plan, scale), workers))
    return images


def lazy_image(stored: ArrayLike) -> LazyArray:
    """Return an image that `write_image_pyramid` wrote, in [0, 1]."""
    return lazy_unit(stored, 0, _TOP)


@contextmanager
def image_pyramid(
    plan: SourcePlan, settings: SketchSettings, workers: int, scratch: Path | None = None
) -> Iterator[list[LazyArray]]:
    """Give the source at every scale, window [0, 1], from files that are deleted afterwards.

    scratch : folder for these files; None for the system's.
    """
    with TemporaryDirectory(prefix="napari-msgan-", dir=scratch) as folder:
        mapped = write_image_pyramid(plan, settings, Path(folder), workers)

        def read(scale: int, box: Box) -> Uint16Array:
            return mapped[scale][box.slices]

        try:
            yield [
                lazy_image(LazyArray(array.shape, array.dtype, partial(read, scale)))
                for scale, array in enumerate(mapped)
            ]
        finally:
            mapped.clear()  # Windows deletes no file that is mapped


def _blocks(plan: SourcePlan, scale: int) -> list[Box]:
    return Box.of_shape(plan.geometry.shape_at(scale)).blocks(plan.block_shape)


def iter_sketch_image(
    plan: SourcePlan,
    settings: SketchSettings,
    write: WriteSketch,
    workers: int,
    scratch: Path | None = None,
) -> Iterator[tuple[int, int, list[SketchThresholds]]]:
    """Write the sketch of every scale of an image; yield (done, total, thresholds so far)."""
    with image_pyramid(plan, settings, workers, scratch) as images:
        yield from iter_sketch_scales(images, plan, settings, write, workers)


def iter_sketch_scales(
    images: Sequence[LazyArray],
    plan: SourcePlan,
    settings: SketchSettings,
    write: WriteSketch,
    workers: int,
) -> Iterator[tuple[int, int, list[SketchThresholds]]]:
    """Write the sketch of every image of a pyramid; yield as `iter_sketch_image` does."""
    work = [(s, box) for s in range(plan.geometry.n_scales) for box in _blocks(plan, s)]
    with ThreadPoolExecutor(workers) as pool:
        thresholds = list(pool.map(lambda image: measure_thresholds(image, settings), images))

    def sketch_one(place: tuple[int, Box]) -> None:
        scale, box = place
        write(scale, box, sketch_block(images[scale], box, thresholds[scale], settings))

    for done, _ in enumerate(iter_in_threads(sketch_one, work, workers), 1):
        yield done, len(work), thresholds


def iter_sketch_given(
    plan: SourcePlan,
    settings: SketchSettings,
    read_sketch: Callable[[int, Box], Uint8Array],
    write: WriteSketch,
) -> Iterator[tuple[int, int, list[SketchThresholds]]]:
    """Write a given sketch at every scale; yield as `iter_sketch_image` does.

    The finest scale is the maximum over the voxels of the source, thinned where the grids differ;
    coarser ones are block maxima, thinned, the weakest left out beyond the model's density; or
    they are interpolated from the finest, if that is what the model was trained on.
    """
    geometry = plan.geometry
    to_unit = _sketch_scaling(plan.volume)
    written = [
        LazyArray(geometry.shape_at(s), np.uint8, lambda box, s=s: read_sketch(s, box))  # type: ignore[misc]
        for s in range(geometry.n_scales)
    ]
    same_grid = all(step == 1 for step in plan.step)

    def finest(box: Box) -> Uint8Array:
        wide = box if same_grid else box.grow(REDUCE_HALO)
        given = resample_max(plan.volume.data, plan.step, plan.first, wide)
        lines = np.rint(to_unit(given.astype(np.float32)) * 255).astype(np.uint8)
        return lines if same_grid else thin(lines)[box.relative_to(wide.start).slices]

    def interpolated(scale: int, box: Box) -> Uint8Array:
        values = interpolate_sketch(written[-1], geometry.shape_at(scale))[box.slices]
        rounded: Uint8Array = np.rint(values).astype(np.uint8)
        return rounded

    def thinned(scale: int, box: Box) -> Uint8Array:
        wide = box.grow(REDUCE_HALO)
        finer = wide.multiply(geometry.factor(scale + 1))
        given = read_padded(written[scale + 1], finer.start, finer.stop)
        reduced = reduce_sketch(given, geometry.factor(scale + 1))
        return reduced[box.relative_to(wide.start).slices]

    is_thinned = settings.given == "thinned"
    coarser = thinned if is_thinned else interpolated
    total = sum(len(_blocks(plan, s)) for s in range(geometry.n_scales))
    done = 0
    for scale in range(geometry.finest_scale, -1, -1):
        strengths = np.zeros(256, np.int64)
        for box in _blocks(plan, scale):
            block = finest(box) if scale == geometry.finest_scale else coarser(scale, box)
            write(scale, box, block)
            strengths += np.bincount(block.ravel(), minlength=256)
            done += 1
            yield done, total, []
        weakest = weakest_kept(strengths, settings.low_density)
        if is_thinned and scale < geometry.finest_scale and weakest > 1:
            for box in _blocks(plan, scale):
                block = read_sketch(scale, box)
                write(scale, box, np.where(block < weakest, 0, block).astype(np.uint8))


def _sketch_scaling(volume: Volume) -> Callable[[Float32Array], Float32Array]:
    """Return the function to [0, 1]: integers by the maximum of their type, floats as they are."""
    dtype = volume.data.dtype
    if dtype.kind in "iu":
        top = np.float32(np.iinfo(dtype).max)
        return lambda block: np.clip(block / top, 0, 1)

    def check(block: Float32Array) -> Float32Array:
        low, high = float(np.nanmin(block)), float(np.nanmax(block))
        if low < -1e-3 or high > 1 + 1e-3 or not math.isfinite(low + high):
            raise VolumeError(
                f"a sketch of floats must lie in [0, 1], this one goes from {low:g} to {high:g}. "
                "Divide it by its maximum, or give it as an image, not as a sketch."
            )
        return np.clip(block, 0, 1)

    return check
