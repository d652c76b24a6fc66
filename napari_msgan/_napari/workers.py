"""Jobs in a thread. What is called back is called on the thread that started the job."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import TypeVar

from napari.qt.threading import GeneratorWorker, create_worker
from napari.utils.notifications import notification_manager, show_error

from napari_msgan.errors import JobError, MsganError

Y = TypeVar("Y")


def surface_runtime_errors(
    steps: Generator[Y, None, object], cancelled: threading.Event, ended: threading.Event
) -> Generator[Y, None, bool]:
    """Pass the steps on until they end (then return True) or are cancelled.

    RuntimeError becomes JobError, because superqt's GeneratorWorker tells nobody of the former.
    The steps are closed in the thread that ran them: a tile in progress is finished there, not
    on the thread of the window.
    """
    try:
        while not cancelled.is_set():
            try:
                step = next(steps)
            except StopIteration:
                return True
            yield step
        return False
    except RuntimeError as error:
        raise JobError(f"the job stopped: {error}") from error
    finally:
        try:
            steps.close()
        finally:
            ended.set()


class ThreadJob:
    """A running job."""

    def __init__(self) -> None:
        self.cancelled, self.ended = threading.Event(), threading.Event()

    def cancel(self) -> None:
        """Ask the job to stop after the tile that it is at."""
        self.cancelled.set()

    def wait(self, timeout_s: float) -> bool:
        """Return whether the job ended within this time."""
        return self.ended.wait(timeout_s)


class _JobWorker(GeneratorWorker):  # type: ignore[misc]
    """A worker that napari may quit, as it does when a window closes: the job is cancelled.

    One that is left in the middle would neither close its steps nor tell that it ended.
    """

    job: ThreadJob

    def quit(self) -> None:
        self.job.cancel()


def tell(error: Exception) -> None:
    """Show an error as a notification: our own with their advice, others with their traceback."""
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
    """Run the steps of a job in a thread; errors become napari notifications as well.

    on_end : is given whether the job ran to its end; not called after an error.
    """
    job = ThreadJob()
    # napari's own relay of errors is never connected (PyQt6 ends the chain of constructors).
    worker = create_worker(
        surface_runtime_errors,
        steps,
        job.cancelled,
        job.ended,
        _worker_class=_JobWorker,
        _ignore_errors=True,
    )
    worker.job = job
    worker.yielded.connect(on_step)
    worker.errored.connect(tell)
    worker.errored.connect(on_error)
    worker.returned.connect(on_end)
    worker.start()
    return job
