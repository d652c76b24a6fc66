"""Training of all scales from a folder of images."""

from napari_msgan.training.checks import check_run
from napari_msgan.training.config import TrainConfig
from napari_msgan.training.cost import disk_of, free_memory_of
from napari_msgan.training.plan import derive_config, plan_file, plan_table
from napari_msgan.training.run import iter_train
from napari_msgan.training.same_run import run_file
from napari_msgan.training.scale import StepReport
from napari_msgan.training.survey import TrainingFile, survey

__all__ = [
    "StepReport",
    "TrainConfig",
    "TrainingFile",
    "check_run",
    "derive_config",
    "disk_of",
    "free_memory_of",
    "iter_train",
    "plan_file",
    "plan_table",
    "run_file",
    "survey",
]
