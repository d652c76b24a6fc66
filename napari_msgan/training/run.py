"""Training from images to a model folder, one scale after the other.

`iter_train` yields a report per step and per prepared image. A consumer stops it by no longer
asking for reports; the same call then resumes where it stopped.
"""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.precision.amp import MixedPrecision
from lightning_fabric.plugins.precision.precision import Precision
from lightning_fabric.strategies.ddp import DDPStrategy

from napari_msgan.buffers import keep_large_buffers
from napari_msgan.durable import write_atomically
from napari_msgan.errors import ModelError, TrainingError
from napari_msgan.locking import hold_lock
from napari_msgan.model import read_spec, save_spec, save_weights, weights_file
from napari_msgan.recording import forbid_tf32
from napari_msgan.training.card import write_card
from napari_msgan.training.checks import check_run, kept_out_of, model_spec, scale_spec
from napari_msgan.training.generated import iter_generate_coarse
from napari_msgan.training.same_run import begin_run, run_file, work_folder
from napari_msgan.training.samples import iter_make_pool
from napari_msgan.training.scale import (
    VALIDATION_SAMPLES,
    ScaleTrainer,
    StepReport,
    checkpoint_of,
)
from napari_msgan.training.sources import prepare

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from napari_msgan.config import ScaleSpec
    from napari_msgan.training.config import TrainConfig
    from napari_msgan.training.sources import SourcePyramid
    from napari_msgan.training.survey import TrainingFile

T = TypeVar("T")

_LONGEST_WAIT = timedelta(days=2)


def iter_train(
    files: Sequence[TrainingFile],
    out: Path,
    config: TrainConfig,
    *,
    device: str = "cpu",
    devices: int = 1,
) -> Generator[StepReport, None, None]:
    """Train every scale of `config` and write a model folder to `out`, resuming an earlier run.

    Parameters
    ----------
    files : see `napari_msgan.training.survey`.
    devices : number of processes (CPU) or GPUs that share each batch. If more than one, this
        program is started again in other processes, each for its part of the batch.

    Raises
    ------
    TrainingError
        See `check_run`; also if another process trains in `out`, or there are too few GPUs.
    """
    keep_large_buffers()
    check_run(files, out, config, devices=devices)
    is_first = devices == 1 or LightningEnvironment().local_rank() == 0  # it starts the others
    work = work_folder(out)
    if is_first:
        work.mkdir(parents=True, exist_ok=True)
    with hold_lock(work / "lock", str(out), TrainingError) if is_first else nullcontext():
        fabric = open_fabric(config, device, devices)
        yield from _iter_train(files, out, config, fabric)


def _iter_train(
    files: Sequence[TrainingFile], out: Path, config: TrainConfig, fabric: Fabric
) -> Generator[StepReport, None, None]:
    work = work_folder(out)
    if fabric.is_global_zero:
        if not run_file(out).exists():  # no settings tell what an earlier cache was made with
            shutil.rmtree(work / "cache", ignore_errors=True)
        for done, total, _ in prepare(files, work / "cache", config):
            if done == 1:
                begin_run(files, out, config)
            yield StepReport("prepare", 0, done, total, {})
    fabric.barrier()
    pyramids = [p for _, _, p in prepare(files, work / "cache", config) if p]
    training, validation = split_pyramids(pyramids, config)
    if fabric.is_global_zero and config.scales[0].steps:
        yield from iter_make_pools(training, validation, work, config)
    fabric.barrier()
    specs: list[ScaleSpec] = []
    for scale, plan in enumerate(config.scales):
        trainer = ScaleTrainer(config, scale, work, training, validation, fabric)
        if fabric.is_global_zero and plan.steps and not trainer.has_begun:
            _forget_what_followed(scale, work, pyramids, config)
        yield from trainer.run()
        if fabric.is_global_zero:
            generator = trainer.gan.average
            sha256 = save_weights(generator, out / weights_file(scale))
            specs.append(scale_spec(config, scale, sha256))
            if scale and not _is_finer_model(out, specs):
                save_spec(model_spec(config, specs), out)
            if scale + 1 < len(config.scales):
                steps = iter_generate_coarse(
                    generator, scale, [*training, *validation], config, fabric
                )
                for done, total in steps:
                    yield StepReport("generate", scale, done, total, {})
        fabric.barrier()
    if fabric.is_global_zero:
        start = Path(config.start_from).name if config.start_from else None  # no private paths
        text = config.model_copy(update={"start_from": start}).model_dump_json(indent=2) + "\n"
        write_atomically(out / "training.json", text.encode())
        numbers = {"trained": len(training), "kept_out": len(validation)}
        write_card(out, work, model_spec(config, specs), config, **numbers)
        yield StepReport("done", len(config.scales) - 1, 1, 1, {})


def _forget_what_followed(
    scale: int, work: Path, pyramids: Sequence[SourcePyramid], config: TrainConfig
) -> None:
    """Remove what was made from a scale that starts again because its checkpoint was deleted."""
    for finer in range(scale, len(config.scales)):
        for pyramid in pyramids:
            pyramid.generated_path(finer).unlink(missing_ok=True)
        if finer > scale:
            checkpoint_of(work, finer).unlink(missing_ok=True)


def _is_finer_model(out: Path, specs: Sequence[ScaleSpec]) -> bool:
    """Return whether `out` already has these very scales and finer ones, from a finished run."""
    if not (out / "model.json").exists():
        return False
    try:
        there = read_spec(out).scales
    except ModelError:
        return False  # damaged, so it is rewritten
    return len(there) > len(specs) and list(there[: len(specs)]) == list(specs)


def open_fabric(config: TrainConfig, device: str = "cpu", devices: int = 1) -> Fabric:
    """Return the Fabric that runs the steps; several devices launch one process each."""
    accelerator, _, index = device.partition(":")
    if accelerator == "cuda":
        if devices > (n_gpus := torch.cuda.device_count()):
            raise TrainingError(f"{devices} GPUs were asked for, but torch sees {n_gpus}")
        if config.precision == "fp32":
            forbid_tf32()
        else:
            torch.backends.cudnn.allow_tf32 = True
    strategy = "auto"
    if devices > 1:
        # Buffers (spectral norm) are equal in all processes anyway, and must not change midway.
        strategy = DDPStrategy(broadcast_buffers=False, timeout=_LONGEST_WAIT)  # type: ignore[assignment]
    precision = (
        Precision() if config.precision == "fp32" else _WholeInputs("bf16-mixed", accelerator)
    )
    fabric = Fabric(
        accelerator="cuda" if accelerator == "cuda" else "cpu",
        devices=[int(index)] if index else devices,
        strategy=strategy,
        # Processes are started here, even in a SLURM, MPI or LSF job that has more of them.
        plugins=[LightningEnvironment(), precision],
    )
    if devices > 1:
        fabric.launch()
    return fabric


class _WholeInputs(MixedPrecision):
    """Mixed precision for layers only: the inputs of networks stay float32.

    If it were rounded to 8 bits, the coarse image that generators add to would differ from the one
    that the loss, the discriminator and inference use.
    """

    def convert_input(self, data: T) -> T:
        return data


def split_pyramids(
    pyramids: Sequence[SourcePyramid], config: TrainConfig
) -> tuple[list[SourcePyramid], list[SourcePyramid]]:
    """Return the images to train on, and those kept out to monitor the loss."""
    kept_out = kept_out_of({p.name for p in pyramids}, config)
    training = [p for p in pyramids if p.name not in kept_out]
    return training, [p for p in pyramids if p.name in kept_out]


def iter_make_pools(
    training: Sequence[SourcePyramid],
    validation: Sequence[SourcePyramid],
    work: Path,
    config: TrainConfig,
) -> Iterator[StepReport]:
    """Write what scale 0 is trained on and validated with, unless it exists."""
    pools = [("pool", training, config.pool)]
    if validation:
        pools.append(("validation_pool", validation, VALIDATION_SAMPLES))
    for name, pyramids, size in pools:
        for done, total in iter_make_pool(pyramids, size, work / name, config):
            yield StepReport("change", 0, done, total, {})
