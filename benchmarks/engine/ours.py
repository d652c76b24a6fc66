"""Rows of this project: the bare network, the refine job, the whole program, the authors' layout.

Each function prepares a row and returns the function that is measured.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.engine.measure import Made, Meter, measure_process
from benchmarks.engine.scene import MODELS, Job, network_inputs, window_of
from napari_msgan import refine
from napari_msgan.geometry import Box
from napari_msgan.networks.megan import MeganPatchGenerator
from napari_msgan.networks.patchwork import PATCH, iter_patches
from napari_msgan.pyramid._level import Level
from napari_msgan.volume import read_padded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CORES = len(os.sched_getaffinity(0))
_TILES_PER_WORKER = 4
#: What the first job of a process imports; no row counts imports.
_IMPORTED_LATE = (
    "filelock",
    "napari_msgan.packed_sizes",
    "napari_msgan.zarr_folder",
    "psutil",
    "zarr",
)
_AUTHORS_WIDTH = 64  # in their scripts
_START = "import napari_msgan.jobs, napari_msgan.io.nifti, napari_msgan.io.tiff, torch"


def bare_network(job: Job) -> Callable[[], Made]:
    """Run tiles from memory through the network, one single-threaded worker per core: the limit.

    The first tile of each worker is not measured. Inputs are converted, outputs discarded.
    """
    store, model = job.scene.store(), job.scene.model()
    scale = store.geometry.finest_scale
    network, window = model.generator(scale), window_of(store)
    tiles = store.tiling.tiles(scale, Box.of_shape(store.geometry.shape))
    inputs = []
    for tile in tiles[: 2 * CORES]:
        boxes = store.tiling.windows(tile)
        assert boxes.coarse is not None
        coarse = read_padded(store.array(scale - 1), boxes.coarse.start, boxes.coarse.stop)
        sketch = read_padded(store.sketch_array(scale), boxes.sketch.start, boxes.sketch.stop)
        inputs.append(network_inputs(window, coarse, sketch))

    def compute(number: int) -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, job.precision == "bf16"):
            network(*inputs[number % len(inputs)])

    count = CORES * max(_TILES_PER_WORKER, -(-len(tiles) // CORES))
    return _steady(compute, count * int(np.prod(store.info.tile_shape)), count, CORES, 1)


def refine_job(job: Job, device: str = "cpu") -> Callable[[], Made]:
    """Open a store without its finest scale, refine it, and wait until it is on disk.

    On a GPU, `gpu_mb` is the most memory that torch reserved there, because that includes the
    memory of recordings even while nothing is in it.
    """
    model = job.scene.model()
    for name in _IMPORTED_LATE:
        import_module(name)
    path = job.folder / "store.ome.zarr"
    job.scene.copy_store(path)

    def run() -> Made:
        with _counted_reads() as reads:
            store = refine(path, model=model, device=device, precision=job.precision)
        array, finest = store.array(store.geometry.finest_scale), store.n_scales - 1
        columns = {
            "coarse_reads": _per_chunk(reads, "1", store.array(finest - 1)),
            "sketch_reads": _per_chunk(reads, "sketch/0", store.sketch_array(finest)),
        }
        if device != "cpu":
            columns["gpu_mb"] = torch.cuda.max_memory_reserved(device) / 1e6
        return Made(job.scene.voxels, lambda rows: np.asarray(array[rows]), columns)

    return run


def refine_job_again(job: Job, device: str = "cpu") -> Callable[[], Made]:
    """Repeat that in a process that has done it before, as in napari or when used as a library."""
    refine_job(job, device)()
    shutil.rmtree(job.folder / "store.ome.zarr")
    return refine_job(job, device)


def whole_program(job: Job, device: str = "cpu") -> Callable[[], Made]:
    """Run ``napari-msgan generate`` on the image file: sketch, all scales, OME-Zarr on disk.

    `start_s` is the time of a process that only imports what `generate` needs and loads the model;
    memory is the excess over that process.
    """
    scene = job.scene

    def run() -> Made:
        load = f"{_START}; import napari_msgan; napari_msgan.load_model({MODELS[scene.ndim]!r})"
        start = measure_process([sys.executable, "-c", load])
        out = str(job.folder / "out.ome.zarr")
        command = [sys.executable, "-m", "napari_msgan", "generate", str(scene.image), out]
        command += ["--model", MODELS[scene.ndim], "--precision", job.precision, "--quiet"]
        columns = measure_process([*command, "--device", device])
        columns["peak_mb"] -= start["peak_mb"]
        return Made(scene.voxels, None, {**columns, "start_s": start["seconds"]})

    return run


def authors_all_threads(job: Job) -> Callable[[], Made]:
    """Run patches of the authors' generator one by one on all cores, as in their program."""
    return _authors(job, workers=1, threads=CORES)


def authors_workers(job: Job) -> Callable[[], Made]:
    """Run the same patches with single-threaded workers, as we compute tiles."""
    return _authors(job, workers=CORES, threads=1)


def _authors(job: Job, *, workers: int, threads: int) -> Callable[[], Made]:
    """Time some patches; the voxels are their share of the patches that the image needs.

    Nothing is read, averaged or written, and the weights are random: both are in their favour or
    without effect. In their tiling a patch of 32^3 starts every 20 voxels.
    """
    scene = job.scene
    torch.manual_seed(0)
    network = MeganPatchGenerator(_AUTHORS_WIDTH).eval()
    shape = (scene.size,) * scene.ndim
    needed = sum(1 for _ in iter_patches(shape, Box.of_shape(shape), (2,) * scene.ndim))
    inputs = torch.rand(2, 1, 1, *(PATCH,) * scene.ndim)

    def compute(_: int) -> None:
        with torch.inference_mode():
            network(*inputs)

    count = _TILES_PER_WORKER * CORES
    return _steady(compute, round(scene.voxels * count / needed), count, workers, threads)


def _steady(
    compute: Callable[[int], None], voxels: int, count: int, workers: int, threads: int
) -> Callable[[], Made]:
    """Return what computes `count` pieces with workers that have computed one each already."""

    def run() -> Made:
        with ThreadPoolExecutor(
            workers, initializer=torch.set_num_threads, initargs=(threads,)
        ) as pool:
            list(pool.map(compute, range(workers)))
            with Meter() as meter:
                list(pool.map(compute, range(count)))
        return Made(voxels, None, {"seconds": meter.seconds, "cpu_s": meter.cpu_s})

    return run


@contextmanager
def _counted_reads() -> Iterator[Counter[str]]:
    """Count how many chunks of each level are read."""
    reads: Counter[str] = Counter()
    plain = Level.read_chunk

    lock = Lock()

    def read_chunk(self: Level, index: tuple[int, ...]) -> Any:
        with lock:
            reads[self.key] += 1
        return plain(self, index)

    Level.read_chunk = read_chunk  # type: ignore[method-assign]
    try:
        yield reads
    finally:
        Level.read_chunk = plain  # type: ignore[method-assign]


def _per_chunk(reads: Counter[str], key: str, array: Any) -> float:
    return reads[key] / array.nchunks
