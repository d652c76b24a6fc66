"""Time, memory and disk of a job before it is run, from what this machine was measured to need."""

from napari_msgan.estimating._calibration import (
    Calibration,
    calibrate,
    calibration_file,
    read_calibration,
)
from napari_msgan.estimating._estimate import Estimate, Space, estimate, needed_cells, written_box

__all__ = [
    "Calibration",
    "Estimate",
    "Space",
    "calibrate",
    "calibration_file",
    "estimate",
    "needed_cells",
    "read_calibration",
    "written_box",
]
