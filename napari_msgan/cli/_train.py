"""``napari-msgan train``."""

from __future__ import annotations

import logging
import os
import warnings
from contextlib import closing, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING

from napari_msgan.cli._progress import progress_shown, stopped_between_steps
from napari_msgan.cli._tables import quoted
from napari_msgan.errors import TrainingError
from napari_msgan.jobs import resolve_device

if TYPE_CHECKING:
    from argparse import Namespace

    from napari_msgan.training import StepReport


def train(arguments: Namespace) -> None:
    """Train all scales of a model, or resume training."""
    _check_installed()
    if arguments.devices == 1:
        _train(arguments)
        return
    speaks = os.environ.get("LOCAL_RANK", "0") == "0"  # only one process prints
    if not speaks:
        arguments.quiet = True
        warnings.simplefilter("ignore", UserWarning)
    try:
        _train(arguments)
    except KeyboardInterrupt:
        if speaks:
            raise
        raise SystemExit(1) from None
    except RuntimeError as error:
        if not _is_lost_process(error):
            raise
        raise TrainingError(
            f"another process of this run has ended ({str(error).splitlines()[0]}). The same "
            "command resumes from the last checkpoint"
        ) from error


def _is_lost_process(error: RuntimeError) -> bool:
    """Return whether an error means that another process of the run is gone."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or "gloo" in str(error)


def _train(arguments: Namespace) -> None:
    from napari_msgan.cli._train_plan import settled
    from napari_msgan.training import iter_train

    device = resolve_device(arguments.device)
    config, files = settled(arguments, device)
    if arguments.plan_only:
        return
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it would log its settings
    steps = iter_train(files, arguments.out, config, device=device, devices=arguments.devices)
    # Not with several processes, which would stop at different steps.
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
        out = quoted(arguments.out)
        print(f"{arguments.out}: model {config.name!r}, {len(config.scales)} scales.")
        for scale, ended in last.items():
            if ended.step < ended.steps:
                print(
                    f"Scale {scale} took {ended.step} of {ended.steps} steps: its loss on the "
                    "images kept out of training no longer fell."
                )
        print(f"Next:\n  napari-msgan generate IMAGE NAME.ome.zarr --model {out}")


def _check_installed() -> None:
    missing = [name for name in ("lightning_fabric", "tensorboard") if find_spec(name) is None]
    if missing:
        raise TrainingError(
            f"training needs {' and '.join(missing)}: install them with "
            'pip install "napari-msgan[train]"'
        )


def _stage(report: StepReport, n_scales: int) -> str:
    match report.stage:
        case "train":
            return f"training scale {report.scale} (0 to {n_scales - 1})"
        case "generate":
            return f"applying scale {report.scale}"
        case stage:
            return {"prepare": "preparing images", "change": "changing images"}.get(stage, stage)
