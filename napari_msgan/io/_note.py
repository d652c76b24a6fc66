"""The note in every file that we write: how the image was made, and its exact geometry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_msgan.errors import GeometryError
from napari_msgan.geometry import Affine, Ints
from napari_msgan.multiscales import OUR_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_msgan.volume import Volume

_SYNTHETIC = "SYNTHETIC, made by napari-msgan, not for diagnosis"
_SKETCH = "Edges by napari-msgan: those of a patient's image are that patient's data"
_OTHER = "Written by napari-msgan"


def label(description: Mapping[str, Any]) -> str:
    """Return the text that everybody should read first; at most 79 characters, for NIfTI."""
    if description.get("synthetic"):
        return _SYNTHETIC
    return _SKETCH if description.get("content") == "sketch" else _OTHER


def make_note(volume: Volume, description: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "description": dict(description),
        "geometry": {
            "affine": volume.affine.matrix.tolist(),
            "shape": list(volume.shape),
            "unit": volume.unit,
        },
    }


def to_text(note: Mapping[str, Any]) -> str:
    """Return a note as ASCII text, as TIFF tags and NIfTI extensions need it."""
    return json.dumps({OUR_KEY: note}, allow_nan=False)


def from_text(text: str) -> dict[str, Any] | None:
    """Return the note in a comment; None if the comment is not ours."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):  # RecursionError: deeply nested brackets
        return None
    note = content.get(OUR_KEY) if isinstance(content, dict) else None
    return note if isinstance(note, dict) else None


def description_of(note: Mapping[str, Any] | None) -> dict[str, Any] | None:
    description = note.get("description") if note else None
    return description if isinstance(description, dict) else None


def noted_affine(note: Mapping[str, Any] | None) -> Affine | None:
    """Return the affine in a note; None if there is no valid one."""
    matrix = _noted(note, "affine")
    try:
        return None if matrix is None else Affine(np.array(matrix, dtype=np.float64))
    except (GeometryError, TypeError, ValueError):
        return None


def noted_shape(note: Mapping[str, Any] | None) -> Ints:
    shape = _noted(note, "shape")
    return tuple(shape) if isinstance(shape, list) else ()


def noted_unit(note: Mapping[str, Any] | None) -> str | None:
    unit = _noted(note, "unit")
    return unit if isinstance(unit, str) else None


def _noted(note: Mapping[str, Any] | None, name: str) -> object:
    """Return an entry of the geometry in a note; None if there is none."""
    geometry = note.get("geometry") if note else None
    return geometry.get(name) if isinstance(geometry, dict) else None


def is_same_grid(a: Affine, b: Affine) -> bool:
    """Whether two affines differ by no more than the rounding of a float32 header.

    Other programs may keep our note but crop, resample or register the image: then the header
    counts.
    """
    if a.ndim != b.ndim:
        return False
    smallest = min(a.spacing)
    directions = np.abs(a.matrix[:-1, :-1] - b.matrix[:-1, :-1]).max()
    origins = np.abs(a.matrix[:-1, -1] - b.matrix[:-1, -1]).max()
    reach = np.abs(a.matrix[:-1, -1]).max()
    return bool(directions <= 1e-5 * smallest and origins <= 1e-5 * smallest + 1e-6 * reach)
