"""Measures what the tiles of a model cost: ``python -m napari_msgan.estimating._measuring``.

A separate process makes a small image with all workers busy and reports what that took. Its memory
holds nothing else, and its threads are configured as in a real run.
"""

from __future__ import annotations

import copy
import math
import sys
import tempfile
import threading
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil  # type: ignore[import-untyped]
from scipy import ndimage

from napari_msgan.buffers import private_bytes
from napari_msgan.estimating._calibration import Calibration
from napari_msgan.geometry import Affine
from napari_msgan.jobs import iter_generate
from napari_msgan.model import load_folder
from napari_msgan.sketch import lazy_unit, measure_thresholds
from napari_msgan.source import plan_source
from napari_msgan.steps import cpu_threads
from napari_msgan.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from napari_msgan.config import ModelSpec, Precision
    from napari_msgan.jobs import Progress
    from napari_msgan.model import Model
    from napari_msgan.pyramid import PyramidStore

#: Tiles that each worker makes; the first ones warm up and are not timed.
_ROUNDS = 3
_SAMPLE_EVERY_S = 0.003


def measure(model: Model, device: str, precision: Precision, workers: int) -> Calibration:
    """Make a small image and return what it cost; call it first thing in a fresh process."""
    process = psutil.Process()
    start_s = time.time() - process.create_time()
    base = private_bytes()
    volume = sample_volume(model.spec, workers)
    geometry = plan_source(volume, model.spec, _scale_to_measure(model.spec)).geometry
    idle = private_bytes()
    run = _make_sample(volume, model, device, precision, workers)
    sketchers = cpu_threads(device, workers)
    threshold_s = _threshold_seconds(volume, model.spec, sketchers)
    first_s, first_bytes = _measure_first(model, device)
    n_voxels = math.prod(geometry.shape)
    # The fixed cost of any sketch, however small, is in both; it must not count per voxel.
    both_s = max(0.0, run.sketch_s - run.piece_warm_s) / (n_voxels - run.piece_voxels)
    sampled = sum(math.prod(geometry.shape_at(s)) for s in range(geometry.n_scales))
    ends = run.tile_ends[geometry.finest_scale]
    return Calibration(
        start_s=start_s,
        warm_up_s=max(0.0, run.piece_cold_s - both_s * run.piece_voxels),
        sketch_s=max(0.0, both_s - threshold_s * sampled / n_voxels / sketchers),
        threshold_s=threshold_s,
        first_s=first_s,
        tile_s=_seconds_between(ends, device, workers),
        sample_first_s=run.tile_ends[0][-1],
        sample_tiles_s=ends[-1] - run.tile_ends[0][-1],
        sample_first=math.prod(geometry.shape_at(0)),
        sample_tiles=tuple(len(run.tile_ends[s]) for s in range(geometry.n_scales)),
        scale=geometry.finest_scale,
        base_bytes=base,
        sketch_bytes=max(0, run.sketch_peak - idle),
        first_bytes=first_bytes,
        tile_bytes=max(0, run.tile_peak - idle) // workers,
        stored_image=run.stored_image,
        stored_sketch=run.stored_sketch,
    )


def _seconds_between(ends: Sequence[float], device: str, workers: int) -> float:
    """Return the seconds from tile to tile, leaving out those in which workers warm up.

    On a CPU that is each worker's first tile. On a GPU a worker first records its network, which
    takes as long as many tiles while the others go on; the quickest quarter is free of that.
    """
    if device == "cpu":
        return (ends[-1] - ends[workers - 1]) / (len(ends) - workers)
    rounds = np.subtract(ends[workers:], ends[:-workers])  # workers may finish together
    return float(np.quantile(rounds, 0.25)) / workers


@dataclass(frozen=True)
class _Run:
    """What making the sample took.

    piece_cold_s, piece_warm_s, piece_voxels : for the sketch of a small piece of the sample, as the
        first sketch of the process, and again after that of the whole sample.
    sketch_s, sketch_peak : for the sketch of the whole sample; bytes of the process meanwhile.
    tile_ends : per scale, seconds from the start of the first tile to the end of each tile.
    tile_peak : bytes of the process while tiles are made.
    stored_image, stored_sketch : bytes on disk per voxel.
    """

    piece_cold_s: float
    piece_warm_s: float
    piece_voxels: int
    sketch_s: float
    sketch_peak: int
    tile_ends: dict[int, list[float]]
    tile_peak: int
    stored_image: float
    stored_sketch: float


def _make_sample(
    volume: Volume, model: Model, device: str, precision: Precision, workers: int
) -> _Run:
    """Make the sample and a piece of it the way `napari_msgan.generate` does."""

    def sketched(
        source: Volume, out: Path
    ) -> tuple[Generator[Progress, None, PyramidStore], float]:
        """Return the steps that follow the sketch, and the seconds that the sketch took."""
        planned = plan_source(source, model.spec, _scale_to_measure(model.spec))
        begun = time.perf_counter()
        steps = iter_generate(
            source,
            out,
            model,
            scale=planned.geometry.finest_scale,
            device=device,
            precision=precision,
            workers=workers,
        )
        next(step for step in steps if step.stage == "sketch" and step.done == step.total)
        return steps, time.perf_counter() - begun

    small = tuple(slice(0, n // 4) for n in model.spec.tile_shape)
    piece = Volume(volume.data[small], volume.affine, volume.unit)
    ends: dict[int, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="napari-msgan-") as folder:
        cold_steps, cold_s = sketched(piece, Path(folder, "piece.ome.zarr"))
        cold_steps.close()
        with _peak() as sketch_peak:
            steps, sketch_s = sketched(volume, Path(folder, "sample.ome.zarr"))
        warm_steps, warm_s = sketched(piece, Path(folder, "warm.ome.zarr"))
        warm_steps.close()
        begun = time.perf_counter()
        with _peak() as tile_peak:
            for step in steps:
                if step.report is not None:
                    scale = step.report.tile.scale
                    ends.setdefault(scale, []).append(time.perf_counter() - begun)
        store = step.store
        assert store is not None
        return _Run(
            piece_cold_s=cold_s,
            piece_warm_s=warm_s,
            piece_voxels=math.prod(piece.shape),
            sketch_s=sketch_s,
            sketch_peak=sketch_peak[0],
            tile_ends=ends,
            tile_peak=tile_peak[0],
            stored_image=_bytes_per_voxel(store, sketch=False),
            stored_sketch=_bytes_per_voxel(store, sketch=True),
        )


def _scale_to_measure(spec: ModelSpec) -> int | None:
    """Return the last scale, beside whose tiles scale 0 is small; None if the image decides."""
    return None if spec.kind == "relative" else spec.n_scales - 1


def sample_volume(spec: ModelSpec, workers: int) -> Volume:
    """Return smooth noise in a disc or cylinder, with enough tiles for all workers."""
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


def _threshold_seconds(volume: Volume, spec: ModelSpec, workers: int) -> float:
    """Return the seconds per voxel and thread, with all workers busy."""
    unit = lazy_unit(volume.data, *spec.window)
    begun = time.perf_counter()
    measure_thresholds(unit, spec.sketch, workers)
    return (time.perf_counter() - begun) * workers / math.prod(unit.shape)


def _measure_first(model: Model, device: str) -> tuple[float, float]:
    """Return seconds and bytes (of this process) per voxel of scale 0, computed by one thread."""
    import torch

    factor = model.factor(1)
    shape = (model.spec.base_size,) * len(factor)
    generator = copy.deepcopy(model.generator(0)).to(device)
    fine = [n * f for n, f in zip(shape, factor, strict=True)]
    sketch = torch.zeros((1, 1, *fine), device=device)
    torch.set_num_threads(1)
    with torch.inference_mode():
        before = private_bytes()
        with _peak() as peak:
            generator(sketch).cpu()
            begun = time.perf_counter()
            generator(sketch).cpu()  # waits for the GPU
            seconds = time.perf_counter() - begun
    return seconds / math.prod(shape), max(0, peak[0] - before) / math.prod(shape)


def _bytes_per_voxel(store: PyramidStore, *, sketch: bool) -> float:
    folder = store.path / ("sketch/0" if sketch else "0")
    n_bytes = sum(file.stat().st_size for file in (folder / "c").rglob("*") if file.is_file())
    return n_bytes / math.prod(store.geometry.shape)


@contextmanager
def _peak() -> Iterator[list[int]]:
    """Provide a list whose only item is the largest memory seen in the body, in bytes."""
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
    print(measure(model, device, kind, int(workers)).model_dump_json(), time.perf_counter())


if __name__ == "__main__":
    _main()
