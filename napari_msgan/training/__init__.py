"""Training all scales of a model from a folder of images."""

from napari_msgan.training.checks import check_run, kept_out_of
from napari_msgan.training.config import TrainConfig
from napari_msgan.training.cost import disk_of, free_memory_of, memory_short_of
from napari_msgan.training.plan import (
    derive_config,
    fit_to_images,
    plan_file,
    plan_table,
    preset_steps,
)
from napari_msgan.training.run import iter_train
from napari_msgan.training.same_run import run_file
from napari_msgan.training.scale import StepReport
from napari_msgan.training.sources import n_scales_reached
from napari_msgan.training.survey import TrainingFile, survey

__all__ = [
    "StepReport",
    "TrainConfig",
    "TrainingFile",
    "check_run",
    "derive_config",
    "disk_of",
    "fit_to_images",
    "free_memory_of",
    "iter_train",
    "kept_out_of",
    "memory_short_of",
    "n_scales_reached",
    "plan_file",
    "plan_table",
    "preset_steps",
    "run_file",
    "survey",
]
