"""Make a model folder from checkpoints of the method's authors."""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_msgan.config import (
    INEXACT_NOTE,
    MeganLowResNetwork,
    MeganPatchNetwork,
    ModelSpec,
    ScaleSpec,
    short_name,
)
from napari_msgan.durable import patiently, sync_folder, write_atomically
from napari_msgan.errors import ModelError
from napari_msgan.folders import check_is_folder
from napari_msgan.model import check_weights, save_spec, save_weights, weights_file
from napari_msgan.settings import first_problem
from napari_msgan.sketch_settings import SketchSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_FILE = "NETG_best.pth"
_LAYOUT = f"<experiment>_LR/{_FILE}, <experiment>_HR1/{_FILE}, <experiment>_HR2/{_FILE} and so on"
#: Earlier versions could be made to run code even with ``weights_only=True``.
_SAFE_TORCH = (2, 10)
#: What `torch.load` raises for files that hold anything other than tensors.
_NO_CHECKPOINT = (
    pickle.UnpicklingError,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
    struct.error,
)
_FIRST = "model.0.weight"
_MAX_WIDTH = 256
_FACTOR = (2, 2, 2)
_BASE_SIZE = 32
#: Patches start every 20 voxels; with tiles of 128 they are computed 1.0 (128^3), 1.36 (256^3) and
#: 1.45 times (512^3), with tiles of 64 already 2.1 times at 256^3.
_TILE, _CHUNK = 128, 64


@dataclass(frozen=True)
class Checkpoint:
    """A checked checkpoint of the authors.

    width : channels of the first layer.
    weights : float32 tensors, by their names in the network.
    """

    path: Path
    sha256: str
    width: int
    weights: Mapping[str, Tensor]


def import_megan(
    folder: Path,
    out: Path,
    *,
    name: str | None = None,
    title: str | None = None,
    modality: str = "unknown",
    window: tuple[float, float] = (-1.0, 1.0),
) -> ModelSpec:
    """Make a model folder from checkpoints of the method's authors, and return its description.

    All files are checked before anything is written. Weights keep their full precision.

    Parameters
    ----------
    folder : folder with ``<experiment>_LR/NETG_best.pth``, ``<experiment>_HR1/NETG_best.pth``, ...
    out : model folder to create.
    name, title : short name and title of the model; None for the name of the experiment.
    modality : modality of the images, e.g. "CT", "MR".
    window : intensities that the networks' -1 and 1 stand for; images are stored as float32.

    Raises
    ------
    ModelError
        If a file is missing or holds something else (the message says what was expected and what
        was found), `out` exists, or the options are not valid.
    """
    experiment, paths = find_checkpoints(folder)
    if out.exists():
        raise ModelError(f"{out} exists already. Choose another name, or delete it.")
    check_is_folder(out.absolute().parent, ModelError)
    checkpoints = [read_checkpoint(path, low_res=i == 0) for i, path in enumerate(paths)]
    with TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}.partial-") as partial:
        made = Path(partial) / "model"
        made.mkdir()
        scales = tuple(_write_scale(c, i, made) for i, c in enumerate(checkpoints))
        spec = _described_model(
            short_name(experiment, "megan") if name is None else name,
            experiment if title is None else title,
            modality,
            window,
            scales,
        )
        save_spec(spec, made)
        write_atomically(made / "README.md", _card(spec, experiment, checkpoints).encode())
        patiently(made.rename, out)
    sync_folder(out.absolute().parent)
    return spec


def find_checkpoints(folder: Path) -> tuple[str, list[Path]]:
    """Return the name of the experiment in a folder and its files, coarsest scale first.

    Raises
    ------
    ModelError
        If there is no experiment or more than one, or a scale is missing.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder. Expected one with {_LAYOUT}.")
    names = sorted(path.parent.name for path in folder.glob(f"*/{_FILE}"))
    seen = ", ".join(f"{name}/{_FILE}" for name in names) or "no such file"
    experiments = [name.removesuffix("_LR") for name in names if name.endswith("_LR")]
    if len(experiments) != 1:
        problem = "holds no low-resolution checkpoint" if not experiments else "holds several"
        raise ModelError(f"{folder} {problem}: expected {_LAYOUT} of one experiment, seen: {seen}")
    (experiment,) = experiments
    numbers = {
        int(match[1])
        for name in names
        if (match := re.fullmatch(rf"{re.escape(experiment)}_HR([1-9]\d?)", name))
    }
    for number in range(1, max(numbers, default=1) + 1):
        if number not in numbers:
            raise ModelError(
                f"{folder} lacks {experiment}_HR{number}/{_FILE}: expected {_LAYOUT}, seen: {seen}"
            )
    parts = ["LR", *(f"HR{number}" for number in sorted(numbers))]
    return experiment, [folder / f"{experiment}_{part}" / _FILE for part in parts]


def read_checkpoint(path: Path, *, low_res: bool) -> Checkpoint:
    """Read a checkpoint, and check that it is one of the authors' generators.

    Only tensors are read; code in the file is never run.

    Raises
    ------
    ModelError
        If it holds something else, or this version of torch cannot read it safely.
    """
    import torch

    from napari_msgan.networks import build_generator

    check_torch(torch.__version__)
    _check_packed(path)
    kind = "low-resolution" if low_res else "high-resolution"
    expected = f"expected the state dict of a {kind} generator (tensors by name, such as {_FIRST})"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols: only the content matters
            state = torch.load(path, map_location="cpu", weights_only=True)
    except _NO_CHECKPOINT as error:
        # Not torch's own message, which advises to unpickle the file.
        raise ModelError(
            f"{path}: {expected}, seen: a file that holds more than tensors, is damaged, or was "
            f"not saved by torch ({type(error).__name__}). Nothing in it was run."
        ) from error
    if not isinstance(state, dict) or not all(_is_weight(*item) for item in state.items()):
        raise ModelError(f"{path}: {expected}, seen: {_described(state)}")
    n_in = 1 if low_res else 2
    shape = tuple(state[_FIRST].shape) if _FIRST in state else None
    if shape is None or shape[1:] != (n_in, 3, 3, 3) or not 1 <= shape[0] <= _MAX_WIDTH:
        seen = f"{_described(state)} without {_FIRST}" if shape is None else f"shape {shape}"
        raise ModelError(
            f"{path}: expected {_FIRST} of shape (width, {n_in}, 3, 3, 3), width 1 to "
            f"{_MAX_WIDTH}, as in a {kind} generator, seen: {seen}"
        )
    width = shape[0]
    with torch.device("meta"):
        network = build_generator(_network(width, low_res=low_res), _FACTOR)
    check_weights(path, state, network.state_dict())
    weights = {key: value.float() for key, value in state.items()}
    if beyond := [key for key, value in weights.items() if not value.isfinite().all()]:
        raise ModelError(f"{path}: {beyond[0]} has values that float32 does not hold")
    return Checkpoint(path, hashlib.sha256(path.read_bytes()).hexdigest(), width, weights)


def _check_packed(path: Path) -> None:
    """Refuse a compressed archive: torch stores tensors uncompressed.

    Raises
    ------
    ModelError
        If a part is compressed, or the parts are larger than the file.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, *_NO_CHECKPOINT):
        return  # torch will report what is wrong
    plain = all(part.compress_type == zipfile.ZIP_STORED for part in parts)
    if not plain or sum(part.file_size for part in parts) > path.stat().st_size:
        raise ModelError(
            f"{path}: expected tensors as torch saves them, seen: compressed parts, which torch "
            "never writes and which may unpack to any size. Nothing in it was read"
        )


def check_torch(version: str) -> None:
    """Refuse a version of torch that cannot safely read files from others.

    Raises
    ------
    ModelError
        If it is older than 2.10.
    """
    if tuple(int(part) for part in version.split(".")[:2]) < _SAFE_TORCH:
        needed = ".".join(map(str, _SAFE_TORCH))
        raise ModelError(
            f"checkpoints of others are read with torch {needed} or newer only, because earlier "
            f"ones can run code that is hidden in them; this is torch {version}. Update torch."
        )


def _is_weight(key: object, value: object) -> bool:
    import torch

    return (
        isinstance(key, str) and isinstance(value, torch.Tensor) and value.layout == torch.strided
    )


def _described(state: Any) -> str:
    if not isinstance(state, dict):
        return f"a {type(state).__name__}"
    if not state:
        return "an empty dict"
    other = [value for key, value in state.items() if not _is_weight(key, value)]
    what = f", one of them a {type(other[0]).__name__}" if other else ""
    return f"{len(state)} entries ({str(next(iter(state)))[:60]!r}, ...){what}"


def _network(width: int, *, low_res: bool) -> MeganLowResNetwork | MeganPatchNetwork:
    return MeganLowResNetwork(width=width) if low_res else MeganPatchNetwork(width=width)


def _write_scale(checkpoint: Checkpoint, scale: int, folder: Path) -> ScaleSpec:
    from napari_msgan.networks import build_generator

    network = _network(checkpoint.width, low_res=scale == 0)
    generator = build_generator(network, _FACTOR)
    generator.load_state_dict(checkpoint.weights)
    file = weights_file(scale)
    sha256 = save_weights(generator, folder / file, full_precision=True)
    return ScaleSpec(network=network, factor=_FACTOR, file=file, sha256=sha256)


def _described_model(
    name: str,
    title: str,
    modality: str,
    window: tuple[float, float],
    scales: tuple[ScaleSpec, ...],
) -> ModelSpec:
    try:
        return ModelSpec(
            name=name,
            title=title,
            kind="relative",
            axes=("z", "y", "x"),
            modality=modality,
            base_size=_BASE_SIZE,
            scales=scales,
            tile_shape=(_TILE,) * 3,
            chunk_shape=(_CHUNK,) * 3,
            sketch=SketchSettings.of_ndim(3).model_copy(update={"given": "interpolated"}),
            window=window,
            dtype="float32",
            exact=False,
            licence="that of the imported weights: ask those who trained them",
        )
    except ValidationError as error:
        raise ModelError(first_problem(error)) from error


def _card(spec: ModelSpec, experiment: str, checkpoints: list[Checkpoint]) -> str:
    rows = "\n".join(
        f"| {scale} | {_BASE_SIZE << scale} | {c.width} | {c.path.parent.name} | "
        f"`{c.sha256[:16]}` |"
        for scale, c in enumerate(checkpoints)
    )
    return f"""# {spec.title or spec.name}

Imported from the checkpoints of experiment `{experiment}`, which were trained with the program of
the method's authors (Uzunova et al., MICCAI 2019, arXiv 1907.01376). Nothing is known here of the
images they were trained on, of how well they do, or of their licence: ask those who trained them.

- 3-D, modality: {spec.modality}; stored as float32, {spec.window[0]:g} to {spec.window[1]:g}.
- **{INEXACT_NOTE[0].upper() + INEXACT_NOTE[1:]}.**
  The brightness may change from patch to patch. Patches lie where the authors' program puts them,
  so that regions can be refined in any order, with the same result.
- Trained on cubes of the sizes below; images of any shape can be made.
- A given sketch reaches the coarser scales as in the authors' program (linear interpolation).
- Not for diagnosis. An image made from a patient's sketch is that patient's data.

| scale | size | width | checkpoint | its sha256 |
|---|---|---|---|---|
{rows}
"""
