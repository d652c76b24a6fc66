"""Seconds and peak memory of `napari-msgan generate` on whole images, in a table.

    python benchmarks/end_to_end.py IMAGE:MODEL[:SCALE] ... [--precision fp32 bf16]

Each run is a process of its own, start-up and sketch included; memory is the largest resident
size of that process (on Linux with mapped files, so it also counts the page cache it looks at).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np

from napari_msgan import open_pyramid


def run(image: str, model: str, scale: str | None, precision: str) -> dict[str, str]:
    """Return one row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.ome.zarr"
        command = [sys.executable, "-m", "napari_msgan", "generate", image, str(out)]
        command += ["--model", model, "--precision", precision, "--quiet"]
        command += ["--scale", scale] if scale else []
        started = time.monotonic()
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        if status:
            raise SystemExit(f"failed: {' '.join(command)}")
        store = open_pyramid(out)
        shape = store.geometry.shape
        voxels = int(np.prod(shape))
        return {
            "image": Path(image).name,
            "model": model,
            "result": " x ".join(map(str, shape)),
            "precision": precision,
            "seconds": f"{seconds:.1f}",
            "Mvoxel/s": f"{voxels / seconds / 1e6:.2f}",
            "CPU seconds": f"{usage.ru_utime + usage.ru_stime:.1f}",
            "peak memory (MB)": f"{usage.ru_maxrss / 1024:.0f}",
        }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("jobs", nargs="+", metavar="IMAGE:MODEL[:SCALE]")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    options = parser.parse_args()
    rows = []
    for job in options.jobs:
        image, model, *scale = job.split(":")
        for precision in options.precision:
            rows.append(run(image, model, scale[0] if scale else None, precision))
            print(json.dumps(rows[-1]), file=sys.stderr)
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, no GPU used\n")
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(row.values()) + " |")


if __name__ == "__main__":
    main()
