"""Seconds, CPU seconds and memory of code in this process, and differences between images."""

from __future__ import annotations

import os
import resource
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY_S = 0.005
_GREY_LEVELS = 255
#: Rows of the first axis that are compared at a time.
_SLAB = 64


@dataclass(frozen=True)
class Made:
    """The result of a row.

    voxels : number of voxels made at the finest scale.
    read : returns rows along the first axis in the stored type; None if there is no image.
    columns : additional columns, or better values for those measured from outside.
    """

    voxels: int
    read: Callable[[slice], np.ndarray[Any, Any]] | None = None
    columns: dict[str, float] = field(default_factory=dict)


class Meter:
    """Measures a ``with`` block; memory is anonymous (and shared), in excess of that before it."""

    def __enter__(self) -> Meter:
        self._is_over = threading.Event()
        self._idle = self._most = anonymous_bytes()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        self._cpu, self._started = _cpu_seconds(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
        self.cpu_s = _cpu_seconds() - self._cpu
        self._is_over.set()
        self._watcher.join()
        self._most = max(self._most, anonymous_bytes())

    @property
    def peak_bytes(self) -> int:
        return self._most - self._idle

    def _watch(self) -> None:
        while not self._is_over.wait(_EVERY_S):
            self._most = max(self._most, anonymous_bytes())


def anonymous_bytes(process: str = "self") -> int:
    """Return the bytes that a process cannot give back, that is, without mapped files."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return sum(
        1024 * int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:"))
    )


def measure_process(command: list[str]) -> dict[str, float]:
    """Return seconds, CPU seconds and peak memory (the total, not an excess) of a process."""
    with tempfile.TemporaryFile() as errors:
        started, peak = time.perf_counter(), 0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            peak = max(peak, anonymous_bytes(str(process.pid)))
            time.sleep(_EVERY_S)
        seconds, (_, status, usage) = time.perf_counter() - started, ended
        process.returncode = os.waitstatus_to_exitcode(status)  # or Popen would wait for it again
        if process.returncode:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
            raise SystemExit(f"{' '.join(command[1:4])} ended with {process.returncode}: {said}")
    return {
        "seconds": seconds,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mb": peak / 1e6,
    }


def _cpu_seconds() -> float:
    usages = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def difference(
    read: Callable[[slice], np.ndarray[Any, Any]], whole: np.ndarray[Any, Any], span: float
) -> tuple[float, float]:
    """Return the largest difference in grey levels of 255, and the share of equal voxels.

    Parameters
    ----------
    read : returns rows along the first axis, in the same stored type as `whole`.
    span : high minus low end of the output window.
    """
    largest, equal = 0.0, 0
    for start in range(0, len(whole), _SLAB):
        rows = slice(start, min(start + _SLAB, len(whole)))
        right = np.asarray(whole[rows])
        made = read(rows)
        if made.dtype != right.dtype or made.shape != right.shape:
            raise ValueError(
                f"{made.dtype} {made.shape} cannot be compared with {right.dtype} {right.shape}"
            )
        gap = np.abs(made.astype(np.float64) - right)
        largest = max(largest, float(gap.max()))
        equal += int(np.count_nonzero(gap == 0))
    return largest / span * _GREY_LEVELS, equal / whole.size
