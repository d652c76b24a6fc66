"""A look at the training files before anything is computed: what they are, and what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_msgan.errors import MsganError, TrainingError, UnusableFilesError
from napari_msgan.io import READABLE, images_in, read_volume, readable_text
from napari_msgan.sketch import measure_window
from napari_msgan.training.given import check_values, sketch_on, turned
from napari_msgan.volume import checksum_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from napari_msgan.geometry import Floats, Ints
    from napari_msgan.training.config import TrainConfig

#: Shorter images contain nothing to learn from.
_SHORTEST_SIDE = 8


@dataclass(frozen=True)
class TrainingFile:
    """One image of the training data.

    name : path below the data folder, with "/" between folders.
    sketch : the sketch given for it, or None if the sketch is made from the image.
    shape, spacing : of the image, in LPS if it is 3-D in mm; spacing is None without mm.
    low, high : 0.5th and 99.5th percentile.
    checksum, sketch_checksum : of voxels and grid; 0 if no sketch is given.
    """

    name: str
    path: Path
    sketch: Path | None
    shape: Ints
    spacing: Floats | None
    low: float
    high: float
    checksum: int = 0
    sketch_checksum: int = 0


def survey(
    data: Path,
    config: TrainConfig | None = None,
    sketches: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    include: Sequence[str] = (),
) -> list[TrainingFile]:
    """Return the images in a folder, ordered by name, after checking that all can be used.

    Parameters
    ----------
    config : settings that the images must fit; without settings they must fit each other.
    sketches : folder with a sketch or label map for every image, under the same name; the
        extension may differ.
    progress : called with the number of files examined so far, and of all files.
    include : patterns for paths below the folder; if empty, those of `config`, or all files.

    Raises
    ------
    TrainingError
        If there is no image, or no such folder.
    UnusableFilesError
        If some files cannot be used; it lists all of them.
    """
    for folder in (data, sketches):
        if folder is not None and not folder.is_dir():
            raise TrainingError(f"there is no folder {folder}: check the name")
    include = include or (config.include if config else ("**/*",))
    paths = images_in(data, include)
    if not paths:
        raise TrainingError(
            f"{data} holds no image that matches {', '.join(include)}; {readable_text(data)}"
        )
    given = _given_sketches(sketches) if sketches else None
    files: list[TrainingFile] = []
    problems: list[str] = []
    for done, path in enumerate(paths, 1):
        name = path.relative_to(data).as_posix()
        try:
            files.append(_look_at(name, path, given))
        except MsganError as error:
            problems.append(f"{name}: {error}")
        if progress is not None:
            progress(done, len(paths))
    if given is not None:
        unused = given.keys() - _stems(paths, data)
        if unused:  # unless they are of images that `include` leaves out
            unused -= _stems(images_in(data), data)
        problems += [
            f"{path.name}: a sketch without an image"
            for stem, found in given.items()
            if stem in unused
            for path in found
        ]
    problems += _misfits(files, config)
    if problems:
        raise UnusableFilesError(
            f"{len(problems)} of the files in {data} cannot be used for training: take them out, "
            "or name the others by --include (`include` in the settings)",
            problems,
        )
    return files


def _stem(name: str) -> str:
    lower = name.lower()
    ending = max((e for e in READABLE if lower.endswith(e)), key=len, default="")
    return name[: len(name) - len(ending)]


def _stems(paths: Iterable[Path], folder: Path) -> set[str]:
    return {_stem(path.relative_to(folder).as_posix()) for path in paths}


def _given_sketches(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in images_in(folder):
        found.setdefault(_stem(path.relative_to(folder).as_posix()), []).append(path)
    return found


def _look_at(name: str, path: Path, given: dict[str, list[Path]] | None) -> TrainingFile:
    original = read_volume(path)
    volume = turned(original)
    if min(volume.shape) < _SHORTEST_SIDE:
        raise TrainingError(f"has shape {volume.shape}, needs at least {_SHORTEST_SIDE} per side")
    low, high = measure_window(volume.data)
    if high - low <= 2e-6 + 1e-9 * abs(low):
        raise TrainingError(f"all its values are {low:g}, or differ by less than 2e-6")
    sketch, sketch_checksum = None, 0
    if given is not None:
        found = given.get(_stem(name), [])
        if not found:
            raise TrainingError("has no sketch of the same name")
        if len(found) > 1:
            raise TrainingError(f"has several sketches: {', '.join(p.name for p in found)}")
        (sketch,) = found
        drawn = sketch_on(original, read_volume(sketch))
        check_values(drawn)
        sketch_checksum = checksum_of(drawn)
    spacing = volume.spacing if volume.unit == "millimeter" else None
    checksum = checksum_of(volume)
    return TrainingFile(
        name, path, sketch, volume.shape, spacing, low, high, checksum, sketch_checksum
    )


def _misfits(files: Sequence[TrainingFile], config: TrainConfig | None) -> list[str]:
    """Describe which files do not fit the settings, or are unlike most of the others."""
    if config is not None:
        ndim, has_mm = len(config.axes), config.kind == "physical"
        wanted = f"the model is {ndim}-D"
    elif files:
        ndim = int(np.bincount([len(file.shape) for file in files]).argmax())
        has_mm = any(f.spacing for f in files if len(f.shape) == ndim == 3)
        wanted = f"most others are {ndim}-D"
    problems = []
    for file in files:
        if len(file.shape) != ndim:
            problems.append(f"{file.name}: has shape {file.shape}, {wanted}")
        elif has_mm and file.spacing is None:
            problems.append(f"{file.name}: has no voxel size in mm")
    return problems
