"""What a worker has: its device and its models."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from napari_msgan.computing import machine_name
from napari_msgan.durable import write_atomically
from napari_msgan.errors import JobError, ModelError
from napari_msgan.model import find_by_identity, load_folder, read_spec

if TYPE_CHECKING:
    from distributed import Worker

    from napari_msgan.model import Model


class NoModelError(Exception):
    """The model is not on this worker, so it must be sent."""


def describe() -> tuple[str, str, str]:
    """Return "cuda" or "cpu", the GPU or CPU capability that decides the last bit, and the machine.

    The machine is that of `napari_msgan.computing.machine_name`.
    """
    import torch

    if torch.cuda.is_available():
        return "cuda", torch.cuda.get_device_name(own_device("cuda")), machine_name()
    return "cpu", torch.backends.cpu.get_cpu_capability(), machine_name()


def own_device(kind: str) -> str:
    """Return this worker's device; its name ends in the number of its GPU if there are several."""
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


def address() -> str:
    """Return the address of this worker."""
    from distributed import get_worker

    return str(get_worker().address)


def take_file(identity: str, name: str, content: bytes, dask_worker: Worker) -> None:
    """Keep a file of a model for as long as the worker lives; ``model.json`` must come first.

    dask_worker : filled in by `Client.run`.
    """
    folder = _taken(identity, dask_worker)
    folder.mkdir(parents=True, exist_ok=True)
    if name != "model.json" and name not in [s.file for s in read_spec(folder).scales]:
        raise ModelError(f"{name!r} is not a file of model {identity[:12]}")
    write_atomically(folder / name, content)


@lru_cache(maxsize=2)
def own_model(identity: str, recorded: str | None) -> Model:
    """Return a model found on this worker or sent to it, with every file checked.

    Raises
    ------
    NoModelError
        If it has to be sent.
    """
    from distributed import get_worker

    try:
        return load_folder(find_by_identity(identity, recorded))
    except ModelError:
        folder = _taken(identity, get_worker())
    if not (folder / "model.json").is_file():
        raise NoModelError
    spec = read_spec(folder)
    if spec.identity != identity:
        raise ModelError(f"what was sent as model {identity[:12]} is {spec.identity[:12]}")
    if not all((folder / scale.file).is_file() for scale in spec.scales):
        raise NoModelError
    return load_folder(folder)


def _taken(identity: str, worker: Worker) -> Path:
    if re.fullmatch("[0-9a-f]{64}", identity) is None:
        raise ModelError(f"{identity!r} is not a hash of a model")
    return Path(worker.local_directory) / "models" / identity
