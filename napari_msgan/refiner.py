"""Make the tiles of a store with several workers: which ones, in which order, with reports."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from napari_msgan.buffers import KEPT_BYTES, large_buffers_kept
from napari_msgan.computing import run_tile, torch_text
from napari_msgan.errors import JobError, MsganError
from napari_msgan.holding import Held
from napari_msgan.scheduling import TileDriver, plan_tiles, run_in_order

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from napari_msgan.computing import TileContext
    from napari_msgan.geometry import Box
    from napari_msgan.pyramid import PyramidStore
    from napari_msgan.tiling import Tile


#: Most threads that compute on a GPU: torch has 32 streams, and then reuses the first.
_MOST_STREAMS = 16


@dataclass(frozen=True, slots=True)
class TileReport:
    """A tile has been written to the store.

    box : box that was written, in voxels of its scale.
    done, total : number of tiles finished so far, and of all tiles of the job.
    elapsed_s : seconds since the job began to make tiles.
    """

    tile: Tile
    box: Box
    done: int
    total: int
    elapsed_s: float

    @property
    def remaining_s(self) -> float:
        """Return the seconds left if the remaining tiles take as long on average."""
        return self.elapsed_s / self.done * (self.total - self.done)


@dataclass(frozen=True, slots=True)
class Waiting:
    """No tile was finished for a while; yielded so that the consumer can stop the job."""

    done: int
    total: int


#: Gives a driver for a plan of tiles. When its ``with`` block ends, for whatever reason, no tile is
#: in progress any more and none will be started.
Drive = Callable[["TileContext", "Sequence[Tile]"], AbstractContextManager[TileDriver]]


def iter_refine_tiles(
    context: TileContext,
    regions: Sequence[Box],
    scale: int,
    *,
    drive: Drive,
    focus: Box | None = None,
) -> Generator[TileReport | Waiting, None, None]:
    """Make the missing tiles of regions; yield a report for each one written to the store.

    On a cluster, `Waiting` is yielded if no tile is finished for a second.

    Close the generator to stop: tiles in progress are finished, and no others are started.

    Parameters
    ----------
    regions : boxes in voxels of the finest scale.
    scale : scale up to which tiles are made.
    drive : where tiles are made, e.g. ``in_threads(2)``.
    focus : see `plan_tiles`.

    Raises
    ------
    StoreError
        If another process is writing to the store, or its tiles were made in another way.
    """
    store, tiling = context.store, context.store.tiling

    def is_refined(tile: Tile) -> bool:
        return store.is_refined(tile.scale, tiling.core(tile))

    with store.writing():
        plan = plan_tiles(tiling, regions, scale, is_refined, focus)
        started = time.monotonic()
        with drive(context, plan) as driver:
            # not earlier: the store is bound to this device, so the device must be ready
            store.set_fingerprint(context.fingerprint)
            done = 0
            for tile in run_in_order(tiling, plan, driver):
                if tile is None:
                    yield Waiting(done, len(plan))
                    continue
                done += 1
                elapsed = time.monotonic() - started
                yield TileReport(tile, tiling.core(tile), done, len(plan), elapsed)


def buffers_kept(context: TileContext, workers: int = 1) -> AbstractContextManager[None]:
    """Keep freed buffers, as many as the tiles of so many threads need (`large_buffers_kept`)."""
    return large_buffers_kept(workers, KEPT_BYTES * (2 if context.precision == "fp32" else 1))


def in_threads(workers: int) -> Drive:
    """Return the driver that makes tiles in threads of this process.

    On the CPU each of them computes with a single thread, because the bits of a tile depend on it.
    On a GPU each has its own stream, so that one copies while another computes.
    """
    return partial(_threads, workers=workers)


def _note_torch_threads() -> Callable[[], None]:
    import torch

    return partial(torch.set_num_threads, torch.get_num_threads())


#: Puts back torch's number of threads, which threads started later inherit from those of tiles.
_torch_threads_put_back = Held(_note_torch_threads)


@contextmanager
def _threads(context: TileContext, plan: Sequence[Tile], *, workers: int) -> Iterator[_Threads]:
    of_scale = Counter(tile.scale for tile in plan)
    # Each thread keeps the memory of a tile, so start no more of them than have work.
    workers = min(workers, max(of_scale.values(), default=1))
    if context.device != "cpu":
        workers = min(workers, _MOST_STREAMS)
    context.prepare(sorted(of_scale))
    with (
        _torch_threads_put_back.held(),
        _begins_of_threads(context.device, workers) as begin_thread,
    ):
        pool = ThreadPoolExecutor(workers, "tile", begin_thread)
        with buffers_kept(context, workers):
            try:
                # Twice as many tiles as workers, so that none waits for its next tile.
                yield _Threads(context, pool, 2 * workers)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _begins_of_threads(device: str, workers: int) -> Iterator[Callable[[], None]]:
    """Give the function that each thread has to call first."""
    import torch

    if device == "cpu":
        yield partial(torch.set_num_threads, 1)
        return
    from napari_msgan.recording import own_streams

    with own_streams(device, workers) as streams:
        yield lambda: torch.cuda.set_stream(streams.pop())


class _Threads:
    """The driver of `in_threads`."""

    def __init__(self, context: TileContext, pool: ThreadPoolExecutor, capacity: int) -> None:
        self.capacity = capacity
        self._context, self._pool = context, pool
        self._running: dict[Future[None], Tile] = {}

    def begin(self, tile: Tile) -> None:
        self._running[self._pool.submit(make_tile, self._context, tile)] = tile

    def finished(self) -> list[Tile]:
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
        return [self._running.pop(future) for future in done]


def make_tile(context: TileContext, tile: Tile) -> None:
    """Compute a tile and write it to the store.

    Raises
    ------
    JobError
        If torch could not compute it.
    MsganError
        If it could not be read or written. A note on every error names the tile.
    """
    core = context.store.tiling.core(tile)
    try:
        context.store.write(tile.scale, core, run_tile(context, tile))
    except MsganError as error:
        error.add_note(tile_note(context.store, tile))
        raise
    except RuntimeError as error:
        problem = JobError(torch_text("the tile could not be computed", error))
        problem.add_note(tile_note(context.store, tile))
        raise problem from error


def tile_note(store: PyramidStore, tile: Tile) -> str:
    """Return the text that says which tile an error is about."""
    core = store.tiling.core(tile)
    return f"while generating tile {core} of scale {tile.scale} of {store.address}"
