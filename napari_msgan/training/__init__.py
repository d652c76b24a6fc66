"""Training of all scales from a folder of images."""

from napari_msgan.training.checks import check_run, kept_out_of
from napari_msgan.training.config import TrainConfig
from napari_msgan.training.cost import disk_of, free_memory_of
from napari_msgan.training.plan import (
    cut_to_images,
    derive_config,
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
    "cut_to_images",
    "derive_config",
    "disk_of",
    "free_memory_of",
    "iter_train",
    "kept_out_of",
    "n_scales_reached",
    "plan_file",
    "plan_table",
    "preset_steps",
    "run_file",
    "survey",
]
