"""Evaluation of a model on held-out images: figures, tables and pictures."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from napari_msgan.errors import JobError, MsganError
from napari_msgan.evaluation.accuracy import check_torchmetrics
from napari_msgan.evaluation.case import Computing, iter_open_case
from napari_msgan.evaluation.checks import check_inputs, iter_read_training
from napari_msgan.evaluation.figures import iter_measure
from napari_msgan.evaluation.memorisation import draw_patches
from napari_msgan.evaluation.pictures import overview
from napari_msgan.evaluation.places import names_of
from napari_msgan.evaluation.reader_study import draw_regions, reader_study_page
from napari_msgan.evaluation.regions import body_mask
from napari_msgan.evaluation.results import Results
from napari_msgan.evaluation.training_images import iter_search_training
from napari_msgan.evaluation.units import units_of
from napari_msgan.model import Model, load_model
from napari_msgan.steps import changed, run_to_end

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from napari_msgan.evaluation.case import Case
    from napari_msgan.evaluation.figures import ScaleFigures
    from napari_msgan.evaluation.memorisation import Memorisation, PatchPair
    from napari_msgan.evaluation.reader_study import Region

#: Numbers of patches and regions, for all images together.
_MEMORISATION_PATCHES = 48
_READER_REGIONS = 40
#: Scale at which memorisation is measured: 512 pixels, or 3 or 2 mm, for the bundled models.
_MEMORISATION_SCALE = 2
#: Share of an image's time that generating takes; the rest is measuring.
_GENERATING = 0.4


Stage = Literal["reading training images", "evaluating", "searching training images"]


@dataclass(frozen=True, slots=True)
class EvaluationStep:
    """Progress of an evaluation: `done`, in [0, 1], is the share of its stage."""

    stage: Stage
    done: float
    note: str


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation, as in its tables.

    problems : one text each for what could not be measured, and why.
    n_regions : number of regions on the page for readers.
    """

    rows: tuple[ScaleFigures, ...]
    memorisation: Memorisation | None
    problems: tuple[str, ...] = ()
    n_regions: int = 0


def iter_evaluate_image(
    path: Path, model: Model, folder: Path, computing: Computing, scale: int | None = None
) -> Generator[tuple[float, str], None, tuple[Case, list[ScaleFigures]]]:
    """Generate one image and measure all its figures; yield (share done, what is being done).

    Parameters
    ----------
    folder : an empty folder; the returned case lies in it.

    Raises
    ------
    MsganError
        The subclass says what does not fit; a note names the image.
    """
    try:
        opening = iter_open_case(path, model, folder, computing, scale)
        case = yield from changed(opening, _part(0.0, _GENERATING, "generating"))
        sizes = [case.truth[s].size for s in range(case.finest_scale + 1)]
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
    """Return a function that converts the progress of a part to that of the whole."""
    return lambda done: (start + share * done, note)


def evaluate(
    model: Model | Path | str,
    images: Sequence[Path | str],
    out: Path | str,
    *,
    progress: Callable[[EvaluationStep], None] | None = None,
    computing: Computing | None = None,
    scale: int | None = None,
    training: Sequence[Path | str] = (),
    reader_study: bool = False,
    patients: Mapping[Path, str] | None = None,
) -> Evaluation:
    """Evaluate a model and return its figures; parameters and errors as for `iter_evaluate`."""
    steps = iter_evaluate(
        model,
        images,
        out,
        computing=computing,
        scale=scale,
        training=training,
        reader_study=reader_study,
        patients=patients,
    )
    return run_to_end(steps, progress)


def iter_evaluate(
    model: Model | Path | str,
    images: Sequence[Path | str],
    out: Path | str,
    *,
    computing: Computing | None = None,
    scale: int | None = None,
    training: Sequence[Path | str] = (),
    reader_study: bool = False,
    patients: Mapping[Path, str] | None = None,
) -> Generator[EvaluationStep, None, Evaluation]:
    """Evaluate a model; yield progress and return its figures.

    The sketch of each image is made, an image is generated from that sketch, and the two images are
    compared at every scale. The same input gives the same figures. An image that turns out to be
    damaged is left out, and `Evaluation.problems` names it.

    Parameters
    ----------
    model : a loaded model, or a name or folder.
    images : files, or folders of DICOM and OME-Zarr; `find_images` lists those in a folder.
    out : folder, created if missing, for ``figures.csv``, ``summary.csv``, ``report.md``,
        ``pictures/<image>.png`` and, if requested, ``reader-study.html``. Those of an earlier
        evaluation are removed when the first image is finished.
    computing : None for the CPU with one worker.
    scale : finest scale to measure; None for the finest that each image supports.
    training : the images that the model was trained on, to measure memorisation. `check_held_out`
        and `iter_check_pixels` check that `images` are not among them; this function does not.
    patients : the patient of each image; None if each image is of a different patient.

    Raises
    ------
    MsganError
        The subclass says what does not fit; JobError if torchmetrics is missing, if no image is
        given, or if none could be evaluated.
    """
    check_torchmetrics()
    model = load_model(model)
    paths, seen, target = [*map(Path, images)], [*map(Path, training)], Path(out)
    if not paths:
        raise JobError("there is no image to evaluate")
    names = names_of(paths)
    computing = computing or Computing()
    compared = min(_MEMORISATION_SCALE, model.spec.n_scales - 1)
    check_inputs(model, paths, scale, seen, compared, reader_study=reader_study)
    target.mkdir(parents=True, exist_ok=True)
    yield from changed(iter_read_training(seen), _as_stage("reading training images"))
    results = Results(target, model.spec, computing)
    samples = _Samples(
        patches_at=compared if seen else None,
        n_patches=-(-_MEMORISATION_PATCHES // len(paths)),
        n_regions=-(-_READER_REGIONS // len(paths)) if reader_study else 0,
    )
    rows: list[ScaleFigures] = []
    problems: list[str] = []
    try:
        for number, path in enumerate(paths):
            # An error may still hold a file open, which Windows cannot delete.
            with TemporaryDirectory(prefix="napari-msgan-", ignore_cleanup_errors=True) as folder:
                steps = iter_evaluate_image(path, model, Path(folder), computing, scale)
                as_step = _as_step(number, len(paths), names[path])
                try:
                    case, found = yield from changed(steps, as_step)
                except MsganError as error:
                    problems.append(f"{names[path]}: {error}")
                    continue
                patient = "" if patients is None else patients[path]
                rows += [replace(row, image=names[path], patient=patient) for row in found]
                results.add_image(names[path], overview(case), rows)
                samples.draw(case, seed=number)
    except BaseException:
        if rows:  # so that what is finished is not lost
            results.write_tables(rows, [*problems, _stopped(rows, paths, seen)])
        raise
    if not rows:
        raise JobError("no image could be evaluated:\n  " + "\n  ".join(problems))
    results.write_tables(rows, [*problems, *([_stopped(rows, paths, seen)] if seen else [])])
    if reader_study:
        title = f"Reader study of {model.spec.title or model.spec.name}"
        try:
            page = reader_study_page(samples.regions, title, samples.n_shown)
            results.write_page(page)
        except MsganError as error:
            problems.append(str(error))
    memorisation = None
    if seen:
        searching = iter_search_training(
            model, samples.patches, seen, compared, computing.cpu_threads
        )
        try:
            memorisation = yield from changed(searching, _as_stage("searching training images"))
        except MsganError as error:
            problems.append("; ".join([str(error), *getattr(error, "__notes__", ())]))
    results.write_tables(rows, problems, memorisation)
    return Evaluation(tuple(rows), memorisation, tuple(problems), len(samples.regions))


def _stopped(rows: Sequence[ScaleFigures], images: Sequence[Path], training: Sequence[Path]) -> str:
    """Say what is missing from a report that is written before the end."""
    n_done = len({row.image for row in rows})
    lacks = f"this evaluation was stopped, {n_done} of {len(images)} images are measured"
    return lacks + "; training images were not searched" * bool(training)


@dataclass
class _Samples:
    """What is drawn from the images while their files exist.

    patches_at : scale of the patches to search for in the training images; None to draw none.
    n_patches, n_regions : numbers per image.
    n_shown : number of images that the regions are from.
    """

    patches_at: int | None
    n_patches: int
    n_regions: int
    patches: list[PatchPair] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    n_shown: int = 0

    def draw(self, case: Case, seed: int) -> None:
        units = units_of(case.model.spec)
        if self.patches_at is not None and self.patches_at <= case.finest_scale:
            true = units.convert(case.truth[self.patches_at])
            made, body = units.convert(case.made(self.patches_at)), body_mask(true, units)
            self.patches += draw_patches(made, true, body, self.n_patches, seed=seed)
        if self.n_regions:
            body = body_mask(units.convert(case.truth[case.finest_scale]), units)
            drawn = draw_regions(case, body, self.n_regions, seed=seed)
            self.regions += drawn
            self.n_shown += bool(drawn)


def _as_step(number: int, total: int, name: str) -> Callable[[tuple[float, str]], EvaluationStep]:
    """Return a function that converts the progress of one image to that of all."""
    return lambda step: EvaluationStep(
        "evaluating", (number + step[0]) / total, f"{name}: {step[1]}"
    )


def _as_stage(stage: Stage) -> Callable[[tuple[float, str]], EvaluationStep]:
    return lambda step: EvaluationStep(stage, *step)
