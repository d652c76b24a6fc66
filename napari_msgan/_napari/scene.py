"""The viewer as the controllers see it: layers of stores are added, found and redrawn here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Shapes

from napari_msgan._napari.from_layer import (
    Role,
    StoreLink,
    layer_matrix,
    note_of,
    store_link,
    to_units,
)
from napari_msgan._napari.painting import add_copy
from napari_msgan._napari.refined import ShownBox, refined_boxes
from napari_msgan._napari.sliced import follow
from napari_msgan._napari.state import Opened
from napari_msgan._napari.stores import name_of, shared_store
from napari_msgan._napari.to_layer import (
    LayerTuple,
    Placement,
    box_layer,
    result_layer,
    shown_scale,
    sketch_layer,
)
from napari_msgan._napari.windows import PROJECTION, is_ct
from napari_msgan.errors import VolumeError
from napari_msgan.geometry import Box
from napari_msgan.pyramid import PyramidStore, refresh_coarsest, view_volume
from napari_msgan.refiner import TileReport

REGIONS_NAME = "regions to refine"


class Scene:
    """Layers of a viewer."""

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        #: Regions of volumes that were drawn and refined, per store.
        self._boxes: dict[str, list[ShownBox]] = {}
        #: Attributes that the 3-D display changed, with their values in slices, per layer.
        self._flat_looks: dict[str, dict[str, Any]] = {}

    def layers_of(self, store: PyramidStore | None, role: Role) -> list[Image]:
        """Return the layers that show a store in a role; with None, those of all stores."""
        return [
            layer
            for layer in self.viewer.layers
            if (link := store_link(layer)) is not None
            and link.role == role
            and (store is None or link.path == store.path)
        ]

    def result_of(self, store: PyramidStore) -> Image | None:
        return self.result_at(store.path)

    def result_at(self, path: Path) -> Image | None:
        """Return the result layer of the store at a path; None without one."""
        return next((x for x in self.results() if store_link(x) == StoreLink("result", path)), None)

    def results(self) -> list[Image]:
        """Return the result layers of all stores."""
        return self.layers_of(None, "result")

    def open_layer(self, layer: Layer) -> Opened:
        """Return the store that a result layer shows, and where it lies.

        Raises
        ------
        MsganError
            If the store is gone or damaged.
        """
        link = store_link(layer)
        assert link is not None
        store = shared_store(link.path)
        for shown in (*self.layers_of(store, "result"), *self.layers_of(store, "sketch")):
            self.attach(shown)
        return Opened(store, Placement.of_layer(layer, store.geometry.affine))

    def show(self, opened: Opened, source: str) -> Image:
        """Add the layers of a store, sketch on top, unless they exist; return the result."""
        store = opened.store
        if (shown := self.result_of(store)) is not None:
            return shown
        seed = f", seed {store.info.seed}" if store.info.stochastic else ""
        name = f"{store.info.model_name} of {source}{seed}"
        result = self.add(result_layer(store, opened.placement, name))
        sketch = self.add(sketch_layer(store, opened.placement, f"sketch of {source}"))
        for layer in [x for x in self.viewer.layers if isinstance(x, Labels) and x.name == source]:
            # what is painted next must be visible, and nothing should show twice
            self.viewer.layers.move(self.viewer.layers.index(layer), len(self.viewer.layers))
            sketch.visible = not layer.visible
        self.viewer.layers.selection.active = result
        return result

    def show_saved(self, path: Path) -> Image:
        """Add those layers of a store that are missing; return the result, visible and active.

        Raises
        ------
        StoreError
            If it is damaged or of another version.
        """
        store = shared_store(path)
        geometry, name = store.geometry, name_of(store)
        result, sketches = self.result_of(store), self.layers_of(store, "sketch")
        if result is None:
            placement = Placement.of_affine(geometry.affine, geometry.unit)
            if sketches:
                placement = self._placement_of(sketches[0], store)
            result, layers = self.add(result_layer(store, placement, name)), self.viewer.layers
            if sketches:  # which lies on top
                layers.move(layers.index(result), layers.index(sketches[0]))
        if not sketches:
            placement = self._placement_of(result, store)
            self.add(sketch_layer(store, placement, f"sketch of {name}"))
        result.visible = True
        self.viewer.layers.selection.active = result
        return result

    def add(self, layer_tuple: LayerTuple) -> Image:
        data, options, _ = layer_tuple
        layer = self.viewer.add_image(data, **options)
        self.attach(layer)
        return layer

    def attach(self, layer: Image) -> None:
        """Set on a layer of a store what a layer data tuple cannot hold."""
        link = store_link(layer)
        if link is not None and link.role != "sketch":
            limits = layer.contrast_limits
            layer.contrast_limits_range = shared_store(link.path).info.window
            layer.contrast_limits = limits
        if layer.ndim == 3 and layer.multiscale:
            follow(layer.data, partial(_position, self.viewer, key_of(layer)))

    def tile_arrived(self, store: PyramidStore, report: TileReport) -> None:
        """Update what napari holds in memory with a new tile; `redraw` then shows it."""
        if report.tile.scale == 0:
            for layer in self.layers_of(store, "result"):
                coarsest = np.asarray(layer.data[-1])  # the array itself, not a copy
                refresh_coarsest(store, [coarsest])
        for layer in self.layers_of(store, "box"):
            _read_again(store, layer, report)

    def redraw(self, store: PyramidStore, *, thumbnail: bool = False) -> None:
        """Draw what is new in a store."""
        for role in ("result", "box"):
            for layer in self.layers_of(store, role):
                if layer.visible:
                    layer.refresh(thumbnail=thumbnail, extent=False, highlight=False)

    def add_copy(self, opened: Opened, edges: npt.NDArray[np.uint8]) -> Labels:
        """Show the finest sketch of a store, in memory, as a layer to paint on, in its place."""
        store, placement, name = opened.store, opened.placement, "edited sketch"
        if (result := self.result_of(store)) is not None:
            placement, name = self._placement_of(result, store), f"edited sketch of {result.name}"
        for sketch in self.layers_of(store, "sketch"):
            sketch.visible, name = False, f"edited {sketch.name}"
        return add_copy(self.viewer, store, placement, edges, name)

    def remember_box(self, store: PyramidStore, box: ShownBox) -> None:
        """Remember a refined region; in 3-D display it appears at once."""
        known = self._boxes.setdefault(str(store.path), [])
        if not any(_covers(store, there, box) for there in known):
            known[:] = [*(there for there in known if not _covers(store, box, there)), box]
        self._show_boxes_in_3d(store)

    def forget_boxes(self, store: PyramidStore) -> None:
        """Rebuild the boxes of a store after something was cleared."""
        self._boxes.pop(str(store.path), None)
        for layer in self.layers_of(store, "box"):
            self.viewer.layers.remove(layer)
        self._show_boxes_in_3d(store)

    def show_boxes(self, store: PyramidStore) -> None:
        """Show what is refined as separate volumes, each with a frame."""
        result = self.result_of(store)
        if result is None or store.geometry.ndim < 3:
            return
        placement = self._placement_of(result, store)
        boxes = refined_boxes(store, self._boxes.get(str(store.path), ()))
        wanted = {(box.scale, str(box.region)) for box in boxes}
        there = set()
        for layer in self.layers_of(store, "box"):
            note = note_of(layer)
            is_moved = not np.allclose(note["placement"], placement.matrix)
            if is_moved or (note["scale_asked"], note["region"]) not in wanted:  # it may have grown
                self.viewer.layers.remove(layer)
            else:
                there.add((note["scale_asked"], note["region"]))
        for box in boxes:
            if (box.scale, str(box.region)) in there:
                continue
            active = self.viewer.layers.selection.active
            layer = self.add(
                box_layer(store, placement, box.scale, box.region, result.contrast_limits)
            )
            layer.bounding_box.visible = True
            layer.bounding_box.points = False
            layer.bounding_box.line_color = "#ffb000"
            # A new layer becomes the active one; activating another result would open that one.
            is_other = active in self.results()
            self.viewer.layers.selection.active = result if is_other else active

    def show_for_display(self, opened: Opened | None, ndisplay: int, *, alone: bool) -> None:
        """Make layers look as needed for 3-D display, or as they did in slices.

        Refined boxes appear only in 3-D. What another open store changed there is undone.

        alone : in 3-D, hide whatever would cover the open result.
        """
        store = None
        if opened is not None and ndisplay == 3:
            store = opened.store
            self.show_boxes(store)
        before, self._flat_looks = self._flat_looks, {}
        for layer in self.viewer.layers:
            key = key_of(layer)
            flat = before.get(key, {})
            wanted = {} if store is None else self._look_in_3d(layer, store, alone=alone)
            self._flat_looks[key] = {name: flat.get(name, getattr(layer, name)) for name in wanted}
            for name, value in (flat | wanted).items():
                setattr(layer, name, value)
        for layer in self.layers_of(None, "box"):
            layer.visible = store is not None and layer in self.layers_of(store, "box")

    def regions_of(self, layer: Image) -> Shapes | None:
        """Return our Shapes layer with as many axes as this image; None without one."""
        for shapes in self.viewer.layers:
            is_ours = isinstance(shapes, Shapes) and shapes.name.startswith(REGIONS_NAME)
            if is_ours and shapes.ndim == layer.ndim:
                return shapes
        return None

    def regions_layer(self, layer: Image) -> Shapes:
        """Return the Shapes layer for regions, created if necessary and ready to draw on."""
        shapes = self.regions_of(layer)
        if shapes is None:
            shapes = self.viewer.add_shapes(
                ndim=layer.ndim,
                name=REGIONS_NAME,
                edge_color="#ffb000",
                face_color="transparent",
                edge_width=max(np.ptp(layer.extent.world, axis=0) / np.abs(layer.scale)) / 250,
                # the grid of the image: another one would change napari's slices
                scale=layer.scale,
                translate=layer.translate,
                units=layer.units,
            )
        self.viewer.layers.selection.active = shapes
        shapes.visible = True  # on a hidden layer nothing can be drawn
        shapes.mode = "add_rectangle"
        return shapes

    def _look_in_3d(self, layer: Layer, store: PyramidStore, *, alone: bool) -> dict[str, Any]:
        """Return the attributes that a layer needs while a store is shown in 3-D."""
        results, boxes = self.layers_of(store, "result"), self.layers_of(store, "box")
        if layer not in results and layer not in boxes:
            return {"visible": False} if alone else {}
        look: dict[str, Any] = {"contrast_limits": PROJECTION} if is_ct(store) else {}
        if alone and boxes and layer in results:  # so that boxes stand out from the coarse whole
            look["opacity"] = 0.6
        return look

    def _show_boxes_in_3d(self, store: PyramidStore) -> None:
        if self.viewer.dims.ndisplay == 3:
            self.show_boxes(store)

    def _placement_of(self, layer: Image, store: PyramidStore) -> Placement:
        """Return where a layer lies now or, if the user has rotated it, its place in the file."""
        try:
            return Placement.of_layer(layer, store.geometry.affine)
        except VolumeError:
            return Placement.of_affine(store.geometry.affine, store.geometry.unit)


def _covers(store: PyramidStore, box: ShownBox, other: ShownBox) -> bool:
    """Return whether a box shows everything that another one shows."""
    shown = [shown_scale(store, b.scale, b.region) for b in (box, other)]
    return shown[0] >= shown[1] and box.region.contains(other.region)


def key_of(layer: Layer) -> str:
    """Return a key for a layer that stays valid for its lifetime, even if it is renamed."""
    return str(layer.unique_id)


def layer_of(viewer: ViewerModel, key: str | None) -> Layer | None:
    """Return the layer with this key; None if it was removed."""
    return next((layer for layer in viewer.layers if key_of(layer) == key), None)


def _position(viewer: ViewerModel, key: str) -> Sequence[float] | None:
    """Return where the sliders stand in a layer; None if it is gone or has been rotated."""
    layer = layer_of(viewer, key)
    if layer is None:
        return None
    try:
        matrix = layer_matrix(layer)
    except VolumeError:
        return None
    point = to_units(viewer.dims.point, viewer.dims.units, layer.units)
    index = (point - matrix[:-1, -1]) / np.diag(matrix)[:-1]
    return [float(v) for v in index]


def _read_again(store: PyramidStore, layer: Image, report: TileReport) -> None:
    note = note_of(layer)
    region = Box.parse(note["region"], store.geometry.axes)
    if report.tile.scale == note["scale"]:
        volume = view_volume(store, note["scale"], region)
        box = store.geometry.box_at(note["scale"], region)
        changed = report.box.intersect(box).relative_to(box.start)
        if changed.size:
            layer.data[changed.slices] = volume.data[changed.slices]
