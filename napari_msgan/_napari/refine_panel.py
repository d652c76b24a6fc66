"""Choosing the scale and the region to refine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari.components import ViewerModel
from napari.layers import Image, Shapes
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog, QLabel, QSpinBox
from superqt.utils import signals_blocked

from napari_msgan._napari.choices import scale_choices, scale_note, work_text
from napari_msgan._napari.connecting import connected
from napari_msgan._napari.from_layer import layer_matrix
from napari_msgan._napari.regions import (
    DEPTH_MM,
    count_tiles,
    current_index,
    drawn_boxes,
    size_text,
    sliced_axis,
    view_box,
)
from napari_msgan._napari.scene import Scene, key_of, layer_of
from napari_msgan._napari.state import Opened, SessionState
from napari_msgan._napari.stores import stores_folder
from napari_msgan._napari.widgets import (
    Hint,
    Section,
    button,
    combo,
    guarded_from_wheel,
    name_combo,
    row,
    set_choices,
)
from napari_msgan._napari.workplace import Workplace
from napari_msgan.errors import GeometryError, MsganError
from napari_msgan.geometry import Box

VIEW, DRAWN, ALL = "Current view", "Rectangles", "Everything"


class RefinePanel(Section):
    """Target scale and region of the open store, with the region's size and missing tiles."""

    def __init__(self, viewer: ViewerModel, session: SessionState, scene: Scene) -> None:
        super().__init__("Refine")
        self._viewer, self._session, self._scene = viewer, session, scene
        self.result = name_combo("The image to work on. File > Open Folder adds saved stores.")
        self.result.setAccessibleName("Image")
        self.scale = combo("How fine the region becomes; coarser scales are made as needed.")
        self.region = combo("The region to refine.")
        self.region.setAccessibleName("Region")
        self.region.addItems([VIEW, DRAWN, ALL])
        self.draw = button(
            "Draw",
            "Draw rectangles on the image. Selected ones are refined, or all if none is selected.",
            self._draw,
        )
        self.first, self.last = (guarded_from_wheel(QSpinBox()) for _ in range(2))
        for box, name in ((self.first, "First slice"), (self.last, "Last slice")):
            box.setAccessibleName(name)
            box.setToolTip(
                "First and last slice (finest scale) for rectangles that lie on one of them.\n"
                f"Rectangles on other slices get {DEPTH_MM:g} mm around themselves."
            )
            box.valueChanged.connect(self._on_slices)
            box.setMinimumWidth(64)
        self.here = button("Here", "Use the slices around the shown one.", self._around_slice)
        self._depth = row(self.first, QLabel("to"), self.last, self.here, stretch=None)
        self.workplace = Workplace()
        self.note = Hint()
        self.summary = Hint()
        self.problem = Hint(is_warning=True)
        self.open_problem = Hint(is_warning=True)
        self.open = button("Open…", "Open a saved store and continue it.", self._open_store)
        self.form.addRow("Image", row(self.result, self.open))
        self.form.addRow(self.open_problem)
        self.form.addRow("To scale", self.scale)
        self.form.addRow(self.note)
        self.form.addRow("Region", row(self.region, self.draw))
        self.form.addRow("Slices", self._depth)
        self.form.addRow("Where to run", self.workplace)
        self.form.addRow(self.summary)
        self.form.addRow(self.problem)
        # Counting tiles at every move of the camera would make it stutter.
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(150)
        self._timer.timeout.connect(self.update_summary)
        self.region.currentIndexChanged.connect(self._on_region)
        self.scale.currentIndexChanged.connect(self._on_scale)
        self.result.currentIndexChanged.connect(self._open_result)
        # slices chosen per axis, [first, stop), and the axis whose slices are shown
        self._slices: dict[int, tuple[int, int]] = {}
        self._axis: int | None = None
        # scale chosen per store, which may be reopened or left for another one
        self._targets: dict[str, int] = {}
        self._unwatch = connected()
        self._on_region()

    def list_results(self) -> None:
        """List the result layers again, and open one if none is open."""
        chosen = self._layer()
        with signals_blocked(self.result):
            self.result.clear()
            for layer in self._scene.results():
                self.result.addItem(layer.name, key_of(layer))
            self.result.setCurrentIndex(
                -1 if chosen is None else self.result.findData(key_of(chosen))
            )
        if chosen is None:
            self._session.opened = None
        if self._session.opened is None and self.result.count():
            self.result.setCurrentIndex(self.result.count() - 1)

    def watch_shapes(self) -> None:
        """Count tiles again when rectangles change, including those in the user's own layers."""
        self.close_all()  # so that no layer is watched twice
        shapes = [layer for layer in self._viewer.layers if isinstance(layer, Shapes)]
        changes = [c for x in shapes for c in (x.events.set_data, x.events.highlight)]
        self._unwatch = connected(*((change, self.update_later) for change in changes))
        self.update_later()

    def close_all(self) -> None:
        """Stop watching the rectangles."""
        self._unwatch()

    def show_store(self, opened: Opened | None) -> None:
        """Offer the scales of a store; the finest honest one is preselected, or the last choice."""
        if opened is None:
            set_choices(self.scale, ())
            self._show_depth()
            return
        self.open_problem.say("")
        store = opened.store
        honest = min(store.info.source.honest_scale, store.geometry.finest_scale)
        target = self._targets.get(str(store.path), honest)
        set_choices(self.scale, scale_choices(store, 1), target)
        self._axis, self._slices = None, {}
        self.update_summary()

    def boxes(self) -> list[Box]:
        """Return the chosen region, in voxels of the finest scale.

        Raises
        ------
        MsganError
            If there is no image, or the region misses it.
        """
        geometry, layer = self._session.require().store.geometry, self._layer()
        if layer is None:
            raise MsganError("the image was removed from the viewer. Choose or open another one.")
        chosen = self.region.currentText()
        if chosen == ALL:
            return [Box.of_shape(geometry.shape)]
        if chosen == VIEW:
            return [view_box(self._viewer, layer, geometry)]
        shapes = self._shapes()
        if shapes is None:
            raise GeometryError("there is no rectangle yet. Press Draw, and draw one.")
        self._set_depth_range()
        return drawn_boxes(self._viewer, shapes, layer, geometry, self._slices)

    def boxes_to_clear(self) -> list[Box]:
        """Return the chosen region, which must be deliberate: a view in 3-D would be everything.

        Raises
        ------
        MsganError
            As for `boxes`, or if the region is a view in 3-D.
        """
        if self.region.currentText() == VIEW and self._viewer.dims.ndisplay == 3:
            raise GeometryError(
                "in 3-D the view is everything. Draw a rectangle on a slice, or choose Everything "
                "as the region, then clear."
            )
        return self.boxes()

    def is_everything(self, boxes: Sequence[Box]) -> bool:
        """Return whether one of the boxes is the whole image."""
        opened = self._session.opened
        return opened is not None and opened.store.geometry.shape in [box.shape for box in boxes]

    def focus(self) -> Box | None:
        """Return the box in view, whose tiles come first; None if nothing of the image is."""
        layer = self._layer()
        if layer is None or self._session.opened is None:
            return None
        try:
            return view_box(self._viewer, layer, self._session.opened.store.geometry)
        except MsganError:  # `boxes` says what is wrong
            return None

    @property
    def target(self) -> int:
        self._session.require()
        return int(self.scale.currentData())

    def follow_camera(self, event: object = None) -> None:
        """Count again if the region follows the camera."""
        if self.region.currentText() == VIEW:
            self.update_later()

    def update_later(self, event: object = None) -> None:
        self._timer.start()

    def update_summary(self) -> None:
        """Show how large the region is and how many tiles it still needs."""
        opened, scale = self._session.opened, self.scale.currentData()
        self.problem.say("")
        self.note.say("" if opened is None or scale is None else scale_note(opened.store, scale))
        if opened is None or scale is None:
            self.summary.say("Generate an image, or open a saved store (File > Open Folder).")
            return
        try:
            self._set_depth_range()
            boxes = self.boxes()
        except MsganError as error:
            self.summary.say("")
            self.problem.say(str(error))
            return
        sizes = "; ".join(self._text_of(box) for box in boxes[:3])
        if len(boxes) > 3:
            sizes += f" and {len(boxes) - 3} more"
        tiles = count_tiles(opened.store, boxes, scale)
        self.summary.say(f"{sizes}: {work_text(tiles, opened.tile_s)}")

    def _text_of(self, box: Box) -> str:
        opened = self._session.opened
        assert opened is not None
        text, axis = size_text(opened.store.geometry, box), self._axis
        if self.region.currentText() == DRAWN and axis is not None:
            text += f" (slices {box.start[axis]} to {box.stop[axis] - 1})"
        return text

    def _layer(self) -> Image | None:
        opened = self._session.opened
        return None if opened is None else self._scene.result_of(opened.store)

    def _shapes(self) -> Shapes | None:
        """Return the active Shapes layer, else ours, else the last one."""
        active = self._viewer.layers.selection.active
        if isinstance(active, Shapes):
            return active
        layer = self._layer()
        ours = None if layer is None else self._scene.regions_of(layer)
        if ours is not None:
            return ours
        return next((x for x in reversed(self._viewer.layers) if isinstance(x, Shapes)), None)

    def _draw(self) -> None:
        layer = self._layer()
        if layer is None:
            self.problem.say("There is no image to draw on yet.")
            return
        self.region.setCurrentText(DRAWN)
        if self._viewer.dims.ndisplay == 3:
            self._viewer.dims.ndisplay = 2  # shapes can be drawn only on slices
        try:
            layer_matrix(layer)  # raises if it is rotated: rectangles on it could not be read
            self._scene.regions_layer(layer)
            self._around_slice()
        except MsganError as error:
            self.problem.say(str(error))

    def _on_scale(self) -> None:
        opened, scale = self._session.opened, self.scale.currentData()
        if opened is not None and scale is not None:
            self._targets[str(opened.store.path)] = scale
        self.update_later()

    def _on_region(self) -> None:
        self._show_depth()
        self.draw.setVisible(self.region.currentText() == DRAWN)
        self.update_later()

    def _show_depth(self) -> None:
        layer = self._layer()
        shown = self.region.currentText() == DRAWN and layer is not None and layer.ndim == 3
        self.show_row(self._depth, visible=shown)

    def _set_depth_range(self) -> None:
        """Show the slices chosen for the axis that is not displayed, or those around the slider."""
        layer, opened = self._layer(), self._session.opened
        if layer is None or opened is None:
            return
        axis = sliced_axis(self._viewer, layer)
        if axis is not None and axis != self._axis:
            self._axis = axis
            if axis in self._slices:
                self._show_slices(*self._slices[axis])
            else:
                self._around_slice()
        self._show_depth()

    def _show_slices(self, first: int, stop: int) -> None:
        """Show a range of slices, [first, stop), of the axis that is not displayed."""
        assert self._axis is not None
        assert self._session.opened is not None
        last = self._session.opened.store.geometry.shape[self._axis] - 1
        for box, value in ((self.first, first), (self.last, stop - 1)):
            with signals_blocked(box):
                box.setRange(0, last)
                box.setValue(value)
        self._on_slices()

    def _on_slices(self) -> None:
        if self._axis is not None:
            self._slices[self._axis] = (self.first.value(), self.last.value() + 1)
        self.update_later()

    def _around_slice(self) -> None:
        layer, opened = self._layer(), self._session.opened
        if layer is None or opened is None:
            return
        if (axis := sliced_axis(self._viewer, layer)) is not None:
            self._axis = axis  # another one may be shown since the slices were last counted
        if self._axis is None:
            return
        middle = current_index(self._viewer, layer, self._axis)
        half = round(DEPTH_MM / 2 / opened.store.geometry.affine.spacing[self._axis])
        self._show_slices(middle - half, middle + half + 1)

    def _open_store(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "OME-Zarr store", str(stores_folder()))
        if not chosen:
            return
        try:
            shown = self._scene.show_saved(Path(chosen))
        except MsganError as error:
            self.open_problem.say(str(error))
            return
        self.open_problem.say("")
        self.result.setCurrentIndex(self.result.findData(key_of(shown)))
        if self._session.opened is None:  # its folder was gone, and is back
            self._open_result()

    def _open_result(self) -> None:
        layer = layer_of(self._viewer, self.result.currentData())
        if layer is None:
            return
        try:
            self._session.opened = self._scene.open_layer(layer)
        except MsganError as error:
            self._session.opened = None
            self.open_problem.say(str(error))
