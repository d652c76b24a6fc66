"""How results are viewed: windows, comparison with the source, letters, 3-D."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from napari.components import ViewerModel
from napari.layers import Image, Layer
from napari.utils import Colormap
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QCheckBox, QSlider

from napari_msgan._napari.compare import Comparison, Mode
from napari_msgan._napari.connecting import connected
from napari_msgan._napari.from_layer import to_units
from napari_msgan._napari.orientation import PLANES, UprightView
from napari_msgan._napari.scene import Scene
from napari_msgan._napari.state import Opened, SessionState
from napari_msgan._napari.widgets import Hint, Section, button, combo, guarded_from_wheel, row
from napari_msgan._napari.windows import CT_WINDOWS, is_ct, is_in_hu, preset
from napari_msgan.errors import MsganError

#: Colours for a result below, equal to, and above the source.
_DIFFERENCE = Colormap([[0.25, 0.6, 1, 1], [0, 0, 0, 1], [1, 0.65, 0.1, 1]], name="difference")
#: Share of the canvas that the longest side of a volume fills in 3-D.
_FILLED = 0.9
#: Events of a layer after which it lies elsewhere.
_MOVES = ("scale", "translate", "rotate", "shear", "affine", "units")
_MODES: dict[str, Mode | None] = {"Off": None, "Wipe": "wipe", "Difference": "difference"}


class ViewPanel(Section):
    """Changes only what is shown, never what is in a store."""

    def __init__(
        self,
        viewer: ViewerModel,
        session: SessionState,
        scene: Scene,
        source: Callable[[], Layer | None],
    ) -> None:
        super().__init__("View")
        self._viewer, self._session, self._scene, self._source = viewer, session, scene, source
        self._orientation = UprightView(viewer)
        self._comparison: Comparison | None = None
        self._compared: Image | None = None
        self._stop_comparing = connected()
        self._is_alone = False
        self._point: tuple[float, ...] = ()  # slider positions before our 3-D
        self.windows = {
            name: button(name, f"{low:g} to {high:g} HU.", partial(self._set_window, name))
            for name, (low, high) in CT_WINDOWS.items()
        }
        self.windows["Full"] = button(
            "Full", "The full range of the model.", partial(self._set_window, "Full")
        )
        self._windows_row = row(*self.windows.values(), stretch=None)
        self.compare = combo(
            "Shows the layer chosen under Source against the result, in one layer:\n"
            "source left of a line and result right of it, or result minus source.\n"
            "Their contrast limits are linked. For an edited sketch, the source is the image\n"
            "before the edit."
        )
        self.compare.addItems(list(_MODES))
        self.line = guarded_from_wheel(QSlider(Qt.Orientation.Horizontal))
        self.line.setAccessibleName("Line between source and result")
        self.line.setRange(0, 1000)
        self.line.setValue(500)
        self.line.setToolTip("Left of this line is the source, right of it the result.")
        self.problem = Hint(is_warning=True)
        self.letters = QCheckBox("Orientation letters")
        self.letters.setChecked(True)
        self.letters.setToolTip(
            "Letters for right, left, anterior, posterior, superior, inferior at a slice's edges.\n"
            "Volumes are shown as in radiology: the patient's left is on the right."
        )
        self.planes = {
            name: button(name, f"{name} slices, upright as in radiology.", partial(self._cut, name))
            for name in PLANES
        }
        self._planes_row = row(*self.planes.values(), stretch=None)
        self.in_3d = button(
            "3-D",
            "Switch between slices and 3-D. In 3-D the whole image is coarse; refined boxes\n"
            "have a frame and their own resolution.",
            self._toggle_3d,
        )
        self.form.addRow("Window", self._windows_row)
        self.form.addRow("Compare", self.compare)
        self.form.addRow(self.line)
        self.form.addRow(self.problem)
        self.form.addRow("Slices", self._planes_row)
        self._volume_row = row(self.letters, self.in_3d)
        self.form.addRow(self._volume_row)
        # Moving the line reads the slice again: do that no more often than it can be drawn.
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(30)
        self._timer.timeout.connect(self._draw_comparison)
        self.compare.currentIndexChanged.connect(self.update_comparison)
        self.line.valueChanged.connect(self._timer_start)
        self.letters.toggled.connect(self._orientation.set_letters)
        self._let_go = connected(
            (viewer.dims.events.ndisplay, self._on_ndisplay),
            (viewer.dims.events.order, self._draw_comparison),
            (viewer.layers.events.removed, self._draw_comparison),
        )
        # after napari, which would stay at the depth that 3-D looked at
        self._leave_point = connected(
            (viewer.dims.events.ndisplay, self._give_slice_back), position="last"
        )
        self.show_store(None)

    def show_store(self, opened: Opened | None) -> None:
        is_volume = opened is not None and opened.store.geometry.ndim == 3
        windows = opened is not None and is_ct(opened.store)
        self.show_row(self._windows_row, visible=windows)
        self.show_row(self._planes_row, visible=is_volume)
        self.show_row(self._volume_row, visible=is_volume)
        self.compare.setEnabled(opened is not None)
        self.compare.setCurrentIndex(0)
        self._on_mode()
        if self._viewer.dims.ndisplay == 3:
            self._show_for_display()

    def close_all(self) -> None:
        """Let go of the viewer, and remove the comparison."""
        self._remove_comparison()
        self._scene.show_for_display(None, 2, alone=False)
        self._orientation.close()
        self._let_go()
        self._leave_point()

    def update_comparison(self, event: object = None) -> None:
        """Make, change or remove the layer of the comparison."""
        self._on_mode()
        self._remove_comparison()
        mode = _MODES[self.compare.currentText()]
        opened = self._session.opened
        result = None if opened is None else self._scene.result_of(opened.store)
        if mode is None or opened is None or result is None:
            return
        try:
            source = self._source()
            if not isinstance(source, Image) or source is result:
                raise MsganError("choose under Source the image to compare with")
            self._comparison = Comparison(opened.store, result, source)
        except MsganError as error:
            self.problem.say(str(error))
            return
        self._compared = self._scene.add(self._comparison.layer())
        if mode == "difference":
            low, high = result.contrast_limits
            self._compared.colormap = _DIFFERENCE
            self._compared.contrast_limits = (-(high - low) / 2, (high - low) / 2)
        moves = [layer.events[name] for layer in (source, result) for name in _MOVES]
        self._stop_comparing = connected(
            *((event, self.update_comparison) for event in (*moves, source.events.data)),
            (source.events.contrast_limits, self._draw_comparison),
            (result.events.contrast_limits, self._draw_comparison),
            (result.events.set_data, self._timer_start),
        )
        self._viewer.layers.selection.active = result
        self._draw_comparison()

    def _on_mode(self) -> None:
        self.line.setVisible(self.compare.currentText() == "Wipe")
        self.problem.say("")

    def _timer_start(self, event: object = None) -> None:
        self._timer.start()

    def _draw_comparison(self, event: object = None) -> None:
        layer, comparison = self._compared, self._comparison
        mode = _MODES[self.compare.currentText()]
        if layer is None or comparison is None or mode is None:
            return
        if layer not in self._viewer.layers:
            self.compare.setCurrentIndex(0)  # the user removed the layer
            return
        axis = max(0, self._viewer.dims.displayed[-1] - (self._viewer.dims.ndim - layer.ndim))
        comparison.link_contrast()
        comparison.set(mode, self.line.value() / self.line.maximum(), axis)
        if mode == "wipe":
            layer.contrast_limits = comparison.result.contrast_limits
        layer.refresh(thumbnail=False, extent=False, highlight=False)

    def _remove_comparison(self) -> None:
        layer = self._compared
        self._compared = self._comparison = None
        self._stop_comparing()
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _set_window(self, name: str) -> None:
        opened = self._session.opened
        if opened is None:
            return
        window = preset(opened.store, name)
        for role in ("result", "box"):
            for layer in self._scene.layers_of(opened.store, role):
                layer.contrast_limits_range = opened.store.info.window
                layer.contrast_limits = window
        source = self._source()
        in_slices = self._viewer.dims.ndisplay == 2  # 3-D changes of results are undone later
        if in_slices and isinstance(source, Image) and is_in_hu(source):
            source.contrast_limits = window

    def _cut(self, plane: str) -> None:
        """Show the slices of a plane."""
        if self._viewer.dims.ndisplay == 3:
            self._toggle_3d()
        self._orientation.show_plane(plane)

    def _toggle_3d(self) -> None:
        dims = self._viewer.dims
        self._is_alone = dims.ndisplay == 2
        if self._is_alone:
            self._point = dims.point
            # before napari turns layers hidden in 3-D into volumes and uploads them to the GPU
            self._scene.show_for_display(self._session.opened, 3, alone=True)
        dims.ndisplay = 3 if self._is_alone else 2
        if dims.ndisplay == 3:
            self._viewer.reset_view()
            self._orientation.look_from_the_front()
            self._frame_result()

    def _frame_result(self) -> None:
        """Let the result fill the canvas; napari would also frame hidden layers."""
        opened = self._session.opened
        result = None if opened is None else self._scene.result_of(opened.store)
        if result is None:
            return
        own, units = result.units, self._viewer.dims.units
        low, high = (
            result.extent.world
            if units is None
            else to_units(result.extent.world, own, units[-len(own) :])
        )
        dims, camera = self._viewer.dims, self._viewer.scene.camera
        # the axes of the camera are the displayed ones, in their order
        shown = [axis - (dims.ndim - len(low)) for axis in dims.displayed]
        camera.center = tuple(((low + high) / 2)[shown])
        camera.zoom = _FILLED * min(self._viewer.canvas.size) / float((high - low).max())

    def _on_ndisplay(self, event: object = None) -> None:
        if self._viewer.dims.ndisplay == 2:
            self._is_alone = False
        self._show_for_display()

    def _give_slice_back(self, event: object = None) -> None:
        """After our 3-D, however it ends, show the slices that were shown before."""
        dims = self._viewer.dims
        if dims.ndisplay == 3:
            return
        point, self._point = self._point, ()
        if len(point) == dims.ndim:
            volume = dims.order[-3:]  # sliders of other axes could be moved in 3-D
            dims.set_point(volume, [point[axis] for axis in volume])

    def _show_for_display(self) -> None:
        ndisplay = self._viewer.dims.ndisplay
        self._scene.show_for_display(self._session.opened, ndisplay, alone=self._is_alone)
