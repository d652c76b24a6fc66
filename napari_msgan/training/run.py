"""Training: one scale after the other, each by itself, from images to a model folder.

`iter_train` yields a report per step and per prepared image; a consumer stops by not asking for
more, and the same call goes on where it stopped.
"""

from __future__ import annotations

import shutil
from datetime import timedelta
from typing import TYPE_CHECKING

from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from pydantic import ValidationError

from napari_msgan.buffers import keep_large_buffers
from napari_msgan.config import ModelSpec, ScaleSpec
from napari_msgan.durable import write_atomically
from napari_msgan.errors import TrainingError
from napari_msgan.model import save_spec, save_weights
from napari_msgan.networks import judged_window
from napari_msgan.training.config import TrainConfig
from napari_msgan.training.cost import disk_of
from napari_msgan.training.generated import iter_generate_coarse
from napari_msgan.training.same_run import begin_run, check_same_run
from napari_msgan.training.samples import iter_make_pool
from napari_msgan.training.scale import ScaleTrainer, StepReport
from napari_msgan.training.sources import prepare
from napari_msgan.training.start import check_start

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from napari_msgan.training.sources import SourcePyramid
    from napari_msgan.training.survey import TrainingFile

_VALIDATION_POOL = 32
_LONGEST_WAIT = timedelta(days=2)


def iter_train(
    files: Sequence[TrainingFile],
    out: Path,
    config: TrainConfig,
    *,
    device: str = "cpu",
    devices: int = 1,
) -> Generator[StepReport, None, None]:
    """Train every scale of `config` and write a model folder to `out`.

    Parameters
    ----------
    files : see `napari_msgan.training.survey`.
    devices : processes (CPU) or GPUs that share each batch. More than one start this program
        again in other processes, each with its part of the batch.

    Raises
    ------
    TrainingError
        See `check_run`.
    """
    keep_large_buffers()
    work = out / ".training"
    check_run(files, out, config, devices=devices)
    fabric = open_fabric(config, device, devices)
    if fabric.is_global_zero:
        for done, total, _ in prepare(files, work / "cache", config):
            if done == 1:
                begin_run(files, out, config)
            yield StepReport("prepare", 0, done, total, {})
    fabric.barrier()
    pyramids = [p for _, _, p in prepare(files, work / "cache", config) if p]
    training, validation = split_pyramids(pyramids, config)
    _check_every_scale_has_images(training, config)
    if fabric.is_global_zero:
        yield from iter_make_pools(training, validation, work, config)
    fabric.barrier()
    specs: list[ScaleSpec] = []
    for scale, plan in enumerate(config.scales):
        trainer = ScaleTrainer(config, scale, work, training, validation, fabric)
        yield from trainer.run()
        if fabric.is_global_zero:
            generator = trainer.gan.average
            file = f"scale_{scale}.safetensors"
            specs.append(
                ScaleSpec(
                    network=plan.network,
                    factor=plan.factor,
                    spacing_mm=plan.spacing_mm,
                    file=file,
                    sha256=save_weights(generator, out / file),
                    experimental=plan.experimental,
                )
            )
            if scale:
                save_spec(_model_spec(config, specs), out)
            if scale + 1 < len(config.scales):
                steps = iter_generate_coarse(
                    generator, scale, [*training, *validation], config, fabric
                )
                for done, total in steps:
                    yield StepReport("generate", scale, done, total, {})
        fabric.barrier()
    if fabric.is_global_zero:
        text = config.model_dump_json(indent=2) + "\n"
        write_atomically(out / "training.json", text.encode())
        yield StepReport("done", len(config.scales) - 1, 1, 1, {})


def check_run(
    files: Sequence[TrainingFile], out: Path, config: TrainConfig, *, devices: int = 1
) -> None:
    """Refuse what would fail, or mix two runs, after hours; nothing is written.

    Raises
    ------
    TrainingError
        If the settings describe no model or do not go together, or do not fit the model to start
        from; if `out` holds a run with other
        settings or images, or if the disk is too small.
    """
    if out.exists() and not out.is_dir():
        raise TrainingError(f"{out} is a file: choose a folder for the model")
    _check_config(config, devices)
    check_start(config)
    check_same_run(files, out, config)
    _check_disk(files, out, config)


def open_fabric(config: TrainConfig, device: str = "cpu", devices: int = 1) -> Fabric:
    """Return what runs the steps; with more than one device, in every process of the run."""
    accelerator, _, index = device.partition(":")
    strategy = "auto"
    if devices > 1:
        # Buffers (spectral norm) are equal in all processes anyway, and may not change in between.
        strategy = DDPStrategy(broadcast_buffers=False, timeout=_LONGEST_WAIT)  # type: ignore[assignment]
    fabric = Fabric(
        accelerator="cuda" if accelerator == "cuda" else "cpu",
        devices=[int(index)] if index else devices,
        strategy=strategy,
        precision="bf16-mixed" if config.precision == "bf16" else "32-true",
        # Processes are begun from here, also in a job of SLURM, MPI or LSF that has more of them.
        plugins=LightningEnvironment(),
    )
    if devices > 1:
        fabric.launch()
    return fabric


def split_pyramids(
    pyramids: Sequence[SourcePyramid], config: TrainConfig
) -> tuple[list[SourcePyramid], list[SourcePyramid]]:
    """Return the images to train on, and those that are kept out to watch the loss."""
    names = sorted({p.name for p in pyramids})
    kept_out = set(names[:: config.validation_every]) if config.validation_every else set()
    training = [p for p in pyramids if p.name not in kept_out]
    return training, [p for p in pyramids if p.name in kept_out]


def iter_make_pools(
    training: Sequence[SourcePyramid],
    validation: Sequence[SourcePyramid],
    work: Path,
    config: TrainConfig,
) -> Iterator[StepReport]:
    """Write what scale 0 learns from, and is validated with, unless it is there."""
    pools = [("pool", training, config.pool)]
    if validation:
        pools.append(("validation_pool", validation, _VALIDATION_POOL))
    for name, pyramids, size in pools:
        for done, total in iter_make_pool(pyramids, size, work / name, config):
            yield StepReport("change", 0, done, total, {})


def _model_spec(config: TrainConfig, scales: Sequence[ScaleSpec]) -> ModelSpec:
    shared = set(ModelSpec.model_fields) & set(TrainConfig.model_fields) - {"scales"}
    return ModelSpec(**{name: getattr(config, name) for name in shared}, scales=tuple(scales))


def _check_config(config: TrainConfig, devices: int) -> None:
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
        if plan.batch % devices:
            raise TrainingError(
                f"scale {scale}: a batch of {plan.batch} cannot be shared by {devices} devices. "
                "Choose a multiple of them."
            )
        window = judged_window(plan.discriminator_strides)
        if plan.gan_weight and plan.gan_from < 1 and min(plan.patch_shape) < window:
            raise TrainingError(
                f"scale {scale}: patch_shape {plan.patch_shape} is smaller than the {window} "
                "voxels that the discriminator judges at a time. Use larger patches, or fewer "
                "discriminator_strides."
            )


def _check_disk(files: Sequence[TrainingFile], out: Path, config: TrainConfig) -> None:
    needed = disk_of(config, files)
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    kept = sum(f.stat().st_size for f in (out / ".training").glob("**/*") if f.is_file())
    free = shutil.disk_usage(there).free + kept
    if needed > free:
        raise TrainingError(
            f"training needs about {needed / 1e9:.1f} GB on the disk of {out}, "
            f"{free / 1e9:.1f} GB are free. Choose another folder, or fewer variants in the plan."
        )


def _check_every_scale_has_images(training: Sequence[SourcePyramid], config: TrainConfig) -> None:
    finest = max((pyramid.n_scales for pyramid in training), default=0) - 1
    if finest < len(config.scales) - 1:
        raise TrainingError(
            f"no training image is fine enough for scale {len(config.scales) - 1}, the finest that "
            f"they reach is {finest if training else 'none'}: add finer images or leave it out"
        )
