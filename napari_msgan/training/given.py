"""Sketches given for the training images: where they lie in space, and what they contain."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from napari_msgan.errors import TrainingError
from napari_msgan.labels import is_filled, is_label_map
from napari_msgan.source import check_given, top_of
from napari_msgan.volume import Volume, orient

if TYPE_CHECKING:
    from napari_msgan.geometry import Affine, Ints

#: To a network a sketch is empty if all of it is below this share of 1.
_FAINTEST = 0.05
_FARTHEST_VOXELS = 0.5


def turned(volume: Volume) -> Volume:
    """Return a 3-D volume in mm oriented to LPS, and any other volume as it is."""
    with_mm = volume.unit == "millimeter" and len(volume.shape) == 3
    return orient(volume, "LPS" if with_mm else None)[0]


def sketch_on(image: Volume, sketch: Volume) -> Volume:
    """Return a sketch with the geometry of its image, oriented as by `turned`.

    If either has no voxel size in mm, their voxels are matched one to one.

    Raises
    ------
    TrainingError
        If the sketch has another shape, or lies elsewhere.
    """
    if image.unit == sketch.unit == "millimeter":
        sketch, image = turned(sketch), turned(image)
        _check_shape(sketch.shape, image.shape)
        farthest = _farthest(sketch.affine, image.affine, image.shape)
        if farthest > _FARTHEST_VOXELS * min(image.spacing):
            raise TrainingError(
                f"its sketch lies up to {farthest:.3g} mm from it: give both the same affine and "
                "voxel size, or save the sketch in a format without them"
            )
        return Volume(sketch.data, image.affine, image.unit)
    _check_shape(sketch.shape, image.shape)
    return turned(Volume(sketch.data, image.affine, image.unit))


def _check_shape(sketch: Ints, image: Ints) -> None:
    if sketch != image:
        raise TrainingError(f"has shape {image}, its sketch has {sketch}")


def _farthest(a: Affine, b: Affine, shape: Ints) -> float:
    """Return the largest distance between corresponding corners of two grids of one shape."""
    corners = itertools.product(*((0, n - 1) for n in shape))
    return max(float(np.linalg.norm(a.at(c) - b.at(c))) for c in corners)


def check_values(sketch: Volume) -> None:
    """Refuse a sketch in which a network would see nothing.

    In a label map, a network sees the borders.

    Raises
    ------
    VolumeError
        If it is not a sketch, see `check_given`.
    TrainingError
        If it has filled regions that are not labels, or is too faint everywhere.
    """
    strongest, dtype = check_given(sketch), sketch.data.dtype
    top = top_of(dtype, strongest)
    if is_label_map(sketch.data):
        return
    if is_filled(sketch.data):
        raise TrainingError(
            "its sketch fills regions, where edges are lines: give edges, or integers from 1 on "
            "(labels), whose borders are taken"
        )
    if strongest < _FAINTEST * top:
        raise TrainingError(
            f"its sketch is nearly empty: its largest value is {strongest:g}, and {dtype} is "
            f"divided by {top}. Save edges as 255 in uint8, or labels that fill regions"
        )
