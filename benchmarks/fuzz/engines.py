"""Run a target with many inputs in a separate process, either seeded or guided by coverage."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Bytes of an input, which are about as many choices.
INPUT_BYTES = 96
_STARTING_INPUTS = 64


def seeded_inputs(count: int, seed: int) -> Iterator[bytes]:
    """Yield inputs of random bytes, the same ones for the same seed."""
    for index in range(seed, seed + count):
        yield random.Random(index).randbytes(INPUT_BYTES)


def scratch_folder() -> Path:
    """Return a new folder, in memory if possible, because inputs are many small files."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None))


class Run:
    """Counts the inputs of a target and keeps the first of each kind of finding."""

    def __init__(self, name: str, runs: int, result: Path) -> None:
        from benchmarks.fuzz.targets import TARGETS

        logging.disable(logging.CRITICAL)  # tifffile logs what it thinks of a file
        self._folder = scratch_folder()
        tempfile.tempdir = os.environ["TMPDIR"] = str(self._folder / "sandbox")
        os.environ["NAPARI_MSGAN_MODELS"] = str(self._folder / "sandbox/no-models")
        self._target = TARGETS[name](self._folder)
        self._runs, self._result = runs, result
        self._done, self._findings = 0, dict[str, dict[str, Any]]()
        self._begun = time.monotonic()

    def one(self, data: bytes) -> None:
        """Try one input; after the last one, end the process."""
        found = self._target.check(data)
        self._done += 1
        if found is not None:
            key = f"{found.kind} {found.where or found.what}"
            row = self._findings.setdefault(
                key, {"what": str(found), "input": data.hex(), "count": 0}
            )
            row["count"] += 1
        if found is not None or self._done % 100 == 0 or self._done >= self._runs:
            self._write()
        if self._done >= self._runs:
            shutil.rmtree(self._folder, ignore_errors=True)
            os._exit(0)  # libFuzzer would say that it is done, on standard error

    def _write(self) -> None:
        said = {
            "inputs": self._done,
            "seconds": time.monotonic() - self._begun,
            "findings": list(self._findings.values()),
        }
        self._result.write_text(json.dumps(said))


def run_seeded(name: str, runs: int, seed: int, result: Path) -> None:
    """Try inputs of random bytes."""
    run = Run(name, runs, result)
    for data in seeded_inputs(runs, seed):
        run.one(data)


def run_guided(name: str, runs: int, seed: int, result: Path) -> None:
    """Let atheris (libFuzzer) choose inputs that reach new lines of the package."""
    import atheris

    with atheris.instrument_imports(include=["napari_msgan"]):
        run = Run(name, runs, result)
        starting = list(seeded_inputs(_STARTING_INPUTS, seed))
        for data in starting:  # they import, and thereby instrument, what the target needs
            run.one(data)
    corpus = Path(tempfile.mkdtemp())
    for index, data in enumerate(starting):
        (corpus / str(index)).write_bytes(data)
    options = {
        "runs": 2 * runs,
        "seed": seed + 1,
        "max_len": 4 * INPUT_BYTES,
        "len_control": 0,
        "timeout": 0,  # ours is shorter, and is no end of the run
        "rss_limit_mb": 0,
        "verbosity": 0,
        "artifact_prefix": f"{corpus.parent}/",
    }
    flags = [f"-{key}={value}" for key, value in options.items()]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], run.one)
    atheris.Fuzz()


ENGINES = {"atheris": run_guided, "seeded": run_seeded}
