"""Run one input and report whatever it did that no input may do.

It may succeed, or raise a `MsganError`. It may not raise anything else, take more time or memory
than `Limits`, or touch a path outside its own folder. (Linux only.)
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from napari_msgan.errors import MsganError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PROJECT = str(Path(__file__).parents[2])
_OPENS = ("open", "os.listdir", "os.scandir")  # follow a link at the end of the path
_CHANGES = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Limits:
    """What one input may take; memory is what the process grows by.

    seconds : of wall time, generous because the machine may be busy with other things.
    cpu_seconds : of all threads.
    """

    seconds: float = 180.0
    cpu_seconds: float = 10.0
    memory_bytes: int = 1 << 30


@dataclass(frozen=True)
class Finding:
    """Something an input did that no input may do."""

    kind: str
    what: str
    where: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what} ({self.where})"


class TookTooLong(BaseException):
    """Not an `Exception`, so that no code under test catches it."""


class _Watch:
    """Sees every path that Python code opens, lists or changes."""

    def __init__(self) -> None:
        self.inside: str | None = None
        self.forbidden: str = ""
        self.touched: list[str] = []
        sys.addaudithook(self._saw)

    def _saw(self, event: str, args: tuple[Any, ...]) -> None:
        if self.inside is None or event not in (*_OPENS, *_CHANGES):
            return
        paths = args[:2] if event in ("os.rename", "os.link") else args[:1]
        for path in paths:
            if isinstance(path, str | bytes | os.PathLike):
                self._check(event, os.fsdecode(path), args)

    def _check(self, event: str, path: str, args: tuple[Any, ...]) -> None:
        assert self.inside is not None
        if event in _OPENS:
            real = os.path.realpath(path)
            writes = event == "open" and bool((args[2] or 0) & _WRITING)
        else:
            real = str(Path(path).parent.resolve() / Path(path).name)
            writes = True
        inside = real == self.inside or real.startswith(self.inside + os.sep)
        harmless = real.startswith("/dev/") or "__pycache__" in real
        if real.startswith(self.forbidden) or (writes and not inside and not harmless):
            self.touched.append(f"{event} {real}")


_watch: _Watch | None = None


@contextmanager
def watching(inside: Path, forbidden: Path) -> Iterator[list[str]]:
    """Collect what is touched in `forbidden`, and what is written outside `inside`."""
    global _watch
    _watch = _watch or _Watch()
    _watch.touched = touched = []
    _watch.forbidden = os.path.realpath(forbidden)
    _watch.inside = os.path.realpath(inside)
    try:
        yield touched
    finally:
        _watch.inside = None


@contextmanager
def _alarms(limits: Limits) -> Iterator[None]:
    def ring(signum: int, frame: object) -> None:
        raise TookTooLong

    timers = (
        (signal.SIGALRM, signal.ITIMER_REAL, limits.seconds),
        (signal.SIGPROF, signal.ITIMER_PROF, limits.cpu_seconds),
    )
    before = [signal.signal(number, ring) for number, _, _ in timers]
    for _, timer, seconds in timers:
        signal.setitimer(timer, seconds, 0.5)  # again, if somebody swallowed it
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


@contextmanager
def _address_space(more: int) -> Iterator[None]:
    """Let allocations fail that no machine should be asked for."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (now + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def examine(
    run: Callable[[], None], inside: Path, forbidden: Path, limits: Limits | None = None
) -> Finding | None:
    """Return what is wrong with what `run` did, or None."""
    limits = limits or Limits()
    _forget_peak()
    rss = psutil.Process().memory_info().rss
    found: Finding | None = None
    with watching(inside, forbidden) as touched:
        try:
            with _alarms(limits), _address_space(4 * limits.memory_bytes):
                run()
        except MsganError:
            pass
        except TookTooLong as error:
            found = Finding(
                "hang",
                f"more than {limits.cpu_seconds:g} s of CPU time, or {limits.seconds:g} s",
                _place(error),
            )
        except MemoryError as error:
            found = Finding("memory", f"MemoryError: {error}"[:200], _place(error))
        except Exception as error:  # which is what is looked for
            found = Finding("error", f"{type(error).__name__}: {error}"[:200], _place(error))
    grown = _peak_bytes() - rss
    if touched:
        return Finding("path", touched[0], "")
    if found is None and grown > limits.memory_bytes:
        return Finding("memory", f"grew by {grown / 2**20:.0f} MiB", "")
    return found


def _forget_peak() -> None:
    """Let the peak of this process start anew (see proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _place(error: BaseException) -> str:
    """Return the last line of the package in the traceback, and the last of all."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/napari_msgan/" in f.filename] or frames
    shown = [own[-1]] if own[-1] is frames[-1] else [own[-1], frames[-1]]
    return ", ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in shown)
