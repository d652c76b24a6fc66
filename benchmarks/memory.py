"""Peak memory of every command above the idle process, by size of the image, in a table.

    python benchmarks/memory.py --ct 64 128 256 512 --xray 2048 8192 --csv memory.csv

Every run is a separate process. Peak is the largest sum of anonymous and shared memory (RssAnon and
RssShmem of /proc/PID/status, including child processes) in samples taken every few milliseconds.
Mapped pages of files do not count, as the system can reclaim them at any time; VmHWM, which counts
them, is printed beside it. Idle is a process that has imported what the command imports, and has
loaded the model if the command loads one. Rows already in the CSV file are not measured again.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path

import numpy as np

from napari_msgan.geometry import Affine, Box
from napari_msgan.io import read_volume, write_volume
from napari_msgan.resampling import interpolate
from napari_msgan.volume import LazyArray, Volume

SLOPE_BAR, TOTAL_BAR_MB = 0.1, 1500
SPACING_MM = 0.75
MODELS = {"ct": "thorax-ct", "xray": "chest-xray"}
SOURCES = {"ct": ("nii", "nii.gz", "ome.zarr"), "xray": ("tif", "ome.tif", "ome.zarr")}
EXPORTS = {"ct": ("nii", "nii.gz", "ome.tif", "ome.zarr"), "xray": ("nii", "ome.tif", "ome.zarr")}
_EVERY_S = 0.004
_LIBRARY = "import napari_msgan.jobs, napari_msgan.cli, napari_msgan.io.nifti, napari_msgan.io.tiff"
_IDLE = {
    "library": f"{_LIBRARY}, napari_msgan.io.ome_zarr",
    "ct": f"{_LIBRARY}; import napari_msgan as n; m = n.load_model('thorax-ct')",
    "xray": f"{_LIBRARY}; import napari_msgan as n; m = n.load_model('chest-xray')",
}


@dataclass(frozen=True)
class Row:
    """One measurement; memory in MB (10^6 bytes)."""

    image: str
    job: str
    precision: str
    voxels: int
    seconds: float
    idle_mb: float
    above_mb: float
    hwm_mb: float
    day: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.image, self.job, self.precision


@dataclass(frozen=True)
class Peak:
    """The most memory that a process took."""

    anonymous_mb: float
    hwm_mb: float
    seconds: float


def watch(command: list[str], *, until_line: bool = False) -> Peak:
    """Run a command and return its peak; with `until_line` only until it prints something."""
    begun = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE if until_line else subprocess.DEVNULL
    )
    anonymous = hwm = 0
    if until_line:
        assert process.stdout is not None
        process.stdout.readline()
        anonymous, hwm = memory_of(process.pid)
        process.kill()
        process.wait()
    else:
        while process.poll() is None:
            seen = memory_of(process.pid)
            anonymous, hwm = max(anonymous, seen[0]), max(hwm, seen[1])
            time.sleep(_EVERY_S)
        if process.returncode:
            raise SystemExit(f"failed with {process.returncode}: {' '.join(command)}")
    return Peak(anonymous / 1e6, hwm / 1e6, time.monotonic() - begun)


def memory_of(pid: int) -> tuple[int, int]:
    """Return anonymous and shared bytes, and VmHWM, of a process with its children."""
    anonymous = hwm = 0
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in ("RssAnon", "RssShmem"):
                anonymous += 1024 * int(rest.split()[0])
            elif name == "VmHWM":
                hwm = 1024 * int(rest.split()[0])
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        return anonymous, hwm
    for child in children:
        more = memory_of(child)
        anonymous, hwm = anonymous + more[0], hwm + more[1]
    return anonymous, hwm


def phantom(shape: tuple[int, ...], low: float, high: float, dtype: str) -> LazyArray:
    """Return smooth noise with ellipsoids and a little grain, computed as it is read."""
    rng = np.random.default_rng(5)
    grids = [rng.random((n,) * len(shape), np.float32) for n in (6, 24, 96)]
    centres = rng.uniform(0.2, 0.8, (24, len(shape)))
    radii = rng.uniform(0.03, 0.2, (24, len(shape)))
    levels = rng.uniform(-0.35, 0.35, 24)

    def read(box: Box) -> np.ndarray:
        result = np.empty(box.shape, dtype)
        for block in box.blocks((64,) * len(shape) if len(shape) == 3 else (512, 512)):
            values = np.zeros(block.shape, np.float32)
            for grid, weight in zip(grids, (0.5, 0.3, 0.2), strict=True):
                step = [(grid.shape[0] - 1) / n for n in shape]
                values += np.float32(weight) * interpolate(grid, step, (0.0,) * len(shape), block)
            places = np.ogrid[block.slices]
            for centre, radius, level in zip(centres, radii, levels, strict=True):
                parts = [
                    ((p / n - c) / r) ** 2
                    for p, n, c, r in zip(places, shape, centre, radius, strict=True)
                ]
                values[sum(parts[1:], parts[0]) < 1] += np.float32(level)
            grain = np.random.default_rng(abs(hash(block.start))).random(block.shape, np.float32)
            values += 0.02 * (grain - 0.5)
            scaled = low + (high - low) * np.clip(values, 0, 1)
            result[block.relative_to(box.start).slices] = np.rint(scaled).astype(dtype)
        return result

    return LazyArray(shape, dtype, read)


def make_source(kind: str, size: int, suffix: str, folder: Path) -> Path:
    """Write a synthetic source, slab by slab, unless it exists, and return its path."""
    path = folder / f"{kind}-{size}.{suffix}"
    if path.exists():
        return path
    plain = SOURCES[kind][0]
    if suffix != plain:
        volume = read_volume(make_source(kind, size, plain, folder))
        write_volume(path, [volume], description={})
    elif kind == "ct":
        data = phantom((size,) * 3, -1000, 1000, "int16")
        affine = Affine.of_spacing((SPACING_MM,) * 3)
        write_volume(path, [Volume(data, affine, "millimeter")], description={})
    else:
        import tifffile

        lazy = phantom((size,) * 2, 0, 65535, "uint16")
        partial = path.with_suffix(".partial")
        image = tifffile.memmap(partial, shape=lazy.shape, dtype=lazy.dtype)
        for block in Box.of_shape(lazy.shape).blocks((512, size)):
            image[block.slices] = lazy[block.slices]
        image.flush()
        partial.rename(path)
    return path


def jobs_of(kind: str, size: int, folder: Path, precision: str) -> dict[str, tuple[str, list[str]]]:
    """Return the idle process and the arguments of every job, in an order that can run."""
    plain, *others = (make_source(kind, size, suffix, folder) for suffix in SOURCES[kind])
    store = folder / f"store-{kind}-{size}-{precision}.ome.zarr"
    sketch_only = folder / f"sketch-{kind}-{size}-{precision}.ome.zarr"
    out = folder / "out"
    common = ["--model", MODELS[kind], "--precision", precision, "-q"]
    jobs = {}
    for source in (plain, *others):
        suffix = source.name.split(".", 1)[1]
        target = sketch_only if source is plain else out / "x.ome.zarr"
        arguments = ["generate", str(source), str(target), *common, "--scale", "0"]
        jobs[f"sketch and scale 0 from .{suffix}"] = (kind, arguments)
    jobs["generate"] = (kind, ["generate", str(plain), str(store), *common])
    for suffix in EXPORTS[kind]:
        target = str(out / f"x.{suffix}")
        jobs[f"sketch to .{suffix}"] = ("library", ["sketch", str(plain), target, "-q"])
        jobs[f"export to .{suffix}"] = ("library", ["export", str(store), target, "-q"])
    plain_suffix = EXPORTS[kind][0]
    target = str(out / f"x.{plain_suffix}")
    jobs[f"export of scale 0, upsampled, to .{plain_suffix}"] = (
        "library",
        ["export", str(sketch_only), target, "-q"],
    )
    jobs[f"export on the source's grid to .{plain_suffix}"] = (
        "library",
        ["export", str(store), target, "-q", "--grid", "source"],
    )
    jobs["info"] = ("library", ["info", str(store)])
    if has_command("verify"):
        jobs["verify"] = (kind, ["verify", str(store)])
    return jobs


def has_command(name: str) -> bool:
    """Return whether the program has a command of this name."""
    run = [sys.executable, "-m", "napari_msgan", name, "--help"]
    return subprocess.run(run, capture_output=True, check=False).returncode == 0


def is_needed_later(arguments: list[str], folder: Path) -> bool:
    """Return whether a job makes a store that other jobs read and that does not yet exist."""
    if arguments[0] != "generate":
        return False
    made = Path(arguments[2])
    return made.parent != folder / "out" and not made.exists()


def measure(kind: str, size: int, precision: str, folder: Path, only: str, file: Path) -> None:
    """Run the jobs of one size that are not yet in the file."""
    done = {row.key for row in read_rows(file)}
    idle = {
        name: watch(
            [sys.executable, "-c", f"{code}; print(flush=True); import time; time.sleep(99)"],
            until_line=True,
        )
        for name, code in _IDLE.items()
    }
    image = f"{kind} {size}^{3 if kind == 'ct' else 2}"
    for job, (base, arguments) in jobs_of(kind, size, folder, precision).items():
        is_wanted = only in job and (image, job, precision) not in done
        if not is_wanted and not is_needed_later(arguments, folder):
            continue
        shutil.rmtree(folder / "out", ignore_errors=True)
        (folder / "out").mkdir()
        peak = watch([sys.executable, "-m", "napari_msgan", *arguments])
        if not is_wanted:
            continue
        idle_mb = idle[base].anonymous_mb
        voxels = size ** (3 if kind == "ct" else 2)
        above = peak.anonymous_mb - idle_mb
        today = date.today().isoformat()
        row = Row(
            image, job, precision, voxels, round(peak.seconds, 1), round(idle_mb, 1),
            round(above, 1), round(peak.hwm_mb, 1), today,
        )  # fmt: skip
        print(row, file=sys.stderr, flush=True)
        is_new = not file.exists()
        with file.open("a", newline="") as out:
            writer = csv.DictWriter(out, [f.name for f in fields(Row)])
            if is_new:
                writer.writeheader()
            writer.writerow(asdict(row))
    shutil.rmtree(folder / "out", ignore_errors=True)


def read_rows(file: Path) -> list[Row]:
    """Return earlier measurements."""
    if not file.exists():
        return []
    with file.open(newline="") as content:
        kinds = {"voxels": int, "seconds": float, "idle_mb": float, "above_mb": float}
        kinds["hwm_mb"] = float
        rows = csv.DictReader(content)
        return [Row(**{k: kinds.get(k, str)(v) for k, v in row.items()}) for row in rows]


def print_table(rows: list[Row]) -> None:
    """Print one row per job: MB above idle by size, and bytes per voxel from size to size."""
    print(f"{platform.machine()}, {os.cpu_count()} cores; MB above the idle process\n")
    for kind in MODELS:
        own = [row for row in rows if row.image.startswith(f"{kind} ")]
        sizes = sorted({(row.voxels, row.image) for row in own})
        if not sizes:
            continue
        names = [image.split()[1] for _, image in sizes]
        heads = [
            "job",
            "precision",
            *names,
            "bytes/voxel, last two",
            "first to last",
            "largest VmHWM",
        ]
        print("| " + " | ".join([kind, *heads[1:]]) + " |\n" + "|---" * len(heads) + "|")
        for job, precision in dict.fromkeys((row.job, row.precision) for row in own):
            seen = {r.voxels: r for r in own if (r.job, r.precision) == (job, precision)}
            cells = [f"{seen[v].above_mb:.0f}" if v in seen else "-" for v, _ in sizes]
            slopes = [slope(seen, -2), slope(seen, 0)]
            hwm = max(r.hwm_mb for r in seen.values())
            print("| " + " | ".join([job, precision, *cells, *slopes, f"{hwm:.0f}"]) + " |")
        print()
    over = [row for row in rows if row.above_mb > TOTAL_BAR_MB]
    print(
        f"bars: {SLOPE_BAR} bytes per voxel, {TOTAL_BAR_MB} MB; above the second: {len(over)} runs"
    )


def slope(seen: dict[int, Row], first: int) -> str:
    """Return the bytes per voxel from the first of these sizes to the largest."""
    if len(seen) < 2:
        return "-"
    voxels = sorted(seen)
    small, large = seen[voxels[first]], seen[voxels[-1]]
    value = 1e6 * (large.above_mb - small.above_mb) / (large.voxels - small.voxels)
    return f"{value:.3f}"


def main() -> None:
    """Measure what is requested and print the table of all known measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ct", nargs="*", type=int, default=[], metavar="N", help="N^3 voxels")
    parser.add_argument("--xray", nargs="*", type=int, default=[], metavar="N", help="N^2 pixels")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--only", default="", metavar="TEXT", help="jobs with this in their name")
    parser.add_argument("--csv", type=Path, default=Path("memory.csv"))
    parser.add_argument("--work", type=Path, help="folder for images and stores (kept)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for kind in MODELS:
            for size in getattr(options, kind):
                measure(kind, size, options.precision, folder, options.only, options.csv)
    print_table(read_rows(options.csv))


if __name__ == "__main__":
    main()
