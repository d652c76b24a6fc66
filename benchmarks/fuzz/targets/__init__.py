"""What is fuzzed: each target harms a small valid input, then uses it as the program would."""

from benchmarks.fuzz.targets.base import Target
from benchmarks.fuzz.targets.files import Dicom, Nifti, NiftiGz, OmeTiff, Picture, Tiff
from benchmarks.fuzz.targets.models import Checkpoints, ModelFolder, ModelJson, TrainingSettings
from benchmarks.fuzz.targets.stores import OmeZarr, Store
from benchmarks.fuzz.targets.typed import CommandLines, Regions

__all__ = ["TARGETS", "Regions", "Target"]

TARGETS: dict[str, type[Target]] = {
    "model-json": ModelJson,
    "model-folder": ModelFolder,
    "store": Store,
    "nifti": Nifti,
    "nifti-gz": NiftiGz,
    "ome-tiff": OmeTiff,
    "tiff": Tiff,
    "picture": Picture,
    "dicom": Dicom,
    "ome-zarr": OmeZarr,
    "checkpoints": Checkpoints,
    "training": TrainingSettings,
    "regions": Regions,
    "command-lines": CommandLines,
}
