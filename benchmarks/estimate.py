"""What `napari-msgan estimate` predicts, beside what `generate` then takes, in a table.

    python -m benchmarks.estimate --ct 128 256 --xray 2048 4096 --precision fp32 bf16

Run it on an otherwise idle machine: each model and precision is calibrated afresh at the start.
Bar: 25 % for time, memory (largest sum of anonymous memory in samples, see `memory.py`) and size of
the store. Every run is a separate process; the images are synthetic.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from benchmarks.memory import MODELS, make_source, watch
from napari_msgan.estimating import estimate

BAR = 0.25
_REGIONS = {"ct": "0:128,0:128,0:128", "xray": "0:1024,0:1024"}


def run(
    kind: str, size: int, suffix: str, precision: str, region: str | None, folder: Path
) -> dict:
    """Return one row: predicted and measured seconds, MB of memory and MB of store."""
    source = make_source(kind, size, suffix, folder)
    store = folder / "estimate-out.ome.zarr"
    shutil.rmtree(store, ignore_errors=True)
    told = estimate(source, MODELS[kind], out=folder, precision=precision, region=region)
    command = [sys.executable, "-m", "napari_msgan", "generate", str(source), str(store), "-q"]
    command += ["--model", MODELS[kind], "--precision", precision]
    command += ["--region", region] if region else []
    begun = time.monotonic()
    peak = watch(command)
    seconds = time.monotonic() - begun
    stored = sum(f.stat().st_size for f in store.rglob("*") if f.is_file())
    shutil.rmtree(store)
    pairs = {
        "seconds": (told.seconds, seconds),
        "memory (MB)": (told.memory_bytes / 1e6, peak.anonymous_mb),
        "store (MB)": (told.store_bytes / 1e6, stored / 1e6),
    }
    row = {"image": f"{kind} {size} .{suffix}", "region": region or "all", "precision": precision}
    for name, (predicted, measured) in pairs.items():
        row[name] = f"{predicted:.1f} / {measured:.1f}"
        row[f"{name} off"] = f"{100 * (predicted / measured - 1):+.0f} %"
    row["within the bar"] = str(all(abs(p / m - 1) <= BAR for p, m in pairs.values()))
    return row


def main() -> None:
    """Measure the machine, then run every combination and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ct", nargs="*", type=int, default=[], metavar="N")
    parser.add_argument("--xray", nargs="*", type=int, default=[], metavar="N")
    parser.add_argument("--precision", nargs="+", default=["fp32"])
    parser.add_argument("--csv", type=Path, help="also write the table here")
    parser.add_argument("--work", type=Path, help="folder for the images (kept)")
    parser.add_argument("--known", action="store_true", help="use what was measured before")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for kind, suffixes in (("ct", ("nii", "nii.gz")), ("xray", ("tif", "ome.tif"))):
            for precision in options.precision:
                sizes = getattr(options, kind)
                if sizes and not options.known:
                    source = make_source(kind, sizes[0], suffixes[0], folder)
                    estimate(source, MODELS[kind], precision=precision, again=True)
                for size in sizes:
                    jobs = [(suffixes[0], None), (suffixes[1], None), (suffixes[0], _REGIONS[kind])]
                    for suffix, region in jobs:
                        rows.append(run(kind, size, suffix, precision, region, folder))
                        print(rows[-1], file=sys.stderr, flush=True)
    print(f"{date.today()}; predicted / measured\n")
    print("| " + " | ".join(rows[0]) + " |\n" + "|---" * len(rows[0]) + "|")
    for row in rows:
        print("| " + " | ".join(row.values()) + " |")
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
