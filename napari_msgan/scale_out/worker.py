"""What runs on a worker: it takes plain values, and reports its outcome as strings."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections import Counter, deque
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from napari_msgan import __version__
from napari_msgan.computing import TileContext, own_threads
from napari_msgan.errors import JobError, MsganError
from napari_msgan.exporting import Grid, grid_volumes
from napari_msgan.geometry import Box, Ints
from napari_msgan.pyramid import open_pyramid, place_of
from napari_msgan.refiner import buffers_kept, make_tile
from napari_msgan.scale_out.machine import (
    NoModelError,
    address,
    own_device,
    own_model,
)
from napari_msgan.tiling import Tile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_msgan.config import Precision
    from napari_msgan.pyramid import PyramidStore
    from napari_msgan.volume import ArrayLike

#: First item of an outcome that is not success (which is None); the worker's address follows
#: (except after STOPPED), and after FAILED also the message and notes.
STOPPED, NEEDS_MODEL, FAILED = "stopped", "needs model", "failed"
Outcome = tuple[str, ...]

#: Seconds that a shared folder may take to show here what was written elsewhere.
PATIENCE_S = 10.0
_SHARE = (
    "Stores and exports must lie in a folder that this computer and all workers share, under the "
    "same name; stores may also lie at a URL that all of them reach."
)

#: Jobs that may still be active here; later ones push out a job whose coordinator died.
_ready: dict[str, tuple[Any, ExitStack]] = {}
_MOST_READY = 4
_ready_lock = threading.Lock()

_stopped: set[str] = set()
#: Number of running calls here, per job.
_running: Counter[str] = Counter()
_running_lock = threading.Lock()


class TileJob(NamedTuple):
    """What all tiles of a job have in common.

    token : name of a file in the store that shows a worker that it sees the same folder.
    """

    token: str
    store: str
    model: str
    device: str
    precision: Precision
    scales: Ints
    version: str
    torch: str


class ExportJob(NamedTuple):
    """What all blocks of an export have in common; `token` names a file in `target`."""

    token: str
    store: str
    info_sha256: str
    target: str
    scale: int
    start: Ints
    stop: Ints
    grid: Grid
    version: str


Job = TypeVar("Job", TileJob, ExportJob)
Ready = TypeVar("Ready")


def _call_of_job(function: Callable[..., Outcome | None]) -> Callable[..., Outcome | None]:
    """Make a call skip jobs that were stopped, and return what went wrong instead of raising it."""

    @wraps(function)
    def call(job: tuple[Any, ...], *arguments: object) -> Outcome | None:
        try:
            with _counted(job[0]) as is_wanted:
                return function(job, *arguments) if is_wanted else (STOPPED,)
        except NoModelError:
            return (NEEDS_MODEL, address())
        except (MsganError, OSError) as error:
            return (FAILED, address(), str(error), *getattr(error, "__notes__", ()))

    return call


@contextmanager
def _counted(token: str) -> Iterator[bool]:
    """Count a call of a job while it runs; provide False if the job was stopped."""
    with _running_lock:
        is_wanted = token not in _stopped
        if is_wanted:
            _running[token] += 1
    try:
        yield is_wanted
    finally:
        if is_wanted:
            with _running_lock:
                _running[token] -= 1


async def stop(token: str) -> None:
    """Start no further calls of a job, wait for running ones, and drop what was prepared for it."""
    with _running_lock:
        _stopped.add(token)
    while _running[token] > 0:
        await asyncio.sleep(0.02)
    with _running_lock:
        _running.pop(token, None)
    _forget(token)


@_call_of_job
def check_tiles(job: tuple[object, ...]) -> Outcome | None:
    """Prepare for the tiles of a job."""
    _got_ready(TileJob._make(job), _open_context)
    return None


@_call_of_job
def run_tile(job: tuple[object, ...], scale: int, index: Ints) -> Outcome | None:
    """Make one tile and write it to the store."""
    described = TileJob._make(job)
    context = _got_ready(described, _open_context)
    tile, tiling = Tile(scale, index), context.store.tiling
    for needed in tiling.dependencies(tile):
        # A network folder may not yet show what another computer wrote.
        wait_until_seen(context.store, needed)
    with own_threads(context.device):
        make_tile(context, tile)
    return None


@_call_of_job
def check_export(job: tuple[object, ...]) -> Outcome | None:
    """Prepare for the blocks of an export."""
    _got_ready(ExportJob._make(job), _open_levels)
    return None


@_call_of_job
def write_block(job: tuple[object, ...], level: int, start: Ints, stop: Ints) -> Outcome | None:
    """Write one block of a level, chunk by chunk."""
    from napari_msgan.io.ome_zarr import write_chunks

    described = ExportJob._make(job)
    data = _got_ready(described, _open_levels)[level]
    deque(write_chunks(Path(described.target), level, data, Box(start, stop)), maxlen=0)
    return None


def wait_until_seen(store: PyramidStore, tile: Tile) -> None:
    """Wait until a tile written by another process is visible to this one.

    Raises
    ------
    JobError
        If it does not become visible within `PATIENCE_S`.
    """
    core = store.tiling.core(tile)
    if store.is_refined(tile.scale, core):
        return  # under the coordinator's lock, nobody removes what was seen
    until = time.monotonic() + PATIENCE_S
    while not store.look(tile.scale, core):
        if time.monotonic() > until:
            raise JobError(
                f"tile {core} of scale {tile.scale} was written elsewhere, but does not become "
                f"visible in {store.address}. {_SHARE}"
            )
        time.sleep(0.2)


def info_hash(store: PyramidStore) -> str:
    """Return a hash of the metadata that a store has had since its creation."""
    text = store.info.model_dump_json(exclude={"fingerprint"})
    return hashlib.sha256(text.encode()).hexdigest()


def _got_ready(job: Job, get_ready: Callable[[Job, ExitStack], Ready]) -> Ready:
    with _ready_lock:  # or several threads of a worker would prepare at once
        if job.token not in _ready:
            with ExitStack() as stack:
                _ready[job.token] = (get_ready(job, stack), stack.pop_all())
            while len(_ready) > _MOST_READY:
                _forget(next(iter(_ready)))
        return cast("Ready", _ready[job.token][0])


def _forget(token: str) -> None:
    if (forgotten := _ready.pop(token, None)) is not None:
        forgotten[1].close()


def _open_context(job: TileJob, stack: ExitStack) -> TileContext:
    import torch

    _check_versions(job.version, job.torch, torch.__version__)
    _check_sees_store(job.store, job.token)
    store = open_pyramid(job.store, writable=True)
    store.assist(job.token)
    model = own_model(job.model, store.info.model_path)
    context = TileContext(store, model, own_device(job.device), job.precision)
    context.prepare(job.scales)
    stack.enter_context(buffers_kept(context))
    return context


def _open_levels(job: ExportJob, stack: ExitStack) -> list[ArrayLike]:
    _check_versions(job.version)
    _check_sees(Path(job.target).parent, Path(job.target, job.token))
    store = open_pyramid(job.store)
    if info_hash(store) != job.info_sha256:
        raise JobError(f"this worker sees another store at {store.address}. {_SHARE}")
    volumes = grid_volumes(store, job.scale, Box(job.start, job.stop), job.grid)
    return [volume.data for volume in volumes]


def _check_versions(ours: str, torch_there: str = "", torch_here: str = "") -> None:
    if (ours, torch_there) != (__version__, torch_here):
        raise JobError(
            "this worker has napari-msgan "
            f"{__version__}{torch_here and f' with torch {torch_here}'}, the job was started by "
            f"napari-msgan {ours}{torch_there and f' with torch {torch_there}'}: results could "
            "differ. Install the same versions everywhere."
        )


def _check_sees_store(address: str, token: str) -> None:
    place = place_of(address)
    if not place.is_there():
        raise JobError(f"this worker does not see the store {address}. {_SHARE}")
    if not place.exists(token):
        raise JobError(f"this worker sees another store at {address}. {_SHARE}")


def _check_sees(folder: Path, mark: Path) -> None:
    if not folder.is_dir():
        raise JobError(f"this worker does not see the folder {folder}. {_SHARE}")
    if not mark.exists():
        raise JobError(f"this worker sees another folder {folder}. {_SHARE}")
