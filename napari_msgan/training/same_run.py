"""Whether a folder already holds a training run, and whether it is the same run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeVar

from pydantic import TypeAdapter

from napari_msgan.durable import write_atomically
from napari_msgan.errors import TrainingError
from napari_msgan.training.config import TrainConfig
from napari_msgan.training.start import start_identity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_msgan.training.survey import TrainingFile

_NAMED = 3
#: What `_described` writes.
_IMAGES: TypeAdapter[dict[str, list[float]]] = TypeAdapter(dict[str, list[float]])
T = TypeVar("T")


def work_folder(out: Path) -> Path:
    """Return the folder in which a run keeps its settings, resampled images and checkpoints."""
    return out / ".training"


def run_file(out: Path) -> Path:
    """Return the file in which a run that has begun keeps its settings."""
    return work_folder(out) / "config.json"


def begin_run(files: Sequence[TrainingFile], out: Path, config: TrainConfig) -> None:
    """Record what this run consists of; existing records are left as they are."""
    start = start_identity(config)
    if start and not _start_file(out).exists():
        write_atomically(_start_file(out), start.encode())
    if not _images_file(out).exists():
        write_atomically(_images_file(out), json.dumps(_described(files), indent=2).encode())
    if not run_file(out).exists():
        write_atomically(run_file(out), config.model_dump_json(indent=2).encode())


def check_same_run(files: Sequence[TrainingFile], out: Path, config: TrainConfig) -> None:
    """Refuse to resume with other settings, images or weights: the result would be of neither.

    Raises
    ------
    TrainingError
        If there is a difference; the message names it.
    """
    begun = run_file(out)
    instead = f"Choose another folder, or delete {begun.parent} to start again."
    if begun.exists() and _read(begun, TrainConfig.model_validate_json) != config:
        raise TrainingError(f"{out} holds a training run with other settings. {instead}")
    start = _start_file(out)
    if start.exists() and start.read_text(encoding="ascii", errors="replace") != start_identity(
        config
    ):
        raise TrainingError(
            f"{config.start_from} is no longer the model that the run in {out} started from: put "
            f"that model back. {instead}"
        )
    if not _images_file(out).exists():
        return
    before, now = _read(_images_file(out), _IMAGES.validate_json), _described(files)
    changes = {
        "new": sorted(now.keys() - before.keys()),
        "gone": sorted(before.keys() - now.keys()),
        "changed": sorted(n for n in before.keys() & now if before[n] != now[n]),
    }
    if any(changes.values()):
        said = "; ".join(f"{len(v)} {what} ({_some(v)})" for what, v in changes.items() if v)
        raise TrainingError(
            f"{out} holds a training run with other images: {said}. Give the same ones. {instead}"
        )


def _read(path: Path, parse: Callable[[bytes], T]) -> T:
    try:
        return parse(path.read_bytes())
    except ValueError as error:  # includes pydantic's
        raise TrainingError(
            f"{path} is damaged, so it is unknown which run was begun there: delete {path.parent} "
            "to start again"
        ) from error


def _images_file(out: Path) -> Path:
    return run_file(out).with_name("images.json")


def _start_file(out: Path) -> Path:
    return run_file(out).with_name("start.txt")


def _described(files: Sequence[TrainingFile]) -> dict[str, list[float]]:
    """Return, by name, what tells each image or given sketch from other versions of it."""
    found = {f.name: [_bytes(f.path), f.low, f.high, float(f.checksum)] for f in files}
    drawn = {f"sketch of {f.name}": [float(f.sketch_checksum)] for f in files if f.sketch}
    return found | drawn


def _bytes(path: Path) -> float:
    """Return the size of a file; a folder (OME-Zarr) counts as 0."""
    return path.stat().st_size if path.is_file() else 0


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
