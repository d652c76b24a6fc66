"""What runs on a worker: it is given plain values, and tells how it went in strings."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import deque
from contextlib import contextmanager
from functools import lru_cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from napari_msgan import __version__
from napari_msgan.errors import JobError, ModelError, MsganError
from napari_msgan.exporting import Grid, grid_volumes
from napari_msgan.geometry import Box, Ints
from napari_msgan.model import Model, find_by_identity, load_folder, read_spec
from napari_msgan.pyramid import open_pyramid
from napari_msgan.refiner import TileContext, make_tile
from napari_msgan.tiling import Tile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_msgan.config import Precision
    from napari_msgan.pyramid import PyramidStore
    from napari_msgan.volume import ArrayLike

#: First of what a call returns; after FAILED come the worker, what happened, and notes.
DONE, STOPPED, NEEDS_MODEL, FAILED = "done", "stopped", "needs model", "failed"
Outcome = tuple[str, ...]

#: How long a shared folder may take to show here what was written elsewhere.
PATIENCE_S = 10.0
_SHARE = (
    "Stores and exports must lie in a folder that this computer and all workers share, under the "
    "same name."
)

#: Jobs that may still be at work here; one whose coordinator died is pushed out by later ones.
_ready: dict[str, Any] = {}
_MOST_READY = 4
_stopped: set[str] = set()
_lock = threading.Lock()


class TileJob(NamedTuple):
    """The same for all tiles of a job.

    token : name of the file in the store by which a worker knows that it sees the same folder.
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
    """The same for all blocks of an export; `token` is a file beside `target`."""

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


class _NoModelError(Exception):
    """The model is not on this worker."""


def _told(function: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Return what went wrong instead of raising it."""

    @wraps(function)
    def call(*arguments: object) -> Outcome:
        try:
            return function(*arguments)
        except _NoModelError:
            return (NEEDS_MODEL, _address())
        except (MsganError, OSError) as error:
            return (FAILED, _address(), str(error), *getattr(error, "__notes__", ()))

    return call


def describe() -> tuple[str, str]:
    """Return "cuda" or "cpu", and which: what decides the last bit."""
    import torch

    if torch.cuda.is_available():
        return "cuda", torch.cuda.get_device_name()
    return "cpu", torch.backends.cpu.get_cpu_capability()


def stop(token: str) -> None:
    """Begin no other call of a job, and forget what was got ready for it."""
    _stopped.add(token)
    _ready.pop(token, None)


def take_file(identity: str, name: str, content: bytes) -> None:
    """Keep a file of a model, for as long as the worker lives; ``model.json`` comes first."""
    folder = _model_folder(identity)
    folder.mkdir(parents=True, exist_ok=True)
    if name != "model.json" and name not in [s.file for s in read_spec(folder).scales]:
        raise ModelError(f"{name!r} is no file of model {identity[:12]}")
    (folder / name).write_bytes(content)


@_told
def check_tiles(job: tuple[object, ...]) -> Outcome:
    """Get ready for the tiles of a job."""
    _got_ready(TileJob._make(job), _open_context)
    return (DONE,)


@_told
def run_tile(job: tuple[object, ...], scale: int, index: Ints) -> Outcome:
    """Make one tile."""
    described = TileJob._make(job)
    if described.token in _stopped:
        return (STOPPED,)
    context = _got_ready(described, _open_context)
    tile, tiling = Tile(scale, index), context.store.tiling
    for needed in tiling.dependencies(tile):
        # A chunk that is not seen yet would silently be read as the fill value.
        wait_until_seen(context.store, needed)
    with _own_threads(context.device):
        make_tile(context, tile)
    return (DONE,)


@_told
def check_export(job: tuple[object, ...]) -> Outcome:
    """Get ready for the blocks of an export."""
    _got_ready(ExportJob._make(job), _open_levels)
    return (DONE,)


@_told
def write_block(job: tuple[object, ...], level: int, start: Ints, stop: Ints) -> Outcome:
    """Write a block of one level, chunk by chunk."""
    from napari_msgan.io.ome_zarr import write_chunks

    described = ExportJob._make(job)
    if described.token in _stopped:
        return (STOPPED,)
    data = _got_ready(described, _open_levels)[level]
    deque(write_chunks(Path(described.target), level, data, Box(start, stop)), maxlen=0)
    return (DONE,)


def wait_until_seen(store: PyramidStore, tile: Tile) -> None:
    """Wait until a tile that another process wrote is seen in this one's view of the folder.

    Raises
    ------
    JobError
        If it is not.
    """
    core = store.tiling.core(tile)
    until = time.monotonic() + PATIENCE_S
    while not store.look(tile.scale, core):
        if time.monotonic() > until:
            raise JobError(
                f"tile {core} of scale {tile.scale} was written elsewhere, but does not come into "
                f"sight in {store.path}. {_SHARE}"
            )
        time.sleep(0.2)


def info_hash(store: PyramidStore) -> str:
    """Return the hash of what a store says of itself."""
    return hashlib.sha256(store.info.model_dump_json().encode()).hexdigest()


def _got_ready(job: Job, get_ready: Callable[[Job], Ready]) -> Ready:
    with _lock:  # threads of a worker would do it at the same time
        if job.token not in _ready:
            _ready[job.token] = get_ready(job)
            while len(_ready) > _MOST_READY:
                _ready.pop(next(iter(_ready)))
        return cast("Ready", _ready[job.token])


def _open_context(job: TileJob) -> TileContext:
    import torch

    _check_versions(job.version, job.torch, torch.__version__)
    _check_sees(Path(job.store), Path(job.store, job.token))
    store = open_pyramid(job.store, writable=True)
    store.assist()
    model = _model(job.model, store.info.model_path)
    context = TileContext(store, model, _own_device(job.device), job.precision)
    context.prepare(job.scales)
    return context


def _open_levels(job: ExportJob) -> list[ArrayLike]:
    _check_versions(job.version)
    _check_sees(Path(job.target).parent, Path(job.target, job.token))
    store = open_pyramid(job.store)
    if info_hash(store) != job.info_sha256:
        raise JobError(f"this worker sees another store at {store.path}. {_SHARE}")
    volumes = grid_volumes(store, job.scale, Box(job.start, job.stop), job.grid)
    return [volume.data for volume in volumes]


@lru_cache(maxsize=2)
def _model(identity: str, recorded: str | None) -> Model:
    try:
        return load_folder(find_by_identity(identity, recorded))
    except ModelError:
        folder = _model_folder(identity)
    if not folder.is_dir():
        raise _NoModelError
    model = load_folder(folder)
    if model.spec.identity != identity:
        raise ModelError(f"what was sent as model {identity[:12]} is {model.spec.identity[:12]}")
    return model


def _model_folder(identity: str) -> Path:
    from distributed import get_worker

    if re.fullmatch("[0-9a-f]{64}", identity) is None:
        raise ModelError(f"{identity!r} is no hash of a model")
    return Path(get_worker().local_directory) / "models" / identity


def _check_versions(ours: str, torch_there: str = "", torch_here: str = "") -> None:
    if (ours, torch_there) != (__version__, torch_here):
        raise JobError(
            f"this worker has napari-msgan {__version__}"
            f"{torch_here and f' with torch {torch_here}'}, the job was begun by napari-msgan "
            f"{ours}{torch_there and f' with torch {torch_there}'}: results could differ. Install "
            "the same versions everywhere."
        )


def _check_sees(folder: Path, mark: Path) -> None:
    if not folder.is_dir():
        raise JobError(f"this worker does not see the folder {folder}. {_SHARE}")
    if not mark.exists():
        raise JobError(f"this worker sees another folder {folder}. {_SHARE}")


def _own_device(kind: str) -> str:
    """Return the device of this worker: of several GPUs, that of the number its name ends in."""
    if kind == "cpu":
        return kind
    import torch
    from distributed import get_worker

    count = torch.cuda.device_count()
    if count == 0:
        raise JobError("device 'cuda' was asked for, but this worker sees no GPU")
    number = re.search(r"[0-9]+$", str(get_worker().name))
    is_chosen = number is not None and "://" not in str(get_worker().name)
    return f"cuda:{int(number[0]) % count if number and is_chosen else 0}"


@contextmanager
def _own_threads(device: str) -> Iterator[None]:
    """Compute with one thread on the CPU, because the bits of a tile depend on it."""
    import torch

    if device != "cpu":
        with torch.cuda.device(device):
            yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _address() -> str:
    from distributed import get_worker

    return str(get_worker().address)
