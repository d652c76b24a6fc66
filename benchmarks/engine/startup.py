"""Seconds until the terminal program answers, in a table.

    python -m benchmarks.engine.startup [--times 10]

`--help` should answer within 0.3 s, `models` within 0.5 s. Every run is a separate process; the
first run of each command, which reads files that the system has not yet cached, is not counted.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

RESULTS = Path(__file__).parents[1] / "results" / "engine"
BARS_S = {"--help": 0.3, "models": 0.5}
HEAVY = ("torch", "zarr", "napari", "scipy", "numpy", "pydantic", "rich")


def measure(argument: str, times: int) -> dict[str, str]:
    """Return one row of the table."""
    command = [str(Path(sys.executable).with_name("napari-msgan")), argument]
    runs = [_time(command) for _ in range(times + 1)][1:]
    wall, cpu = (median(run[i] for run in runs) for i in range(2))
    return {
        "command": f"napari-msgan {argument}",
        "seconds": f"{wall:.3f}",
        "CPU seconds": f"{cpu:.3f}",
        "bar": f"{BARS_S[argument]} s",
        "imports": " ".join(_imported(argument)) or "none of " + " ".join(HEAVY),
    }


def _time(command: list[str]) -> tuple[float, float]:
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"failed: {' '.join(command)}")
    return seconds, usage.ru_utime + usage.ru_stime


def _imported(argument: str) -> list[str]:
    command = [sys.executable, "-X", "importtime", "-m", "napari_msgan", argument]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    seen = {line.rpartition("|")[2].strip() for line in text.splitlines()}
    return [name for name in HEAVY if name in seen]


def main() -> None:
    """Print the table and write it as CSV."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--csv", type=Path, default=RESULTS / "startup.csv")
    options = parser.parse_args()
    rows = [measure(argument, options.times) for argument in BARS_S]
    options.csv.parent.mkdir(parents=True, exist_ok=True)
    with options.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"| {' | '.join(rows[0])} |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        print(f"| {' | '.join(row.values())} |")


if __name__ == "__main__":
    main()
