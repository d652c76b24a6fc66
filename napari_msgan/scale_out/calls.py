"""Calls of functions on the workers of a cluster, a few at a time."""

from __future__ import annotations

import time
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from napari_msgan.errors import JobError
from napari_msgan.scale_out import worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Future

    from napari_msgan.scale_out.cluster import Cluster

Name = TypeVar("Name")

#: Calls per worker thread: one that runs, and others ready for when it ends.
IN_FLIGHT = 3
#: Calls for a single worker, because Dask sends messages in groups, up to 10 ms later.
_FEWEST_IN_FLIGHT = 6
_COUNT_EVERY_S, _ASK_AGAIN_S, _WAIT_S = 5.0, 0.5, 1.0


def failure(outcome: worker.Outcome, note: str = "") -> JobError:
    """Turn a worker's outcome into an error, adding `note` unless the outcome has it already."""
    _, address, text, *notes = outcome
    problem = JobError(text)
    for line in dict.fromkeys([*notes, *filter(None, [note]), f"on worker {address}"]):
        problem.add_note(line)
    return problem


class Calls(Generic[Name]):
    """Calls of functions on workers, each with a name.

    note : returns the note that the error of a call gets, by its name.
    """

    def __init__(self, cluster: Cluster, note: Callable[[Name], str]) -> None:
        self._cluster, self._note = cluster, note
        #: By key: name, future, and the only worker that may run the call (None for any).
        self._running: dict[Any, tuple[Name, Future[Any], str | None]] = {}
        self._ended: SimpleQueue[Future[Any]] = SimpleQueue()
        self._counted_s, self._capacity = float("-inf"), 0

    def __len__(self) -> int:
        return len(self._running)

    @property
    def capacity(self) -> int:
        """How many calls keep all workers busy; it follows workers that come and go."""
        now = time.monotonic()
        if now > self._counted_s + _COUNT_EVERY_S:
            self._counted_s = now
            n_threads = sum(self._cluster.workers.values())
            self._capacity = max(_FEWEST_IN_FLIGHT, IN_FLIGHT * n_threads)
        return self._capacity

    def begin(
        self,
        name: Name,
        function: Callable[..., Any],
        *arguments: Any,
        rank: int = 0,
        at: str | None = None,
    ) -> None:
        """Submit a call to any worker, or to the one `at` an address; lower ranks go first."""
        future = self._cluster.client.submit(
            function, *arguments, pure=False, priority=-rank, workers=None if at is None else [at]
        )
        self._running[future.key] = (name, future, at)
        future.add_done_callback(self._ended.put)

    def finished(self) -> list[tuple[Name, Any]]:
        """Wait up to a second for a call to end; return names and results of those that have.

        A call bound to one worker is dropped if that worker is gone: its successor has another
        address.

        Raises
        ------
        JobError
            If the function raised, its worker died again and again, or the scheduler is gone.
        """
        results = []
        for future in self._wait():
            if future.key not in self._running:
                continue  # it was dropped
            name, _, _ = self._running.pop(future.key)
            # Fetching a result takes as long as all the rest. The news of its end says if it is
            # None, and that stays true if the worker that holds it has left since ("lost").
            is_none = future.type is type(None) and future.status in ("finished", "lost")
            if future.status != "finished" and not is_none:
                problem = JobError(self._problem(future))
                problem.add_note(self._note(name))
                raise problem
            results.append((name, None if is_none else future.result()))
        return results

    def abandon(self, token: str) -> None:
        """Start no further calls of a job, and wait for running ones, whatever their outcome.

        The workers themselves count what is running, because Ctrl-C may have struck between two
        lines of this class.
        """
        futures = [future for _, future, _ in self._running.values()]
        self._running.clear()
        client, told = self._cluster.client, set[str]()
        with suppress(OSError):  # the scheduler is gone, and everything it would start with it
            if client.status == "running":
                client.cancel(futures)
            # Workers that could not be reached are asked again while the scheduler lists them.
            while client.status == "running" and (others := self._cluster.workers.keys() - told):
                answers = client.run(worker.stop, token, workers=[*others], on_error="return")
                reached = {at for at, answer in answers.items() if not isinstance(answer, OSError)}
                if not reached:
                    time.sleep(_ASK_AGAIN_S)
                told |= reached

    def _wait(self) -> list[Future[Any]]:
        """Return calls that ended, none after a second: awaited ones may have been cancelled."""
        ended: list[Future[Any]] = []
        if self._running:
            try:
                ended.append(self._ended.get(timeout=_WAIT_S))
            except Empty:
                self._drop_lost()
        while not self._ended.empty():
            ended.append(self._ended.get())
        return ended

    def _drop_lost(self) -> None:
        awaited = {at for _, _, at in self._running.values() if at is not None}
        if not awaited or self._cluster.client.status != "running":
            return
        lost = awaited - self._cluster.workers.keys()
        for key, (_, future, at) in list(self._running.items()):
            if at in lost:
                del self._running[key]
                self._cluster.client.cancel([future])

    def _problem(self, future: Future[Any]) -> str:
        from distributed.scheduler import KilledWorker

        if future.status == "lost":
            return "the worker that did it left before it could report. Try again."
        if future.status != "error":
            return (
                f"the connection to the scheduler at {self._cluster.address} was lost. Check "
                "whether it still runs, and its log."
            )
        error = future.exception()
        if isinstance(error, KilledWorker):
            return (
                f"{error.allowed_failures + 1} workers died while they worked on it, the last was "
                f"{error.last_worker.address}. Was its memory used up? Its log may say why."
            )
        text = f"a worker could not do it: {type(error).__name__}: {error}"
        if isinstance(error, ImportError | AttributeError | TypeError):
            text += ". Install the same version of napari-msgan on all computers."
        return text
