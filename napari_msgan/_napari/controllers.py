"""What the buttons of the panel do; no Qt. A view reports wishes and shows the state.

The cycle of a job: a controller checks the wish and builds its steps (a generator of `Progress`;
nothing runs yet). `JobController.start` passes them to a runner, which executes them in a thread
and calls back on ours: `on_step` for every report, then once `on_error` or `on_end`. Callbacks of a
job that is no longer the current one are recognised by its number and ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Semaphore
from typing import Protocol

from napari_msgan._napari.refined import ShownBox
from napari_msgan._napari.state import JobKind, JobState, Opened, SessionState
from napari_msgan.errors import MsganError
from napari_msgan.exporting import Grid
from napari_msgan.geometry import Box
from napari_msgan.jobs import OnProgress, Progress, export, iter_refine
from napari_msgan.pyramid import PyramidStore
from napari_msgan.refiner import TileReport

Steps = Generator[Progress, None, object]
#: Tiles along each axis that are removed between checks for cancellation.
_CLEARED_AT_ONCE = 4


class Job(Protocol):
    """A running job, as returned by a runner."""

    def cancel(self) -> None: ...
    def wait(self, timeout_s: float) -> bool: ...


class Runner(Protocol):
    """Executes the steps of a job, see `workers.start_in_thread`."""

    def __call__(
        self,
        steps: Steps,
        *,
        on_step: Callable[[Progress], None],
        on_error: Callable[[Exception], None],
        on_end: Callable[[bool], None],
    ) -> Job: ...


class JobController:
    """Runs one job at a time and keeps `JobState` up to date, however the job ends."""

    def __init__(self, state: JobState, run: Runner) -> None:
        self.state = state
        self._run = run
        self._job: Job | None = None
        self._number = 0

    def start(
        self,
        kind: JobKind,
        steps: Steps,
        *,
        on_step: Callable[[Progress], None] = lambda step: None,
        on_error: Callable[[], object] = lambda: None,
        on_end: Callable[[bool], str],
    ) -> None:
        """Run a job.

        on_error : called if it fails; the error itself is always reported.
        on_end : takes whether the job ran to its end, and returns the outcome to show.

        Raises
        ------
        MsganError
            If another job is running.
        """
        if self.state.is_running:
            raise MsganError("a job is running already. Wait until it is done, or cancel it.")
        self._number += 1
        number, state = self._number, self.state
        state.kind, state.stage, state.outcome = kind, None, ""
        state.done, state.total, state.remaining_s, state.is_cancelling = 0, 0, None, False
        state.has_failed = False

        def step(progress: Progress) -> None:
            if number == self._number:
                state.stage = progress.stage
                state.done, state.total = progress.done, progress.total
                state.remaining_s = progress.remaining_s
                on_step(progress)

        def error(problem: Exception) -> None:
            if number == self._number:
                state.has_failed = True
                on_error()
                self._finish(str(problem) or type(problem).__name__)

        def end(completed: bool) -> None:
            if number == self._number:
                self._finish("")
                state.outcome = on_end(completed)

        try:
            self._job = self._run(steps, on_step=step, on_error=error, on_end=end)
        except BaseException:
            self._finish("")
            raise

    def cancel(self) -> None:
        """Stop after the tile in progress."""
        if self._job is not None and self.state.is_running:
            self.state.is_cancelling = True
            self._job.cancel()

    def close(self, timeout_s: float = 60.0) -> None:
        """Stop, wait for the tile in progress, and ignore all further callbacks."""
        self._number += 1
        if self._job is not None:
            self._job.cancel()
            self._job.wait(timeout_s)
            self._job = None

    def _finish(self, outcome: str) -> None:
        self._job = None
        self.state.kind = ""
        self.state.is_cancelling = False
        self.state.outcome = outcome


class StoreScene(Protocol):
    """What the controllers need from the viewer."""

    def show(self, opened: Opened, source: str) -> object: ...
    def tile_arrived(self, store: PyramidStore, report: TileReport) -> None: ...
    def redraw(self, store: PyramidStore, *, thumbnail: bool = False) -> None: ...
    def remember_box(self, store: PyramidStore, box: ShownBox) -> None: ...
    def forget_boxes(self, store: PyramidStore) -> None: ...


@dataclass(frozen=True)
class GenerateWish:
    """A checked wish for a new store: its steps, where its layers will lie, the source's name."""

    steps: Steps
    opened: Callable[[PyramidStore], Opened]
    source: str


class StoreController:
    """Generates, refines, clears and saves; tiles are shown as they are made."""

    def __init__(self, session: SessionState, jobs: JobController, scene: StoreScene) -> None:
        self.session, self.jobs, self._scene = session, jobs, scene
        self._is_stale = False

    def generate(self, wish: GenerateWish) -> None:
        """Make a store; its layers appear as soon as there is something to see."""

        def on_step(progress: Progress) -> None:
            opened = self.session.opened
            if progress.store is not None and (
                opened is None or opened.store is not progress.store
            ):
                opened = wish.opened(progress.store)
                self._scene.show(opened, wish.source)
                self.session.opened = opened
            self._on_step(progress)

        def on_end(completed: bool) -> str:
            return self._ended(completed, "Made the image.")

        self.jobs.start("generate", wish.steps, on_step=on_step, on_end=on_end)

    def refine(
        self,
        boxes: Sequence[Box],
        scale: int,
        *,
        device: str,
        focus: Box | None,
        cluster: str | None = None,
    ) -> None:
        """Make the tiles of these boxes, those in view first.

        cluster : the cluster whose workers make them; None for threads of this process.
        """
        store = self.session.require().store
        steps = iter_refine(
            store, region=boxes, scale=scale, device=device, focus=focus, cluster=cluster
        )
        has_made = False

        def on_step(progress: Progress) -> None:
            nonlocal has_made
            has_made |= progress.report is not None
            self._on_step(progress)

        def on_end(completed: bool) -> str:
            if completed and store.geometry.ndim == 3:
                for box in boxes:
                    if min(box.shape) > 1:  # a single slice is not a box
                        self._scene.remember_box(store, ShownBox(scale, box))
            return self._ended(
                completed, "Refined." if has_made else "All of it was there already."
            )

        self.jobs.start("refine", steps, on_step=on_step, on_end=on_end)

    def clear(self, boxes: Sequence[Box], scale: int) -> None:
        """Remove the tiles of a scale, and the finer ones made from them."""
        store = self.session.require().store
        side = [_CLEARED_AT_ONCE * n for n in store.info.tile_shape]
        parts = [p for box in boxes for p in store.geometry.box_at(scale, box).blocks(side)]
        removed = 0

        def steps() -> Generator[Progress, None, None]:
            nonlocal removed
            with store.writing():
                for done, part in enumerate(parts):
                    yield Progress("clear", done, len(parts))
                    found = store.clear(scale, part)
                    removed += sum(len(tiles) for tiles in found.values())

        def show() -> None:
            self._scene.forget_boxes(store)
            self._scene.redraw(store, thumbnail=True)

        def on_end(completed: bool) -> str:
            show()
            said = f"Removed {removed} tile{'s' * (removed != 1)}."
            return said if completed else f"Stopped. {said}"

        self.jobs.start("clear", steps(), on_error=show, on_end=on_end)

    def save(
        self, path: Path, *, scale: int, region: Box | None, grid: Grid, overwrite: bool
    ) -> None:
        """Write a scale of the open store, or a region of it; the file is complete or absent."""
        store = self.session.require().store

        def write(report: OnProgress) -> object:
            return export(
                store,
                path,
                progress=report,
                scale=scale,
                region=region,
                grid=grid,
                overwrite=overwrite,
            )

        def on_end(completed: bool) -> str:
            return f"Saved {path.name}." if completed else "Cancelled. Nothing was saved."

        self.jobs.start("save", as_steps(write), on_end=on_end)

    def redraw_if_stale(self) -> None:
        """Show the tiles that arrived since the last call; a timer calls this."""
        if self._is_stale and self.session.opened is not None:
            self._is_stale = False
            self._scene.redraw(self.session.opened.store)

    def _on_step(self, progress: Progress) -> None:
        report, store, opened = progress.report, progress.store, self.session.opened
        if report is None or store is None:
            return
        self._scene.tile_arrived(store, report)
        self._is_stale = True
        if opened is not None and opened.store is store and report.tile.scale > 0:
            opened.tile_s = report.elapsed_s / report.done

    def _ended(self, completed: bool, message: str) -> str:
        """Show all that was made, and return the outcome: the message, if it is complete."""
        self._is_stale = False
        if self.session.opened is not None:
            self._scene.redraw(self.session.opened.store, thumbnail=True)
        if completed:
            return message
        has_tiles = self.jobs.state.stage == "tiles"
        return f"Cancelled. {'Finished tiles are kept' if has_tiles else 'Nothing was made'}."


class _Cancelled(Exception):
    """Raised inside a plain function, through its progress callback, to stop it."""


def as_steps(function: Callable[[OnProgress], object]) -> Steps:
    """Turn a plain function with a progress callback into the steps of a job.

    The function waits at each report until the next step is requested. Closing the steps therefore
    stops it at its last report, so that what was cancelled is not completed after all.
    """
    reports: SimpleQueue[Progress | None] = SimpleQueue()
    turns, stop = Semaphore(0), Event()

    def report(progress: Progress) -> None:
        if not stop.is_set():
            reports.put(progress)
            turns.acquire()
        if stop.is_set():
            raise _Cancelled

    with ThreadPoolExecutor(1, "save") as pool:
        future = pool.submit(function, report)
        future.add_done_callback(lambda _: reports.put(None))
        try:
            while (progress := reports.get()) is not None:
                yield progress
                turns.release()
            return future.result()
        finally:
            stop.set()
            turns.release()
