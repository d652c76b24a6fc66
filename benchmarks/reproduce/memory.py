"""Peak memory of generating and training against the size of the image.

Every number comes from a fresh process that is watched from outside. It counts anonymous memory
(which a process cannot give back) above that of the idle process, which has imported everything but
not read any data; mapped files do not count, because the system drops their pages when it needs
memory.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
import psutil
import tifffile

from benchmarks.memory import memory_of
from benchmarks.reproduce.figures import read_csv, write_csv
from benchmarks.reproduce.pictures import memory_plot

_LOG = logging.getLogger("reproduce")
SIZES = {2: (256, 512, 1024, 2048), 3: (64, 128, 256, 512)}
JOBS = ("generate", "generate, one worker", "train", "train the whole image at once")
_GENERATE, _ONE_WORKER, _TRAIN, _WHOLE = JOBS
_MODELS = {2: "chest-xray", 3: "thorax-ct"}
_VOXEL_MM = 0.75
_MEMORY_SHARE = 0.7
_SAMPLE_S = 0.004
#: As the terminal program begins: threads that come with imports have no memory of their own.
_RUN = """
from napari_msgan.buffers import share_one_arena
share_one_arena()
from benchmarks.reproduce.memory import run_job
run_job()
"""
_STEPS = 3


def measure_memory(places, longest):
    """Measure what is not yet in the table, and publish it.

    Parameters
    ----------
    longest : largest side by number of axes.
    """
    path = places.work / "memory" / "memory.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = read_csv(path) if path.exists() else []
    there = {(row["job"], int(row["axes"]), int(row["size"])) for row in rows}
    for ndim, sizes in SIZES.items():
        for size in (n for n in sizes if n <= longest[ndim]):
            for job in JOBS:
                if (job, ndim, size) not in there:
                    rows.append(_measure(job, ndim, size, rows))
                    write_csv(path, rows)
    rows = read_csv(path)
    write_csv(places.part("memory") / "memory.csv", rows)
    memory_plot(rows, places.picture("memory.png"))


def _measure(job, ndim, size, before):
    row = {"job": job, "axes": ndim, "size": size, "peak_mb": "", "seconds": ""}
    expected_mb = in_proportion(job, ndim, size, before) if job == _WHOLE else 0
    if expected_mb > _MEMORY_SHARE * psutil.virtual_memory().total / 1e6:
        _LOG.info("memory: %s, %d-D, %d: needs more than there is", job, ndim, size)
        return row | {"needs_mb": round(expected_mb)}
    with tempfile.TemporaryDirectory() as folder:
        image = _write_image(Path(folder), ndim, size)
        peak_mb, seconds = watch_job([sys.executable, "-c", _RUN, job, str(ndim), str(size), image])
    found = {"peak_mb": round(peak_mb), "seconds": round(seconds, 1)}
    _LOG.info("memory: %s, %d-D, %d: %s", job, ndim, size, found)
    return row | found | {"needs_mb": ""}


def watch_job(command):
    """Return the most memory (MB) above idle, and the seconds, of a process.

    The process prints a line when it is idle, and begins when it is sent one.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        is_idle = process.stdout.readline()
        idle, _ = memory_of(process.pid)
        most, begun = idle, time.monotonic()
        if is_idle:
            process.stdin.write(b"begin\n")
            process.stdin.close()
        while process.poll() is None:
            most = max(most, memory_of(process.pid)[0])
            time.sleep(_SAMPLE_S)
    if process.returncode:
        raise SystemExit(f"{command[3:]} failed with {process.returncode}")
    return (most - idle) / 1e6, time.monotonic() - begun


def run_job():
    """Run one job in this process once standard input says so."""
    from napari_msgan import generate
    from napari_msgan.training import iter_train, survey
    from napari_msgan.training.gan import Batch, ScaleGan
    from napari_msgan.training.run import open_fabric
    from napari_msgan.training.samples import Sample

    job, ndim, size, image = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    print("ready", flush=True)
    sys.stdin.readline()
    if job in (_GENERATE, _ONE_WORKER):
        with tempfile.TemporaryDirectory() as out:
            workers = 1 if job == _ONE_WORKER else None
            store = Path(out) / "out.ome.zarr"
            generate(image, store, _MODELS[ndim], device="cpu", workers=workers)
    elif job == _TRAIN:
        config = _training_config(ndim, size)
        with tempfile.TemporaryDirectory() as out:
            for _ in iter_train(survey(image.parent, config), Path(out), config):
                pass
    else:
        config = _whole_config(ndim, size)
        gan = ScaleGan(config, 0, open_fabric(config))
        blank = np.zeros((size,) * ndim, np.float32)
        batch = Batch.of([Sample(blank, blank)], gan.fabric.device)
        for step in range(_STEPS):
            gan.step(step, batch)


def _training_config(ndim, size):
    """Return the settings of the bundled model for a few steps with one image."""
    from benchmarks.reproduce.data import bundled_config
    from napari_msgan.source import n_scales_of

    config = bundled_config(_MODELS[ndim])
    n_scales = len(config.scales) if ndim == 3 else n_scales_of(size, config.base_size, 2)
    plans = [
        p.model_copy(update={"steps": _STEPS, "gan_from": 0.0}) for p in config.scales[:n_scales]
    ]
    few = {"scales": tuple(plans), "pool": 8, "variants": 1, "zoom": (1.0, 1.0)}
    return config.model_copy(update=few | {"include": ("*",), "validation_every": 0})


def _whole_config(ndim, size):
    from benchmarks.reproduce.data import bundled_config

    config = bundled_config(_MODELS[ndim])
    changes = {"factor": (1,) * ndim, "batch": 1, "patch_shape": (size,) * ndim}
    plan = config.scales[0].model_copy(update=changes | {"steps": _STEPS, "gan_from": 0.0})
    return config.model_copy(update={"scales": (plan, plan)})


def in_proportion(job, ndim, size, before):
    """Extrapolate memory to a size in proportion to voxels, from the largest measured size."""
    measured = [
        row
        for row in before
        if row["job"] == job and int(row["axes"]) == ndim and row["peak_mb"] != ""
    ]
    if not measured:
        return 0.0
    largest = max(measured, key=lambda row: int(row["size"]))
    return float(largest["peak_mb"]) * (size / int(largest["size"])) ** ndim


def _write_image(folder, ndim, size):
    """Write an image with edges everywhere; its pattern repeats, so that it costs no memory."""
    random = np.random.default_rng(0)
    period = min(size, 64)
    grid = np.indices((period,) * ndim) * (2 * np.pi / period)
    waves = sum(np.sin(k * g + p) for g in grid for k, p in ((1, 0), (3, 1), (7, 2)))
    pattern = waves + random.normal(0, 0.2, (period,) * ndim)
    if ndim == 2:
        path = folder / "image.tif"
        grey = np.uint8(127 + 127 * pattern / np.abs(pattern).max())
        tifffile.imwrite(path, np.tile(grey, (size // period,) * 2))
        return path
    path = folder / "image.nii"
    hounsfield = np.int16(-200 + 800 * pattern / np.abs(pattern).max())
    affine = np.diag([-_VOXEL_MM, -_VOXEL_MM, _VOXEL_MM, 1])
    volume = nibabel.Nifti1Image(np.tile(hounsfield, (size // period,) * 3), affine)
    volume.header.set_xyzt_units("mm")
    nibabel.save(volume, path)
    return path
