"""Tiles per second on a Dask cluster on this computer, and the cost of handing out a call.

    python benchmarks/cluster.py [--workers 1 2] [--calls 2000] [--blocks 6] [--csv FILE]

Every worker is a process with one thread. Throughput: all tiles of one scale of a 3-D image, made
by a network with random weights (its speed does not depend on them), counted from the first to the
last finished tile, so that starting the workers is left out. Overhead: calls that do nothing, sent
the same way as tiles. The scheduler runs in this process, so its memory is that of this process.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import psutil
import torch

from napari_msgan import generate, open_pyramid
from napari_msgan.config import LowResNetwork, ModelSpec, PatchNetwork, ScaleSpec
from napari_msgan.geometry import Affine, Box
from napari_msgan.jobs import iter_refine
from napari_msgan.model import save_spec, save_weights
from napari_msgan.networks import build_generator
from napari_msgan.scale_out import Cluster, open_cluster
from napari_msgan.scale_out.calls import Calls
from napari_msgan.sketch_settings import SketchSettings
from napari_msgan.volume import Volume

_TILE = 64


def write_model(folder: Path) -> Path:
    """Write a 3-D model of two scales with random weights."""
    folder.mkdir()
    torch.manual_seed(0)
    scales = []
    networks: list[LowResNetwork | PatchNetwork] = [LowResNetwork(widths=(4, 8)), PatchNetwork()]
    for index, network in enumerate(networks):
        file = f"scale_{index}.safetensors"
        digest = save_weights(build_generator(network, (2, 2, 2)), folder / file)
        spacing = (2.0 - index,) * 3
        scales.append(
            ScaleSpec(
                network=network, factor=(2, 2, 2), spacing_mm=spacing, file=file, sha256=digest
            )
        )
    spec = ModelSpec(
        name="benchmark",
        kind="physical",
        axes=("z", "y", "x"),
        orientation="LPS",
        modality="CT",
        base_size=32,
        scales=tuple(scales),
        tile_shape=(_TILE,) * 3,
        chunk_shape=(_TILE // 2,) * 3,
        sketch=SketchSettings.of_ndim(3),
        window=(-1000, 600),
        dtype="int16",
    )
    save_spec(spec, folder)
    return folder


def make_store(folder: Path, blocks: int) -> Path:
    """Make a store of ``blocks ** 3`` tiles with only scale 0, and return its path."""
    size = blocks * _TILE
    ramp = np.linspace(-900, 500, size, dtype=np.float32)
    waves = (ramp[:, None, None] + 300 * np.sin(ramp / 9)[None, :, None] + ramp * 0).astype(
        np.int16
    )
    source = Volume(waves, Affine.of_spacing((1.0,) * 3), "millimeter")
    model = write_model(folder / "model")
    return generate(source, folder / "store.ome.zarr", model, scale=0, finest=1, device="cpu").path


def tiles_per_second(cluster: Cluster, store: Path) -> float:
    """Clear scale 1, make it again and return its tiles per second."""
    opened = open_pyramid(store, writable=True)
    with opened.writing():
        opened.clear(1, Box.of_shape(opened.geometry.shape))
    ends = [time.monotonic() for _ in iter_refine(opened, cluster=cluster)]
    return (len(ends) - 1) / (ends[-1] - ends[0])


def overhead(cluster: Cluster, n_calls: int) -> dict[str, float]:
    """Return the cost of a call that does nothing, and the bytes that the scheduler keeps of it."""
    calls: Calls[int] = Calls(cluster, str)
    own = psutil.Process()
    begun = ended = 0
    wall, busy, memory = time.monotonic(), time.process_time(), own.memory_info().rss
    while ended < n_calls:
        while begun < n_calls and len(calls) < calls.capacity:
            calls.begin(begun, len, (begun,), rank=begun)
            begun += 1
        ended += len(calls.finished())
    return {
        "ms per call": 1e3 * (time.monotonic() - wall) / n_calls,
        "CPU ms per call (here)": 1e3 * (time.process_time() - busy) / n_calls,
        "bytes kept per call": (own.memory_info().rss - memory) / n_calls,
    }


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--blocks", type=int, default=6, help="tiles per axis of the volume")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, str]] = []
    first = 0.0
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder), options.blocks)
        for n in options.workers:
            with open_cluster(f"local:{n}") as cluster:
                overhead(cluster, 100)  # connections are made
                costs = overhead(cluster, options.calls)
                rate = tiles_per_second(cluster, store)
            first = first or rate
            rows.append({"workers": str(n), "tiles/s": f"{rate:.2f}"})
            rows[-1]["times the first"] = f"{rate / first:.2f}"
            rows[-1].update({name: f"{value:.2f}" for name, value in costs.items()})
            print(f"{n} workers: {rows[-1]}", flush=True)
    print(f"\n{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {date.today()}")
    print(f"tiles of {_TILE}^3, {options.blocks**3} of them; {options.calls} empty calls\n")
    print("| " + " | ".join(rows[0]) + " |")
    print("|---" * len(rows[0]) + "|")
    for row in rows:
        print("| " + " | ".join(row.values()) + " |")
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
