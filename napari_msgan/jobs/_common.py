"""What all jobs share: how far they are, where they compute, what of an image, by which model."""

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
    """How far a job is: `done` of `total` parts of this stage, whatever these are.

    remaining_s : time left, where it is known.
    report : comes with each finished tile.
    """

    stage: Stage
    done: float
    total: float
    remaining_s: float | None = None
    report: TileReport | None = None
    store: PyramidStore | None = None


OnProgress = Callable[[Progress], None]


def resolve_device(device: str) -> str:
    """Return "cpu" or "cuda" for "auto", "cpu" or "cuda".

    Raises
    ------
    JobError
        If a GPU is asked for, and torch sees none or cannot compute on it.
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
        except RuntimeError as error:  # e.g. one that this build of torch has no kernels for
            problem = f"torch cannot compute on the GPU ({str(error).partition(chr(10))[0]})"
            if device == "auto":
                warnings.warn(f"{problem}: the CPU computes", stacklevel=2)
        else:
            return "cuda"
    if device == "cuda":
        raise JobError(f"device 'cuda' was asked for, but {problem}. Use the CPU instead.")
    return "cpu"


def default_workers(device: str) -> int:
    """Return one worker per core on the CPU, two on a GPU (one reads while the other computes)."""
    return cpu_threads(device) if device == "cpu" else 2


def gpu_name(device: str) -> str | None:
    """Return the name of a GPU; None for the CPU."""
    if device == "cpu":
        return None
    import torch

    return torch.cuda.get_device_name(device)


def checked_scale(scale: int) -> int:
    """Return a scale as a plain number.

    Raises
    ------
    GeometryError
        If it is not a whole number of 0 or more.
    """
    if not (isinstance(scale, Integral) and scale >= 0):
        raise GeometryError(f"scale {scale!r} is not a whole number of 0 or more")
    return int(scale)


def region_box(shape: tuple[int, ...], axes: tuple[str, ...], region: Box | str | None) -> Box:
    """Return a region that may be given as text; None is the whole image.

    Raises
    ------
    GeometryError
        If it is neither, or of another number of axes.
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
    """Return what a file says of itself if it says that it is a sketch, else None."""
    said = read_description(source)
    return said if said is not None and said.get("content") == "sketch" else None


def model_of(store: PyramidStore, model: Model | Path | str | None) -> Model:
    """Return the model of a store, found by its hash unless it is given.

    Raises
    ------
    StoreError
        If another one is given.
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
