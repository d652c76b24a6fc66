"""Jobs in threads, as napari ends them."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest
from napari._qt.qthreading import wait_for_workers_to_quit

from napari_msgan._napari import workers
from napari_msgan._napari.workers import start_in_thread


def test_a_job_that_napari_ends_is_closed_and_told(qtbot):
    """napari quits workers of a window that goes, and all workers when it goes itself."""
    has_begun, closed, ends = threading.Event(), [], []

    def steps():
        try:
            while True:
                yield 1
                has_begun.set()
        finally:
            closed.append(True)

    job = start_in_thread(
        steps(), on_step=lambda step: None, on_error=ends.append, on_end=ends.append
    )
    qtbot.waitUntil(has_begun.is_set)
    wait_for_workers_to_quit(5000)
    assert job.ended.is_set()
    assert closed == [True]
    qtbot.waitUntil(lambda: ends == [False])


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_what_a_job_held_is_let_go_of_when_it_has_ended(is_cancelled, viewer, qtbot):
    """napari keeps each worker, to cancel it, for as long as the window is open."""

    class Held:
        """An image, a store, a panel that was closed."""

    held, ends = Held(), []
    alive = weakref.ref(held)

    def steps(held):
        yield held
        while is_cancelled:
            yield held

    job = start_in_thread(
        steps(held),
        on_step=lambda step, held=held: is_cancelled and job.cancel(),
        on_error=lambda error, held=held: None,
        on_end=lambda completed, held=held: ends.append(completed),
    )
    del held
    qtbot.waitUntil(lambda: ends == [not is_cancelled])
    qtbot.waitUntil(lambda: gc.collect() >= 0 and alive() is None)


@pytest.mark.parametrize("error", [OSError("disk full"), RuntimeError("no memory")])
def test_an_error_does_not_reach_slots_of_napari_that_fail_with_it(error, qtbot, monkeypatch):
    """Under PySide6 they get the error that they do not take."""
    seen, made, create = [], [], workers.create_worker

    def create_watched(*arguments, **options):
        made.append(create(*arguments, **options))
        made[-1].errored.connect(seen.append)
        return made[-1]

    def steps():
        yield 1
        raise error

    monkeypatch.setattr(workers, "create_worker", create_watched)
    monkeypatch.setattr(workers, "tell", seen.append)
    ends = []
    start_in_thread(
        steps(), on_step=lambda step: None, on_error=ends.append, on_end=lambda done: None
    )
    qtbot.waitUntil(lambda: bool(ends))
    assert len(made) == 1
    assert seen == ends  # told once, by us
    assert str(error) in str(ends[0])
