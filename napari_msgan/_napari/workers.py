"""Jobs in a thread; callbacks run on the thread that started the job."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

from napari.qt.threading import GeneratorWorker, create_worker
from napari.utils.notifications import notification_manager, show_error

from napari_msgan.errors import JobError, MsganError

Y = TypeVar("Y")


@dataclass(frozen=True)
class Ending:
    """How steps ended: complete, cancelled, or with an error."""

    is_complete: bool = False
    error: Exception | None = None


def until_ended(steps: Generator[Y, None, object], job: ThreadJob) -> Generator[Y, None, Ending]:
    """Pass on steps until they end or are cancelled, and return how they ended.

    Errors are returned, because superqt's GeneratorWorker reports no RuntimeError, and napari's own
    slots for errors fail under PySide6. The steps are closed in the thread that ran them, so a tile
    in progress is finished there and not on the thread of the window.
    """
    job.begun.set()
    try:
        with closing(steps):
            while not job.cancelled.is_set():
                try:
                    step = next(steps)
                except StopIteration:
                    return Ending(is_complete=True)
                yield step
        return Ending()
    except RuntimeError as error:
        stopped = JobError(f"the job stopped: {error}")
        stopped.__cause__ = error
        return Ending(error=stopped)
    except Exception as error:
        return Ending(error=error)
    finally:
        job.ended.set()


class ThreadJob:
    """A running job."""

    def __init__(self) -> None:
        self.begun, self.cancelled, self.ended = (threading.Event() for _ in range(3))

    def cancel(self) -> None:
        """Ask the job to stop after its current tile."""
        self.cancelled.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the job to end; return whether it did within this time.

        A job cancelled before a thread was free for it does nothing, whenever it begins.
        """
        if self.cancelled.is_set() and not self.begun.is_set():
            return True
        return self.ended.wait(timeout_s)


class _JobWorker(GeneratorWorker):  # type: ignore[misc]
    """A worker that cancels its job when napari quits it, as it does when a window closes.

    A worker abandoned midway would neither close its steps nor report its end.
    """

    job: ThreadJob

    def quit(self) -> None:
        self.job.cancel()


def tell(error: Exception) -> None:
    """Show an error as a notification: ours with their advice, others with their traceback."""
    if isinstance(error, MsganError):
        show_error("\n".join([str(error), *getattr(error, "__notes__", ())]))
    else:
        notification_manager.receive_error(type(error), error, error.__traceback__)


def start_in_thread(
    steps: Generator[Y, None, object],
    *,
    on_step: Callable[[Y], None],
    on_error: Callable[[Exception], None],
    on_end: Callable[[bool], None],
) -> ThreadJob:
    """Run the steps of a job in a thread; errors are also shown as napari notifications.

    on_end : called with whether the job ran to its end; not called after an error.
    """
    job = ThreadJob()

    def end(ending: Ending) -> None:
        # napari keeps every worker for as long as its window: with these, images and panels, too
        worker.yielded.disconnect(on_step)
        worker.returned.disconnect(end)
        if ending.error is None:
            on_end(ending.is_complete)
        else:
            tell(ending.error)
            on_error(ending.error)

    worker = create_worker(until_ended, steps, job, _worker_class=_JobWorker)
    worker.job = job
    worker.yielded.connect(on_step)
    worker.returned.connect(end)
    worker.start()
    return job
