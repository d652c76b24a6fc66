"""Estimated time, memory and disk space of a job, from one measurement of this machine."""

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
