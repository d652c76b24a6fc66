"""`Volume` to layer: the only place that sets scale, translate and units of a layer.

All our layers stand upright: index axes (z, y, x) grow towards S, P, L (DICOM's LPS), in mm. A file
in another orientation is turned when it is opened, and its exact affine is kept in the metadata. A
result lies in the world of its source layer, whatever that is; `Placement` maps its store's world
to that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from napari.layers import Layer

from napari_msgan._napari.from_layer import KEY, layer_matrix, units_of
from napari_msgan._napari.sliced import sliced_levels
from napari_msgan._napari.windows import default_window, rendering_of, window_of
from napari_msgan.geometry import Affine, Box, Unit
from napari_msgan.pyramid import PyramidStore, levels, sketch_levels, view_volume
from napari_msgan.pyramid.chunk_cache import ChunkCache
from napari_msgan.volume import Volume, orient

LayerTuple = tuple[Any, dict[str, Any], str]

#: napari draws no volume with a longer side, and a larger volume is no fun to rotate.
MAX_BOX_SIDE = 2048
MAX_BOX_VOXELS = 1 << 27
#: Bytes of unpacked chunks that a layer keeps: those of a 512 x 512 slice of 16-bit voxels.
_KEPT_BYTES = 1 << 26


class Transform(TypedDict):
    """Where a layer lies, as napari's layer arguments."""

    scale: tuple[float, ...]
    translate: tuple[float, ...]
    units: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the world of a store lies in the world of the layers beside it.

    matrix : store world to layer world.
    units : of the layers.
    """

    matrix: npt.NDArray[np.float64]
    units: tuple[str, ...]

    @classmethod
    def of_layer(cls, layer: Layer, affine: Affine) -> Placement:
        """Return the placement at which an image with this affine lies on this layer."""
        return cls(layer_matrix(layer) @ np.linalg.inv(affine.matrix), units_of(layer))

    @classmethod
    def of_affine(cls, affine: Affine, unit: Unit) -> Placement:
        """Return an upright placement for an image without a layer, straightened if oblique."""
        units = (unit,) * affine.ndim
        if affine.is_upright:
            return cls(np.eye(affine.ndim + 1), units)
        straight = Affine.of_spacing(affine.spacing, affine.origin)
        return cls(straight.matrix @ np.linalg.inv(affine.matrix), units)

    def transform(self, affine: Affine) -> Transform:
        """Return where a layer with this affine in the world of the store lies."""
        matrix = self.matrix @ affine.matrix
        return Transform(
            scale=tuple(float(v) for v in np.diag(matrix)[:-1]),
            translate=tuple(float(v) for v in matrix[:-1, -1]),
            units=self.units,
        )


def _kept_slices(store: PyramidStore) -> ChunkCache | None:
    """Return a cache for the chunks of a slice, because the next slice lies in the same chunks."""
    return ChunkCache(_KEPT_BYTES) if store.geometry.ndim == 3 else None


def result_layer(store: PyramidStore, placement: Placement, name: str) -> LayerTuple:
    """Return the multiscale layer of a store's image, which shows tiles as they are made."""
    info = store.info
    return (
        sliced_levels(levels(store, cache=_kept_slices(store)), store.geometry),
        {
            "name": name,
            "multiscale": True,
            "projection_mode": "none",
            "contrast_limits": default_window(store),
            "colormap": "gray",
            "rendering": rendering_of(store),
            "metadata": {
                KEY: {"store": str(store.path), "role": "result", "ndim": store.geometry.ndim}
            },
            **placement.transform(store.geometry.affine),
            "axis_labels": info.geometry.axes,
        },
        "image",
    )


def sketch_layer(store: PyramidStore, placement: Placement, name: str) -> LayerTuple:
    """Return the multiscale layer of the sketch that a store's image is made from."""
    return (
        sliced_levels(sketch_levels(store, cache=_kept_slices(store)), store.geometry),
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

    It uses the finest scale, up to `scale`, that a graphics card can draw.
    """
    shown = shown_scale(store, scale, region)
    volume = view_volume(store, shown, region)
    spacing = ", ".join(dict.fromkeys(f"{v:g}" for v in volume.spacing))
    note = {
        "store": str(store.path),
        "role": "box",
        "ndim": store.geometry.ndim,
        "scale": shown,
        "scale_asked": scale,
        "region": str(region),
        "placement": placement.matrix,
    }
    return (
        np.asarray(volume.data),
        {
            "name": f"box at {spacing} mm"
            if volume.unit == "millimeter"
            else f"box, scale {shown}",
            "multiscale": False,
            "contrast_limits": tuple(window),
            "colormap": "gray",
            "rendering": rendering_of(store),
            "metadata": {KEY: note},
            **placement.transform(volume.affine),
            "axis_labels": volume.axes,
        },
        "image",
    )


def shown_scale(store: PyramidStore, scale: int, region: Box) -> int:
    """Return the finest scale, up to this one, at which a graphics card can draw a region."""
    while scale and not _is_drawable(store.geometry.box_at(scale, region)):
        scale -= 1
    return scale


def _is_drawable(box: Box) -> bool:
    return max(box.shape) <= MAX_BOX_SIDE and box.size <= MAX_BOX_VOXELS


def exact_place(volume: Volume, transform: Transform) -> dict[str, Any]:
    """Return the metadata of a layer that record where its image lies exactly, even if oblique.

    transform : of the layer; the exact place applies as long as nobody moves it.
    """
    straight = Affine.of_spacing(transform["scale"], transform["translate"])
    return {
        "affine": volume.affine.matrix.tolist(),
        "layer_matrix": straight.matrix.tolist(),
        "unit": volume.unit,
    }


def volume_layer(
    volume: Volume, name: str, *, description: dict[str, Any] | None = None, **options: Any
) -> LayerTuple:
    """Return an upright layer for an image from a file, keeping the file's description."""
    if len(volume.shape) == 3 and volume.unit == "millimeter":
        volume, _ = orient(volume, "LPS")
    transform = Placement.of_affine(volume.affine, volume.unit).transform(volume.affine)
    data = np.asarray(volume.data)
    note = {**exact_place(volume, transform), "description": description}
    return (
        data,
        {
            "name": name,
            "contrast_limits": window_of(data),
            "metadata": {KEY: note},
            **transform,
            "axis_labels": volume.axes,
            **options,
        },
        "image",
    )
