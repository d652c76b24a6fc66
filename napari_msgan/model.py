"""Model folders: ``model.json``, safetensors weights, a card, a preview; nothing is unpickled."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from napari_msgan.config import SCHEMA_VERSION, ModelSpec, ScaleSpec
from napari_msgan.durable import write_atomically
from napari_msgan.errors import FolderError, ModelError
from napari_msgan.folders import read_inside
from napari_msgan.settings import first_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from napari_msgan.geometry import Ints
    from napari_msgan.networks.generator import Generator

#: Environment variable that names the folder of a user's own models, instead of the default one.
MODELS_VARIABLE = "NAPARI_MSGAN_MODELS"
#: A model.json larger than this is not one of ours.
_MAX_JSON_BYTES = 1 << 20
#: Most bytes for the header of a safetensors file: the names and shapes of the weights.
_MAX_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class ModelEntry:
    """A model folder in the catalogue.

    origin : "user" or "bundled"; "recorded" for a folder recorded in a store.
    spec : its description; None if it cannot be read.
    problem : why it cannot be used; None if it can.
    """

    name: str
    folder: Path
    origin: str
    spec: ModelSpec | None
    problem: str | None = None


@dataclass(frozen=True)
class Model:
    """A model ready for use: its description, and one generator per trained scale, on the CPU.

    Jobs in several threads may share a model; none of them changes it.
    """

    spec: ModelSpec
    folder: Path
    generators: tuple[Generator, ...] = field(repr=False)

    def __post_init__(self) -> None:
        import torch

        # The fastest layout. Set here because it changes the weights in place, and no job runs yet.
        layout = torch.channels_last if len(self.spec.axes) == 2 else torch.channels_last_3d
        for generator in self.generators:
            generator.to(memory_format=layout)  # type: ignore[call-overload]

    def generator(self, scale: int) -> Generator:
        """Return the generator of a scale; beyond the last trained scale, that of the last one."""
        return self.generators[min(scale, self.spec.n_scales - 1)]

    def halo(self, scale: int) -> Ints:
        return self.generator(scale).halo

    def factor(self, scale: int) -> Ints:
        return self.spec.scales[min(scale, self.spec.n_scales - 1)].factor


def read_spec(folder: Path) -> ModelSpec:
    """Read and check the description in a model folder; does not need torch.

    Raises
    ------
    ModelError
        If ``model.json`` is missing, unreadable, not JSON, of another schema version, or
        inconsistent.
    """
    path = folder / "model.json"
    if not path.is_file():
        raise ModelError(f"{folder} is not a model folder: it has no model.json")
    try:
        return ModelSpec.model_validate_json(read_inside(folder, path.name, _MAX_JSON_BYTES))
    except FolderError as error:
        raise ModelError(f"{error}: this is not a model.json of napari-msgan") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("schema_version",):
            raise ModelError(
                f"{path} has schema version {first['input']!r}, this program reads version "
                f"{SCHEMA_VERSION}. Update napari-msgan, or use a model made for this version."
            ) from error
        raise ModelError(f"{path}: {first_problem(error)}") from error


def load_model(model: Model | str | os.PathLike[str]) -> Model:
    """Load a model, given its name in the catalogue or its folder.

    A model that is already loaded is returned as it is.

    Raises
    ------
    ModelError
        If there is no such model, or one of its files is missing, altered or does not fit.
    """
    return model if isinstance(model, Model) else load_folder(find_model(model))


def find_model(model: str | os.PathLike[str]) -> Path:
    """Return the folder of a model, given its name or the folder itself.

    A folder without ``model.json`` does not take precedence over a model of the same name.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    text = os.fspath(model)
    if (Path(text) / "model.json").is_file():
        return Path(text)
    entries = list_models()
    for entry in entries:
        if entry.name == text:
            return entry.folder
    if Path(text).is_dir():
        return Path(text)
    known = ", ".join(entry.name for entry in entries) or "none"
    raise ModelError(
        f"there is no model {text!r}: it is not a folder, and the models here are {known}. "
        f"Your own models belong in {user_folder()}."
    )


def find_by_identity(identity: str, recorded: str | None = None) -> Path:
    """Return the folder of the model with this `ModelSpec.identity`.

    recorded : a folder to look at besides the catalogue, unless it is a network path.

    Raises
    ------
    ModelError
        If no model found here has this identity.
    """
    entries = list_models()
    # A store may come from anybody: it must not make this computer connect to \\server\share.
    is_local = recorded is not None and not recorded.startswith(("\\\\", "//"))
    if recorded is not None and is_local and (Path(recorded) / "model.json").is_file():
        entries.append(_entry(Path(recorded), "recorded"))
    for entry in entries:
        if entry.spec is not None and entry.spec.identity == identity:
            return entry.folder
    raise ModelError(
        f"the model of this store (hash {identity[:12]}) is neither bundled nor in {user_folder()}"
        + (f" nor at {recorded}" if recorded else "")
        + ". Copy its folder there; --model (in Python model=) names one that lies elsewhere."
    )


def load_folder(folder: Path) -> Model:
    """Load the model in a folder, checking every file.

    Raises
    ------
    ModelError
        If a file is missing, altered or does not fit.
    """
    import torch

    from napari_msgan.networks.build import build_generator

    spec = read_spec(folder)
    generators = []
    for scale in spec.scales:
        with torch.device("meta"):  # takes no memory: the description may ask for any amount
            expected = build_generator(scale.network, scale.factor).state_dict()
        weights = _read_weights(folder, scale, expected)
        check_weights(folder / scale.file, weights, expected)
        generator = build_generator(scale.network, scale.factor)
        generator.load_state_dict({key: value.float() for key, value in weights.items()})
        generators.append(generator.eval().requires_grad_(False))
    return Model(spec, folder, tuple(generators))


def _read_weights(
    folder: Path, scale: ScaleSpec, expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    path, sha256 = folder / scale.file, scale.sha256
    most_bytes = _MAX_HEADER_BYTES + sum(8 * math.prod(w.shape) for w in expected.values())
    try:
        content = read_inside(folder, scale.file, most_bytes)
    except FolderError as error:
        raise ModelError(f"{error}: these are not weights of this model") from error
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}): the model is incomplete, copy it again"
        ) from error
    seen = hashlib.sha256(content).hexdigest()
    if seen != sha256:
        raise ModelError(
            f"{path} is not the file that model.json describes (sha256 {seen[:12]} instead of "
            f"{sha256[:12]}): it was altered or damaged, copy the model again"
        )
    try:
        return load(content)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:  # KeyError: unknown dtype
        raise ModelError(f"{path} is not a safetensors file: {error}") from error


def check_weights(
    path: Path, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    """Check that weights fit a network: their names and shapes, float types, finite values.

    Raises
    ------
    ModelError
        If they do not; the message names the file, what it has and what the network needs.
    """
    import torch

    if missing := sorted(set(expected) - set(weights)):
        raise ModelError(f"{path} lacks the weights {missing[0]!r} ({len(missing)} in all)")
    if unknown := sorted(set(weights) - set(expected)):
        raise ModelError(f"{path} has weights this network does not know: {unknown[0]!r}")
    known = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    for key, value in weights.items():
        if value.shape != expected[key].shape:
            raise ModelError(
                f"{path}: {key!r} has shape {tuple(value.shape)}, its network needs "
                f"{tuple(expected[key].shape)}"
            )
        if value.dtype not in known or value.is_meta:
            kind = "without values" if value.is_meta else str(value.dtype)
            raise ModelError(f"{path}: {key!r} is {kind}, weights are floats")
        if not bool(torch.isfinite(value).all()):
            raise ModelError(f"{path}: {key!r} holds values that are not finite: train it again")


def save_weights(generator: nn.Module, path: Path, *, full_precision: bool = False) -> str:
    """Write the weights of a generator as safetensors, and return the sha256 of the file.

    They are written as float16, except for tensors with values beyond its range, which keep their
    type; with `full_precision` all do.
    """
    import torch
    from safetensors.torch import save

    state = generator.state_dict()
    weights = {}
    for key, value in state.items():
        halved = value.to(torch.float16)
        fits = not full_precision and bool(torch.isfinite(halved).all())
        # channels_last tensors are not contiguous, and safetensors refuses those
        weights[key] = (halved if fits else value).detach().cpu().contiguous()
    content = save(weights)
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def weights_file(scale: int) -> str:
    """Return the name of the file with the weights of a scale."""
    return f"scale_{scale}.safetensors"


def save_spec(spec: ModelSpec, folder: Path) -> None:
    """Write the ``model.json`` of a model folder."""
    write_atomically(folder / "model.json", (spec.model_dump_json(indent=2) + "\n").encode())


def user_folder() -> Path:
    """Return the folder of the user's own models."""
    from platformdirs import user_data_path

    if chosen := os.environ.get(MODELS_VARIABLE):
        return Path(chosen)
    return user_data_path("napari-msgan", appauthor=False) / "models"


def bundled_folder() -> Path:
    """Return the folder of the models that come with the package."""
    with as_file(files("napari_msgan.resources")) as folder:
        return folder / "models"


def list_models() -> list[ModelEntry]:
    """List the models in the user's model folder, then the bundled ones, each sorted by folder."""
    entries = []
    for origin, root in (("user", user_folder()), ("bundled", bundled_folder())):
        if root.is_dir():
            folders = sorted(p for p in root.iterdir() if (p / "model.json").is_file())
            entries += [_entry(folder, origin) for folder in folders]
    return entries


def _entry(folder: Path, origin: str) -> ModelEntry:
    try:
        spec = read_spec(folder)
    except ModelError as error:
        return ModelEntry(folder.name, folder, origin, None, str(error))
    missing = [scale.file for scale in spec.scales if not (folder / scale.file).is_file()]
    problem = f"{missing[0]} is missing: copy the model again" if missing else None
    return ModelEntry(spec.name, folder, origin, spec, problem)
