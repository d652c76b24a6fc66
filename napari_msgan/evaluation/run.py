"""Evaluation of a model on a folder of held-out images: figures, tables and pictures."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from napari_msgan.durable import write_atomically
from napari_msgan.errors import JobError, MsganError
from napari_msgan.evaluation.accuracy import check_torchmetrics
from napari_msgan.evaluation.case import Computing, iter_open_case
from napari_msgan.evaluation.figures import iter_measure
from napari_msgan.evaluation.memorisation import draw_patches
from napari_msgan.evaluation.pictures import overview
from napari_msgan.evaluation.places import check_names
from napari_msgan.evaluation.reader_study import draw_regions, reader_study_page
from napari_msgan.evaluation.regions import body_mask
from napari_msgan.evaluation.tables import figures_csv, report_markdown, summary_csv
from napari_msgan.evaluation.training_images import iter_search_training, trained_zooms
from napari_msgan.evaluation.units import units_of
from napari_msgan.io import read_geometry
from napari_msgan.source import plan_source
from napari_msgan.steps import changed, run_to_end

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from napari_msgan.evaluation.case import Case
    from napari_msgan.evaluation.figures import ScaleFigures
    from napari_msgan.evaluation.memorisation import Memorisation, PatchPair
    from napari_msgan.evaluation.reader_study import Region
    from napari_msgan.evaluation.regions import BoolArray
    from napari_msgan.intensity import Float32Array
    from napari_msgan.model import Model

#: Patches and regions of all images together.
_MEMORISATION_PATCHES = 48
_READER_REGIONS = 40
#: Scale at which memorisation is measured: 512 pixels, or 3 mm, of the bundled models.
_MEMORISATION_SCALE = 2
#: Share of the time of an image that generating takes; the rest is measuring.
_GENERATING = 0.4


@dataclass(frozen=True, slots=True)
class EvaluationStep:
    """How far an evaluation is: `done` in [0, 1] of its stage."""

    stage: Literal["evaluating", "searching training images"]
    done: float
    note: str


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found, as its tables have it."""

    rows: tuple[ScaleFigures, ...]
    memorisation: Memorisation | None


def iter_evaluate_image(
    path: Path, model: Model, folder: Path, computing: Computing, scale: int | None = None
) -> Generator[tuple[float, str], None, tuple[Case, list[ScaleFigures]]]:
    """Generate one image and take all its figures; yield (share that is done, what is done).

    Parameters
    ----------
    folder : an empty one; the case that is returned lies in it.

    Raises
    ------
    MsganError
        A subclass that says what does not fit; a note names the image.
    """
    try:
        opening = iter_open_case(path, model, folder, computing, scale)
        case = yield from changed(opening, _part(0.0, _GENERATING, "generating"))
        sizes = [array.size for array in case.truth]
        rows, done = [], _GENERATING
        for s, size in enumerate(sizes):
            yield done, f"scale {s}"
            share = (1 - _GENERATING) * size / sum(sizes)
            steps = changed(iter_measure(case, s), _part(done, share, f"scale {s}"))
            rows.append((yield from steps))
            done += share
    except MsganError as error:
        error.add_note(f"while evaluating {path}")
        raise
    return case, rows


def _part(start: float, share: float, note: str) -> Callable[[float], tuple[float, str]]:
    """Return the function from how far a part is to how far the whole is."""
    return lambda done: (start + share * done, note)


def evaluate(
    model: Model,
    images: Sequence[Path],
    out: Path,
    *,
    progress: Callable[[EvaluationStep], None] | None = None,
    **options: Any,
) -> Evaluation:
    """Evaluate a model and return the figures; see `iter_evaluate`."""
    return run_to_end(iter_evaluate(model, images, out, **options), progress)


def iter_evaluate(
    model: Model,
    images: Sequence[Path],
    out: Path,
    *,
    computing: Computing | None = None,
    scale: int | None = None,
    training: Sequence[Path] = (),
    reader_study: bool = False,
    patients: Mapping[Path, str] | None = None,
) -> Generator[EvaluationStep, None, Evaluation]:
    """Evaluate a model; yield progress, return the figures.

    Each image is turned into its sketch, and the image that is generated from it is compared with
    it, at every scale. The same input gives the same figures.

    Parameters
    ----------
    out : folder, made if it is missing. Written are ``figures.csv``, ``summary.csv``,
        ``report.md``, ``pictures/<image>.png`` and, if asked for, ``reader-study.html``.
    computing : None for the CPU, one worker.
    scale : finest scale that is measured; None for the finest that each image supports.
    training : the images that the model was trained on, to measure memorisation.
    patients : whose each image is; None where each is another patient's.

    Raises
    ------
    MsganError
        A subclass that says what does not fit; JobError where torchmetrics is missing.
    """
    check_torchmetrics()
    check_names(images)
    computing = computing or Computing()
    compared = min(_MEMORISATION_SCALE, model.spec.n_scales - 1)
    _check_inputs(model, images, scale, training, compared)
    out.mkdir(parents=True, exist_ok=True)
    for former in (out / "reader-study.html", *(out / "pictures").glob("*.png")):
        former.unlink(missing_ok=True)
    rows: list[ScaleFigures] = []
    patches: list[PatchPair] = []
    regions: list[Region] = []
    try:
        for number, path in enumerate(images):
            with TemporaryDirectory(prefix="napari-msgan-") as folder:
                steps = iter_evaluate_image(path, model, Path(folder), computing, scale)
                as_step = _as_step(number, len(images), path.name)
                case, found = yield from changed(steps, as_step)
                patient = "" if patients is None else patients[path]
                rows += [replace(row, patient=patient) for row in found]
                _write_text(out / "figures.csv", figures_csv(rows))
                (out / "pictures").mkdir(exist_ok=True)
                overview(case).save(out / "pictures" / f"{path.name}.png")
                if training and compared < len(case.truth):
                    made, true, body = _in_units(case, compared)
                    share = -(-_MEMORISATION_PATCHES // len(images))
                    patches += draw_patches(made, true, body, share, seed=number)
                if reader_study:
                    _, _, body = _in_units(case, case.finest_scale)
                    share = -(-_READER_REGIONS // len(images))
                    regions += draw_regions(case, body, share, seed=number)
    finally:
        if rows:  # what is finished is not lost
            _write_tables(out, model, rows, None)
    memorisation = None
    if training:
        searching = iter_search_training(model, patches, training, compared, computing.workers)
        memorisation = yield from changed(searching, _as_searching_step)
        _write_tables(out, model, rows, memorisation)
    if reader_study:
        page = reader_study_page(regions, f"Reader study of {model.spec.title or model.spec.name}")
        _write_text(out / "reader-study.html", page)
    return Evaluation(tuple(rows), memorisation)


def _check_inputs(
    model: Model,
    images: Sequence[Path],
    scale: int | None,
    training: Sequence[Path],
    compared: int,
) -> None:
    """Refuse what would end the evaluation after hours, all images in one list."""
    if training and scale is not None and scale < compared:
        raise JobError(
            f"memorisation is measured at scale {compared}: leave out --scale {scale} or --training"
        )
    if training:
        trained_zooms(model.folder)  # whether the model says them
    problems = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said when an image is made
        for path, finest in [*((p, scale) for p in images), *((p, None) for p in training)]:
            try:
                volume, _ = read_geometry(path)
                plan_source(volume, model.spec, finest)
            except MsganError as error:
                problems.append(f"{path.name}: {error}")
    if problems:
        raise JobError(
            f"{len(problems)} of {len(images) + len(training)} images cannot be evaluated with "
            f"{model.spec.name}:\n  " + "\n  ".join(problems)
        )


def _as_step(number: int, total: int, name: str) -> Callable[[tuple[float, str]], EvaluationStep]:
    """Return the function from how far one image is to how far all are."""
    return lambda step: EvaluationStep(
        "evaluating", (number + step[0]) / total, f"{name}: {step[1]}"
    )


def _as_searching_step(step: tuple[float, str]) -> EvaluationStep:
    return EvaluationStep("searching training images", *step)


def _in_units(case: Case, scale: int) -> tuple[Float32Array, Float32Array, BoolArray]:
    """Return the generated and the true image in reported units, and the body."""
    units = units_of(case.model.spec)
    true = units.convert(case.truth[scale])
    return units.convert(case.made(scale)), true, body_mask(true, units)


def _write_tables(
    out: Path, model: Model, rows: Sequence[ScaleFigures], memorisation: Memorisation | None
) -> None:
    report = report_markdown(
        rows,
        model_name=model.spec.name,
        units=units_of(model.spec).name,
        memorisation=memorisation,
    )
    _write_text(out / "summary.csv", summary_csv(rows))
    _write_text(out / "report.md", report)


def _write_text(path: Path, text: str) -> None:
    # names of files need not be UTF-8
    write_atomically(path, text.encode(errors="backslashreplace"))
