"""Settings for a training run, derived from the images and the available memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_msgan.config import LowResNetwork, PatchNetwork
from napari_msgan.errors import TrainingError
from napari_msgan.networks import judged_window
from napari_msgan.patients import patients_in
from napari_msgan.sketch_settings import SketchSettings
from napari_msgan.source import n_scales_of
from napari_msgan.training.checks import n_scales_trained
from napari_msgan.training.config import (
    CoarseMixture,
    ImageChanges,
    ScaleTraining,
    TrainConfig,
)
from napari_msgan.training.cost import memory_of
from napari_msgan.training.sources import n_scales_reached

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_msgan.geometry import Floats, Ints
    from napari_msgan.training.survey import TrainingFile

Preset = Literal["fast", "balanced", "quality"]

#: Longest side of scale 0, by number of axes.
_BASE_SIZE = {2: 128, 3: 32}
_SHORTEST_BASE = 16
_SHORTEST_PATCH = 16
#: Strides of the discriminator: 34-voxel windows; 16-voxel ones for scale 0 and short patches.
_WIDE: tuple[Literal[1, 2], ...] = (2, 2, 1)
_NARROW: tuple[Literal[1, 2], ...] = (2, 1)
_MOST_SCALES = 6
#: An axis whose voxels are this many times as long as the shortest is not coarsened further.
_ANISOTROPIC = 1.4
_TILE = {2: 512, 3: 128}
_CHUNK = {2: 256, 3: 64}
#: Share of the free memory that one training step may take.
_MEMORY_SHARE = 0.6
#: With this mixture, finer scales of 2-D models learn to mend edges and textures; in 3-D it helped
#: one model and not the other (docs/results.md).
_COARSE = {
    2: CoarseMixture(true=0.2, generated=0.5, blurred=0.2, grey=0.1, target="detail"),
    3: CoarseMixture(),
}


@dataclass(frozen=True)
class _Sizes:
    """The sizes that a preset trains, for 2 or 3 axes."""

    widths: Ints
    low_res_steps: int
    width: int
    blocks: int
    patch_steps: int
    patch: int
    pool: int
    variants: int


_PRESETS: dict[str, dict[int, _Sizes]] = {
    "fast": {
        2: _Sizes((24, 48, 96, 128), 1500, 32, 3, 900, 96, 300, 1),
        3: _Sizes((16, 32, 64, 96), 1500, 24, 2, 900, 40, 200, 1),
    },
    "balanced": {
        2: _Sizes((32, 64, 128, 256), 4000, 48, 5, 2000, 96, 1500, 1),
        3: _Sizes((32, 64, 128, 160), 4000, 32, 3, 2000, 40, 1500, 2),
    },
    "quality": {
        2: _Sizes((48, 96, 192, 320), 20000, 64, 6, 10000, 128, 6000, 2),
        3: _Sizes((48, 96, 192, 256), 20000, 48, 4, 10000, 48, 4000, 3),
    },
}


def derive_config(
    files: Sequence[TrainingFile],
    name: str,
    preset: Preset,
    free_memory: int,
    patient: str | None = None,
) -> TrainConfig:
    """Derive settings for these images.

    Volumes with a voxel size in mm give a physical model whose finest scale has the median voxel
    size of the images; thick slices are kept until the other axes are as coarse. Other images give
    a relative model. First batches, then patches are made smaller until a step fits into memory.

    Parameters
    ----------
    name : of the model.
    free_memory : in bytes, see `free_memory_of`.
    patient : see `TrainConfig`.

    Raises
    ------
    TrainingError
        If the images are too small for two scales, or there is too little memory.
    VolumeError
        If `patient` matches nothing in a name.
    """
    ndim = len(files[0].shape)
    physical = files[0].spacing is not None and ndim == 3
    sizes = _PRESETS[preset][ndim]
    grids = _physical_grids(files) if physical else _relative_grids(files)
    if grids is None:
        raise TrainingError(
            f"the images are too small for two scales: the largest has shape "
            f"{max((f.shape for f in files), key=math.prod)}"
        )
    hounsfield = physical and all(f.low <= -800 and 100 < f.high < 4000 for f in files)
    window = _hounsfield_window(files) if hounsfield else (0.0, 65535.0)
    sketch = SketchSettings.of_ndim(ndim)
    if hounsfield:
        sketch = sketch.model_copy(update={"window": window})
    patches, size = [grids.base], np.array(grids.size)
    for factor in grids.factors:
        size *= factor
        patches.append(_patch(tuple(size), sizes.patch))
    scales = [
        _fit(_scale(index, grids, patch, sizes), index, free_memory)
        for index, patch in enumerate(patches)
    ]
    config = TrainConfig(
        name=name,
        kind="physical" if physical else "relative",
        axes=("z", "y", "x") if ndim == 3 else ("y", "x"),
        orientation="LPS" if physical else None,
        modality="CT" if hounsfield else "OT",
        base_size=max(grids.base),
        tile_shape=(_TILE[ndim],) * ndim,
        chunk_shape=(_CHUNK[ndim],) * ndim,
        sketch=sketch,
        window=window,
        dtype="int16" if hounsfield else "uint16",
        scales=tuple(scales),
        zoom=(0.85, 1.1) if physical else (0.7, 0.95),
        variants=sizes.variants,
        pool=sizes.pool,
        images=ImageChanges(turn=0.1, stretch=0.1, bend=0.02, gamma=0.3 if hounsfield else 0.15),
        coarse=_COARSE[ndim],
        stochastic=ndim == 2,
        validation_every=1,
        patient=patient,
    )
    return fit_to_images(files, config)  # maybe no file, or none trained on, has the median voxel


def _validation_every(files: Sequence[TrainingFile], config: TrainConfig) -> int:
    """Return n, where every n-th patient is kept out of training; 0 if none can be spared."""
    names = [file.name for file in files if n_scales_reached(file, config) >= 2]
    n_patients = len(set(patients_in(names, config.patient).values()) if config.patient else names)
    if n_patients < 3:
        return 0
    return n_patients if n_patients < 5 else max(5, n_patients // 16)


def preset_steps(preset: Preset, ndim: int) -> tuple[int, int]:
    """Return the number of steps of scale 0, and of each finer scale."""
    sizes = _PRESETS[preset][ndim]
    return sizes.low_res_steps, sizes.patch_steps


def fit_to_images(files: Sequence[TrainingFile], config: TrainConfig) -> TrainConfig:
    """Adapt settings to images: keep out as many as can be spared, drop scales none reaches.

    Settings that keep no images out are left that way.
    """
    if config.validation_every:
        every = _validation_every(files, config)
        config = config.model_copy(update={"validation_every": every})
    reached = n_scales_trained(files, config)
    if not 2 <= reached < len(config.scales):  # below 2 nothing can be trained, see check_run
        return config
    return config.model_copy(update={"scales": config.scales[:reached]})


def plan_file(out: Path) -> Path:
    """Return the path at which derived settings are written for the user to edit."""
    return out / "plan.json"


def plan_table(config: TrainConfig) -> list[tuple[str, ...]]:
    """Return a table of what is trained: a row of headings, then one row per scale."""
    rows: list[tuple[str, ...]] = [
        ("scale", "voxel", "factor", "network", "patch", "batch", "steps", "memory")
    ]
    for index, plan in enumerate(config.scales):
        voxel = "x".join(f"{mm:g}" for mm in plan.spacing_mm) + " mm" if plan.spacing_mm else "-"
        network = plan.network
        kind = (
            f"U-Net {'-'.join(map(str, network.widths))}"
            if isinstance(network, LowResNetwork)
            else f"{network.blocks} blocks of {network.width}"
        )
        rows.append(
            (
                str(index),
                voxel,
                "x".join(map(str, plan.factor)),
                kind,
                "x".join(map(str, plan.patch_shape)),
                str(plan.batch),
                str(plan.steps),
                f"{memory_of(plan) / 1e9:.1f} GB",
            )
        )
    return rows


@dataclass(frozen=True)
class _Grids:
    """The grids of all scales, coarsest first.

    factors : of scales 1 and above.
    spacings : voxel size in mm of each scale; empty without mm.
    base : shape of a sample of scale 0.
    size : voxels of the median image along each axis, at scale 0.
    """

    factors: Sequence[Ints]
    spacings: Sequence[Floats]
    base: Ints
    size: Floats


def _physical_grids(files: Sequence[TrainingFile]) -> _Grids | None:
    """Return the grids for volumes in mm; None if these are too small for two scales."""
    own = np.median([f.spacing for f in files if f.spacing], axis=0)
    extent = np.median([np.multiply(f.shape, f.spacing) for f in files if f.spacing], axis=0)
    if own.max() < 1.5 * own.min():
        own[:] = own.max()
    spacings = [tuple(float(f"{mm:.2g}") for mm in own)]
    factors: list[Ints] = []
    while len(spacings) < _MOST_SCALES:
        finer = spacings[0]
        if float((extent / finer).max()) / _BASE_SIZE[3] < 2**0.5:
            break
        factors.insert(0, tuple(2 if mm < _ANISOTROPIC * min(finer) else 1 for mm in finer))
        spacings.insert(0, tuple(mm * f for mm, f in zip(finer, factors[0], strict=True)))
    if not factors:
        return None
    size = tuple(extent / spacings[0])
    base = tuple(max(16, 8 * math.ceil(n / 8 - 0.25)) for n in size)
    return _Grids(factors, spacings, base, size)


def _relative_grids(files: Sequence[TrainingFile]) -> _Grids | None:
    """Return the grids that at least a quarter of the images reach; None if they are too small."""
    longest = sorted(max(f.shape) for f in files)[(3 * len(files)) // 4]
    if longest < 1.5 * _SHORTEST_BASE:
        return None
    ndim = len(files[0].shape)
    base = _BASE_SIZE[ndim]
    while base > _SHORTEST_BASE and longest < 2 * base:
        base //= 2
    n_scales = min(_MOST_SCALES, n_scales_of(round(0.85 * longest), base, 2))
    size = tuple(base * np.median([np.divide(f.shape, max(f.shape)) for f in files], axis=0))
    return _Grids([(2,) * ndim] * (n_scales - 1), (), (base,) * ndim, size)


def _patch(size: Floats, longest: int) -> Ints:
    """Return the patch shape for images of `size` voxels.

    Patches do not extend far beyond an image: there its border is repeated, which teaches nothing.
    """
    return tuple(min(longest, max(_SHORTEST_PATCH, 8 * math.ceil(n / 8))) for n in size)


def _hounsfield_window(files: Sequence[TrainingFile]) -> tuple[float, float]:
    high = float(np.median([f.high for f in files]))
    return -1000.0, float(np.clip(100 * math.ceil(high / 100), 400, 2000))


def _scale(index: int, grids: _Grids, patch: Ints, sizes: _Sizes) -> ScaleTraining:
    ndim = len(patch)
    wide = index > 0 and min(patch) >= judged_window(_WIDE)
    return ScaleTraining(
        network=LowResNetwork(widths=sizes.widths, upsampling="linear")
        if index == 0
        else PatchNetwork(width=sizes.width, blocks=sizes.blocks),
        factor=grids.factors[max(index - 1, 0)],
        spacing_mm=grids.spacings[index] if grids.spacings else None,
        steps=sizes.low_res_steps if index == 0 else sizes.patch_steps,
        batch=8 if ndim == 2 else 4,
        patch_shape=patch,
        discriminator_width=32 if ndim == 2 else 16,
        discriminator_strides=_WIDE if wide else _NARROW,
        gan_from=0.4 if index == 0 else 0.2,
        gan_weight=(1.0 if ndim == 2 else 0.5) if index == 0 else (1.0 if ndim == 2 else 0.2),
    )


def _fit(plan: ScaleTraining, index: int, free_memory: int) -> ScaleTraining:
    """Return the plan with smaller batches, then smaller patches, until it fits into memory."""
    allowed = _MEMORY_SHARE * free_memory
    least = judged_window(plan.discriminator_strides) + 2
    while memory_of(plan) > allowed:
        smaller = tuple(n - 8 for n in plan.patch_shape)
        if plan.batch > 1:
            plan = plan.model_copy(update={"batch": plan.batch // 2})
        elif index and min(smaller) >= least:
            plan = plan.model_copy(update={"patch_shape": smaller})
        else:
            raise TrainingError(
                f"scale {index} needs {memory_of(plan) / 1e9:.1f} GB of memory even with one "
                f"sample at a time, {free_memory / 1e9:.1f} GB are free. Use --preset fast, or "
                "smaller networks in the plan file."
            )
    return plan
