"""Checks that refuse a training run before it begins; they write nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from napari_msgan.config import ModelSpec, ScaleSpec
from napari_msgan.durable import free_bytes
from napari_msgan.errors import TrainingError
from napari_msgan.model import weights_file
from napari_msgan.networks import judged_window
from napari_msgan.patients import patients_in
from napari_msgan.settings import first_problem
from napari_msgan.training.config import TrainConfig
from napari_msgan.training.cost import disk_of
from napari_msgan.training.same_run import check_same_run, run_file, work_folder
from napari_msgan.training.sources import n_scales_reached
from napari_msgan.training.start import check_start

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from napari_msgan.training.config import ScaleTraining
    from napari_msgan.training.survey import TrainingFile


def check_run(
    files: Sequence[TrainingFile], out: Path, config: TrainConfig, *, devices: int = 1
) -> None:
    """Refuse a run that would fail after hours, or be mixed with another one; write nothing.

    Raises
    ------
    TrainingError
        If the settings do not describe a model, contradict each other, or do not fit the model
        to start from; if no image is fine enough for a scale; if `out` holds a finished model,
        or a run with other settings or images; or if the disk is too small.
    """
    if out.exists() and not out.is_dir():
        raise TrainingError(f"{out} is a file: choose a folder for the model")
    _check_config(config, devices)
    check_start(config, out)
    check_same_run(files, out, config)
    _check_finished_model(out)
    _check_every_scale_has_images(files, config)
    _check_disk(files, out, config)


def model_spec(config: TrainConfig, scales: Sequence[ScaleSpec]) -> ModelSpec:
    """Return the description of the model that a run trains."""
    shared = set(ModelSpec.model_fields) & set(TrainConfig.model_fields) - {"scales"}
    values = {name: getattr(config, name) for name in shared}
    return ModelSpec(**values, noise=config.noise, scales=tuple(scales))


def scale_spec(config: TrainConfig, scale: int, sha256: str) -> ScaleSpec:
    """Return the description of one scale of that model; `sha256` is that of its weights."""
    plan = config.scales[scale]
    return ScaleSpec(
        network=plan.network,
        factor=plan.factor,
        spacing_mm=plan.spacing_mm,
        experimental=plan.experimental,
        file=weights_file(scale),
        sha256=sha256,
    )


def kept_out_of(names: Iterable[str], config: TrainConfig) -> set[str]:
    """Return the names of the images kept out of training: all images of a patient, or none.

    Raises
    ------
    VolumeError
        If `config.patient` matches nothing in a name.
    """
    names, every = set(names), config.validation_every
    patients = patients_in(names, config.patient) if config.patient else {n: n for n in names}
    kept_out = set(sorted(set(patients.values()))[::every]) if every else set()
    return {name for name in names if patients[name] in kept_out}


def _check_config(config: TrainConfig, devices: int) -> None:
    try:
        model_spec(config, [scale_spec(config, s, "0" * 64) for s in range(len(config.scales))])
    except ValidationError as error:
        raise TrainingError(
            f"the settings do not describe a model: {first_problem(error)}"
        ) from error
    if config.sketch.window not in ("percentiles", config.window):
        raise TrainingError(
            f"sketch.window {config.sketch.window} is what images are trained in, so window, here "
            f"{config.window}, must be the same (or sketch.window 'percentiles')"
        )
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
        _check_patch(plan, scale, config)


def _check_patch(plan: ScaleTraining, scale: int, config: TrainConfig) -> None:
    whole = (config.base_size,) * len(config.axes)
    if scale == 0 and plan.steps and config.kind == "relative" and plan.patch_shape != whole:
        raise TrainingError(
            f"scale 0: patch_shape {plan.patch_shape} differs from {whole}, the shape in which a "
            "relative model with this base_size sees the whole image: change both, or the batch"
        )
    if scale and any(n % f for n, f in zip(plan.patch_shape, plan.factor, strict=True)):
        raise TrainingError(
            f"scale {scale}: patch_shape {plan.patch_shape} must be a multiple of the factor "
            f"{plan.factor}"
        )
    window = judged_window(plan.discriminator_strides)
    if plan.becomes_adversarial and min(plan.patch_shape) < window:
        raise TrainingError(
            f"scale {scale}: patch_shape {plan.patch_shape} is smaller than the {window} "
            "voxels that the discriminator judges at a time. Use larger patches, or fewer "
            "discriminator_strides."
        )


def _check_disk(files: Sequence[TrainingFile], out: Path, config: TrainConfig) -> None:
    needed = disk_of(config, files)
    kept = sum(f.stat().st_size for f in work_folder(out).glob("**/*") if f.is_file())
    free = free_bytes(out) + kept
    if needed > free:
        raise TrainingError(
            f"training needs about {needed / 1e9:.1f} GB on the disk of {out}, "
            f"{free / 1e9:.1f} GB are free. Choose another folder, or fewer variants in the plan."
        )


def _check_finished_model(out: Path) -> None:
    if (out / "model.json").exists() and not run_file(out).exists():
        raise TrainingError(
            f"{out} holds a finished model, which would be overwritten: choose another folder"
        )


def n_scales_trained(files: Sequence[TrainingFile], config: TrainConfig) -> int:
    """Return how many scales the images used for training are fine enough for, at least 1."""
    reached = {file.name: n_scales_reached(file, config) for file in files}
    usable = {name: n for name, n in reached.items() if n >= 2}
    kept_out = kept_out_of(usable, config)
    return max((n for name, n in usable.items() if name not in kept_out), default=1)


def _check_every_scale_has_images(files: Sequence[TrainingFile], config: TrainConfig) -> None:
    if config.validation_every == 1:
        raise TrainingError(
            "validation_every 1 keeps every image out of training: choose a larger one, or 0"
        )
    finest, any_finest = (
        n_scales_trained(files, c) - 1
        for c in (config, config.model_copy(update={"validation_every": 0}))
    )
    if finest < len(config.scales) - 1 == any_finest:
        raise TrainingError(
            f"all images that are fine enough for scale {any_finest} are kept out of training by "
            f"validation_every {config.validation_every}: give more of them, or set it to 0"
        )
    if finest < len(config.scales) - 1:
        raise TrainingError(
            f"no training image is fine enough for scale {len(config.scales) - 1}, the finest that "
            f"they reach is {finest}: add finer images, or take that scale out of the settings "
            "(--plan-only, then --config)"
        )
