"""Resample a source to every scale, in temporary files."""

from __future__ import annotations

import hashlib
import math
import warnings
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_msgan.durable import create_array_file
from napari_msgan.geometry import Box
from napari_msgan.labels import blocks_of
from napari_msgan.resampling import reduce_mean, resample
from napari_msgan.sketch import lazy_unit, measure_window
from napari_msgan.steps import iter_in_threads, run_to_end
from napari_msgan.volume import LazyArray, Volume, read_padded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_msgan.sketch_settings import SketchSettings
    from napari_msgan.source._plan import SourcePlan
    from napari_msgan.volume import ArrayLike

    Uint16Array = npt.NDArray[np.uint16]

_TOP = 65535


def hash_pixels(volume: Volume) -> str:
    """Return the sha256 of the shape, type and pixels of a volume; reads slab by slab."""
    digest = hashlib.sha256(f"{volume.shape} {volume.data.dtype}".encode())
    first, *rest = volume.shape
    rows = max(1, (1 << 24) // math.prod(rest))
    for slab in Box.of_shape((first, *rest)).blocks((rows, *rest)):
        digest.update(np.ascontiguousarray(volume.data[slab.slices]).data)
    return digest.hexdigest()


def warn_of_unknown(volume: Volume) -> None:
    """Warn if an image has NaN or infinite voxels; reads block by block."""
    if volume.data.dtype.kind == "f":
        blocks = (np.asarray(volume.data[box.slices]) for box in blocks_of(volume.data))
        _warn_of_unknown(sum(map(_unknown_in, blocks)), math.prod(volume.shape))


def _unknown_in(block: npt.NDArray[Any]) -> int:
    return block.size - int(np.count_nonzero(np.isfinite(block)))


def _warn_of_unknown(unknown: int, size: int) -> None:
    if unknown:
        warnings.warn(
            f"{100 * unknown / size:.2g} % of the image is NaN or infinite: NaN counts as its "
            "darkest value, and the border of either gives edges. Fill it first if that is not "
            "intended",
            stacklevel=3,
        )


def write_image_pyramid(
    plan: SourcePlan, settings: SketchSettings, folder: Path, workers: int
) -> list[Uint16Array]:
    """Write the source at every scale to ``folder/image_<scale>.npy``, its window as uint16.

    Returns
    -------
    list of arrays
        These files, mapped into memory, coarsest scale first. See `lazy_image`.
    """
    geometry = plan.geometry
    window = (
        measure_window(plan.volume.data) if settings.window == "percentiles" else settings.window
    )
    images: list[Uint16Array] = [
        create_array_file(folder / f"image_{scale}.npy", np.uint16, geometry.shape_at(scale))
        for scale in range(geometry.n_scales)
    ]

    unknown: list[int] = []

    def write_finest(box: Box) -> None:
        block = resample(plan.volume.data, plan.step, plan.first, box)
        unknown.append(_unknown_in(block))
        unit = np.clip((block - window[0]) / (window[1] - window[0]), 0, 1)
        images[-1][box.slices] = np.rint(np.nan_to_num(unit) * _TOP).astype(np.uint16)

    def write_coarser(scale: int, box: Box) -> None:
        finer = box.multiply(geometry.factor(scale + 1))
        block = read_padded(images[scale + 1], finer.start, finer.stop)
        means = reduce_mean(block, geometry.factor(scale + 1))
        images[scale][box.slices] = np.rint(means).astype(np.uint16)

    try:
        run_to_end(iter_in_threads(write_finest, plan.blocks(geometry.finest_scale), workers))
        _warn_of_unknown(sum(unknown), images[-1].size)
        for scale in range(geometry.finest_scale - 1, -1, -1):
            write = partial(write_coarser, scale)
            run_to_end(iter_in_threads(write, plan.blocks(scale), workers))
    except BaseException:
        images.clear()  # or the traceback of the error would keep the files mapped
        raise
    darkest = window[0] + (window[1] - window[0]) * float(images[0].min()) / _TOP
    if settings.window != "percentiles" and darkest > sum(window) / 2:
        warnings.warn(
            f"no part of the image is darker than {darkest:.4g}, where the model expects values "
            f"from {window[0]:g} to {window[1]:g}: are they in another unit? A CT must be in "
            "Hounsfield units, air at -1000",
            stacklevel=2,
        )
    return images


def lazy_image(stored: ArrayLike) -> LazyArray:
    """Return an image of `write_image_pyramid` as float32 in [0, 1], converted as it is read."""
    return lazy_unit(stored, 0, _TOP)


@contextmanager
def image_pyramid(
    plan: SourcePlan, settings: SketchSettings, workers: int, scratch: Path | None = None
) -> Iterator[list[LazyArray]]:
    """Give the source at every scale, its window as [0, 1], from files that are deleted at the end.

    scratch : folder for these files; None for that of the system.
    """
    # Windows deletes no mapped file; that must not hide the error that stopped the job.
    with TemporaryDirectory(
        prefix="napari-msgan-", dir=scratch, ignore_cleanup_errors=True
    ) as folder:
        mapped = write_image_pyramid(plan, settings, Path(folder), workers)

        def read(scale: int, box: Box) -> Uint16Array:
            return mapped[scale][box.slices]

        try:
            yield [
                lazy_image(LazyArray(array.shape, array.dtype, partial(read, scale)))
                for scale, array in enumerate(mapped)
            ]
        finally:
            mapped.clear()
