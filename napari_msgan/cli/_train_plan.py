"""Settings of ``napari-msgan train``: given, taken from a run or a model, or derived.

Training needs packages that may not be installed, so this is imported after they were looked for.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from napari_msgan.cli._progress import progress_shown
from napari_msgan.cli._tables import one_line, print_table
from napari_msgan.cli._telling import tell, unhindered
from napari_msgan.config import short_name
from napari_msgan.durable import write_atomically
from napari_msgan.errors import TrainingError, UnusableFilesError
from napari_msgan.model import find_model
from napari_msgan.settings import first_problem
from napari_msgan.training import (
    TrainConfig,
    check_run,
    derive_config,
    disk_of,
    fit_to_images,
    free_memory_of,
    kept_out_of,
    memory_short_of,
    n_scales_reached,
    plan_file,
    plan_table,
    preset_steps,
    run_file,
    survey,
)
from napari_msgan.training.config import pattern_below

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from napari_msgan.training import TrainingFile
    from napari_msgan.training.plan import Preset

#: Most images that a message names.
_NAMED = 5


@dataclass(frozen=True)
class _Plan:
    """Settings, the images that they are for, and a text that says where they come from."""

    config: TrainConfig
    files: list[TrainingFile]
    origin: str


def settled(arguments: Namespace, device: str) -> tuple[TrainConfig, list[TrainingFile]]:
    """Return the settings and images of a run; print the settings, and save them for editing."""
    out, include = arguments.out, _patterns(arguments.include)
    _check_options(arguments)
    begun, planned = run_file(out), plan_file(out)
    there = (str(file) for file in (begun, planned) if file.exists())
    given = arguments.config or next(there, None)
    if given:
        plan = _given(arguments, given, include)
    elif arguments.start_from:
        plan = _of_model(arguments, include)
    else:
        plan = _derived(arguments, include, device)
    start = arguments.start_from
    if start and Path(start).is_dir():  # so that the same command resumes from any folder
        recorded, resolved = plan.config.start_from, Path(start).resolve()
        is_recorded = recorded is not None and Path(recorded).resolve() == resolved
        start = recorded if is_recorded else str(resolved)
    asked = {"start_from": start, "patient": arguments.patient, "include": include}
    config = plan.config.model_copy(update={name: value for name, value in asked.items() if value})
    check_run(plan.files, out, config, devices=arguments.devices)
    if short := memory_short_of(config, device, arguments.devices):
        scale, needed, free = short
        warnings.warn(
            f"a step of scale {scale} takes about {needed / 1e9:.1f} GB of memory, "
            f"{free / 1e9:.1f} GB are free: a smaller batch takes less, and above scale 0 a "
            "smaller patch_shape",
            stacklevel=2,
        )
    if not arguments.quiet:
        with unhindered(sys.stdout):
            _print_plan(config, plan.files, out, plan.origin)
    if not begun.exists():
        planned.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(planned, config.model_dump_json(indent=2).encode() + b"\n")
        if not (arguments.quiet or given):
            tell(f"They are in {planned}: edit them and pass the file with --config.", sys.stdout)
    return config, plan.files


def _given(arguments: Namespace, given: str, include: tuple[str, ...]) -> _Plan:
    """Return the settings in a file, which may be those of a run to resume."""
    begun, planned = run_file(arguments.out), plan_file(arguments.out)
    config = read_config(given)
    files = _survey(arguments, config, include)
    if arguments.preset:
        _check_preset(config, arguments.preset, given, begun.parent if begun.exists() else planned)
    if given == str(begun) and planned.exists() and read_config(str(planned)) != config:
        raise TrainingError(
            f"{planned} has other settings than the run that {arguments.out} holds, which keeps "
            f"its own: delete {planned} to continue that run, or {begun.parent} to start again"
        )
    return _Plan(config, files, f"settings of {given}")


def _of_model(arguments: Namespace, include: tuple[str, ...]) -> _Plan:
    """Return the plan for training on these images with the settings of another model."""
    whole = _settings_of_model(arguments.start_from, _name(arguments.out), arguments.patient)
    files = _survey(arguments, whole, include)
    config = fit_to_images(files, whole)
    origin = f"settings of {arguments.start_from}"
    if len(config.scales) < len(whole.scales):
        origin += f", whose finer scales than {len(config.scales) - 1} no image reaches"
    return _Plan(config, files, origin)


def _derived(arguments: Namespace, include: tuple[str, ...], device: str) -> _Plan:
    """Return settings derived from the images and the free memory."""
    files = _survey(arguments, None, include)
    preset: Preset = arguments.preset or "balanced"
    memory = free_memory_of(device)
    config = derive_config(files, _name(arguments.out), preset, memory, arguments.patient)
    return _Plan(config, files, f"settings for these {len(files)} images")


def _name(out: Path) -> str:
    return short_name(out.absolute().name, "model")


def _survey(
    arguments: Namespace, config: TrainConfig | None, include: tuple[str, ...]
) -> list[TrainingFile]:
    """Survey the training images; print a line for each file that cannot be used."""
    with progress_shown(quiet=arguments.quiet) as show:

        def progress(done: int, total: int) -> None:
            if done < total:  # a survey that ends at once is not worth a line
                show("looking at images", done, total)

        try:
            return survey(arguments.source, config, arguments.sketches, progress, include)
        except UnusableFilesError as error:
            tell("\n".join(map(one_line, error.problems)))
            raise TrainingError(error.summary) from None


def _patterns(given: Sequence[str] | None) -> tuple[str, ...]:
    try:
        return tuple(map(pattern_below, given or ()))
    except ValueError as error:
        raise TrainingError(f"--include: {error}") from error


def _check_options(arguments: Namespace) -> None:
    """Refuse a preset together with given settings, to which it would not apply."""
    for option in ("config", "start_from"):
        if arguments.preset and getattr(arguments, option):
            raise TrainingError(
                f"--{option.replace('_', '-')} brings settings of its own: leave --preset out"
            )


def _check_preset(config: TrainConfig, preset: Preset, file: str, old: Path) -> None:
    """Refuse existing settings whose steps are not those of the preset."""
    first, further = preset_steps(preset, len(config.axes))
    if [scale.steps for scale in config.scales] != [first, *[further] * (len(config.scales) - 1)]:
        raise TrainingError(
            f"{file} has other steps than --preset {preset}: leave --preset out to continue it, "
            f"or delete {old} to start again"
        )


def _settings_of_model(model: str, name: str, patient: str | None) -> TrainConfig:
    """Return the settings that a model was trained with, adapted to other images."""
    path = find_model(model) / "training.json"
    if not path.is_file():
        raise TrainingError(
            f"{path} is missing, so how {model} was trained is not known: give settings with its "
            "networks by --config"
        )
    update: dict[str, object] = {"name": name, "title": "", "licence": ""}
    update |= {"include": ("**/*",), "slice_mm": {}, "patient": patient}  # not of its own images
    return read_config(str(path)).model_copy(update=update)


def _print_plan(config: TrainConfig, files: list[TrainingFile], out: Path, origin: str) -> None:
    axes = ", ".join(config.axes)
    low, high = config.window
    print(
        f"{config.name}: {config.kind}, axes {axes}, {low:g} to {high:g} ({config.dtype}), {origin}"
    )
    headings, *rows = plan_table(config)
    print_table(headings, rows, numbers="scale batch steps memory")
    if taken := [str(scale) for scale, plan in enumerate(config.scales) if not plan.steps]:
        print(f"Without steps, taken unchanged from {config.start_from}: scale {', '.join(taken)}.")
    too_coarse = [file.name for file in files if n_scales_reached(file, config) < 2]
    if too_coarse:
        names = ", ".join(too_coarse[:_NAMED]) + (", ..." if len(too_coarse) > _NAMED else "")
        print(
            f"{len(too_coarse)} of {len(files)} images are too coarse for two scales, and left "
            f"out: {names}."
        )
    used = {file.name for file in files} - set(too_coarse)
    if kept_out := kept_out_of(used, config):
        print(
            f"{len(kept_out)} of {len(used)} images are kept out of training to monitor the loss."
        )
    print(
        f"Resampled images and checkpoints: about {disk_of(config, files) / 1e9:.1f} GB in "
        f"{out / '.training'}, which you can delete afterwards; TensorBoard also reads it.",
        flush=True,
    )


def read_config(name: str) -> TrainConfig:
    """Return the settings in a JSON file, or bundled settings by their name.

    Raises
    ------
    TrainingError
        If there are none of that name, or they are not valid.
    """
    folder = resources("napari_msgan.resources") / "training"
    bundled = {Path(f.name).stem: f for f in folder.iterdir() if f.name.endswith(".json")}
    known = ", ".join(sorted(bundled))
    if not Path(name).is_file() and name not in bundled:
        raise TrainingError(
            f"--config {name!r} is not a file, and the bundled settings are {known}"
        )
    file = Path(name) if Path(name).is_file() else bundled[name]
    try:
        return TrainConfig.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise TrainingError(f"{name}: {first_problem(error)}") from error
