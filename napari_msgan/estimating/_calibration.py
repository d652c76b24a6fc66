"""What tiles, sketches and stored voxels cost on this machine, measured once."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from pydantic import ValidationError

from napari_msgan import __version__
from napari_msgan.computing import ARITHMETIC
from napari_msgan.durable import write_atomically
from napari_msgan.errors import JobError
from napari_msgan.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from napari_msgan.config import Precision
    from napari_msgan.model import Model


class Calibration(Settings):
    """Costs on this machine; seconds are wall time, with all workers busy.

    start_s : until program and model are loaded, plus at the end until the process is gone.
    warm_up_s : what the first sketch of a process takes in addition to its voxels.
    sketch_s, threshold_s : per voxel of the finest scale, and per sampled voxel.
    first_s, first_bytes : per voxel of scale 0.
    tile_s : for one tile of scale `scale`; N workers make N tiles in N times that.
    sample_first_s, sample_tiles_s : for scale 0 and for all other tiles of the sample, including
        the first tile of each scale and worker, which takes longer than others.
    sample_first, sample_tiles : voxels of the sample's scale 0, and its tiles per scale from 0 on.
    base_bytes : of the process with its model.
    sketch_bytes : what making a sketch takes in addition.
    tile_bytes : what a worker takes in addition while it makes a tile, without cached chunks.
    stored_image, stored_sketch : bytes on disk per voxel.
    """

    start_s: float
    warm_up_s: float
    sketch_s: float
    threshold_s: float
    first_s: float
    tile_s: float
    sample_first_s: float
    sample_tiles_s: float
    sample_first: int
    sample_tiles: tuple[int, ...]
    scale: int
    base_bytes: int
    sketch_bytes: int
    first_bytes: float
    tile_bytes: int
    stored_image: float
    stored_sketch: float


def calibrate(
    model: Model, device: str, precision: Precision, workers: int, *, again: bool = False
) -> Calibration:
    """Return the costs of this model on this machine, measured if they are unknown or `again`.

    Raises
    ------
    JobError
        If the measurement fails.
    """
    file = calibration_file(model, device, precision, workers)
    known = None if again else read_calibration(file)
    if known is not None:
        return known
    arguments = [str(model.folder.absolute()), device, precision, str(workers)]
    # -P: run nothing that lies in the current folder
    command = [sys.executable, "-P", "-m", "napari_msgan.estimating._measuring", *arguments]
    # as the terminal program sets it before importing numpy
    environment = os.environ | {"MALLOC_ARENA_MAX": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    gone = time.perf_counter()  # a clock that all processes of a computer share
    try:
        text, told = ended.stdout.split()
        found = Calibration.model_validate_json(text)
        found = found.model_copy(update={"start_s": found.start_s + gone - float(told)})
    except ValueError as error:  # includes pydantic's
        said = (ended.stderr.strip() or "nothing").splitlines()[-1]
        raise JobError(f"this machine could not be measured; the process said: {said}") from error
    with suppress(OSError):  # if it cannot be kept, it is measured again next time
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, found.model_dump_json(indent=2).encode())
    return found


def calibration_file(model: Model, device: str, precision: Precision, workers: int) -> Path:
    """Return the file that keeps the measurement of a model under these conditions."""
    import torch
    from platformdirs import user_cache_path

    kind = device if device == "cpu" else torch.cuda.get_device_name(device)
    machine = [platform.node(), platform.machine(), os.cpu_count(), torch.__version__, __version__]
    computed = precision, ARITHMETIC[precision]
    key = json.dumps([model.spec.identity, *machine, kind, *computed, workers])
    name = hashlib.sha256(key.encode()).hexdigest()[:20]
    return user_cache_path("napari-msgan", appauthor=False) / "calibration" / f"{name}.json"


def read_calibration(file: Path) -> Calibration | None:
    """Read a measurement; return None if the file cannot be read or has another layout."""
    try:
        return Calibration.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None
