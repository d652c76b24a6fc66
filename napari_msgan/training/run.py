"""Training: one scale after the other, each by itself, from a folder of images to a model folder.

`iter_train` yields a report per step and per prepared image; a consumer stops by not asking for
more, and the same call goes on where it stopped.
"""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from pydantic import ValidationError

from napari_msgan.config import ModelSpec, ScaleSpec
from napari_msgan.errors import TrainingError
from napari_msgan.model import save_spec, save_weights, write_atomically
from napari_msgan.networks import LowResGenerator, judged_window, required_halo
from napari_msgan.training.config import TrainConfig
from napari_msgan.training.scale import ScaleTrainer, StepReport, to_tensor
from napari_msgan.training.sources import dequantise, prepare
from napari_msgan.volume import read_padded

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from napari_msgan.intensity import Float32Array
    from napari_msgan.networks.build import AnyGenerator
    from napari_msgan.training.sources import SourcePyramid

_CONFIG_FILE = "config.json"


def iter_train(
    data: Path, out: Path, config: TrainConfig, *, device: str = "cpu"
) -> Generator[StepReport, None, None]:
    """Train every scale of `config` on the images below `data` and write a model folder to `out`.

    Raises
    ------
    TrainingError
        If the data cannot be used.
    """
    _keep_large_buffers()
    work = out / ".training"
    _check_config(config, work)
    pyramids: list[SourcePyramid] = []
    for done, total, pyramid in prepare(data, work / "cache", config):
        if done == 1:
            write_atomically(work / _CONFIG_FILE, config.model_dump_json(indent=2).encode())
        pyramids += [pyramid] if pyramid else []
        yield StepReport("prepare", 0, done, total, {})
    names = sorted({p.name for p in pyramids})
    kept_out = set(names[:: config.validation_every]) if config.validation_every else set()
    training = [p for p in pyramids if p.name not in kept_out]
    validation = [p for p in pyramids if p.name in kept_out]
    _check_every_scale_has_images(training, config)
    specs: list[ScaleSpec] = []
    for scale, plan in enumerate(config.scales):
        trainer = ScaleTrainer(config, scale, work, training, validation, torch.device(device))
        yield from trainer.run()
        file = f"scale_{scale}.safetensors"
        specs.append(
            ScaleSpec(
                network=plan.network,
                factor=plan.factor,
                spacing_mm=plan.spacing_mm,
                file=file,
                sha256=save_weights(cast("AnyGenerator", trainer.average), out / file),
                experimental=plan.experimental,
            )
        )
        if scale:
            save_spec(_model_spec(config, specs), out)
        if scale + 1 < len(config.scales):
            yield from _generate_coarse(
                cast("AnyGenerator", trainer.average), scale, training, config, device
            )
    write_atomically(out / "training.json", config.model_dump_json(indent=2).encode() + b"\n")
    yield StepReport("done", len(config.scales) - 1, 1, 1, {})


def _model_spec(config: TrainConfig, scales: Sequence[ScaleSpec]) -> ModelSpec:
    shared = set(ModelSpec.model_fields) & set(TrainConfig.model_fields) - {"scales"}
    return ModelSpec(**{name: getattr(config, name) for name in shared}, scales=tuple(scales))


def _check_config(config: TrainConfig, work: Path) -> None:
    """Refuse, before anything is written, what would fail or mix two runs after hours."""
    specs = [
        ScaleSpec(
            network=plan.network,
            factor=plan.factor,
            spacing_mm=plan.spacing_mm,
            file=f"scale_{scale}.safetensors",
            sha256="0" * 64,
        )
        for scale, plan in enumerate(config.scales)
    ]
    try:
        _model_spec(config, specs)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise TrainingError(
            f"the settings describe no model: {where + ': ' if where else ''}{first['msg']}"
        ) from error
    for scale, plan in enumerate(config.scales):
        if len(plan.patch_shape) != len(config.axes):
            raise TrainingError(
                f"scale {scale}: patch_shape {plan.patch_shape} needs {len(config.axes)} numbers"
            )
        window = judged_window(plan.discriminator_strides)
        if plan.gan_weight and plan.gan_from < 1 and min(plan.patch_shape) < window:
            raise TrainingError(
                f"scale {scale}: patch_shape {plan.patch_shape} is smaller than the {window} "
                "voxels that the discriminator judges at a time. Use larger patches, or fewer "
                "discriminator_strides."
            )
    before = work / _CONFIG_FILE
    if before.exists() and before.read_bytes() != config.model_dump_json(indent=2).encode():
        raise TrainingError(
            f"{work.parent} holds a training run with other settings. Choose another folder, or "
            f"delete {work} to start again."
        )


def _check_every_scale_has_images(training: Sequence[SourcePyramid], config: TrainConfig) -> None:
    finest = max((pyramid.n_scales for pyramid in training), default=0) - 1
    if finest < len(config.scales) - 1:
        raise TrainingError(
            f"no training image is fine enough for scale {len(config.scales) - 1}, the finest that "
            f"they reach is {finest if training else 'none'}: add finer images or leave it out"
        )


def _keep_large_buffers() -> None:
    """Tell glibc not to give large buffers back at every step: a third of the time is saved."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            m_trim_threshold, m_mmap_max = -1, -4
            mallopt(m_mmap_max, 0)
            mallopt(m_trim_threshold, 2**31 - 1)


def _generate_coarse(
    generator: AnyGenerator,
    scale: int,
    pyramids: Sequence[SourcePyramid],
    config: TrainConfig,
    device: str,
) -> Iterator[StepReport]:
    """Write what the trained scale makes of every training image, for the next scale."""
    todo = [p for p in pyramids if p.n_scales > scale + 1]
    for index, pyramid in enumerate(todo):
        if pyramid.generated(scale) is None:
            pyramid.save_generated(scale, _generate_one(generator, scale, pyramid, config, device))
        yield StepReport("generate", scale, index + 1, len(todo), {})


@torch.inference_mode()
def _generate_one(
    generator: AnyGenerator, scale: int, pyramid: SourcePyramid, config: TrainConfig, device: str
) -> Float32Array:
    factor = config.scales[scale].factor
    with torch.autocast(device, dtype=torch.bfloat16):
        if isinstance(generator, LowResGenerator):
            whole = [n * f for n, f in zip(pyramid.shapes[0], factor, strict=True)]
            sketch = read_padded(pyramid.sketch(1), [0] * len(whole), whole)
            result = generator(to_tensor([sketch.astype(np.float32) / np.float32(255)], device))
        else:
            coarse = pyramid.generated(scale - 1)
            assert coarse is not None
            halo = required_halo(generator)
            start = [-h for h in halo]
            stop = [n + h for n, h in zip(pyramid.shapes[scale - 1], halo, strict=True)]
            fine = [[v * f for v, f in zip(end, factor, strict=True)] for end in (start, stop)]
            sketch = read_padded(pyramid.sketch(scale), *fine)
            result = generator(
                to_tensor([dequantise(read_padded(coarse, start, stop))], device),
                to_tensor([sketch.astype(np.float32) / np.float32(255)], device),
            )
    inside = tuple(slice(n) for n in pyramid.shapes[scale])
    return np.asarray(result[0, 0].float().cpu().numpy()[inside])
