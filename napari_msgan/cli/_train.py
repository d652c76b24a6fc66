"""``napari-msgan train``."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from contextlib import closing, nullcontext
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from napari_msgan.cli._progress import progress_shown, stopped_between_steps
from napari_msgan.cli._tables import one_line, print_table
from napari_msgan.config import first_problem, short_name
from napari_msgan.durable import write_atomically
from napari_msgan.errors import TrainingError, UnusableFilesError
from napari_msgan.jobs import resolve_device

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence
    from importlib.resources.abc import Traversable

    from napari_msgan.training import StepReport
    from napari_msgan.training.config import TrainConfig
    from napari_msgan.training.plan import Preset
    from napari_msgan.training.survey import TrainingFile


#: Images that a list names at most.
_NAMED = 5


def train(arguments: Namespace) -> None:
    """Train every scale of a model, or go on with it."""
    _check_installed()
    if arguments.devices > 1 and os.environ.get("LOCAL_RANK", "0") != "0":
        arguments.quiet = True  # one process speaks for all
    device = resolve_device(arguments.device)
    config, files = _settings(arguments, device)
    if arguments.plan_only:
        return
    from napari_msgan.training import iter_train

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces its settings
    steps = iter_train(files, arguments.out, config, device=device, devices=arguments.devices)
    # Of several processes each would stop at another step.
    stopping = stopped_between_steps() if arguments.devices == 1 else nullcontext(lambda: False)
    last: dict[int, StepReport] = {}
    with progress_shown(quiet=arguments.quiet) as show, stopping as is_asked, closing(steps):
        for report in steps:
            if report.stage == "train":
                last[report.scale] = report
            if is_asked():
                raise KeyboardInterrupt
            note = f"l1 {report.losses['l1']:.4f}" if "l1" in report.losses else ""
            show(_stage(report, len(config.scales)), report.step, report.steps, note)
    if not arguments.quiet:
        out = shlex.quote(str(arguments.out))
        print(f"{arguments.out}: model {config.name!r}, {len(config.scales)} scales.")
        for scale, ended in last.items():
            if ended.step < ended.steps:
                print(
                    f"Scale {scale} took {ended.step} of {ended.steps} steps: its loss on the "
                    "images that are kept out fell no more."
                )
        print(f"Next:\n  napari-msgan generate IMAGE NAME.ome.zarr --model {out}")


def _check_installed() -> None:
    missing = [name for name in ("lightning_fabric", "tensorboard") if find_spec(name) is None]
    if missing:
        raise TrainingError(
            f"training needs {' and '.join(missing)}: install them with "
            "pip install 'napari-msgan[train]'"
        )


def _settings(arguments: Namespace, device: str) -> tuple[TrainConfig, list[TrainingFile]]:
    """Return the settings (given, of the run that goes on, or derived) and the files."""
    from napari_msgan.training import (
        check_run,
        cut_to_images,
        derive_config,
        free_memory_of,
        plan_file,
        run_file,
        survey,
    )

    out, include = arguments.out, _patterns(arguments.include)
    _check_options(arguments)

    def look(config: TrainConfig | None) -> list[TrainingFile]:
        with progress_shown(quiet=arguments.quiet) as show:

            def progress(done: int, total: int) -> None:
                if done < total:  # what is over at once is not worth a line
                    show("looking at images", done, total)

            try:
                return survey(arguments.source, config, arguments.sketches, progress, include)
            except UnusableFilesError as error:
                print(*map(one_line, error.problems), sep="\n", file=sys.stderr)
                raise TrainingError(error.summary) from None

    begun, planned = run_file(out), plan_file(out)
    there = [str(file) for file in (begun, planned) if file.exists()]
    given = arguments.config or next(iter(there), None)
    if given:
        config = read_config(given)
        files = look(config)
        origin = f"settings of {given}"
        if arguments.preset:
            _check_preset(
                config, arguments.preset, given, begun.parent if begun.exists() else planned
            )
        if given == str(begun) and planned.exists() and read_config(str(planned)) != config:
            raise TrainingError(
                f"{planned} has other settings than the run that {out} holds, which keeps its own: "
                f"delete {planned} to go on with it, or {begun.parent} to start again"
            )
    elif arguments.start_from:
        whole = _settings_of_model(arguments.start_from, short_name(out.absolute().name, "model"))
        files = look(whole)
        config = cut_to_images(files, whole)
        origin = f"settings of {arguments.start_from}"
        if len(config.scales) < len(whole.scales):
            origin += f", whose finer scales than {len(config.scales) - 1} no image reaches"
    else:
        files = look(None)
        preset: Preset = arguments.preset or "balanced"
        name, memory = short_name(out.absolute().name, "model"), free_memory_of(device)
        config = derive_config(files, name, preset, memory, arguments.patient)
        origin = f"settings for these {len(files)} images"
    asked = {name: getattr(arguments, name) for name in ("start_from", "patient")}
    asked["include"] = include
    config = config.model_copy(update={name: value for name, value in asked.items() if value})
    check_run(files, out, config, devices=arguments.devices)
    if not arguments.quiet:
        _print_plan(config, files, out, origin)
    if not begun.exists():
        planned.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(planned, config.model_dump_json(indent=2).encode() + b"\n")
        if not (arguments.quiet or given):
            print(f"They are in {planned}: edit them and give them back with --config.")
    return config, files


def _patterns(given: Sequence[str] | None) -> tuple[str, ...]:
    from napari_msgan.training.config import pattern_below

    try:
        return tuple(map(pattern_below, given or ()))
    except ValueError as error:
        raise TrainingError(f"--include: {error}") from error


def _check_options(arguments: Namespace) -> None:
    """Refuse a preset beside settings, of which it would be none."""
    for option in ("config", "start_from"):
        if arguments.preset and getattr(arguments, option):
            raise TrainingError(
                f"--{option.replace('_', '-')} brings settings of its own: leave --preset out"
            )


def _check_preset(config: TrainConfig, preset: Preset, file: str, old: Path) -> None:
    """Refuse settings that are there and were made, or edited, for something else."""
    from napari_msgan.training import preset_steps

    first, further = preset_steps(preset, len(config.axes))
    if [scale.steps for scale in config.scales] != [first, *[further] * (len(config.scales) - 1)]:
        raise TrainingError(
            f"{file} has other steps than --preset {preset}: leave --preset out to go on with it, "
            f"or delete {old} to start again"
        )


def _settings_of_model(model: str, name: str) -> TrainConfig:
    """Return what a model was trained with, for other images."""
    from napari_msgan.model import find_model

    path = find_model(model) / "training.json"
    if not path.is_file():
        raise TrainingError(
            f"{path} is missing, so how {model} was trained is not known: give settings with its "
            "networks by --config"
        )
    update: dict[str, object] = {"name": name, "title": "", "licence": ""}
    update |= {"include": ("**/*",), "slice_mm": {}, "patient": None}  # of its own images
    return read_config(str(path)).model_copy(update=update)


def _print_plan(config: TrainConfig, files: list[TrainingFile], out: Path, origin: str) -> None:
    from napari_msgan.training import disk_of, kept_out_of, n_scales_reached, plan_table

    axes = ", ".join(config.axes)
    low, high = config.window
    print(
        f"{config.name}: {config.kind}, axes {axes}, {low:g} to {high:g} ({config.dtype}), {origin}"
    )
    headings, *rows = plan_table(config)
    print_table(headings, rows, numbers="scale batch steps memory")
    too_coarse = [file.name for file in files if n_scales_reached(file, config) < 2]
    if too_coarse:
        names = ", ".join(too_coarse[:_NAMED]) + (", ..." if len(too_coarse) > _NAMED else "")
        print(
            f"{len(too_coarse)} of {len(files)} images are too coarse for two scales, and left "
            f"out: {names}."
        )
    used = {file.name for file in files} - set(too_coarse)
    if kept_out := kept_out_of(used, config):
        print(f"{len(kept_out)} of {len(used)} images are kept out of training to watch the loss.")
    print(
        f"Resampled images and checkpoints: about {disk_of(config, files) / 1e9:.1f} GB in "
        f"{out / '.training'}, which can be deleted afterwards; TensorBoard reads it too."
    )


def read_config(name: str) -> TrainConfig:
    """Return the settings in a JSON file, or bundled ones by their name.

    Raises
    ------
    TrainingError
        If there are none of that name, or a field does not fit.
    """
    bundled = {Path(f.name).stem: f for f in _bundled_files()}
    known = ", ".join(sorted(bundled))
    if not Path(name).is_file() and name not in bundled:
        raise TrainingError(f"--config {name!r} is no file, and the bundled ones are {known}")
    file = Path(name) if Path(name).is_file() else bundled[name]
    from napari_msgan.training.config import TrainConfig

    try:
        return TrainConfig.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise TrainingError(f"--config {name}: {first_problem(error)}") from error


def _bundled_files() -> list[Traversable]:
    folder = files("napari_msgan.resources") / "training"
    return [file for file in folder.iterdir() if file.name.endswith(".json")]


def _stage(report: StepReport, n_scales: int) -> str:
    match report.stage:
        case "train":
            return f"training scale {report.scale} (0 to {n_scales - 1})"
        case "generate":
            return f"applying scale {report.scale}"
        case stage:
            return {"prepare": "preparing images", "change": "changing images"}.get(stage, stage)
