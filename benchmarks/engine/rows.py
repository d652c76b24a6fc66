"""The rows of the table, and the process that measures one of them.

python -m benchmarks.engine.rows '{"row": "limit", "ndim": 2, ...}'
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.engine import ours, peers
from benchmarks.engine.measure import Made, Meter, difference
from benchmarks.engine.scene import Job, Scene, prepare_image, prepare_store

if TYPE_CHECKING:
    from collections.abc import Callable

BOTH = ("fp32", "bf16")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    prepare : returns the function that is measured.
    environment : additional environment variables of its process.
    """

    title: str
    prepare: Callable[[Job], Callable[[], Made]]
    precisions: tuple[str, ...] = ("fp32",)
    ndims: tuple[int, ...] = (2, 3)
    needs_store: bool = True
    environment: dict[str, str] = field(default_factory=dict)


#: glibc gives large buffers back at every layer; with these it keeps them.
KEPT_PAGES = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}

ROWS = {
    "limit": Row("bare network, resident tiles", ours.bare_network, BOTH),
    "limit-kept": Row(
        "bare network, memory kept by malloc", ours.bare_network, BOTH, environment=KEPT_PAGES
    ),
    "refine": Row("napari-msgan, refine: store to store", ours.refine_job, BOTH),
    "refine-again": Row("the same, not the first of its process", ours.refine_job_again, BOTH),
    "monai-constant": Row("MONAI SlidingWindowInferer, 0.25", peers.monai_constant),
    "monai-gaussian": Row("MONAI SlidingWindowInferer, 0.5 gaussian", peers.monai_gaussian),
    "monai-patches": Row("MONAI PatchInferer to Zarr, 0.25", peers.monai_patches),
    "torchio": Row("TorchIO GridAggregator, crop", peers.torchio_crop),
    "torch-em": Row("torch-em predict_with_halo to Zarr", peers.torch_em_halo),
    "torch-em-pipelined": Row(
        "torch-em predict_with_halo_pipelined to Zarr", peers.torch_em_pipelined
    ),
    "tiler": Row("tiler, overlap-tile", peers.tiler_overlap),
    "authors": Row(
        "the authors' layout, all threads", ours.authors_all_threads, ndims=(3,), needs_store=False
    ),
    "authors-workers": Row(
        "the authors' layout, our workers", ours.authors_workers, ndims=(3,), needs_store=False
    ),
    "program": Row(
        "napari-msgan generate: image to OME-Zarr", ours.whole_program, BOTH, needs_store=False
    ),
    "refine-gpu": Row("refine on a GPU", partial(ours.refine_job, device="cuda"), BOTH),
    "refine-gpu-again": Row(
        "the same, not the first of its process",
        partial(ours.refine_job_again, device="cuda"),
        BOTH,
    ),
    "program-gpu": Row(
        "generate on a GPU: image to OME-Zarr",
        partial(ours.whole_program, device="cuda"),
        BOTH,
        needs_store=False,
    ),
}
#: What a computer without a GPU cannot measure.
ON_GPU = ("refine-gpu", "refine-gpu-again", "program-gpu")


def measure(row: Row, scene: Scene, precision: str) -> dict[str, float]:
    """Return the columns of one run."""
    with tempfile.TemporaryDirectory(dir=scene.folder) as folder:
        run = row.prepare(Job(scene, precision, Path(folder)))
        with Meter() as meter:
            made = run()
        columns = {
            "seconds": meter.seconds,
            "cpu_s": meter.cpu_s,
            "peak_mb": meter.peak_bytes / 1e6,
            **made.columns,
        }
        columns["mvoxel_s"] = made.voxels / columns["seconds"] / 1e6
        columns["bytes_per_voxel"] = columns["peak_mb"] * 1e6 / scene.voxels
        if made.read is not None and scene.has_answer:
            low, high = scene.store().info.window
            whole = np.load(scene.whole, mmap_mode="r")
            columns["largest_difference"], columns["equal_share"] = difference(
                made.read, whole, high - low
            )
    return columns


def main() -> None:
    """Prepare what a row needs, or measure it and print its columns as JSON."""
    order = json.loads(sys.argv[1])
    sample = Path(order["sample"]) if order["sample"] else None
    scene = Scene(Path(order["work"]), order["ndim"], order["size"], sample)
    row = ROWS[order["row"]]
    if order["precision"] is None:
        (prepare_store if row.needs_store else prepare_image)(scene)
        return
    print(json.dumps(measure(row, scene, order["precision"])))


if __name__ == "__main__":
    main()
