"""From what is seen or drawn in the viewer to boxes of the finest scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Image, Shapes

from napari_msgan._napari.choices import TIMES, as_said, pixels_text
from napari_msgan._napari.from_layer import layer_matrix, to_units
from napari_msgan.errors import GeometryError
from napari_msgan.geometry import Box, PyramidGeometry
from napari_msgan.pyramid import PyramidStore
from napari_msgan.scheduling import plan_tiles
from napari_msgan.tiling import Tile

#: Counting more tiles would take longer than anybody waits for a label.
MAX_COUNTED_TILES = 4_000
#: Initial depth of a rectangle in a volume.
DEPTH_MM = 32.0


def sliced_axis(viewer: ViewerModel, layer: Image) -> int | None:
    """Return the axis of a 3-D layer that is not displayed; None in 3-D display and for 2-D."""
    if layer.ndim < 3 or viewer.dims.ndisplay == 3:
        return None
    offset = viewer.dims.ndim - layer.ndim
    hidden = [axis - offset for axis in viewer.dims.not_displayed if axis >= offset]
    return hidden[0] if len(hidden) == 1 else None


def current_index(viewer: ViewerModel, layer: Image, axis: int) -> int:
    """Return the index along an axis at which the slider stands, clipped to the layer."""
    point = to_units(viewer.dims.point, viewer.dims.units, layer.units)
    matrix = layer_matrix(layer)
    index = round(float((point[axis] - matrix[axis, -1]) / matrix[axis, axis]))
    return min(max(index, 0), int(layer.data.shape[axis]) - 1)


def view_box(viewer: ViewerModel, layer: Image, geometry: PyramidGeometry) -> Box:
    """Return the visible part of a result: of the slice in 2-D display, everything in 3-D.

    Raises
    ------
    GeometryError
        If the view does not show the image.
    """
    if viewer.dims.ndisplay == 3:
        return Box.of_shape(geometry.shape)
    offset = viewer.dims.ndim - layer.ndim
    # napari shows a layer without some of the viewer's axes along those that it has
    *sliced, row, column = (axis for axis in viewer.dims.order if axis >= offset)
    low = np.array(viewer.dims.point, float)
    high = low.copy()
    camera, grid = viewer.scene.camera, viewer.canvas.grid
    cells = grid.actual_shape(viewer.layers) if grid.enabled else (1, 1)
    sizes = np.divide(viewer.canvas.size, cells)
    for axis, centre, size in zip((row, column), camera.center[-2:], sizes, strict=True):
        low[axis] = centre - size / 2 / camera.zoom
        high[axis] = centre + size / 2 / camera.zoom
    corners = to_units([low, high], viewer.dims.units, layer.units)
    points = [axis - offset for axis in sliced]
    box = _voxels(corners, layer, points).intersect(Box.of_shape(geometry.shape))
    if box.size == 0:
        raise GeometryError(
            "the view does not show the image: move it back (the house button), then refine"
        )
    return box


def _voxels(corners: npt.NDArray[np.float64], layer: Image, points: Sequence[int] = ()) -> Box:
    """Return the voxels touched by a box in a layer's world; just one along the axes `points`."""
    matrix = layer_matrix(layer)
    index = (corners - matrix[:-1, -1]) / np.diag(matrix)[:-1]
    start = np.floor(index.min(axis=0) + 0.5)
    stop = np.ceil(index.max(axis=0) + 0.5)
    for axis in points:
        start[axis] = np.rint(index[0, axis])
        stop[axis] = start[axis] + 1
    return Box(tuple(int(v) for v in start), tuple(int(v) for v in np.maximum(start, stop)))


def drawn_boxes(
    viewer: ViewerModel,
    shapes: Shapes,
    layer: Image,
    geometry: PyramidGeometry,
    depths: Mapping[int, tuple[int, int]],
) -> list[Box]:
    """Return the boxes of the selected shapes, or of all shapes if none is selected.

    Parameters
    ----------
    depths : per axis, the slices [first, stop) given to a rectangle that is flat along that axis
        and lies on one of them. A rectangle that lies elsewhere gets `DEPTH_MM` around itself. One
        in a layer with two axes is shown on every slice; it gets those of the first axis, or all.

    Raises
    ------
    GeometryError
        If there is no shape, or none on the image; if the last slice comes before the first; or if
        other axes are displayed than those of a 2-D layer, whose shapes then appear elsewhere.
    """
    shown = tuple(viewer.dims.displayed[-2:])
    if shapes.ndim < layer.ndim and shown != (viewer.dims.ndim - 2, viewer.dims.ndim - 1):
        raise GeometryError(
            f"layer {shapes.name!r} has {shapes.ndim} axes, the image {layer.ndim}: its rectangles "
            "lie on slices of the first axis. Show those, or press Draw, and draw on this slice."
        )
    chosen = sorted(shapes.selected_data) or list(range(shapes.nshapes))
    if not chosen:
        raise GeometryError(
            f"layer {shapes.name!r} has no rectangle yet. Draw one on the image, then refine."
        )
    units = None if viewer.dims.units is None else shapes.units
    worlds = [[shapes.data_to_world(vertex) for vertex in shapes.data[i]] for i in chosen]
    boxes = [_drawn_box(to_units(world, units, layer.units), layer, depths) for world in worlds]
    inside = [box.intersect(Box.of_shape(geometry.shape)) for box in boxes]
    if not any(box.size for box in inside):
        raise GeometryError("the rectangles lie outside the image. Draw one on it, then refine.")
    return [box for box in inside if box.size]


def _drawn_box(
    world: npt.NDArray[np.float64], layer: Image, depths: Mapping[int, tuple[int, int]]
) -> Box:
    """Return the box of a shape, given its vertices in the world of the image."""
    missing = layer.ndim - world.shape[-1]  # a 2-D layer appears on every slice
    first_voxel = layer.data_to_world((0.0,) * layer.ndim)[:missing]
    world = np.hstack([np.tile(first_voxel, (len(world), 1)), world])
    box = _voxels(np.stack([world.min(axis=0), world.max(axis=0)]), layer)
    if layer.ndim == 2:
        return box
    spacing = np.abs(np.diag(layer_matrix(layer))[:-1])
    flat = int(np.argmin(np.ptp(world, axis=0) / spacing))
    start, stop = list(box.start), list(box.stop)
    first, end = depths.get(flat, (0, layer.data.shape[flat]))
    if first >= end:
        raise GeometryError(
            f"the first slice, {first}, comes after the last, {end - 1}. Exchange them."
        )
    if missing or (flat in depths and first <= start[flat] < end):
        start[flat], stop[flat] = first, end
    else:
        half = round(DEPTH_MM / 2 / spacing[flat])
        start[flat], stop[flat] = start[flat] - half, stop[flat] + half
    return Box(tuple(start), tuple(max(a, b) for a, b in zip(start, stop, strict=True)))


def size_text(geometry: PyramidGeometry, box: Box) -> str:
    """Format the size of a box of the finest scale, in mm if that is known."""
    if geometry.unit == "millimeter":
        sizes = [n * v for n, v in zip(box.shape, geometry.affine.spacing, strict=True)]
        return TIMES.join(f"{size:.0f}" for size in as_said(sizes)) + " mm"
    return pixels_text(box.shape)


def count_tiles(store: PyramidStore, boxes: Sequence[Box], scale: int) -> int | None:
    """Return how many tiles the boxes still need; None if they are too many to count."""
    targets = (store.geometry.box_at(scale, box) for box in boxes)
    if sum(box.cover(store.tiling.tile_shape).size for box in targets) > MAX_COUNTED_TILES:
        return None
    return len(missing_tiles(store, boxes, scale))


def missing_tiles(store: PyramidStore, boxes: Sequence[Box], scale: int) -> list[Tile]:
    """Return the tiles up to a scale that boxes of the finest scale still need, each once."""
    tiling = store.tiling

    def is_refined(tile: Tile) -> bool:
        return store.is_refined(tile.scale, tiling.core(tile))

    return plan_tiles(tiling, boxes, scale, is_refined)
