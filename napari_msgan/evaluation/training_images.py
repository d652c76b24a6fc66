"""Search for generated patches in training images, at every size that training showed."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_msgan.errors import FolderError, ModelError, MsganError, VolumeError
from napari_msgan.evaluation.case import measured_scale, save_truth
from napari_msgan.evaluation.memorisation import PATCH_SIZE, TrainingSearch
from napari_msgan.evaluation.units import units_of
from napari_msgan.folders import read_inside
from napari_msgan.io import read_volume
from napari_msgan.settings import first_problem
from napari_msgan.source import plan_magnified, plan_source

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from napari_msgan.evaluation.memorisation import Memorisation, PatchPair
    from napari_msgan.intensity import Float32Array
    from napari_msgan.model import Model
    from napari_msgan.source import SourcePlan
    from napari_msgan.volume import Volume

_FILE = "training.json"
#: Neighbouring factors differ by about this share, or more where `_MOST_FACTORS` is reached: half
#: of it moves the border of a patch of 32 voxels by half a voxel.
_STEP = 0.06
_MOST_FACTORS = 9

_Factor = Annotated[float, Field(ge=1e-3, le=1e3)]


class _Resampling(BaseModel):
    """The part of a model's training settings that matters here."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    zoom: tuple[_Factor, _Factor]


def trained_zooms(folder: Path) -> tuple[float, ...]:
    """Return 2 to 9 factors that span the range by which training resampled its images.

    Returns none if the model folder has no ``training.json``, because the range is then unknown.

    Raises
    ------
    ModelError
        If that file does not state the range.
    """
    path = folder / _FILE
    if not path.is_file():
        return ()
    try:
        low, high = _Resampling.model_validate_json(read_inside(folder, _FILE)).zoom
    except (FolderError, ValidationError) as error:
        what = first_problem(error) if isinstance(error, ValidationError) else error
        raise ModelError(
            f"{path} does not say by which factors training resampled its images ({what}): take "
            "the file that training wrote, or remove it"
        ) from error
    count = 1 + math.ceil(abs(math.log(high / low)) / _STEP)
    return tuple(np.geomspace(low, high, min(max(2, count), _MOST_FACTORS)).tolist())


def check_sizes(
    images: Sequence[SourcePlan],
    training: Sequence[SourcePlan],
    finest: int | None,
    scale: int,
) -> None:
    """Refuse images that are all smaller than a patch at the scale where patches are compared.

    Parameters
    ----------
    finest : requested finest scale of the images, or None.
    scale : where patches are compared.

    Raises
    ------
    VolumeError
        If no image, or no training image, is large enough.
    """
    for plans, asked, what in ((images, finest, "image"), (training, None, "training image")):
        reaching = [plan for plan in plans if measured_scale(plan, asked) >= scale]
        shapes = [plan.geometry.shape_at(scale) for plan in reaching]
        if not any(min(shape) >= PATCH_SIZE[len(shape)] for shape in shapes):
            raise VolumeError(
                f"memorisation cannot be measured: no {what} is as large as a patch at scale "
                f"{scale}. Leave out --training, or take larger ones"
            )


def iter_search_training(
    model: Model,
    patches: Sequence[PatchPair],
    training: Sequence[Path],
    scale: int,
    workers: int,
) -> Generator[tuple[float, str], None, Memorisation]:
    """Search for the patches in all training images; yield (share done, name of the image).

    Each image is searched at its own size and at those that training resampled it to, one after
    the other, so that memory holds one image at one size.

    Raises
    ------
    MsganError
        The subclass says what does not fit; a note names the image.
    """
    zooms = trained_zooms(model.folder)
    search, total = TrainingSearch(patches), len(training) * (1 + len(zooms))
    for number, path in enumerate(training):
        try:
            volume = read_volume(path)
            for size, image in enumerate(_iter_sizes(volume, model, scale, zooms, workers)):
                yield (number * (1 + len(zooms)) + size) / total, path.name
                if image is not None:
                    search.search(image, path)
        except MsganError as error:
            error.add_note(f"while searching {path}")
            raise
    yield 1.0, ""
    return search.result(zooms)


def _iter_sizes(
    volume: Volume, model: Model, scale: int, zooms: Sequence[float], workers: int
) -> Iterator[Float32Array | None]:
    """Yield an image at a scale in reported units, own size first; None if it lacks the scale."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that an image is larger than the model's
        plan = plan_source(volume, model.spec)
    yield _at_scale(plan, model, scale, workers)
    for zoom in zooms:
        yield _at_scale(plan_magnified(volume, model.spec, zoom), model, scale, workers)


def _at_scale(
    plan: SourcePlan | None, model: Model, scale: int, workers: int
) -> Float32Array | None:
    if plan is None or plan.honest_scale < scale:
        return None
    with TemporaryDirectory(prefix="napari-msgan-", ignore_cleanup_errors=True) as folder:
        truth = save_truth(plan, model.spec, Path(folder), workers, scale)
        return units_of(model.spec).convert(truth[scale])
