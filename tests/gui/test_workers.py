"""Jobs in threads, as napari ends them."""

from __future__ import annotations

import threading

from napari._qt.qthreading import wait_for_workers_to_quit

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
