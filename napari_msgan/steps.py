"""Run generator functions that yield their progress and return a result.

Whoever drives such a generator must close it. Otherwise a traceback could keep it alive, and with
it threads that write and locks that are held.
"""

from __future__ import annotations

import os
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

from napari_msgan.buffers import share_one_arena

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

T = TypeVar("T")
Step = TypeVar("Step")
Changed = TypeVar("Changed")


def changed(
    steps: Generator[Step, None, T], change: Callable[[Step], Changed]
) -> Generator[Changed, None, T]:
    """Yield ``change(step)`` for each step of a generator, and return what the generator returns.

    Examples
    --------
    >>> def count():
    ...     yield 1
    ...     return "all"
    >>> run_to_end(changed(count(), str))
    'all'
    """
    result: list[T] = []
    with closing(_keep_result(steps, result)) as kept:
        for step in kept:
            yield change(step)
    return result[0]


def run_to_end(steps: Generator[Step, None, T], each: Callable[[Step], object] | None = None) -> T:
    """Run a generator to its end and return its result; `each` is called with every step."""
    result: list[T] = []
    with closing(_keep_result(steps, result)) as kept:
        for step in kept:
            if each is not None:
                each(step)
    return result[0]


def _keep_result(steps: Generator[Step, None, T], result: list[T]) -> Generator[Step, None, None]:
    """Yield the steps, then append their result to `result`; closing this also closes them."""
    result.append((yield from steps))


def n_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_threads(device: str, workers: int | None = None) -> int:
    """Return the number of threads for work that is always done on the CPU, such as sketches.

    It is `workers` if the device is "cpu", otherwise one per core.

    workers : number of workers that compute on the device; None for one per core.
    """
    return workers if workers and device == "cpu" else n_cores()


def iter_in_threads(
    work: Callable[[T], object], items: Iterable[T], workers: int
) -> Generator[None, None, None]:
    """Call `work` with every item, in threads; yield each time an item is done.

    Only a few items are queued at a time, so memory does not grow with their number. Closing the
    generator waits for the items in progress and starts no others.
    """
    share_one_arena()
    with ThreadPoolExecutor(workers) as pool:
        begun: set[Future[object]] = set()
        try:
            for item in items:
                begun.add(pool.submit(work, item))
                if len(begun) > 2 * workers:
                    yield from _finished(begun)
            while begun:
                yield from _finished(begun)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _finished(begun: set[Future[object]]) -> Generator[None, None, None]:
    """Wait until at least one item is done, remove all that are, and yield for each."""
    done, _ = wait(begun, return_when=FIRST_COMPLETED)
    begun -= done
    for future in done:
        future.result()
        yield
