"""Layer to `Volume`: where a layer lies, which store it shows, and its voxels as an image.

For layers made by others, scale and translate are taken to describe the upright world defined in
`to_layer`. A layer of ours that nobody moved has the exact affine of its file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels, Layer

from napari_msgan._napari.stores import shared_store
from napari_msgan.errors import VolumeError
from napari_msgan.geometry import Affine, Box, Unit
from napari_msgan.intensity import luminance
from napari_msgan.labels import blocks_of, is_label_map
from napari_msgan.pyramid import SketchView, view_volume
from napari_msgan.volume import ArrayLike, LazyArray, Volume

#: Metadata key for what we know about a layer.
KEY = "napari_msgan"
Role = Literal["result", "sketch", "box"]

_MM = {"millimeter": 1.0, "meter": 1e3, "centimeter": 10.0, "micrometer": 1e-3, "nanometer": 1e-6}


@dataclass(frozen=True)
class StoreLink:
    """What the metadata of a layer say about its store."""

    role: Role
    path: Path


def note_of(layer: Layer) -> dict[str, Any]:
    """Return what we know about a layer; nothing about a layer of others."""
    note = layer.metadata.get(KEY)
    return note if isinstance(note, dict) else {}


def store_link(layer: Layer) -> StoreLink | None:
    """Return which store a layer shows; None for all other layers."""
    note = note_of(layer)
    if "store" not in note:
        return None
    # napari also copies the metadata to split, projected and converted layers, and single levels
    is_whole = note["ndim"] == layer.ndim and layer.multiscale == (note["role"] != "box")
    if not isinstance(layer, Image) or not is_whole:
        return None
    return StoreLink(note["role"], Path(note["store"]))


def copied_from(layer: Layer) -> Path | None:
    """Return the store whose sketch was copied to this layer for painting; None if none was."""
    path = note_of(layer).get("copied_from")
    return Path(path) if isinstance(layer, Labels) and path else None


def layer_matrix(layer: Layer) -> npt.NDArray[np.float64]:
    """Return the matrix from voxel index to layer world, which may only scale, flip and shift.

    Raises
    ------
    VolumeError
        If the layer is rotated or sheared, so its voxels cannot be read as upright slices.
    """
    origin = np.asarray(layer.data_to_world((0.0,) * layer.ndim))
    matrix = np.eye(layer.ndim + 1)
    for axis, unit in enumerate(np.eye(layer.ndim)):
        matrix[:-1, axis] = np.asarray(layer.data_to_world(tuple(unit))) - origin
    matrix[:-1, -1] = origin
    linear = matrix[:-1, :-1]
    if np.abs(linear - np.diag(np.diag(linear))).max() > 1e-6 * np.abs(linear).max():
        raise VolumeError(
            f"layer {layer.name!r} is rotated, sheared or has its axes swapped (rotate, shear or "
            "affine of the layer). Open the file with this plugin, which turns it upright, or "
            "reset these to use the layer as it is stored."
        )
    return matrix


def units_of(layer: Layer) -> tuple[str, ...]:
    return tuple(str(unit) for unit in layer.units)


def to_units(
    points: npt.ArrayLike, units: Sequence[Any] | None, own: Sequence[Any]
) -> npt.NDArray[np.float64]:
    """Convert points in the world of the viewer, or of another layer, to the world of a layer.

    Parameters
    ----------
    points : shape (..., axes); the last axes are those of the layer.
    units : of the points, one per axis; None if the units of the viewer's layers do not match, in
        which case napari takes all numbers as they are.
    own : units of the layer.
    """
    inside = np.asarray(points, float)[..., -len(own) :]
    count = inside.shape[-1]
    if units is None or len(units) < count:
        return inside
    pairs = zip(units[-count:], own[-count:], strict=True)
    return inside * [_base_units(theirs) / _base_units(unit) for theirs, unit in pairs]


def _base_units(unit: Any) -> float:
    return float((1 * unit).to_base_units().magnitude)


def has_voxel_size(layer: Layer) -> bool:
    return all(unit in _MM for unit in units_of(layer))


def _as_numpy(data: Any) -> LazyArray:
    """Wrap the data of a layer (dask, zarr, xarray, bool) as an array-like of numpy arrays."""
    dtype = np.dtype(data.dtype).newbyteorder("=")
    shape = tuple(int(n) for n in data.shape)
    kind = np.uint8 if dtype.kind == "b" else dtype
    return LazyArray(shape, kind, lambda box: np.asarray(data[box.slices]))


def _luminance_of(colours: Any) -> LazyArray:
    """Convert an image whose last axis holds colours to grey values."""
    shape = tuple(int(n) for n in colours.shape[:-1])
    dtype = np.dtype(colours.dtype).newbyteorder("=")
    return LazyArray(shape, dtype, lambda box: luminance(np.asarray(colours[box.slices])))


def _painted(labels: ArrayLike) -> LazyArray:
    """Convert labels to a sketch, uint32, in which the largest label is the strongest edge.

    In a label map the largest label stays below the maximum of the type. That tells the library
    that these are labels, and it uses the borders between them.
    """
    dtype = np.dtype(np.uint32)  # keeps all labels distinct

    @cache
    def factor() -> float:
        """Scan all labels, only once and not before they are read."""
        top = max(int(labels[box.slices].max()) for box in blocks_of(labels))
        return (np.iinfo(dtype).max - int(is_label_map(labels))) / max(top, 1)

    def compute(box: Box) -> npt.NDArray[Any]:
        block: npt.NDArray[Any] = np.rint(np.maximum(labels[box.slices], 0) * factor())
        return block

    return LazyArray(tuple(labels.shape), dtype, compute)


def _drawn_on(labels: ArrayLike) -> LazyArray:
    """Convert labels on a copy of a sketch, which are its strengths, to uint8."""

    def compute(box: Box) -> npt.NDArray[Any]:
        strengths: npt.NDArray[Any] = np.clip(labels[box.slices], 0, 255).astype(np.uint8)
        return strengths

    return LazyArray(tuple(labels.shape), np.uint8, compute)


def labels_of(layer: Labels) -> tuple[LazyArray, bool]:
    """Return the labels of a layer in a small unsigned type, and whether they fill regions.

    If they do, the largest stays below the maximum of the type, which would mean an edge.
    """
    data = _as_numpy(layer.data[0] if layer.multiscale else layer.data)
    is_map = is_label_map(data)
    top = max(int(data[box.slices].max()) for box in blocks_of(data))
    dtype = np.min_scalar_type(max(top, 0) + int(is_map))
    labels = LazyArray(data.shape, dtype, lambda box: np.maximum(data[box.slices], 0).astype(dtype))
    return labels, is_map


def holds_edges(layer: Layer) -> bool:
    """Return whether a layer is a sketch: painted, of a store, or declared so by its file."""
    note = note_of(layer)
    is_said = (note.get("description") or {}).get("content") == "sketch"
    is_of_store = note.get("role") == "sketch"  # or one level of it
    is_copy = "copied_from" in note  # converted to an image
    return isinstance(layer, Labels) or is_said or is_of_store or is_copy


def is_colour(layer: Layer) -> bool:
    return isinstance(layer, Image) and bool(layer.rgb)


def to_volume(layer: Layer, *, is_kept: bool = False) -> Volume:
    """Return the image of a layer with its geometry; for a Labels layer, the sketch painted on it.

    Colours are converted to luminance, as when such a file is read (`napari_msgan.io`).

    is_kept : copy what is painted, so that further painting does not change it.

    Raises
    ------
    VolumeError
        If it is not a 2-D or 3-D image of numbers, or not upright.
    """
    if not isinstance(layer, Image | Labels):
        raise VolumeError(f"layer {layer.name!r} is not an image layer")
    data = layer.data[0] if layer.multiscale else layer.data
    if layer.ndim not in (2, 3):
        raise VolumeError(
            f"layer {layer.name!r} has {layer.ndim} axes {tuple(data.shape)}. Only 2-D and 3-D "
            "images can be used: right-click it, Split Stack, and take one image."
        )
    if np.dtype(data.dtype).kind not in "buif":
        raise VolumeError(f"layer {layer.name!r} has voxels of type {data.dtype}, not grey values")
    matrix = layer_matrix(layer)
    if (link := store_link(layer)) is not None:
        return _volume_of_store(link, layer)
    array: ArrayLike
    if is_colour(layer):
        array = _luminance_of(data)
    else:
        plain = isinstance(data, np.ndarray) and data.dtype.isnative and data.dtype.kind != "b"
        array = data if plain else _as_numpy(data)
    if isinstance(layer, Labels):
        labels = array.copy() if is_kept and isinstance(array, np.ndarray) else array
        array = _painted(labels) if copied_from(layer) is None else _drawn_on(labels)
    note = note_of(layer)
    if _is_where_it_was(layer, matrix, note):
        return Volume(array, Affine(np.array(note["affine"])), note["unit"])
    unit: Unit = "millimeter" if has_voxel_size(layer) else "pixel"
    to_mm = [_MM[u] if unit == "millimeter" else 1.0 for u in units_of(layer)]
    return Volume(array, Affine(np.diag([*to_mm, 1.0]) @ matrix), unit)


def _is_where_it_was(layer: Layer, matrix: npt.NDArray[np.float64], note: dict[str, Any]) -> bool:
    """Return whether the layer still lies where its file placed it, unmoved and not rescaled."""
    was = np.array(note.get("layer_matrix", ()))
    is_unmoved = was.shape == matrix.shape and np.allclose(was, matrix, rtol=1e-9, atol=1e-9)
    return is_unmoved and set(units_of(layer)) == {note["unit"]}


def _volume_of_store(link: StoreLink, layer: Layer) -> Volume:
    store = shared_store(link.path)
    if link.role == "sketch":  # without the padding that napari needs
        finest = store.geometry.finest_scale
        return replace(view_volume(store, finest), data=SketchView(store, finest, whole=True))
    if link.role == "result":
        return view_volume(store, store.geometry.finest_scale)
    note = note_of(layer)
    return view_volume(store, note["scale"], Box.parse(note["region"], store.geometry.axes))


def is_anatomical(layer: Layer) -> bool:
    """Return whether (z, y, x) of a layer are (S, P, L): ours, with three axes in mm."""
    return layer.ndim == 3 and KEY in layer.metadata and has_voxel_size(layer)
