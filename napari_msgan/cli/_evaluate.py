"""``napari-msgan evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_msgan.cli._progress import progress_shown
from napari_msgan.cli._tables import print_table
from napari_msgan.errors import JobError
from napari_msgan.evaluation import (
    COLUMNS,
    Computing,
    check_held_out,
    check_out,
    find_images,
    iter_check_pixels,
    iter_evaluate,
    patients_of,
    summarise,
)
from napari_msgan.jobs import default_workers, resolve_device
from napari_msgan.model import load_model
from napari_msgan.steps import run_to_end

if TYPE_CHECKING:
    from argparse import Namespace

    from napari_msgan.evaluation import Evaluation

#: The figures shown in the terminal; the tables have all of them.
_SHOWN = ("mae", "mae_from_true", "psnr", "ssim", "swd", "fine_power", "sketch_f1", "seam_max_near")
#: With fewer regions a reader can easily be right by chance; 15 of 20 are significant.
_FEW_REGIONS = 20


def evaluate(arguments: Namespace) -> None:
    """Generate held-out images from their sketches, and write tables that measure them."""
    read = [arguments.source, *([arguments.training] if arguments.training else [])]
    check_out(arguments.out, read, overwrite=arguments.overwrite)
    images = find_images(arguments.source, arguments.include or ["*"], arguments.limit)
    patients = patients_of(images, arguments.patient) if arguments.patient else None
    training = find_images(arguments.training) if arguments.training else []
    check_held_out(images, training, arguments.patient)
    model = load_model(arguments.model)
    device = resolve_device(arguments.device)
    workers = arguments.workers or default_workers(device)
    steps = iter_evaluate(
        model,
        images,
        arguments.out,
        computing=Computing(device, arguments.precision, workers),
        scale=arguments.scale,
        training=training,
        reader_study=arguments.reader_study,
        patients=patients,
    )
    with progress_shown(quiet=arguments.quiet) as show:
        compared = iter_check_pixels(images, training)
        run_to_end(compared, lambda step: show("comparing training images", step[0], 1.0, step[1]))
        found = run_to_end(steps, lambda step: show(step.stage, step.done, 1.0, step.note))
    if not arguments.quiet:
        _print_summary(found)
        print(f"{arguments.out}: report.md, figures.csv, summary.csv, pictures/")
        if (page := arguments.out / "reader-study.html").exists():
            few = ": few; more or larger images would say more" * (found.n_regions < _FEW_REGIONS)
            print(f"Open {page} in a browser. It shows {found.n_regions} regions{few}.")
    if found.problems:
        raise JobError(
            f"{arguments.out} lacks what could not be measured:\n  " + "\n  ".join(found.problems)
        )


def _print_summary(evaluation: Evaluation) -> None:
    columns = {column.name: column for column in COLUMNS if column.name in _SHOWN}
    means = {(mean.scale, mean.column): mean for mean in summarise(evaluation.rows)}
    rows = []
    for scale in sorted({scale for scale, _ in means}):
        shown = {name: means[scale, name] for name in columns if (scale, name) in means}
        patients = max((mean.n_patients for mean in shown.values()), default=0)
        cells = [c.write(shown[n].mean) if n in shown else "" for n, c in columns.items()]
        rows.append([str(scale), str(patients), *cells])
    print_table(["scale", "patients", *columns], rows, numbers=" ".join(["patients", *columns]))
    if found := evaluation.memorisation:
        print(
            f"Memorisation: {found.median:.2f} (median; exchanged {found.reference:.2f}), "
            f"{found.percentile_1:.2f} (1st percentile) of {found.n_patches} patches against "
            f"{found.n_images} training images. Near 0 is a copy."
        )
