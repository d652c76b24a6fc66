"""Generator functions that yield how far they are, and return a result."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")
Step = TypeVar("Step")
Changed = TypeVar("Changed")


def changed(
    steps: Generator[Step, None, T], change: Callable[[Step], Changed]
) -> Generator[Changed, None, T]:
    """Return what `steps` returns; yield ``change(step)`` for each of its steps.

    Examples
    --------
    >>> def count():
    ...     yield 1
    ...     return "all"
    >>> run_to_end(changed(count(), str))
    'all'
    """
    while True:
        try:
            step = next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
        yield change(step)


def run_to_end(steps: Generator[Step, None, T], each: Callable[[Step], object] | None = None) -> T:
    """Return what a generator function returns; `each` is called with every step."""
    while True:
        try:
            step = next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
        if each is not None:
            each(step)
