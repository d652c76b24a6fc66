"""Controllers with a fake view and a runner that runs when it is told to."""

from __future__ import annotations

import threading
import time
from unittest.mock import Mock

import numpy as np
import pytest

from napari_msgan._napari import controllers
from napari_msgan._napari.controllers import (
    GenerateWish,
    JobController,
    StoreController,
    StoreScene,
    as_steps,
)
from napari_msgan._napari.regions import missing_tiles
from napari_msgan._napari.state import JobState, Opened, SessionState
from napari_msgan._napari.to_layer import Placement
from napari_msgan._napari.workers import ThreadJob, until_ended
from napari_msgan.errors import JobError, MsganError, StoreError
from napari_msgan.geometry import Box
from napari_msgan.io import read_volume
from napari_msgan.jobs import Progress
from napari_msgan.pyramid import open_pyramid, view_volume


class Runner:
    """Runs jobs step by step, on this thread."""

    def __init__(self):
        self.jobs = []

    def __call__(self, steps, *, on_step, on_error, on_end):
        job = Mock(steps=steps, on_step=on_step, on_error=on_error, on_end=on_end)
        self.jobs.append(job)
        return job

    def step(self, number=-1):
        job = self.jobs[number]
        job.on_step(next(job.steps))

    def finish(self, number=-1):
        job = self.jobs[number]
        try:
            for step in job.steps:
                job.on_step(step)
        except Exception as error:
            job.on_error(error)
        else:
            job.on_end(True)

    def cancel(self, number=-1):
        self.jobs[number].steps.close()
        self.jobs[number].on_end(False)


@pytest.fixture
def runner():
    """Close what a test leaves half-done, or it is collected in a thread that it would join."""
    runner = Runner()
    yield runner
    for job in runner.jobs:
        job.steps.close()


@pytest.fixture
def jobs(runner):
    return JobController(JobState(), runner)


@pytest.fixture
def scene():
    return Mock(spec=StoreScene)


@pytest.fixture
def opened(ct_store):
    return Opened(open_pyramid(ct_store.path, writable=True), Placement(np.eye(4), ("mm",) * 3))


@pytest.fixture
def stores(jobs, scene, opened):
    return StoreController(SessionState(opened), jobs, scene)


def steps_of(*steps, error=None):
    yield from steps
    if error is not None:
        raise error


def test_job_shows_its_progress_and_ends(jobs, runner):
    steps = steps_of(Progress("sketch", 1, 4), Progress("tiles", 2, 8, 3.0))
    jobs.start("generate", steps, on_end=lambda completed: f"over {completed}")
    assert jobs.state.kind == "generate"
    runner.step()
    assert (jobs.state.stage, jobs.state.done, jobs.state.total) == ("sketch", 1, 4)
    runner.finish()
    assert jobs.state.stage == "tiles"
    assert jobs.state.remaining_s == 3.0
    assert (jobs.state.is_running, jobs.state.outcome) == (False, "over True")


@pytest.mark.parametrize("error", [JobError("no"), OSError("disk full"), KeyError()], ids=repr)
def test_failing_job_leaves_nothing_running(jobs, runner, error):
    jobs.start("generate", steps_of(Progress("sketch", 1, 2), error=error), on_end=str)
    runner.finish()
    assert not jobs.state.is_running
    assert jobs.state.has_failed
    assert jobs.state.outcome
    jobs.start("generate", steps_of(), on_end=lambda completed: "again")
    runner.finish()
    assert not jobs.state.has_failed


def test_job_that_cannot_be_started_leaves_nothing_running(runner):
    jobs = JobController(JobState(), Mock(side_effect=OSError("no threads")))
    with pytest.raises(OSError, match="no threads"):
        jobs.start("generate", steps_of(), on_end=str)
    assert not jobs.state.is_running


def test_second_job_is_refused_while_one_runs(jobs):
    jobs.start("generate", steps_of(), on_end=str)
    with pytest.raises(MsganError, match="running already"):
        jobs.start("save", steps_of(), on_end=str)
    assert jobs.state.kind == "generate"


def test_cancel_reaches_the_job_once_and_is_said(jobs, runner):
    jobs.cancel()  # nothing runs: nothing happens
    jobs.start("refine", steps_of(Progress("tiles", 1, 2)), on_end=lambda completed: str(completed))
    jobs.cancel()
    runner.jobs[0].cancel.assert_called_once_with()
    assert jobs.state.is_cancelling
    runner.cancel()
    assert (jobs.state.outcome, jobs.state.is_cancelling) == ("False", False)


def test_replies_after_closing_are_dropped(jobs, runner):
    jobs.start("refine", steps_of(Progress("tiles", 1, 2)), on_end=str)
    jobs.close()
    runner.jobs[0].cancel.assert_called_once_with()
    runner.jobs[0].wait.assert_called_once()
    runner.step()
    assert jobs.state.stage is None
    runner.jobs[0].on_error(JobError("late"))
    assert not jobs.state.has_failed


def test_refine_tells_the_scene_of_every_tile(stores, runner, scene, opened):
    store = opened.store
    stores.refine([Box.of_shape(store.geometry.shape)], 1, device="cpu", focus=None)
    assert opened.tile_s is None
    runner.step()
    first_s = opened.tile_s
    runner.step()
    assert 0 < first_s < 2 * opened.tile_s  # of all tiles, not of the last
    scene.redraw.assert_not_called()
    stores.redraw_if_stale()
    scene.redraw.assert_called_once_with(store)
    stores.redraw_if_stale()
    assert scene.redraw.call_count == 1
    runner.finish()
    whole = Box.of_shape(store.geometry.shape_at(1))
    assert scene.tile_arrived.call_count == len(store.tiling.tiles(1, whole))
    scene.redraw.assert_called_with(store, thumbnail=True)
    assert store.refined_fraction(1) == 1
    assert stores.jobs.state.outcome == "Refined."


def test_several_regions_are_one_job(stores, runner, scene, opened):
    store = opened.store
    boxes = [Box((0, 0, 0), (18, 18, 18)), Box((0, 14, 0), (18, 23, 18))]
    focus = Box((17, 22, 17), (18, 23, 18))
    tiles = missing_tiles(store, boxes, 1)
    seen = []
    stores.jobs.state.events.remaining_s.connect(seen.append)
    stores.refine(boxes, 1, device="cpu", focus=focus)
    for number in range(1, len(tiles) + 1):
        runner.step()
        state = stores.jobs.state
        assert (state.done, state.total) == (number, len(tiles))
    assert seen[-1] == 0
    runner.finish()
    assert stores.jobs.state.outcome == "Refined."
    made = [call.args[1].tile for call in scene.tile_arrived.call_args_list]
    assert sorted(made) == sorted(tiles)


def test_cancelled_regions_keep_their_tiles_and_free_the_lock(stores, runner, opened):
    z, y, x = opened.store.geometry.shape
    boxes = [Box((0, 0, 0), (z, y // 2, x)), Box((0, y // 2, 0), (z, y, x))]
    stores.refine(boxes, 1, device="cpu", focus=None)
    runner.step()
    runner.cancel()
    assert opened.store.refined_chunks(1).any()
    assert not opened.store.is_refined(1, Box.of_shape((z, y, x)))
    with open_pyramid(opened.store.path, writable=True).writing():
        pass


def test_cancelled_refinement_keeps_its_tiles(stores, runner, opened):
    stores.refine([Box.of_shape(opened.store.geometry.shape)], 1, device="cpu", focus=None)
    runner.step()
    runner.cancel()
    assert 0 < opened.store.refined_chunks(1).sum() < opened.store.refined_chunks(1).size
    assert "kept" in stores.jobs.state.outcome
    with opened.store.writing():
        pass  # the lock is free


@pytest.mark.parametrize(("end", "times"), [("finish", 1), ("cancel", 0)])
def test_only_what_was_refined_to_its_end_is_noted_as_done(stores, runner, scene, end, times):
    box = Box((0, 0, 0), (2, 2, 2))
    stores.refine([box], 1, device="cpu", focus=None)
    runner.step()
    scene.remember_box.assert_not_called()
    getattr(runner, end)()
    assert scene.remember_box.call_count == times


def test_clear_removes_tiles_and_boxes(stores, runner, scene, opened):
    box = Box((0, 0, 0), (2, 2, 2))
    stores.refine([box], 1, device="cpu", focus=None)
    runner.finish()
    assert opened.store.is_refined(1, box)
    stores.clear([box], 1)
    assert stores.jobs.state.kind == "clear"
    assert opened.store.is_refined(1, box)  # not in the thread of the window
    runner.finish()
    assert stores.jobs.state.outcome == "Removed 1 tile."
    assert not opened.store.is_refined(1, box)
    scene.forget_boxes.assert_called_once_with(opened.store)


def test_clearing_that_fails_shows_what_is_left(stores, runner, opened, scene, monkeypatch):
    whole = Box.of_shape(opened.store.geometry.shape)
    stores.refine([whole], 1, device="cpu", focus=None)
    runner.finish()
    monkeypatch.setattr(opened.store, "clear", Mock(side_effect=StoreError("no")))
    scene.forget_boxes.reset_mock()
    stores.clear([whole], 1)
    runner.finish()
    assert stores.jobs.state.outcome == "no"
    scene.forget_boxes.assert_called_once_with(opened.store)


def test_stopped_clearing_says_how_much_is_gone(stores, runner, opened, monkeypatch):
    whole = Box.of_shape(opened.store.geometry.shape)
    stores.refine([whole], 1, device="cpu", focus=None)
    runner.finish()
    monkeypatch.setattr(controllers, "_CLEARED_AT_ONCE", 1)
    stores.clear([whole], 1)
    for _ in range(3):  # two of them are removed before the third report
        runner.step()
    runner.cancel()
    assert stores.jobs.state.outcome == "Stopped. Removed 2 tiles."
    assert 0 < opened.store.refined_fraction(1) < 1
    stores.clear([whole], 1)
    runner.finish()
    assert opened.store.refined_fraction(1) == 0
    with opened.store.writing():
        pass  # the lock is free


def test_without_a_store_buttons_say_so(jobs, scene):
    stores = StoreController(SessionState(), jobs, scene)
    with pytest.raises(MsganError, match="no image yet"):
        stores.refine([], 1, device="cpu", focus=None)
    with pytest.raises(MsganError, match="no image yet"):
        stores.clear([], 1)


def test_generated_store_is_shown_once(jobs, runner, scene, opened):
    stores = StoreController(SessionState(), jobs, scene)
    step = Progress("tiles", 1, 2, store=opened.store)
    wish = GenerateWish(steps_of(Progress("sketch", 1, 1), step, step), lambda store: opened, "CT")
    stores.generate(wish)
    runner.step()
    assert stores.session.opened is None
    runner.finish()
    scene.show.assert_called_once_with(opened, "CT")
    assert stores.session.opened is opened


def test_cancelled_generation_says_that_there_is_nothing_before_there_is_a_store(
    jobs, runner, scene, opened
):
    stores = StoreController(SessionState(), jobs, scene)
    steps = [Progress("sketch", 1, 1), Progress("tiles", 1, 2, store=opened.store)]
    for n_steps, said in ((1, "Nothing was made"), (2, "Finished tiles are kept")):
        stores.generate(GenerateWish(steps_of(*steps), lambda store: opened, "CT"))
        for _ in range(n_steps):
            runner.step()
        runner.cancel()
        assert said in jobs.state.outcome


def test_time_per_tile_is_that_of_the_store_that_is_refined(stores, runner, opened):
    other = Opened(Mock(), opened.placement)
    stores.refine([Box.of_shape(opened.store.geometry.shape)], 1, device="cpu", focus=None)
    stores.session.opened = other  # the result was removed
    runner.step()
    assert other.tile_s is None


@pytest.mark.parametrize("grid", ["store", "source"])
def test_save_writes_what_the_library_exports(stores, jobs, runner, opened, tmp_path, grid):
    out = tmp_path / "a.nii.gz"
    stores.save(out, scale=1, region=None, grid=grid, overwrite=False)
    runner.finish()
    assert jobs.state.outcome == "Saved a.nii.gz."
    volume = read_volume(out)
    wanted = view_volume(opened.store, 1).shape if grid == "store" else (21, 45, 39)
    assert volume.shape == wanted


def test_cancelled_save_leaves_no_file(stores, runner, tmp_path):
    stores.save(tmp_path / "a.ome.zarr", scale=1, region=None, grid="store", overwrite=False)
    runner.step()
    runner.cancel()
    assert not list(tmp_path.glob("*a.ome.zarr*"))


def test_what_is_cancelled_is_not_finished_nevertheless():
    is_finished = threading.Event()

    def save(report):
        report(Progress("export", 1, 1))
        is_finished.set()

    steps = as_steps(save)
    next(steps)
    assert not is_finished.wait(0.2)
    steps.close()
    assert not is_finished.is_set()
    assert list(as_steps(save))
    assert is_finished.is_set()


def test_steps_of_a_function_end_with_its_error():
    def fail(report):
        report(Progress("export", 0.5, 1))
        raise OSError("disk full")

    steps = as_steps(fail)
    assert next(steps).done == 0.5
    with pytest.raises(OSError, match="disk full"):
        next(steps)


def how_it_ends(steps):
    with pytest.raises(StopIteration) as stop:
        next(steps)
    return stop.value.value


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (RuntimeError("oom"), JobError, "the job stopped: oom"),
        (OSError("disk full"), OSError, "disk full"),
        (MemoryError("large"), MemoryError, "large"),
    ],
    ids=["RuntimeError", "OSError", "MemoryError"],
)
def test_error_of_steps_is_how_they_end(error, kind, text):
    job = ThreadJob()
    steps = until_ended(steps_of(1, error=error), job)
    assert next(steps) == 1
    ending = how_it_ends(steps)
    assert type(ending.error) is kind
    assert str(ending.error) == text
    assert error in (ending.error, ending.error.__cause__)
    assert not ending.is_complete
    assert job.ended.is_set()


def test_error_in_closing_cancelled_steps_is_told():
    def steps():
        try:
            yield 1
            yield 2
        finally:
            raise OSError("disk full")

    job = ThreadJob()
    wrapped = until_ended(steps(), job)
    next(wrapped)
    job.cancel()
    assert str(how_it_ends(wrapped).error) == "disk full"


def test_cancelled_steps_are_closed():
    closed = []

    def steps():
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    job = ThreadJob()
    wrapped = until_ended(steps(), job)
    next(wrapped)
    job.cancel()
    ending = how_it_ends(wrapped)
    assert (ending.is_complete, ending.error) == (False, None)
    assert closed == [True]


def test_a_job_that_never_got_a_thread_is_not_waited_for_and_does_nothing():
    job, ran = ThreadJob(), []

    def steps():
        ran.append(True)
        yield 1

    assert not job.wait(0.01)  # it may still begin
    job.cancel()
    started = time.monotonic()
    assert job.wait(30)
    assert time.monotonic() - started < 5
    assert not how_it_ends(until_ended(steps(), job)).is_complete
    assert ran == []


def test_a_job_that_began_is_waited_for():
    job = ThreadJob()
    steps = until_ended(steps_of(1), job)
    next(steps)
    job.cancel()
    assert not job.wait(0.01)
    how_it_ends(steps)
    assert job.wait(0.01)
