"""Training images, resampled to a model's scales and kept on disk."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from napari_msgan.errors import MsganError, TrainingError
from napari_msgan.geometry import Box
from napari_msgan.io import READABLE, read_volume
from napari_msgan.resampling import corner_aligned_first, reduce_mean, resample
from napari_msgan.sketch import measure_window, sketch_of
from napari_msgan.source import honest_scale, n_scales_of
from napari_msgan.volume import orient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_msgan.geometry import Floats, Ints
    from napari_msgan.intensity import Float32Array
    from napari_msgan.training.config import TrainConfig
    from napari_msgan.volume import Volume

_STEPS = 65535


@dataclass(frozen=True)
class SourcePyramid:
    """One resampled source: image and sketch at each scale, from `first_scale` on, on disk."""

    name: str
    folder: Path
    shapes: tuple[Ints, ...]

    @property
    def n_scales(self) -> int:
        return len(self.shapes)

    def image(self, scale: int) -> npt.NDArray[np.uint16]:
        """Return the image at a scale, [-1, 1] as in `quantise`."""
        return self._open(f"image_{scale}")

    def sketch(self, scale: int) -> npt.NDArray[np.uint8]:
        """Return the sketch at a scale."""
        return self._open(f"sketch_{scale}")

    def generated(self, scale: int) -> npt.NDArray[np.uint16] | None:
        """Return what the trained scale made of it, or None where it has not yet."""
        path = self.folder / f"generated_{scale}.npy"
        return self._open(path.stem) if path.exists() else None

    def save_generated(self, scale: int, image: Float32Array) -> None:
        """Keep what the trained scale made of it."""
        save_array(self.folder / f"generated_{scale}.npy", quantise(image))

    def _open(self, name: str) -> npt.NDArray[Any]:
        array: npt.NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return array


def quantise(image: Float32Array) -> npt.NDArray[np.uint16]:
    """Return [-1, 1] as uint16."""
    scaled: Float32Array = (np.clip(image, -1, 1) + np.float32(1)) * np.float32(0.5 * _STEPS)
    return np.rint(scaled).astype(np.uint16)


def dequantise(stored: npt.NDArray[np.uint16]) -> Float32Array:
    """Return the inverse of `quantise`."""
    unit: Float32Array = stored.astype(np.float32) * np.float32(2 / _STEPS)
    return unit - np.float32(1)


def save_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array so that a reader sees it whole or not at all."""
    partial = path.with_name(f".{path.name}.partial.npy")
    np.save(partial, array)
    partial.replace(path)


def find_sources(data: Path, config: TrainConfig) -> list[Path]:
    """Return the training files, or say in one list what is wrong with them.

    Raises
    ------
    TrainingError
        If there are none, or some cannot be read or do not fit the model.
    """
    paths = sorted(
        {
            path
            for pattern in config.include
            for path in data.glob(pattern)
            if path.is_file() and path.name.lower().endswith(READABLE)
        }
    )
    if not paths:
        raise TrainingError(f"{data} holds no image that matches {', '.join(config.include)}")
    problems = [f"  {path}: {what}" for path in paths if (what := _problem(path, config))]
    if problems:
        raise TrainingError("these files cannot be used for training:\n" + "\n".join(problems))
    return paths


def _problem(path: Path, config: TrainConfig) -> str | None:
    try:
        volume = read_volume(path)
    except MsganError as error:
        return str(error)
    if len(volume.shape) != len(config.axes):
        return f"has shape {volume.shape}, the model is {len(config.axes)}-D"
    if config.kind == "physical" and volume.unit != "millimeter":
        return "has no voxel size in mm"
    return None


def prepare(
    data: Path, cache: Path, config: TrainConfig
) -> Iterator[tuple[int, int, SourcePyramid | None]]:
    """Yield (done, total, pyramid) for every resampled source; what is on disk is kept."""
    paths = find_sources(data, config)
    total = len(paths) * config.variants
    for index, path in enumerate(paths):
        for variant in range(config.variants):
            done = index * config.variants + variant + 1
            yield done, total, _prepare_one(data, path, variant, cache, config)


def _prepare_one(
    data: Path, path: Path, variant: int, cache: Path, config: TrainConfig
) -> SourcePyramid | None:
    name = path.relative_to(data).as_posix()
    folder = cache / f"{quote(name, safe='')}.{variant}"
    if not (folder / "ready").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write_pyramid(folder, path, name, variant, config)
        (folder / "ready").touch()
    images = sorted(folder.glob("image_*.npy"))
    if len(images) < 2:
        return None
    shapes = tuple(np.load(image, mmap_mode="r").shape for image in images)
    return SourcePyramid(name, folder, shapes)


def _write_pyramid(folder: Path, path: Path, name: str, variant: int, config: TrainConfig) -> None:
    volume, _ = orient(read_volume(path), config.orientation)
    random = np.random.default_rng([config.seed, variant, *name.encode()])
    zoom = float(random.uniform(*config.zoom))
    step, n_scales = _source_step(volume, name, zoom, config)
    if n_scales < 2:
        return
    window = measure_window(volume.data) if config.kind == "relative" else config.window
    shape = tuple(max(1, round(n / s)) for n, s in zip(volume.shape, step, strict=True))
    image = resample(volume.data, step, corner_aligned_first(step), Box.of_shape(shape))
    image = np.clip((image - window[0]) / (window[1] - window[0]), 0, 1)
    for scale in range(n_scales - 1, -1, -1):
        save_array(folder / f"image_{scale}.npy", quantise(2 * image - 1))
        save_array(folder / f"sketch_{scale}.npy", sketch_of(image, config.sketch))
        image = reduce_mean(image, config.scales[scale].factor)


def _source_step(volume: Volume, name: str, zoom: float, config: TrainConfig) -> tuple[Floats, int]:
    """Return source voxels per voxel of the finest usable scale, and the number of scales."""
    if config.kind == "relative":
        shape = [n * zoom for n in volume.shape]
        n_scales = n_scales_of(round(max(shape)), config.base_size, config.scales[1].factor[-1])
        return (1 / zoom,) * len(volume.shape), min(n_scales, len(config.scales))
    declared = [mm for pattern, mm in config.slice_mm.items() if fnmatch.fnmatch(name, pattern)]
    thickest = max([*volume.spacing, *declared])
    n_scales = honest_scale(config.scales, thickest) + 1
    finest = config.scales[max(n_scales - 1, 0)].spacing_mm
    assert finest is not None
    step = tuple(mm / zoom / own for mm, own in zip(finest, volume.spacing, strict=True))
    return step, n_scales
