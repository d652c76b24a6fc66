"""The model that a run starts from, whose generators are used where they fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_msgan.errors import TrainingError
from napari_msgan.model import find_model, load_model, read_spec

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from napari_msgan.config import AnyNetwork, ModelSpec
    from napari_msgan.training.config import TrainConfig


def check_start(config: TrainConfig, out: Path) -> None:
    """Refuse a model to start from whose weights do not fit the networks of the run.

    Raises
    ------
    ModelError
        If there is no such model.
    TrainingError
        If one of its scales has another network or factor, or it would be overwritten; if a
        scale without steps is missing from it or differs there; or if no scale has steps.
    """
    taken = [scale for scale, plan in enumerate(config.scales) if plan.steps == 0]
    if len(taken) == len(config.scales):
        raise TrainingError("every scale has 0 steps, so nothing would be trained")
    if config.start_from is None:
        if taken:
            raise TrainingError(
                f"scale {taken[0]} has 0 steps, so it is taken from another model: name that "
                "model by --start-from, or give the scale steps"
            )
        return
    folder = find_model(config.start_from)
    if folder.resolve() == out.resolve():
        raise TrainingError(f"{out} is the model to start from: write to another folder")
    spec = read_spec(folder)
    for scale, (plan, there) in enumerate(zip(config.scales, spec.scales, strict=False)):
        if (_shaped(plan.network), plan.factor) != (_shaped(there.network), there.factor):
            raise TrainingError(
                f"scale {scale} cannot start from {spec.name!r}, whose network there is "
                f"{there.network!r} with factor {there.factor}, not {plan.network!r} with factor "
                f"{plan.factor}. Train with the settings of that model."
            )
    for scale in taken:
        _check_taken(config, scale, spec)


def _check_taken(config: TrainConfig, scale: int, spec: ModelSpec) -> None:
    """Refuse a scale without steps that would differ from that of the model it is taken from."""
    is_taken = f"scale {scale} has 0 steps, so it is taken from {spec.name!r}"
    if scale >= spec.n_scales:
        raise TrainingError(
            f"{is_taken}, which has scales 0 to {spec.n_scales - 1} only: give it steps"
        )
    planned, there = config.scales[scale].network, spec.scales[scale].network
    sketched = max(scale, 1)  # scale 0 reads the sketch of scale 1
    pairs = {
        "upsampling": (getattr(planned, "upsampling", None), getattr(there, "upsampling", None)),
        "window": (config.window, spec.window),
        "sketch": (config.sketch.of_scale(sketched), spec.sketch.of_scale(sketched)),
    }
    if scale > 0:  # scale 0 adds no noise to its sketch
        pairs["noise (stochastic, sketches.noise)"] = config.noise, spec.noise
    for name, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise TrainingError(
                f"{is_taken}, where {name} is {theirs}, but in the settings it is {ours}: use that "
                "of the model, or give the scale steps"
            )


def start_identity(config: TrainConfig) -> str | None:
    """Return the identity of the model that a run starts from, or None without one."""
    return read_spec(find_model(config.start_from)).identity if config.start_from else None


def starting_weights(config: TrainConfig, scale: int) -> dict[str, Tensor] | None:
    """Return the weights that the generator of a scale starts from; None if it starts afresh."""
    if config.start_from is None:
        return None
    model = load_model(config.start_from)
    return model.generators[scale].state_dict() if scale < model.spec.n_scales else None


def _shaped(network: AnyNetwork) -> dict[str, object]:
    """Return what determines the shapes of the weights."""
    return network.model_dump(exclude={"upsampling"})
