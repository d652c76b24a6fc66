"""The driver of tiles on a cluster; it runs in the process that holds the store's lock."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from napari_msgan import __version__
from napari_msgan.refiner import tile_note
from napari_msgan.scale_out import worker
from napari_msgan.scale_out.calls import Calls, failure
from napari_msgan.scale_out.worker import TileJob, wait_until_seen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_msgan.computing import TileContext
    from napari_msgan.refiner import Drive
    from napari_msgan.scale_out.cluster import Cluster
    from napari_msgan.tiling import Tile


def on_cluster(cluster: Cluster) -> Drive:
    """Return a driver that makes tiles on the workers of a cluster.

    Workers write chunks without the lock. This process holds it, decides who writes what, and
    cleans up under it. When stopped, it waits for the tiles in progress, so that nobody writes
    once the lock is free.
    """
    return partial(_on_workers, cluster=cluster)


@contextmanager
def _on_workers(
    context: TileContext, plan: Sequence[Tile], *, cluster: Cluster
) -> Iterator[_Workers]:
    import torch

    store = context.store
    job = TileJob(
        store.put_mark(),
        store.address,
        context.model.spec.identity,
        context.device,
        context.precision,
        tuple(sorted({tile.scale for tile in plan})),
        __version__,
        torch.__version__,
    )
    driver = _Workers(context, job, cluster)
    try:
        driver.check()
        yield driver
    finally:
        driver.calls.abandon(job.token)
        store.tidy(job.token)


class _Workers:
    """The driver of `on_cluster`."""

    def __init__(self, context: TileContext, job: TileJob, cluster: Cluster) -> None:
        self._context, self._cluster, self._job = context, cluster, tuple(job)
        self._note = partial(tile_note, context.store)
        self.calls: Calls[Tile] = Calls(cluster, self._note)
        self._rank = 0

    @property
    def capacity(self) -> int:
        return self.calls.capacity

    def check(self) -> None:
        """Let all workers prepare, and send the model to those without it.

        Raises
        ------
        JobError
            If a worker has other versions, lacks the device, or does not see the store.
        """
        for _, outcome in [*self._cluster.ask_all(worker.check_tiles, self._job)]:
            if outcome is not None and outcome[0] == worker.NEEDS_MODEL:
                self._cluster.send_model(self._context.model, outcome[1])
            elif outcome is not None:
                raise failure(outcome)

    def begin(self, tile: Tile) -> None:
        self._rank += 1
        self._submit(tile, self._rank)

    def finished(self) -> list[Tile]:
        made: list[Tile] = []
        for tile, outcome in self.calls.finished():
            if outcome is None:
                wait_until_seen(self._context.store, tile)
                made.append(tile)
            elif outcome[0] == worker.NEEDS_MODEL:  # a worker that joined later
                self._cluster.send_model(self._context.model, outcome[1])
                self._submit(tile, 0)
            else:
                raise failure(outcome, self._note(tile))
        return made

    def _submit(self, tile: Tile, rank: int) -> None:
        self.calls.begin(tile, worker.run_tile, self._job, tile.scale, tile.index, rank=rank)
