"""What is refused before an evaluation begins."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import TYPE_CHECKING

from napari_msgan.errors import JobError, MsganError
from napari_msgan.evaluation.case import measured_scale
from napari_msgan.evaluation.reader_study import check_regions, most_regions
from napari_msgan.evaluation.training_images import check_sizes, trained_zooms
from napari_msgan.io import read_geometry, read_volume
from napari_msgan.source import hash_pixels, plan_source

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    from napari_msgan.geometry import Ints
    from napari_msgan.model import Model


def check_inputs(
    model: Model,
    images: Sequence[Path],
    scale: int | None,
    training: Sequence[Path],
    compared: int,
    *,
    reader_study: bool,
) -> None:
    """Refuse inputs that would end the evaluation after hours; list all unusable images at once.

    Parameters
    ----------
    scale : finest scale to measure, or None.
    compared : scale at which memorisation is measured.

    Raises
    ------
    MsganError
        The subclass says what does not fit.
    """
    if training and scale is not None and scale < compared:
        raise JobError(
            f"memorisation is measured at scale {compared}: leave out --scale {scale} or --training"
        )
    if training:
        trained_zooms(model.folder)  # fails if the model folder states no usable range
    plans, problems = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # repeated when an image is made
        for path, finest in [*((p, scale) for p in images), *((p, None) for p in training)]:
            try:
                volume, _ = read_geometry(path)
                plans.append(plan_source(volume, model.spec, finest))
            except MsganError as error:
                problems.append(f"{path.name}: {error}")
    if problems:
        raise JobError(
            f"{len(problems)} of {len(images) + len(training)} images cannot be evaluated with "
            f"{model.spec.name}:\n  " + "\n  ".join(problems)
        )
    if training:
        check_sizes(plans[: len(images)], plans[len(images) :], scale, compared)
    if reader_study:
        shapes = [
            plan.geometry.shape_at(measured_scale(plan, scale)) for plan in plans[: len(images)]
        ]
        check_regions(sum(map(most_regions, shapes)))


def iter_read_training(training: Sequence[Path]) -> Generator[tuple[float, str], None, None]:
    """Read all training images once; yield (share done, name of the image being read).

    Otherwise a damaged image would end the search after hours.

    Raises
    ------
    JobError
        If any cannot be read; it names all of them.
    """
    problems = []
    for number, path in enumerate(training):
        yield number / len(training), path.name
        try:
            read_volume(path)
        except MsganError as error:
            problems.append(f"{path.name}: {error}")
    if problems:
        raise JobError(
            f"{len(problems)} of {len(training)} training images cannot be read:\n  "
            + "\n  ".join(problems)
        )


def iter_check_pixels(
    images: Sequence[Path], training: Sequence[Path]
) -> Generator[tuple[float, str], None, None]:
    """Refuse images that the model was trained on, in whatever kind of file.

    Yields (share done, name of the image being compared). Images that cannot be read are skipped:
    other checks report them.

    Raises
    ------
    JobError
        If training images have the pixels of an image to evaluate; it names all of them.
    """
    of_shape: dict[Ints, list[Path]] = {}
    known: dict[str, Path] = {}
    for path in images if training else ():
        with suppress(MsganError):
            of_shape.setdefault(read_geometry(path)[0].shape, []).append(path)
    shapes, problems = set(of_shape), []
    for number, path in enumerate(training):
        yield number / len(training), path.name
        with suppress(MsganError):
            shape = read_geometry(path)[0].shape
            if shape not in shapes:
                continue
            known |= {hash_pixels(read_volume(p)): p for p in of_shape.pop(shape, ())}
            if twin := known.get(hash_pixels(read_volume(path))):
                problems.append(f"{path} has the pixels of {twin}")
    if problems:
        raise JobError(
            "held-out images are in --training, too: hold them out of training:\n  "
            + "\n  ".join(problems)
        )
