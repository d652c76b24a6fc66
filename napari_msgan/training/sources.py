"""Training images, resampled to the scales of a model and kept on disk."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
from dataclasses import dataclass, replace
from functools import cache as cache_result
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from napari_msgan.durable import create_array_file, sync_tree
from napari_msgan.errors import TrainingError
from napari_msgan.io import read_volume
from napari_msgan.source import (
    iter_sketch_given,
    iter_sketch_scales,
    lazy_image,
    n_scales_magnified,
    plan_magnified,
    write_image_pyramid,
)
from napari_msgan.steps import n_cores, run_to_end
from napari_msgan.training.given import sketch_on
from napari_msgan.volume import orient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from napari_msgan.geometry import Box, Ints
    from napari_msgan.intensity import Float32Array
    from napari_msgan.training.config import TrainConfig
    from napari_msgan.training.survey import TrainingFile
    from napari_msgan.volume import Volume

_STEPS = 65535
#: In characters; file systems allow 255 bytes.
_LONGEST_NAME = 200


@dataclass(frozen=True)
class SourcePyramid:
    """One resampled source: image and sketch at each scale, on disk."""

    name: str
    folder: Path
    shapes: tuple[Ints, ...]

    @property
    def n_scales(self) -> int:
        return len(self.shapes)

    def image(self, scale: int) -> npt.NDArray[np.uint16]:
        """Return the image at a scale; uint16, `dequantise` gives values in [-1, 1]."""
        return self._open(f"image_{scale}")

    def sketch(self, scale: int) -> npt.NDArray[np.uint8]:
        """Return the sketch at a scale."""
        return self._open(f"sketch_{scale}")

    def generated(self, scale: int) -> npt.NDArray[np.uint16] | None:
        """Return what the trained scale made of the image, or None if that is still to come."""
        path = self.generated_path(scale)
        return self._open(path.stem) if path.exists() else None

    def generated_path(self, scale: int) -> Path:
        """Return the file that holds what the trained scale makes of the image."""
        return self.folder / f"generated_{scale}.npy"

    def _open(self, name: str) -> npt.NDArray[Any]:
        return open_array(self.folder / f"{name}.npy")


def open_array(path: Path) -> npt.NDArray[Any]:
    """Memory-map an array that a run has written.

    Raises
    ------
    TrainingError
        If the file is damaged.
    """
    try:
        array: npt.NDArray[Any] = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise TrainingError(
            f"{path} is damaged ({error}): delete {path.parent}, and what lies there is made again"
        ) from error
    return array


def quantise(image: Float32Array) -> npt.NDArray[np.uint16]:
    """Map [-1, 1] to the range of uint16; values outside are clipped."""
    scaled: Float32Array = (np.clip(image, -1, 1) + np.float32(1)) * np.float32(0.5 * _STEPS)
    return np.rint(scaled).astype(np.uint16)


def dequantise(stored: npt.NDArray[np.uint16]) -> Float32Array:
    """Map uint16 back to float32 in [-1, 1], the inverse of `quantise` up to rounding."""
    unit: Float32Array = stored.astype(np.float32) * np.float32(2 / _STEPS)
    return unit - np.float32(1)


def prepare(
    files: Sequence[TrainingFile], cache: Path, config: TrainConfig
) -> Iterator[tuple[int, int, SourcePyramid | None]]:
    """Yield (done, total, pyramid) for every resampled source; those on disk are reused.

    Sources are opened once (and unpacked if they are compressed), then read, resampled and
    sketched block by block. The pyramid is None for a source too coarse for two scales.
    """
    done, total = 0, len(files) * config.variants
    for file in files:
        opened = cache_result(partial(read_volume, file.path))
        for variant in range(config.variants):
            done += 1
            yield done, total, _prepare_one(file, opened, variant, cache, config)


def _prepare_one(
    file: TrainingFile,
    opened: Callable[[], Volume],
    variant: int,
    cache: Path,
    config: TrainConfig,
) -> SourcePyramid | None:
    folder = cache / f"{_folder_name(file.name)}.{variant}"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)  # interrupted, and maybe with other settings
        folder.mkdir(parents=True)
        _write_pyramid(folder, file, opened(), variant, config)
        sync_tree(folder)
        (folder / "ready").touch()
    n_scales = len(list(folder.glob("image_*.npy")))
    if n_scales < 2:
        return None
    shapes = tuple(open_array(folder / f"image_{scale}.npy").shape for scale in range(n_scales))
    return SourcePyramid(file.name, folder, shapes)


def _folder_name(name: str) -> str:
    """Return a folder name for an image: readable, and short enough for every file system."""
    quoted = quote(os.fsencode(name), safe="")
    if len(quoted) <= _LONGEST_NAME:
        return quoted
    return quoted[: _LONGEST_NAME - 17] + "-" + hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def _write_pyramid(
    folder: Path, file: TrainingFile, image: Volume, variant: int, config: TrainConfig
) -> None:
    zoom = _zoom(file, variant, config)
    plan = plan_magnified(image, config, zoom, _declared_mm(file.name, config))
    if plan is None:
        return
    workers = n_cores()
    stored = write_image_pyramid(plan, config.sketch, folder, workers)
    images = [lazy_image(image) for image in stored]
    sketches = [
        create_array_file(folder / f"sketch_{scale}.npy", np.uint8, plan.geometry.shape_at(scale))
        for scale in range(plan.geometry.n_scales)
    ]

    def write(scale: int, box: Box, values: npt.NDArray[np.uint8]) -> None:
        sketches[scale][box.slices] = values

    if file.sketch is None:
        steps = iter_sketch_scales(images, plan, config.sketch, write, workers)
    else:
        sketch, _ = orient(sketch_on(image, read_volume(file.sketch)), config.orientation)
        given = replace(plan, volume=sketch)
        steps = iter_sketch_given(
            given, config.sketch, lambda scale, box: sketches[scale][box.slices], write
        )
    run_to_end(steps)


def _zoom(file: TrainingFile, variant: int, config: TrainConfig) -> float:
    random = np.random.default_rng([config.seed, variant, *os.fsencode(file.name)])
    return float(random.uniform(*config.zoom))


def n_scales_reached(file: TrainingFile, config: TrainConfig) -> int:
    """Return how many scales a file can train at most, below 2 for none, without reading it."""
    zooms = [_zoom(file, variant, config) for variant in range(config.variants)]
    slice_mm = _declared_mm(file.name, config)
    return max(
        n_scales_magnified(file.shape, file.spacing, config, zoom, slice_mm) for zoom in zooms
    )


def _declared_mm(name: str, config: TrainConfig) -> float:
    """Return the true slice thickness in mm that the settings state for a file, 0 for none."""
    declared = [mm for pattern, mm in config.slice_mm.items() if fnmatch.fnmatch(name, pattern)]
    return max(declared, default=0.0)
