"""``napari-msgan train``."""

from __future__ import annotations

import shlex
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from napari_msgan.cli._progress import progress_shown
from napari_msgan.errors import TrainingError
from napari_msgan.jobs import resolve_device

if TYPE_CHECKING:
    from argparse import Namespace
    from importlib.resources.abc import Traversable

    from napari_msgan.training import StepReport
    from napari_msgan.training.config import TrainConfig


def train(arguments: Namespace) -> None:
    """Train every scale of a model, or go on with it."""
    config = read_config(arguments.config)
    device = resolve_device(arguments.device)
    from napari_msgan.training import iter_train

    steps = iter_train(arguments.source, arguments.out, config, device=device)
    with progress_shown(quiet=arguments.quiet) as show, closing(steps):
        for report in steps:
            note = f"l1 {report.losses['l1']:.4f}" if "l1" in report.losses else ""
            show(_stage(report, len(config.scales)), report.step, report.steps, note)
    if not arguments.quiet:
        out = shlex.quote(str(arguments.out))
        print(f"{arguments.out}: model {config.name!r}, {len(config.scales)} scales.")
        print(f"Next:\n  napari-msgan generate IMAGE NAME.ome.zarr --model {out}")


def read_config(name: str | None) -> TrainConfig:
    """Return the settings in a JSON file, or bundled ones by their name.

    Raises
    ------
    TrainingError
        If there are none of that name, or a field does not fit.
    """
    bundled = {Path(f.name).stem: f for f in _bundled_files()}
    known = ", ".join(sorted(bundled))
    if name is None:
        raise TrainingError(
            f"training needs --config: a JSON file, or one of the bundled ones ({known}) "
            "to start from"
        )
    if not Path(name).is_file() and name not in bundled:
        raise TrainingError(f"--config {name!r} is no file, and the bundled ones are {known}")
    file = Path(name) if Path(name).is_file() else bundled[name]
    from napari_msgan.training.config import TrainConfig

    try:
        return TrainConfig.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise TrainingError(f"--config {name}: {where}: {first['msg']}") from error


def _bundled_files() -> list[Traversable]:
    folder = files("napari_msgan.resources") / "training"
    return [file for file in folder.iterdir() if file.name.endswith(".json")]


def _stage(report: StepReport, n_scales: int) -> str:
    match report.stage:
        case "train":
            return f"training scale {report.scale} of {n_scales - 1}"
        case "generate":
            return f"applying scale {report.scale}"
        case stage:
            return {"prepare": "preparing images"}.get(stage, stage)
