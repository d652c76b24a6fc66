"""Fuzz every target and print a table: ``python -m benchmarks.fuzz --runs 10000``.

Each target runs in a separate process, guided by coverage if atheris is installed
(``pip install -r benchmarks/requirements.txt``), otherwise with seeded random inputs. The exit code
is 1 if anything was found; the inputs are in the CSV file: repeat one with ``--try TARGET HEX``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.fuzz.engines import ENGINES, scratch_folder

_SECONDS_PER_INPUT = 2.0


def main() -> int:
    """Run the fuzzer; return 1 if anything was found, else 0."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=10_000, metavar="N", help="inputs per target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="*", metavar="TARGET", help="default: all")
    guided = "atheris" if find_spec("atheris") else "seeded"
    parser.add_argument("--engine", choices=list(ENGINES), default=guided)
    parser.add_argument("--out", type=Path, default=Path("fuzz.csv"), help="table as CSV")
    parser.add_argument("--try", nargs=2, metavar=("TARGET", "HEX"), dest="again")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run = ENGINES[arguments.engine]
        run(arguments.one, arguments.runs, arguments.seed, arguments.out)
        return 0
    from benchmarks.fuzz.targets import TARGETS

    if arguments.again:
        name, text = arguments.again
        print(TARGETS[name](scratch_folder()).check(bytes.fromhex(text)) or "nothing is wrong")
        return 0
    rows = []
    print(f"{'target':16}{'engine':10}{'inputs':>8}{'seconds':>9}{'findings':>10}")
    for name in arguments.targets or TARGETS:
        row = _run(name, arguments.engine, arguments.runs, arguments.seed)
        print(
            f"{name:16}{arguments.engine:10}{row['inputs']:8}{row['seconds']:9.0f}"
            f"{len(row['findings']):10}",
            flush=True,
        )
        for found in row["findings"]:
            print(f"  {found['count']} x {found['what']}", flush=True)
        rows.append((name, arguments.engine, row))
        _write(arguments.out, rows)
    return int(any(row["findings"] for _, _, row in rows))


def _run(name: str, engine: str, runs: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        options = ["--one", name, "--engine", engine, "--runs", runs, "--seed", seed]
        command = [sys.executable, "-m", "benchmarks.fuzz", *options, "--out", result]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        try:
            ended = subprocess.run(
                list(map(str, command)),
                env=environment,
                timeout=120 + _SECONDS_PER_INPUT * runs,
                capture_output=True,
                check=False,
            )
            problem = f"exit {ended.returncode}: {ended.stderr[-400:].decode(errors='replace')}"
            is_wrong = ended.returncode != 0
        except subprocess.TimeoutExpired:
            problem, is_wrong = "the process hung", True
        nothing = {"inputs": 0, "seconds": 0.0, "findings": []}
        row: dict[str, Any] = json.loads(result.read_text()) if result.is_file() else nothing
        if is_wrong or row["inputs"] < runs:
            row["findings"].append({"what": f"process: {problem}", "input": "", "count": 1})
        return row


def _write(path: Path, rows: list[tuple[str, str, dict[str, Any]]]) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["target", "engine", "inputs", "seconds", "findings", "what", "input"])
        for name, engine, row in rows:
            first = [name, engine, row["inputs"], f"{row['seconds']:.1f}", len(row["findings"])]
            table.writerow([*first, "", ""])
            for found in row["findings"]:
                table.writerow([*first, found["what"], found["input"]])


if __name__ == "__main__":
    sys.exit(main())
