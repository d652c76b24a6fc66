"""What can be chosen, in words: a model for a source, and the scales of a store. No Qt."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from napari.layers import Layer

from napari_msgan._napari.from_layer import copied_from, has_voxel_size, is_colour, to_volume
from napari_msgan._napari.stores import shared_store
from napari_msgan.config import ModelSpec
from napari_msgan.errors import MsganError, StoreError
from napari_msgan.geometry import Floats, PyramidGeometry
from napari_msgan.pyramid import PyramidStore
from napari_msgan.source import plan_edited, plan_source
from napari_msgan.volume import Volume

#: Stands between the numbers of a size.
TIMES = " \N{MULTIPLICATION SIGN} "
_LACKS_MM = (
    "The layer has no voxel size in mm, which the model needs. Set its scale (slices, rows, "
    "columns), then press the button below; or open a file that contains it: NIfTI, DICOM, "
    "OME-TIFF."
)
T = TypeVar("T")
_KINDS = {"XR": "X-ray", "CT": "CT", "MR": "MRI"}


@dataclass(frozen=True)
class Choice:
    """An entry of a list: a scale, and its description."""

    scale: int
    text: str


@dataclass(frozen=True)
class SourceCheck:
    """Whether a layer can be the source for a model.

    text : the size of the layer, with notes.
    problem : what prevents its use, with advice; None if nothing does.
    lacks_mm : whether declaring its scale to be in mm would help.
    finest : the finest scales that the result may have, the recommended one first; later ones
        invent detail.
    """

    text: str
    problem: str | None = None
    lacks_mm: bool = False
    finest: tuple[Choice, ...] = ()


def mm_text(spacing: Floats) -> str:
    """Format a voxel size: as one number if it is the same on all axes.

    Examples
    --------
    >>> mm_text((1.5, 1.5, 1.5))
    '1.5 mm'
    """
    if max(spacing) - min(spacing) < 1e-6 * max(spacing):
        return f"{spacing[0]:.3g} mm"
    return TIMES.join(f"{v:.3g}" for v in as_said(spacing)) + " mm"


def pixels_text(shape: tuple[int, ...]) -> str:
    """Format a size as people say it: width by height, or the shape of a volume."""
    return TIMES.join(str(n) for n in as_said(shape)) + (" px" if len(shape) == 2 else "")


def as_said(numbers: Sequence[T]) -> Sequence[T]:
    """Return numbers in the order in which people say them: width by height for a picture."""
    return numbers[::-1] if len(numbers) == 2 else numbers


def model_text(spec: ModelSpec) -> str:
    """Describe a model in one line."""
    kind = _KINDS.get(spec.modality, spec.modality)
    if spec.kind == "physical":
        coarsest, finest = spec.scales[0].spacing_mm, spec.scales[-1].spacing_mm
        assert coarsest is not None
        assert finest is not None
        reach = f"{coarsest[0]:g} to {finest[0]:g} mm"
    else:
        reach = f"{spec.base_size} to {spec.longest_sides[-1]} px"
    return f"{len(spec.axes)}-D {kind}, {spec.n_scales} scales, {reach}"


def check_source(layer: Layer | None, spec: ModelSpec | None) -> SourceCheck:
    """Check whether a layer fits a model, before anything is run."""
    if spec is None:
        return SourceCheck("", "There is no model: browse for a model folder.")
    if layer is None:
        return SourceCheck("", "Open an image first, for example File > Open Sample.")
    try:
        volume = to_volume(layer)
        size = mm_text(volume.spacing) if volume.unit == "millimeter" else "no voxel size"
        text = f"{pixels_text(volume.shape)}, {size}"
        text += ", colours are read as luminance" * is_colour(layer)
    except MsganError as error:
        return SourceCheck("", str(error))
    try:
        if (original := original_of(layer, spec)) is not None:
            geometry = original.geometry
            plan_edited(volume, spec, original.info)
            scale = geometry.finest_scale
            text += f"; a copy of the sketch of {original.path.name}: what you do not edit stays"
            return SourceCheck(text, finest=(Choice(scale, scale_text(geometry, scale)),))
        if copied_from(layer) is not None:
            text += "; not from a store of this model: used like any other sketch"
        finest, notes = _finest(volume, spec)
        return SourceCheck("; ".join([text, *notes]), finest=finest)
    except MsganError as error:
        lacks_mm = len(volume.shape) == len(spec.axes) and not has_voxel_size(layer)
        return SourceCheck(text, _LACKS_MM if lacks_mm else str(error), lacks_mm)


def original_of(layer: Layer, spec: ModelSpec) -> PyramidStore | None:
    """Return the store whose edited sketch a layer is, if this model made it; else None."""
    if (path := copied_from(layer)) is None:
        return None
    try:
        store = shared_store(path)
    except StoreError:  # the store is gone, but what was painted is still a sketch
        return None
    return store if store.info.model_sha256 == spec.identity else None


def _finest(volume: Volume, spec: ModelSpec) -> tuple[tuple[Choice, ...], list[str]]:
    """Return the finest scales to choose from, and notes that apply to all of them."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        plan = plan_source(volume, spec)
    finest = plan.geometry.finest_scale
    notes = [str(warning.message) for warning in told]
    if spec.kind == "relative":
        text = f"{pixels_text(plan.geometry.shape)}, the pixels of the source"
        return (Choice(finest, text),), notes
    choices = []
    for scale in range(finest, spec.n_scales):
        spacing = spec.scales[scale].spacing_mm
        assert spacing is not None
        text = mm_text(spacing)
        if scale > plan.honest_scale:
            text += ", detail beyond the source is invented"
        else:
            text += ", as fine as the source"
        if spec.scales[scale].experimental:
            text += ", experimental"
            if scale == finest:  # also as a note, because a narrow list cuts off the text
                notes.append(f"{mm_text(spacing)} is experimental")
        choices.append(Choice(scale, text))
    return tuple(choices), notes


def scale_text(geometry: PyramidGeometry, scale: int) -> str:
    """Return the voxel size of a scale, or its size in pixels if it has none in mm."""
    if geometry.unit == "millimeter":
        return mm_text(geometry.spacing_at(scale))
    return pixels_text(geometry.shape_at(scale))


def scale_choices(store: PyramidStore, first: int = 0) -> tuple[Choice, ...]:
    """Return the scales of a store from `first` on, noting which exceed the source's detail."""
    choices = []
    for scale in range(first, store.geometry.n_scales):
        text = f"{scale} — {scale_text(store.geometry, scale)}"
        note = scale_note(store, scale)
        choices.append(Choice(scale, f"{text}, {note}" if note else text))
    return tuple(choices)


def scale_note(store: PyramidStore, scale: int) -> str:
    """Say how a scale exceeds its source or its model; "" if it does not."""
    geometry, info = store.geometry, store.info
    honest = min(info.source.honest_scale, geometry.finest_scale)
    notes = []
    if scale > honest:
        notes.append(f"beyond this source (honest to {scale_text(geometry, honest)})")
    if scale > geometry.finest_scale - info.extra_scales:
        notes.append("finer than the model was trained for: its last scale is applied again")
    return "; ".join(notes)


def work_text(tiles: int | None, tile_s: float | None) -> str:
    """Say how many tiles are still to be made and, if known, how long that takes.

    Examples
    --------
    >>> work_text(0, 0.5), work_text(1, None), work_text(64, 0.5)
    ('done already', '1 tile to make', '64 tiles to make, about 32 s')
    """
    if tiles is None:
        return "very many tiles to make"
    if tiles == 0:
        return "done already"
    text = f"{tiles} tile{'s' * (tiles != 1)} to make"
    return text if tile_s is None else f"{text}, about {time_text(tiles * tile_s)}"


def time_text(seconds: float) -> str:
    """Format a duration.

    Examples
    --------
    >>> time_text(4), time_text(100), time_text(8000)
    ('4 s', '2 min', '2.2 h')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
