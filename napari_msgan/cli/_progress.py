"""Show progress on standard error: a bar in a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from napari_msgan.cli._tables import percent
from napari_msgan.cli._telling import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import TaskID

_LINE_EVERY_S = 10.0
_LINE_NOT_BEFORE_S = 1.0


class Show(Protocol):
    """Function that shows the progress of a stage; `note` is a short text that may change."""

    def __call__(self, stage: str, done: float, total: float, note: str = "") -> None: ...


@contextmanager
def progress_shown(*, quiet: bool) -> Iterator[Show]:
    """Give a function that shows progress."""
    if quiet or sys.stderr is None:  # which was closed, as by 2>&-
        yield _nothing
    elif sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield Lines(sys.stderr)


@contextmanager
def stopped_between_steps() -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether Ctrl-C was pressed; pressing it twice stops at once."""
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        tell("\nstopping after this step (Ctrl-C again: at once)")

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread can handle signals
        return
    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def _nothing(stage: str, done: float, total: float, note: str = "") -> None:
    pass


@contextmanager
def _bar() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: float, total: float, note: str = "") -> None:
            count = count_text(done, total)
            if stage in tasks:
                progress.update(tasks[stage], completed=done, total=total, count=count, note=note)
            else:  # starts where a resumed job is, so that the time left is right
                tasks[stage] = progress.add_task(
                    stage, completed=int(done), total=total, count=count, note=note
                )

        yield show


class Lines:
    """Print a line every 10 % (at most one a second), at least every 10 s, and at the end."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._stage = ""

    def __call__(self, stage: str, done: float, total: float, note: str = "") -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._first, self._begun = stage, done, now
            self._last_share, self._last_time = 0.0, now
        share = done / total
        waited = now - self._last_time
        is_far = _tenths(share) > _tenths(self._last_share) and waited >= _LINE_NOT_BEFORE_S
        is_end = self._last_share < 1 <= share
        if not (is_far or is_end or waited >= _LINE_EVERY_S):
            return
        self._last_share, self._last_time = share, now
        texts = [f"{stage}: {count_text(done, total)}", duration(now - self._begun)]
        if self._first < done < total:
            left = (now - self._begun) / (done - self._first) * (total - done)
            texts.append(f"{duration(left)} left")
        tell(", ".join([*texts, *([note] if note else [])]), self._out)


def _tenths(share: float) -> int:
    return int(10 * share + 1e-9)


def count_text(done: float, total: float) -> str:
    """Return "3 of 12 (25 %)", or "25 %" if `total` is 1, as for a fraction."""
    share = percent(done / total, 0)
    return share if total == 1 else f"{done} of {total} ({share})"


def duration(seconds: float) -> str:
    """Return a duration as text for people.

    Examples
    --------
    >>> duration(0.26), duration(59.96), duration(75), duration(7505)
    ('0.3 s', '1 min 0 s', '1 min 15 s', '2 h 5 min')
    """
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
