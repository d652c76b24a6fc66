"""What all jobs share: progress, device, region of the image, and model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

from napari_msgan.errors import GeometryError, JobError, StoreError
from napari_msgan.geometry import Box
from napari_msgan.io import read_description
from napari_msgan.model import Model, find_by_identity, load_folder, load_model
from napari_msgan.steps import cpu_threads

if TYPE_CHECKING:
    from pathlib import Path

    from napari_msgan.pyramid import PyramidStore
    from napari_msgan.refiner import TileReport

Stage = Literal["unpacking", "sketch", "tiles", "export", "verify", "compare", "clear"]


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a job: `done` of `total` units of the current stage; the unit varies by stage.

    remaining_s : estimated time left in seconds, where it is known.
    report : the tile that has just been finished; otherwise None.
    store : the store, once tiles are being made.
    """

    stage: Stage
    done: float
    total: float
    remaining_s: float | None = None
    report: TileReport | None = None
    store: PyramidStore | None = None


OnProgress = Callable[[Progress], None]


def resolve_device(device: str) -> str:
    """Resolve "auto", "cpu" or "cuda" to "cpu" or "cuda".

    Raises
    ------
    JobError
        If `device` is none of these, or if it is "cuda" and torch sees no GPU or cannot compute
        on it.
    """
    if device == "cpu":
        return device
    if device not in ("auto", "cuda"):
        raise JobError(f"device {device!r} is not one of auto, cpu, cuda")
    import torch

    problem = "torch sees no GPU"
    if torch.cuda.is_available():
        try:
            torch.ones(1, device="cuda").add_(1).item()
        except RuntimeError as error:  # e.g. a GPU for which this build of torch has no kernels
            problem = f"torch cannot compute on the GPU ({str(error).partition(chr(10))[0]})"
            if device == "auto":
                warnings.warn(f"{problem}: the CPU computes", stacklevel=2)
        else:
            return "cuda"
    if device == "cuda":
        raise JobError(f"device 'cuda' was asked for, but {problem}. Use the CPU instead.")
    return "cpu"


def default_workers(device: str) -> int:
    """Return the default number of workers: one per CPU core, or two on a GPU.

    On a GPU, one worker reads while the other computes.
    """
    return cpu_threads(device) if device == "cpu" else 2


def gpu_name(device: str) -> str | None:
    """Return the name of the GPU, or None for the CPU."""
    if device == "cpu":
        return None
    import torch

    return torch.cuda.get_device_name(device)


def checked_scale(scale: int) -> int:
    """Return a scale as a plain int.

    Raises
    ------
    GeometryError
        If it is not an integer of 0 or more.
    """
    if not (isinstance(scale, Integral) and scale >= 0):
        raise GeometryError(f"scale {scale!r} is not a whole number of 0 or more")
    return int(scale)


def region_box(shape: tuple[int, ...], axes: tuple[str, ...], region: Box | str | None) -> Box:
    """Return a region as a box; it may be given as text, or as None for the whole image.

    Raises
    ------
    GeometryError
        If it is none of these, or its number of axes differs from that of the image.
    """
    if region is None:
        return Box.of_shape(shape)
    box = Box.parse(region, axes) if isinstance(region, str) else region
    if not isinstance(box, Box):
        text = ",".join(f"{axis}0:{axis}1" for axis in axes)
        raise GeometryError(f"region {region!r} is neither a Box nor text like {text}")
    if box.ndim != len(shape):
        raise GeometryError(f"region {box} has {box.ndim} axes, the image has {len(shape)}")
    return box


def said_of_sketch(source: Path | str) -> dict[str, Any] | None:
    """Return the description stored in a file if it declares the file a sketch, else None."""
    said = read_description(source)
    return said if said is not None and said.get("content") == "sketch" else None


def model_of(store: PyramidStore, model: Model | Path | str | None) -> Model:
    """Return the model of a store: `model` if given, else the one found by its hash.

    Raises
    ------
    ModelError
        If the model cannot be found or loaded.
    StoreError
        If the store was made by a model other than `model`.
    """
    info = store.info
    if model is None:
        return load_folder(find_by_identity(info.model_sha256, info.model_path))
    model = load_model(model)
    if model.spec.identity != info.model_sha256:
        raise StoreError(
            f"{store.address} was made by model {info.model_name!r} ({info.model_sha256[:12]}), "
            f"not by {model.spec.name!r} ({model.spec.identity[:12]}): their tiles would not fit "
            "together"
        )
    return model
