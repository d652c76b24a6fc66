"""What a tile, a voxel of sketch and a stored voxel cost on this machine, measured once.

A process of its own makes a small image with all workers busy, and says what that took: so
nothing else is in its memory, and its threads are set as those of a real run.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil  # type: ignore[import-untyped]
from pydantic import ValidationError
from scipy import ndimage

from napari_msgan import __version__
from napari_msgan.buffers import private_bytes
from napari_msgan.config import Precision, Settings
from napari_msgan.durable import write_atomically
from napari_msgan.errors import JobError
from napari_msgan.geometry import Affine
from napari_msgan.jobs import iter_generate
from napari_msgan.model import load_folder
from napari_msgan.sketch import lazy_unit, measure_thresholds
from napari_msgan.source import plan_source
from napari_msgan.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from napari_msgan.config import ModelSpec
    from napari_msgan.jobs import Progress
    from napari_msgan.model import Model
    from napari_msgan.pyramid import PyramidStore
    from napari_msgan.source import SourcePlan

#: Tiles that each worker makes: the first ones warm up and are not timed.
_ROUNDS = 3
_SAMPLE_EVERY_S = 0.003


class Calibration(Settings):
    """Costs on this machine; seconds are of the clock, with all workers busy.

    start_s : until the program and the model are loaded, and at its end until the process is gone.
    warm_up_s : what the first sketch of a process takes beside its voxels.
    sketch_s, threshold_s : per voxel of the finest scale, and per voxel that is sampled.
    first_s, first_bytes : per voxel of scale 0.
    tile_s : of one tile of scale `scale`; N workers make N tiles in N times that.
    sample_first_s, sample_tiles_s : of scale 0 and of all other tiles of the sample, the first tile
        of each scale and worker included, which takes longer than others.
    sample_first, sample_tiles : voxels of its scale 0, and tiles of each scale from 0 on.
    base_bytes : of the process with its model.
    sketch_bytes : that making a sketch takes on top.
    tile_bytes : that a worker takes on top while it makes a tile, without chunks that are kept.
    stored_image, stored_sketch : bytes on the disk per voxel.
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
    """Return what is known of this model on this machine; measure it if nothing is, or `again`.

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
    command = [sys.executable, "-m", "napari_msgan.calibrating", *arguments]
    # as the terminal program does before it imports numpy
    environment = os.environ | {"MALLOC_ARENA_MAX": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    gone = time.monotonic()  # the same clock for all processes of a computer
    try:
        text, told = ended.stdout.split()
        found = Calibration.model_validate_json(text)
        found = found.model_copy(update={"start_s": found.start_s + gone - float(told)})
    except ValueError as error:  # what pydantic raises is one, too
        said = (ended.stderr.strip() or "nothing").splitlines()[-1]
        raise JobError(f"this machine could not be measured; the process said: {said}") from error
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, found.model_dump_json(indent=2).encode())
    return found


def calibration_file(model: Model, device: str, precision: Precision, workers: int) -> Path:
    """Return where the measurement of a model under these conditions is kept."""
    import torch
    from platformdirs import user_cache_path

    machine = [platform.node(), platform.machine(), os.cpu_count(), torch.__version__, __version__]
    key = json.dumps([model.spec.identity, *machine, device, precision, workers])
    name = hashlib.sha256(key.encode()).hexdigest()[:20]
    return user_cache_path("napari-msgan", appauthor=False) / "calibration" / f"{name}.json"


def read_calibration(file: Path) -> Calibration | None:
    """Return what a file holds; None if there is none, or it is not of this version."""
    try:
        return Calibration.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def measure(model: Model, device: str, precision: Precision, workers: int) -> Calibration:
    """Make a small image and return what it cost; in a process that has done nothing before."""
    process = psutil.Process()
    start_s = time.time() - process.create_time()
    base = private_bytes()
    volume = sample_volume(model.spec, workers)
    plan = plan_source(volume, model.spec, _scale_to_measure(model.spec))
    sample_bytes = private_bytes() - base
    times: dict[int, list[float]] = {}

    def begin(source: Volume, name: str) -> tuple[Generator[Progress, None, PyramidStore], float]:
        """Return the steps after the sketch, and the seconds that it took."""
        planned = plan_source(source, model.spec, _scale_to_measure(model.spec))
        begun = time.monotonic()
        steps = iter_generate(
            source,
            Path(folder, name),
            model,
            scale=planned.geometry.finest_scale,
            device=device,
            precision=precision,
            workers=workers,
        )
        next(step for step in steps if step.stage == "sketch" and step.done == step.total)
        return steps, time.monotonic() - begun

    with tempfile.TemporaryDirectory(prefix="napari-msgan-") as folder:
        small = tuple(slice(0, n // 4) for n in model.spec.tile_shape)
        piece = Volume(volume.data[small], volume.affine, volume.unit)
        cold_steps, cold_s = begin(piece, "piece.ome.zarr")
        cold_steps.close()
        with _peak() as sketch_peak:
            steps, sketch_s = begin(volume, "sample.ome.zarr")
        warm_steps, warm_s = begin(piece, "warm.ome.zarr")
        warm_steps.close()
        begun = time.monotonic()
        with _peak() as tile_peak:
            for step in steps:
                if step.report is not None:
                    times.setdefault(step.report.tile.scale, []).append(time.monotonic())
        store = step.store
        assert store is not None
        stored = [_bytes_per_voxel(store, sketch=kind) for kind in (False, True)]
    threshold_s = _threshold_seconds(plan, model.spec, workers)
    ends = times[plan.geometry.finest_scale]
    first_s, first_bytes = _measure_first(model)
    n_voxels, n_small = math.prod(plan.geometry.shape), math.prod(piece.shape)
    # What every sketch takes, however small, is in both: it must not count for each voxel.
    both_s = max(0.0, sketch_s - warm_s) / (n_voxels - n_small)
    sampled = sum(math.prod(plan.geometry.shape_at(s)) for s in range(plan.geometry.n_scales))
    return Calibration(
        start_s=start_s,
        warm_up_s=max(0.0, cold_s - both_s * n_small),
        sketch_s=max(0.0, both_s - threshold_s * sampled / n_voxels / workers),
        threshold_s=threshold_s,
        first_s=first_s,
        tile_s=(ends[-1] - ends[workers - 1]) / (len(ends) - workers),
        sample_first_s=times[0][-1] - begun,
        sample_tiles_s=ends[-1] - times[0][-1],
        sample_first=math.prod(plan.geometry.shape_at(0)),
        sample_tiles=tuple(len(times[s]) for s in range(plan.geometry.n_scales)),
        scale=plan.geometry.finest_scale,
        base_bytes=base,
        sketch_bytes=max(0, sketch_peak[0] - base - sample_bytes),
        first_bytes=first_bytes,
        tile_bytes=max(0, tile_peak[0] - base - sample_bytes) // workers,
        stored_image=stored[0],
        stored_sketch=stored[1],
    )


def _scale_to_measure(spec: ModelSpec) -> int | None:
    """Return the last scale, so that scale 0 is small beside the tiles; None: the image decides."""
    return None if spec.kind == "relative" else spec.n_scales - 1


def sample_volume(spec: ModelSpec, workers: int) -> Volume:
    """Return smooth noise in a disc or cylinder, of enough tiles for all workers."""
    tiles = [1] * len(spec.axes)
    while math.prod(tiles) < _ROUNDS * workers:
        tiles[-1 - (tiles[-1] > tiles[-2])] += 1
    shape = tuple(n * t for n, t in zip(spec.tile_shape, tiles, strict=True))
    noise = np.random.default_rng(0).random(shape, np.float32)
    noise = ndimage.gaussian_filter(noise, 1.5) + 0.3 * ndimage.gaussian_filter(noise, 6)
    noise = (noise - noise.min()) / np.ptp(noise)
    y, x = (np.linspace(-1, 1, n) for n in shape[-2:])
    outside = y[:, None] ** 2 + x**2 > 0.8
    low, high = spec.window
    values = low + (high - low) * np.where(outside, 0.01 * noise, 0.2 + 0.6 * noise)
    data = values.astype(spec.dtype)
    scale = spec.scales[_scale_to_measure(spec) or 0]
    if scale.spacing_mm is None:
        return Volume(data, Affine.of_spacing((1.0,) * len(shape)), "pixel")
    return Volume(data, Affine.of_spacing(scale.spacing_mm), "millimeter")


def _threshold_seconds(plan: SourcePlan, spec: ModelSpec, workers: int) -> float:
    """Return seconds per voxel and thread, with all workers busy."""
    unit = lazy_unit(plan.volume.data, *spec.window)
    begun = time.monotonic()
    measure_thresholds(unit, spec.sketch, workers)
    return (time.monotonic() - begun) * workers / math.prod(unit.shape)


def _measure_first(model: Model) -> tuple[float, float]:
    """Return seconds and bytes (of this process) per voxel of scale 0, computed with one thread."""
    import torch

    factor = model.factor(1)
    shape = (model.spec.base_size,) * len(factor)
    generator = model.generator(0)
    device = next(generator.parameters()).device
    fine = [n * f for n, f in zip(shape, factor, strict=True)]
    sketch = torch.zeros((1, 1, *fine), device=device)
    torch.set_num_threads(1)
    with torch.inference_mode():
        before = private_bytes()
        with _peak() as peak:
            generator(sketch).cpu()
            begun = time.monotonic()
            generator(sketch).cpu()  # waits for a GPU
            seconds = time.monotonic() - begun
    return seconds / math.prod(shape), max(0, peak[0] - before) / math.prod(shape)


def _bytes_per_voxel(store: PyramidStore, *, sketch: bool) -> float:
    folder = store.path / ("sketch/0" if sketch else "0")
    n_bytes = sum(file.stat().st_size for file in (folder / "c").rglob("*") if file.is_file())
    return n_bytes / math.prod(store.geometry.shape)


@contextmanager
def _peak() -> Iterator[list[int]]:
    """Give a list whose only item is the largest memory seen while the body runs."""
    peak, ended = [private_bytes()], threading.Event()

    def watch() -> None:
        while not ended.wait(_SAMPLE_EVERY_S):
            peak[0] = max(peak[0], private_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        ended.set()
        watcher.join()


def _main() -> None:
    folder, device, precision, workers = sys.argv[1:]
    warnings.simplefilter("ignore")
    model = load_folder(Path(folder))
    kind: Precision = "bf16" if precision == "bf16" else "fp32"
    print(measure(model, device, kind, int(workers)).model_dump_json(), time.monotonic())


if __name__ == "__main__":
    _main()
