"""Training of all scales from a folder of images."""

from napari_msgan.training.run import iter_train
from napari_msgan.training.scale import StepReport

__all__ = ["StepReport", "iter_train"]
