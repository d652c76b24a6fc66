"""Speed and memory of the engine, side by side with the bare network and with peers.

    python -m benchmarks.engine                      # every row, 2048^2 and 256^3, 3 rounds
    python -m benchmarks.engine --sizes-2d --sizes-3d 352 --rows limit refine torchio
    python -m benchmarks.engine --sizes-2d 2048 --sizes-3d 512 --rows program
    python -m benchmarks.engine --table              # only the table of what was measured before

Each row runs in a separate process. The rows of a round follow each other, in every second round in
reverse order. Measurements are saved to the CSV file after each row and not repeated: start over
with --fresh, or with another --csv. The peers run in a separate environment:

    python3.11 -m venv peers
    peers/bin/pip install -c constraints.txt -e . -r benchmarks/requirements.txt
    peers/bin/pip install --no-deps torch-em==0.10.9
    peers/bin/python -m benchmarks.engine

Start-up of the terminal program: ``python -m benchmarks.engine.startup``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine.rows import ON_GPU, ROWS, Row
from benchmarks.engine.table import (
    VALUES,
    key_of,
    measured_keys,
    read_lines,
    text_table,
    write_lines,
)

ROOT = Path(__file__).parents[2]
#: The rows decide themselves how many threads they use.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    """Measure the requested rows that are missing, and print the table."""
    options = _parser().parse_args()
    if options.csv is None:
        options.csv = options.work / "rows.csv"
    if options.table and not options.csv.exists():
        raise SystemExit(f"nothing was measured: {options.csv} does not exist")
    if options.fresh:
        options.csv.unlink(missing_ok=True)
    lines = [] if options.table else _measure_all(options)
    print(f"{json.loads(_about_file(options.csv).read_text())['line']}\n")
    print(text_table(lines or read_lines(options.csv)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine",
        description=__doc__,
        epilog="rows:\n" + "\n".join(f"  {name:<19} {row.title}" for name, row in ROWS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    here = [name for name in ROWS if name not in ON_GPU or torch.cuda.is_available()]
    add("--rows", nargs="+", choices=ROWS, metavar="ROW", default=here, help="default: all")
    add("--sizes-2d", nargs="*", type=_even, default=[2048], help="sides of X-rays (2048)")
    add("--sizes-3d", nargs="*", type=_even, default=[256], help="sides of CTs (256)")
    add("--sample-2d", type=Path, help="a real X-ray to fill the image with, instead of waves")
    add("--sample-3d", type=Path, help="a real CT")
    add("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    add("--rounds", type=int, default=3)
    add("--csv", type=Path, help="what was measured (WORK/rows.csv)")
    add("--work", type=Path, default=Path(tempfile.gettempdir()) / "msgan-engine", help="images")
    add("--fresh", action="store_true", help="forget what the CSV file has")
    add("--table", action="store_true", help="measure nothing")
    return parser


def _measure_all(options: argparse.Namespace) -> list[dict[str, str]]:
    lines = read_lines(options.csv)
    there = measured_keys(lines)
    orders = [order for order in _orders(options) if key_of(order) not in there]
    _write_about(options.csv)
    prepared = set()
    for number, order in enumerate(orders, 1):
        row = ROWS[order["row"]]
        call = {
            "row": order["row"],
            "ndim": int(order["axes"]),
            "size": int(order["size"]),
            "sample": _text(options.sample_2d if order["axes"] == "2" else options.sample_3d),
            "work": str(options.work.absolute()),
        }
        what = (call["ndim"], call["size"], row.needs_store)
        if what not in prepared:
            _run(row, {**call, "precision": None}).check_returncode()
            prepared.add(what)
        ended = _run(row, {**call, "precision": order["precision"]})
        line = {**dict.fromkeys(VALUES, ""), **order, "note": ""}
        if ended.returncode:
            problem = (ended.stderr.strip().splitlines() or ["no message"])[-1]
            line["note"] = f"failed ({ended.returncode}): {problem}"[:200].replace("|", "/")
        else:
            found = json.loads(ended.stdout.splitlines()[-1])
            line |= {name: format(found[name], ".6g") for name in VALUES if name in found}
        lines = [old for old in lines if key_of(old) != key_of(line)] + [line]
        write_lines(options.csv, lines)
        seen = line["note"] or f"{line['mvoxel_s']} Mvoxel/s"
        print(f"{number}/{len(orders)} {' '.join(key_of(line))}: {seen}", file=sys.stderr)
    return lines


def _orders(options: argparse.Namespace) -> list[dict[str, str]]:
    """Return all runs, in the order in which they are measured."""
    images = [(2, n) for n in options.sizes_2d] + [(3, n) for n in options.sizes_3d]
    orders = []
    for round_ in range(options.rounds):
        for ndim, size in images:
            of_image = [
                {
                    "axes": str(ndim),
                    "size": str(size),
                    "precision": precision,
                    "row": name,
                    "round": str(round_),
                }
                for name in ROWS
                if name in options.rows and ndim in ROWS[name].ndims
                for precision in options.precisions
                if precision in ROWS[name].precisions
            ]
            orders += of_image[:: -1 if round_ % 2 else 1]
    return orders


def _run(row: Row, call: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in _THREADS} | row.environment
    command = [sys.executable, "-m", "benchmarks.engine.rows", json.dumps(call)]
    preparing = call["precision"] is None
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=None if preparing else subprocess.PIPE,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment,
    )


def _about_file(table: Path) -> Path:
    return table.with_suffix(".json")


def _write_about(table: Path) -> None:
    """Write beside the table when, where and how it was made."""
    from importlib.metadata import version

    info = Path("/proc/cpuinfo")
    models = [x for x in info.read_text().splitlines() if x.startswith("model name")]
    cpu = models[0].partition(":")[2].strip() if models else platform.machine()
    command = shlex.join(["python", "-m", "benchmarks.engine", *sys.argv[1:]])
    cores = len(os.sched_getaffinity(0))
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    line = f"{date.today()}, {cpu}, {cores} cores{gpu}, torch {version('torch')}: `{command}`"
    table.parent.mkdir(parents=True, exist_ok=True)
    _about_file(table).write_text(json.dumps({"line": line}) + "\n")


def _text(path: Path | None) -> str | None:
    return str(path.absolute()) if path else None


def _even(text: str) -> int:
    size = int(text)
    if size < 64 or size % 2:
        raise argparse.ArgumentTypeError(f"{text} is not an even number of 64 or more")
    return size


if __name__ == "__main__":
    main()
