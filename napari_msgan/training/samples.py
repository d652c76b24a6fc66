"""Training samples drawn from the sources.

A sample is a function of (seed, scale, step, index): a run that was interrupted, or is shared
between processes, draws the same samples.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_msgan.durable import create_array_file, patiently, sync_file
from napari_msgan.errors import TrainingError
from napari_msgan.geometry import Box
from napari_msgan.resampling import reduce_mean
from napari_msgan.sketch import REDUCE_HALO, in_window_of, reduce_sketch, sketch_of, weakest_kept
from napari_msgan.steps import iter_in_threads, n_cores
from napari_msgan.training.config import CoarseMixture, SketchChanges
from napari_msgan.training.sources import dequantise, open_array, quantise
from napari_msgan.volume import read_padded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from napari_msgan.geometry import Ints
    from napari_msgan.intensity import Float32Array
    from napari_msgan.training.config import TrainConfig
    from napari_msgan.training.sources import SourcePyramid

_BEND_NODES = 5
_GAP = 8
_POOL_SKETCHES, _POOL_IMAGES = "sketches.npy", "images.npy"


@dataclass(frozen=True)
class Sample:
    """One training sample, all float32; `truthful` if all of the image, not details, is the goal.

    Samples with a generated (if details are their target) or grey coarse image are not truthful.
    """

    sketch: Float32Array
    image: Float32Array
    coarse: Float32Array | None = None
    truthful: bool = True


class LowResPool:
    """Changed whole images for scale 0, made once and kept on disk, drawn with changed sketches."""

    def __init__(self, folder: Path, config: TrainConfig) -> None:
        self._sketches = open_array(folder / _POOL_SKETCHES)
        self._images = open_array(folder / _POOL_IMAGES)
        self._config = config

    def __len__(self) -> int:
        return len(self._images)

    def draw(self, random: np.random.Generator) -> Sample:
        index = int(random.integers(len(self)))
        return self._sample(index, change_sketch(self._sketches[index], random, self._config))

    def fixed(self, count: int) -> list[Sample]:
        """Return the first samples of the pool without further changes."""
        count = min(count, len(self))
        return [self._sample(i, self._sketches[i].astype(np.float32) / 255) for i in range(count)]

    def _sample(self, index: int, sketch: Float32Array) -> Sample:
        return Sample(sketch, dequantise(self._images[index]))


def iter_make_pool(
    pyramids: Sequence[SourcePyramid], size: int, folder: Path, config: TrainConfig
) -> Iterator[tuple[int, int]]:
    """Write a pool to a folder unless it exists; yield (done, total)."""
    if (folder / _POOL_IMAGES).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    sketch_file, image_file = folder / f".{_POOL_SKETCHES}", folder / f".{_POOL_IMAGES}"
    yield from _iter_fill_pool(pyramids, size, sketch_file, image_file, config)
    for file in (sketch_file, image_file):
        sync_file(file)
    patiently(sketch_file.replace, folder / _POOL_SKETCHES)
    patiently(image_file.replace, folder / _POOL_IMAGES)


def _iter_fill_pool(
    pyramids: Sequence[SourcePyramid],
    size: int,
    sketch_file: Path,
    image_file: Path,
    config: TrainConfig,
) -> Iterator[tuple[int, int]]:
    """Write both files, mapped until this ends (Windows cannot rename a mapped file)."""
    plan = config.scales[0]
    fine = tuple(n * f for n, f in zip(plan.patch_shape, plan.factor, strict=True))
    sketches = create_array_file(sketch_file, np.uint8, (size, *fine))
    images = create_array_file(image_file, np.uint16, (size, *plan.patch_shape))

    def make(index: int) -> None:
        random = np.random.default_rng([config.seed, index])
        pyramid = pyramids[index % len(pyramids)]
        sketches[index], images[index] = _changed_image(pyramid, random, config)

    with closing(iter_in_threads(make, range(size), n_cores())) as made:
        for done, _ in enumerate(made, 1):
            yield done, size


def _changed_image(
    pyramid: SourcePyramid, random: np.random.Generator, config: TrainConfig
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]:
    """Return sketch (at scale 1) and image of a turned, stretched, bent and shifted source.

    Sometimes the sketch is made at the next finer scale and reduced, as given sketches are.
    """
    factors = [scale.factor for scale in config.scales]
    is_reduced = pyramid.n_scales > 2 and random.random() < config.sketches.reduced
    shape = np.multiply(config.scales[0].patch_shape, factors[1])
    if is_reduced:
        shape = shape * factors[2]
    scale = 1 + is_reduced
    points = _changed_grid(pyramid.shapes[scale], tuple(shape.tolist()), scale, random, config)
    source = dequantise(pyramid.image(scale))
    order = 1 if is_reduced else 3  # it is reduced afterwards, so linear is enough
    image = ndimage.map_coordinates(source, points, order=order, mode="nearest")
    unit = _changed_grey(np.clip((image + 1) / 2, 0, 1).astype(np.float32), random, config)
    sketch = sketch_of(in_window_of(unit, config.sketch, scale), config.sketch)
    if is_reduced:
        sketch, unit = reduce_sketch(sketch, factors[2]), reduce_mean(unit, factors[2])
        strengths = np.bincount(sketch.ravel(), minlength=256)
        sketch[sketch < weakest_kept(strengths, config.sketch.low_density)] = 0
    return sketch, quantise(2 * reduce_mean(unit, factors[1]) - 1)


def _changed_grey(
    unit: Float32Array, random: np.random.Generator, config: TrainConfig
) -> Float32Array:
    """Change the grey values of an image in [0, 1]; in CT only those between air and water."""
    gamma = np.float32(np.exp(random.normal(0, config.images.gamma)))
    if config.modality != "CT":
        return unit**gamma
    low, high = config.window
    water = np.float32(np.clip(-low / (high - low), 0, 1))
    below = unit < water
    unit[below] = water * (unit[below] / water) ** gamma
    return unit


def _changed_grid(
    source: Ints, shape: Ints, scale: int, random: np.random.Generator, config: TrainConfig
) -> npt.NDArray[np.float64]:
    """Return where the voxels of a changed image lie in its source, shape (ndim, *shape).

    Parameters
    ----------
    source, shape : shapes of the source and of the changed image.
    scale : of both grids.
    """
    changes, ndim = config.images, len(source)
    view = _field_of_view(source, shape, random, config)
    voxel = np.array(config.scales[scale].spacing_mm or (1.0,) * ndim)
    turn = random.normal(0, changes.turn, (ndim, ndim)) * (voxel / voxel[:, np.newaxis])
    np.fill_diagonal(turn, 1)
    if changes.flip and random.random() < 0.5:
        turn[:, -1] *= -1
    matrix = turn * (view / shape)
    room = np.abs(np.array(source) - view)
    centre = np.array(source) / 2 + random.uniform(-0.45, 0.45, ndim) * room
    offset = centre - 0.5 - matrix @ ((np.array(shape) - 1) / 2)
    column = (-1, *(1,) * ndim)
    points: npt.NDArray[np.float64] = np.tensordot(matrix, np.indices(shape, np.float32), 1)
    points += offset.reshape(column)
    if changes.bend:
        points += _smooth_displacement(shape, random) * (changes.bend * view).reshape(column)
    return points


def _field_of_view(
    source: Ints, fine: Ints, random: np.random.Generator, config: TrainConfig
) -> npt.NDArray[np.float64]:
    """Return the size of what one changed image shows, in source voxels."""
    stretch = np.exp(random.normal(0, config.images.stretch, len(source)))
    if config.kind == "physical":
        return np.array(fine) * random.uniform(*config.images.view) * stretch
    shorter = sorted(source)[-2]  # for a stack of few slices, a side of the slices
    return random.uniform(0.85 * shorter, max(source)) * stretch


def _smooth_displacement(shape: Ints, random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Interpolate normal random numbers on a coarse grid cubically, shape (ndim, *shape)."""
    nodes = random.standard_normal((len(shape), *(_BEND_NODES,) * len(shape)))
    zoom = [n / _BEND_NODES for n in shape]
    return np.stack(
        [ndimage.zoom(part, zoom, order=3, mode="nearest", grid_mode=True) for part in nodes]
    )


def change_sketch(
    sketch: npt.NDArray[np.uint8], random: np.random.Generator, config: TrainConfig
) -> Float32Array:
    """Return a sketch as float32 with noise, at times altered to resemble a drawn or foreign one.

    Without noise, values lie in [0, 1].
    """
    changes = config.sketches
    values = sketch.astype(np.float32) / np.float32(255)
    if random.random() < changes.share:
        values *= np.float32(random.uniform(*changes.strength))
        values[values < random.uniform(0, changes.weakest)] = 0
        blocks = [-(-n // _GAP) for n in sketch.shape]
        missing = random.random(blocks) < random.uniform(0, changes.gaps)
        for axis in range(sketch.ndim):
            missing = np.repeat(missing, _GAP, axis)
        values[missing[tuple(slice(n) for n in sketch.shape)]] = 0
        np.clip(values, 0, 1, out=values)
    noise = random.standard_normal(values.shape, dtype=np.float32)
    return values + np.float32(changes.noise) * noise


class PatchSampler:
    """Draws patches of one scale from all sources that reach it."""

    def __init__(
        self, pyramids: Sequence[SourcePyramid], scale: int, halo: Ints, config: TrainConfig
    ) -> None:
        self._pyramids = [p for p in pyramids if p.n_scales > scale]
        if not self._pyramids:
            raise TrainingError(
                f"no training image is fine enough for scale {scale}: add finer ones, or leave "
                "it out"
            )
        sizes = np.array([np.prod(p.shapes[scale], dtype=float) for p in self._pyramids])
        self._chance = sizes**0.5 / (sizes**0.5).sum()
        self._scale, self._halo, self._config = scale, halo, config
        # left and right; in volumes also front and back, but never head and feet
        axes = range(len(halo))[-1:] if len(halo) == 2 else range(1, 3)
        self._flippable = axes if config.images.flip else ()

    def fixed(self, count: int) -> list[Sample]:
        """Return fixed samples in the situation of a user: generated coarse, unchanged sketch."""
        mixture = CoarseMixture(true=0, generated=1, blurred=0, grey=0, target="truth")
        sketches = SketchChanges(noise=self._config.noise, share=0, reduced=0)
        config = self._config.model_copy(update={"coarse": mixture, "sketches": sketches})
        sampler = PatchSampler(self._pyramids, self._scale, self._halo, config)
        return [sampler.draw(sample_random(config, self._scale, 0, i)) for i in range(count)]

    def draw(self, random: np.random.Generator) -> Sample:
        """Return a patch, rarely one without content."""
        for _ in range(4):
            sample = self._draw_once(random)
            if float(sample.image.std()) > 0.03 or random.random() < 0.1:
                break
        return sample

    def _draw_once(self, random: np.random.Generator) -> Sample:
        config, scale = self._config, self._scale
        plan = config.scales[scale]
        pyramid = self._pyramids[int(random.choice(len(self._pyramids), p=self._chance))]
        core = tuple(n // f for n, f in zip(plan.patch_shape, plan.factor, strict=True))
        room = [max(0, n - c) for n, c in zip(pyramid.shapes[scale - 1], core, strict=True)]
        start = tuple(int(random.integers(r + 1)) for r in room)
        box = Box(start, tuple(a + c for a, c in zip(start, core, strict=True)))
        window = box.grow(self._halo)
        coarse, truthful = self._coarse(pyramid, window, random)
        fine = box.multiply(plan.factor)
        image = dequantise(read_padded(pyramid.image(scale), fine.start, fine.stop))
        sketch = change_sketch(
            self._sketch(pyramid, window.multiply(plan.factor), random), random, config
        )
        flips = tuple(axis for axis in self._flippable if random.random() < 0.5)
        return Sample(
            np.flip(sketch, flips).copy(),
            np.flip(image, flips).copy(),
            np.flip(coarse, flips).copy(),
            truthful,
        )

    def _coarse(
        self, pyramid: SourcePyramid, window: Box, random: np.random.Generator
    ) -> tuple[Float32Array, bool]:
        mixture = self._config.coarse
        kind = random.choice(4, p=mixture.shares)
        generated = pyramid.generated(self._scale - 1)
        if kind == 1 and generated is not None:
            made = dequantise(read_padded(generated, window.start, window.stop))
            return made, mixture.target == "truth"
        true = dequantise(read_padded(pyramid.image(self._scale - 1), window.start, window.stop))
        if kind == 0:
            return true, True
        blurred = _blur(true, random, mixture.blur)
        return (blurred, True) if kind == 2 else (_shift_grey(blurred, random), False)

    def _sketch(
        self, pyramid: SourcePyramid, window: Box, random: np.random.Generator
    ) -> npt.NDArray[np.uint8]:
        """Return the sketch of the scale itself or, at times, one reduced from the next finer."""
        scale = self._scale
        if scale + 1 >= pyramid.n_scales or random.random() >= self._config.sketches.reduced:
            return read_padded(pyramid.sketch(scale), window.start, window.stop)
        factor = self._config.scales[scale + 1].factor
        wide = window.grow(REDUCE_HALO)
        finer = wide.multiply(factor)
        reduced = reduce_sketch(
            read_padded(pyramid.sketch(scale + 1), finer.start, finer.stop), factor
        )
        return reduced[window.relative_to(wide.start).slices]


def _blur(coarse: Float32Array, random: np.random.Generator, sigma: float) -> Float32Array:
    """Blur a coarse image and add noise, like a generator's flaws; the sketch allows mending it."""
    blurred: Float32Array = ndimage.gaussian_filter(
        coarse, random.uniform(0, sigma), mode="nearest"
    )
    noise: Float32Array = random.standard_normal(coarse.shape, dtype=np.float32)
    return np.clip(blurred + noise * np.float32(random.uniform(0, 0.04)), -1, 1)


def _shift_grey(coarse: Float32Array, random: np.random.Generator) -> Float32Array:
    """Change the grey values of a coarse image, which no sketch reveals."""
    gain, shift = random.uniform(0.9, 1.1), random.uniform(-0.08, 0.08)
    changed: Float32Array = coarse * np.float32(gain) + np.float32(shift)
    return np.clip(changed, -1, 1)


def sample_random(config: TrainConfig, scale: int, step: int, index: int) -> np.random.Generator:
    """Return the random generator of one sample, the same in whichever process draws it."""
    return np.random.default_rng([config.seed, scale, step, index])
