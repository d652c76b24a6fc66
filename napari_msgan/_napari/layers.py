"""Layer to `Volume` and back: the only place that sets scale, translate and units of a layer.

All our layers stand upright: index axes (z, y, x) grow towards S, P, L (DICOM's LPS), in mm. A file
in another orientation is turned when it is opened, and its exact affine stays in the metadata. Of
a layer that somebody else made, scale and translate are taken for such a world. A result lies in
the world of its source layer, whatever that is: `Placement` leads from the one to the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels, Layer

from napari_msgan._napari.sliced import sliced_levels
from napari_msgan._napari.stores import shared_store
from napari_msgan.errors import VolumeError
from napari_msgan.geometry import Affine, Box, Unit
from napari_msgan.pyramid import PyramidStore, SketchView, levels, sketch_levels, view_volume
from napari_msgan.pyramid.attributes import is_upright
from napari_msgan.volume import ArrayLike, Volume, orient

#: Key of what we know of a layer, in its metadata.
KEY = "napari_msgan"
Role = Literal["result", "sketch", "box"]
LayerTuple = tuple[Any, dict[str, Any], str]

#: Window (low, high) in HU of the usual presets.
CT_WINDOWS = {
    "Lung": (-1350.0, 150.0),
    "Soft tissue": (-160.0, 240.0),
    "Bone": (-770.0, 1730.0),
}
_MM = {"millimeter": 1.0, "meter": 1e3, "centimeter": 10.0, "micrometer": 1e-3, "nanometer": 1e-6}
#: napari draws no volume with a longer side, and a larger one is no fun to turn.
MAX_BOX_SIDE = 2048
MAX_BOX_VOXELS = 1 << 27


class Transform(TypedDict):
    """Where a layer lies, as napari wants it."""

    scale: tuple[float, ...]
    translate: tuple[float, ...]
    units: tuple[str, ...]


@dataclass(frozen=True)
class StoreLink:
    """What the metadata of a layer say about its store."""

    role: Role
    path: Path


def store_link(layer: Layer) -> StoreLink | None:
    """Return which store a layer shows; None for every other layer."""
    note = layer.metadata.get(KEY)
    if not isinstance(note, dict) or "store" not in note:
        return None
    if note["ndim"] != layer.ndim:  # split or projected: napari copies the metadata
        return None
    return StoreLink(note["role"], Path(note["store"]))


def layer_matrix(layer: Layer) -> npt.NDArray[np.float64]:
    """Return voxel index to layer world, which may scale, flip and shift only.

    Raises
    ------
    VolumeError
        If the layer is rotated or sheared: its voxels cannot be read as upright slices.
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


def _units(layer: Layer) -> tuple[str, ...]:
    return tuple(str(unit) for unit in layer.units)


def has_voxel_size(layer: Layer) -> bool:
    return all(unit in _MM for unit in _units(layer))


def declare_mm(layer: Layer) -> None:
    """Say that the scale of a layer is in mm, which its file did not say."""
    layer.units = ("mm",) * layer.ndim


class _AsArray:
    """Array-like over what layers hold (dask, zarr, xarray, bool): gives numpy arrays."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self.shape = tuple(int(n) for n in data.shape)
        dtype = np.dtype(data.dtype).newbyteorder("=")
        self.dtype: np.dtype[Any] = np.dtype(np.uint8) if dtype.kind == "b" else dtype

    def __getitem__(self, key: tuple[slice, ...]) -> npt.NDArray[Any]:
        return np.asarray(self._data[key]).astype(self.dtype, copy=False)


class _Painted:
    """Array-like over a Labels layer as a sketch, uint8: the largest label is the top edge."""

    def __init__(self, data: Any) -> None:
        self._data = data
        self.shape = tuple(int(n) for n in data.shape)
        self.dtype: np.dtype[Any] = np.dtype(np.uint8)

    def __getitem__(self, key: tuple[slice, ...]) -> npt.NDArray[Any]:
        labels = np.maximum(np.asarray(self._data[key]), 0)
        block: npt.NDArray[Any] = np.rint(labels * (255 / self._top)).astype(np.uint8)
        return block

    @cached_property
    def _top(self) -> int:
        return max(1, int(np.max(self._data)))


def to_volume(layer: Layer) -> Volume:
    """Return the image of a layer with its geometry; of a Labels layer, the sketch painted on it.

    Raises
    ------
    VolumeError
        If it is no grey 2-D or 3-D image, or not upright.
    """
    if not isinstance(layer, Image | Labels):
        raise VolumeError(f"layer {layer.name!r} is no image layer")
    if isinstance(layer, Image) and layer.rgb:
        raise VolumeError(
            f"layer {layer.name!r} is a colour image. Make it grey first: right-click it, "
            "Split RGB, and take one channel."
        )
    data = layer.data[0] if layer.multiscale else layer.data
    if data.ndim not in (2, 3):
        raise VolumeError(
            f"layer {layer.name!r} has {data.ndim} axes {tuple(data.shape)}. Only 2-D and 3-D "
            "images can be used: right-click it, Split Stack, and take one image."
        )
    if np.dtype(data.dtype).kind not in "buif":
        raise VolumeError(f"layer {layer.name!r} has voxels of type {data.dtype}, not grey values")
    matrix = layer_matrix(layer)
    if (link := store_link(layer)) is not None:
        return _volume_of_store(link, layer)
    plain = isinstance(data, np.ndarray) and data.dtype.isnative and data.dtype.kind != "b"
    array: ArrayLike = data if plain else _AsArray(data)
    if isinstance(layer, Labels):
        array = _Painted(data)
    note = layer.metadata.get(KEY)
    # Somebody may have moved the layer since: then its file does not say where it is.
    was = np.array(note.get("layer_matrix", ()) if isinstance(note, dict) else ())
    if was.shape == matrix.shape and np.allclose(was, matrix, rtol=1e-9, atol=1e-9):
        return Volume(array, Affine(np.array(note["affine"])), note["unit"])
    unit: Unit = "millimeter" if has_voxel_size(layer) else "pixel"
    to_mm = [_MM[u] if unit == "millimeter" else 1.0 for u in _units(layer)]
    return Volume(array, Affine(np.diag([*to_mm, 1.0]) @ matrix), unit)


def _volume_of_store(link: StoreLink, layer: Layer) -> Volume:
    store = shared_store(link.path)
    if link.role == "sketch":  # without the padding that napari needs
        finest = store.geometry.finest_scale
        return replace(view_volume(store, finest), data=SketchView(store, finest))
    if link.role == "result":
        return view_volume(store, store.geometry.finest_scale)
    note = layer.metadata[KEY]
    return view_volume(store, note["scale"], Box.parse(note["region"], store.geometry.axes))


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the world of a store lies in the world of the layers beside it.

    matrix : store world to layer world.
    units : of the layers.
    """

    matrix: npt.NDArray[np.float64]
    units: tuple[str, ...]

    @classmethod
    def of_layer(cls, layer: Layer, volume: Volume) -> Placement:
        """Return how results of this source layer come to lie on it."""
        return cls(layer_matrix(layer) @ np.linalg.inv(volume.affine.matrix), _units(layer))

    @classmethod
    def of_affine(cls, affine: Affine, unit: Unit) -> Placement:
        """Return the upright place of an image without a layer; oblique ones are straightened."""
        units = (unit,) * affine.ndim
        if is_upright(affine):
            return cls(np.eye(affine.ndim + 1), units)
        straight = Affine.of_spacing(affine.spacing, affine.origin)
        return cls(straight.matrix @ np.linalg.inv(affine.matrix), units)

    def transform(self, affine: Affine) -> Transform:
        """Return the place of a layer that has this affine in the world of the store."""
        matrix = self.matrix @ affine.matrix
        return Transform(
            scale=tuple(float(v) for v in np.diag(matrix)[:-1]),
            translate=tuple(float(v) for v in matrix[:-1, -1]),
            units=self.units,
        )


def _levels(store: PyramidStore, arrays: Sequence[Any]) -> list[Any]:
    geometry = store.geometry
    factors = [geometry.total_factor(scale) for scale in range(geometry.finest_scale, -1, -1)]
    return sliced_levels(arrays, factors)


def result_layer(store: PyramidStore, placement: Placement, name: str) -> LayerTuple:
    """Return the multiscale layer of a store, which shows tiles as they come."""
    info = store.info
    return (
        _levels(store, levels(store)),
        {
            "name": name,
            "multiscale": True,
            "projection_mode": "none",
            "contrast_limits": default_window(store),
            "colormap": "gray",
            "metadata": {
                KEY: {"store": str(store.path), "role": "result", "ndim": store.geometry.ndim}
            },
            **placement.transform(store.geometry.affine),
            "axis_labels": info.geometry.axes,
        },
        "image",
    )


def sketch_layer(store: PyramidStore, placement: Placement, name: str) -> LayerTuple:
    """Return the multiscale layer of the sketch that the image of a store is made from."""
    return (
        _levels(store, sketch_levels(store)),
        {
            "name": name,
            "multiscale": True,
            "projection_mode": "none",
            "contrast_limits": (0, 255),
            "colormap": "inferno",
            "blending": "additive",
            "opacity": 0.25,
            "metadata": {
                KEY: {"store": str(store.path), "role": "sketch", "ndim": store.geometry.ndim}
            },
            **placement.transform(store.geometry.affine),
            "axis_labels": store.info.geometry.axes,
        },
        "image",
    )


def box_layer(
    store: PyramidStore, placement: Placement, scale: int, region: Box, window: Sequence[float]
) -> LayerTuple:
    """Return a region at the resolution of one scale, for 3-D display.

    The finest scale up to `scale` is taken that a graphics card draws.
    """
    while scale and not _is_drawable(store.geometry.box_at(scale, region)):
        scale -= 1
    volume = view_volume(store, scale, region)
    whole = tuple(slice(0, n) for n in volume.shape)
    spacing = ", ".join(f"{v:g}" for v in dict.fromkeys(volume.spacing))
    note = {
        "store": str(store.path),
        "role": "box",
        "ndim": store.geometry.ndim,
        "scale": scale,
        "region": str(region),
    }
    return (
        np.asarray(volume.data[whole]),
        {
            "name": f"box at {spacing} mm"
            if volume.unit == "millimeter"
            else f"box, scale {scale}",
            "multiscale": False,
            "contrast_limits": tuple(window),
            "colormap": "gray",
            "rendering": "mip",
            "metadata": {KEY: note},
            **placement.transform(volume.affine),
            "axis_labels": volume.axes,
        },
        "image",
    )


def _is_drawable(box: Box) -> bool:
    return max(box.shape) <= MAX_BOX_SIDE and box.size <= MAX_BOX_VOXELS


def volume_layer(
    volume: Volume, name: str, *, description: dict[str, Any] | None = None, **options: Any
) -> LayerTuple:
    """Return an upright layer of an image from a file, and what that file said of itself."""
    if len(volume.shape) == 3 and volume.unit == "millimeter":
        volume, _ = orient(volume, "LPS")
    transform = Placement.of_affine(volume.affine, volume.unit).transform(volume.affine)
    straight = Affine.of_spacing(transform["scale"], transform["translate"])
    data = np.asarray(volume.data[tuple(slice(0, n) for n in volume.shape)])
    note = {
        "affine": volume.affine.matrix.tolist(),
        "layer_matrix": straight.matrix.tolist(),
        "unit": volume.unit,
        "description": description,
    }
    limits = window_of(data)
    return (
        data,
        {
            "name": name,
            "contrast_limits": limits,
            "metadata": {KEY: note},
            **transform,
            "axis_labels": volume.axes,
            **options,
        },
        "image",
    )


def window_of(data: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the range of an image, of an evenly spread sample where it is large."""
    step = max(1, round((data.size / 1e6) ** (1 / data.ndim)))
    sample = data[(slice(None, None, step),) * data.ndim]
    low, high = float(np.nanmin(sample)), float(np.nanmax(sample))
    return (low, high) if high > low else (low, low + 1)


def default_window(store: PyramidStore) -> tuple[float, float]:
    """Return the window that a result is shown with first: soft tissue for CT."""
    low, high = store.info.window
    if is_ct(store):
        soft = CT_WINDOWS["Soft tissue"]
        return max(low, soft[0]), min(high, soft[1])
    return low, high


def is_ct(store: PyramidStore) -> bool:
    return store.info.modality.upper() == "CT"


def is_in_hu(layer: Layer) -> bool:
    """Return whether the values of an image can only be Hounsfield units: air is far below 0."""
    if not isinstance(layer, Image) or layer.rgb or not has_voxel_size(layer):
        return False
    return window_of(np.asarray(layer.data[-1] if layer.multiscale else layer.data))[0] < -200


def is_anatomical(layer: Layer) -> bool:
    """Return whether (z, y, x) of a layer are (S, P, L): ours, three axes, in mm."""
    return layer.ndim == 3 and KEY in layer.metadata and has_voxel_size(layer)
