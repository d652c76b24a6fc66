"""Sketches to paint on, as Labels layers, and copies of the sketches of stores."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap

from napari_msgan._napari.from_layer import KEY, copied_from
from napari_msgan._napari.to_layer import Placement, exact_place
from napari_msgan.errors import VolumeError
from napari_msgan.geometry import Box
from napari_msgan.jobs import Progress
from napari_msgan.pyramid import PyramidStore
from napari_msgan.sketch import Uint8Array
from napari_msgan.volume import Volume

STRONGEST = 255
_AMBER = np.array([1.0, 0.75, 0.2])
#: Most voxels of a painted sketch, which is held in memory.
_MAX_VOXELS = 1 << 30
#: Brush size as a share of the longest side; edges are one voxel wide, which nobody would see.
_STROKE = 1 / 700


def _strengths() -> DirectLabelColormap:
    """Return a colour map for edges: the stronger, the brighter."""
    colours = {
        strength: np.array([*(_AMBER * strength / STRONGEST), 1.0])
        for strength in range(1, STRONGEST + 1)
    }
    return DirectLabelColormap(color_dict={None: np.zeros(4), 0: np.zeros(4)} | colours)


def add_sketch(
    viewer: ViewerModel, edges: Volume, placement: Placement, name: str, note: dict[str, Any]
) -> Labels:
    """Add a sketch to paint on: 255 is the strongest edge, 0 erases.

    edges : in memory, uint8.
    note : for the metadata of the layer.
    """
    layer = viewer.add_labels(
        edges.data,
        name=name,
        opacity=0.8,
        blending="additive",
        metadata={KEY: note} if note else {},
        colormap=_strengths(),
        **placement.transform(edges.affine),
    )
    layer.selected_label = STRONGEST
    layer.brush_size = max(1, round(_STROKE * max(edges.shape)))
    return layer


def copy_in(viewer: ViewerModel, store: PyramidStore) -> Labels | None:
    """Return the layer that already holds a copy of the sketch of a store; None without one."""
    return next((x for x in viewer.layers if copied_from(x) == store.path), None)


def iter_read_sketch(store: PyramidStore, out: Uint8Array) -> Generator[Progress, None, None]:
    """Read the finest sketch of a store into an array of its shape; missing chunks are errors."""
    yield Progress("unpacking", 0, 0)
    finest = store.level(store.geometry.finest_scale, sketch=True)
    boxes = Box.of_shape(out.shape).blocks(store.info.tile_shape)
    for done, box in enumerate(boxes, 1):
        out[box.slices] = finest.read_whole(box)
        yield Progress("unpacking", done, len(boxes))


def empty_copy(store: PyramidStore) -> Uint8Array:
    """Return an array of zeros for the finest sketch of a store.

    Raises
    ------
    VolumeError
        If it would be too large to be painted on.
    """
    shape = store.geometry.shape
    if math.prod(shape) > _MAX_VOXELS:
        raise VolumeError(
            f"a sketch of {shape} voxels is too large to paint on here. Write it to a file "
            "(napari-msgan sketch STORE/sketch FILE), paint on that, and generate with "
            "--edited-from"
        )
    return np.zeros(shape, np.uint8)


def add_copy(
    viewer: ViewerModel, store: PyramidStore, placement: Placement, edges: Uint8Array, name: str
) -> Labels:
    """Add the finest sketch of a store as a layer that can be painted on."""
    geometry = store.geometry
    volume = Volume(edges, geometry.affine, geometry.unit)
    note = exact_place(volume, placement.transform(volume.affine))
    note["copied_from"] = str(store.path)
    return add_sketch(viewer, volume, placement, name, note)
