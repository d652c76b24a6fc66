"""The dock widget *Generate and refine*."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import napari.viewer
from napari.layers import Labels, Layer
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QMessageBox, QVBoxLayout, QWidget

from napari_msgan._napari.connecting import connected
from napari_msgan._napari.controllers import JobController, StoreController
from napari_msgan._napari.docked import Docked
from napari_msgan._napari.from_layer import copied_from
from napari_msgan._napari.job_bar import JobBar
from napari_msgan._napari.model_panel import ModelPanel
from napari_msgan._napari.painting import copy_in, empty_copy, iter_read_sketch
from napari_msgan._napari.refine_panel import RefinePanel
from napari_msgan._napari.save_panel import SavePanel
from napari_msgan._napari.scene import Scene, key_of
from napari_msgan._napari.source_panel import SourcePanel
from napari_msgan._napari.state import JobState, Opened, SessionState
from napari_msgan._napari.view_panel import ViewPanel
from napari_msgan._napari.widgets import INDENT, Hint, UprightScrollArea, button, row
from napari_msgan._napari.windows import is_in_hu
from napari_msgan._napari.workers import start_in_thread, tell
from napari_msgan.errors import ModelError, MsganError
from napari_msgan.model import find_by_identity
from napari_msgan.pyramid import PyramidStore

#: Interval at which new tiles are drawn.
REDRAW_MS = 100
NOTICE = (
    "Synthetic, not for diagnosis. An image made from a patient's sketch keeps that patient's "
    "anatomy: treat it as that patient's data."
)


class GeneratePanel(Docked):
    """Makes a low-resolution image from a layer, and refines the chosen regions."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self.job, self.session = JobState(), SessionState()
        self.scene = Scene(viewer)
        self.jobs = JobController(self.job, start_in_thread)
        self.stores = StoreController(self.session, self.jobs, self.scene)
        self.model = ModelPanel()
        self.source = SourcePanel(viewer)
        self.refine = RefinePanel(viewer, self.session, self.scene)
        self.view = ViewPanel(viewer, self.session, self.scene, self._compared_with)
        self.save = SavePanel(self.stores, self.refine.boxes, self._guarded)
        self.generate_button = button(
            "Generate low-res",
            "Find the edges of the source at every scale, and make the coarsest image from them.\n"
            "Sketch and result appear as layers; refine the result where you need it.",
            lambda: self._guarded(self._generate),
        )
        self.refine_button = button(
            "Refine",
            "Make the tiles of the region up to the chosen scale; tiles in view come first.",
            lambda: self._guarded(self._refine),
        )
        self.clear_button = button(
            "Clear region",
            "Remove the tiles of the chosen scale and of finer ones in the region.\n"
            "Refining them again gives the same image. You are asked before all are removed.",
            lambda: self._guarded(self._clear),
        )
        self.paint_button = button(
            "Paint on the sketch",
            "Makes a copy of the sketch of this image to paint on, and chooses it as the source.\n"
            "Generate low-res then makes another image, which differs by what you painted.",
            lambda: self._guarded(self._paint),
        )
        self.bar = JobBar(
            self.jobs.cancel, "Stop after the tile in progress. Finished tiles are kept."
        )
        self._lay_out()
        self._next_redraw_s = 0.0
        self._shown: Opened | None = None
        self._was_running = False
        self._active_at_start: str | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(REDRAW_MS)
        self._timer.timeout.connect(self._redraw)
        self._connect()

    def let_go(self) -> None:
        """Stop a running job after its tile and let go of the viewer; finished work is kept."""
        self._timer.stop()
        self.jobs.close()
        self._disconnect()
        self.source.close_all()
        self.refine.close_all()
        self.view.close_all()

    def _lay_out(self) -> None:
        content = QWidget()
        inner = QVBoxLayout(content)
        inner.setContentsMargins(4, 4, 8, 4)
        inner.setSpacing(4)
        self.refine.form.addRow(row(self.refine_button, self.clear_button))
        self.refine.form.addRow(self.paint_button)
        for section in (self.model, self.source, self.source.where):
            inner.addWidget(section)
        generate = QVBoxLayout()
        generate.setContentsMargins(*INDENT)
        generate.addWidget(self.generate_button)
        inner.addLayout(generate)
        for section in (self.refine, self.view, self.save):
            inner.addWidget(section)
        inner.addStretch(1)
        notice = Hint()
        notice.say(NOTICE)
        inner.addWidget(notice)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 6, 4)
        outer.addWidget(UprightScrollArea(content), 1)
        outer.addWidget(self.bar)

    def _connect(self) -> None:
        viewer = self._viewer
        layer_events, camera = viewer.layers.events, viewer.scene.camera.events
        later = self.refine.update_later
        self._disconnect = connected(
            (layer_events.removing, self.make_canvas_current),
            *((e, self._list_layers) for e in (layer_events.inserted, layer_events.removed)),
            *((e, self._list_layers) for e in (layer_events.reordered, layer_events.renamed)),
            (viewer.layers.selection.events.active, self._on_active),
            *((e, self.refine.follow_camera) for e in (camera.center, camera.zoom)),
            *((e, later) for e in (viewer.dims.events.point, viewer.dims.events.order)),
            (viewer.dims.events.ndisplay, later),
            (self.job.events, self._show_job),
            (self.session.events, self._show_store),
        )
        self.model.changed.connect(self._on_model)
        self.source.changed.connect(self._show_job)
        self.source.layer_changed.connect(self._fit_model)
        self.source.layer_changed.connect(self.view.update_comparison)
        self._list_layers()
        self._on_model()
        self._show_store()
        self._show_job()

    def _guarded(self, action: Callable[[], None]) -> None:
        """Run the action of a button; errors of ours are shown, not raised into Qt."""
        try:
            action()
        except MsganError as error:
            tell(error)
            if not self.job.is_running:
                self.job.outcome = str(error)  # stays readable, and replaces an earlier outcome

    def _generate(self) -> None:
        self.stores.generate(self.source.wish())

    def _refine(self) -> None:
        self.stores.refine(
            self.refine.boxes(),
            self.refine.target,
            device=self.source.chosen_device,
            focus=self.refine.focus(),
            cluster=self.refine.workplace.cluster,
        )

    def _compared_with(self) -> Layer | None:
        """Return what a result is compared with: its source, or the image before its edits."""
        layer = self.source.layer
        path = None if layer is None else copied_from(layer)
        before = None if path is None else self.scene.result_at(path)
        return before or layer

    def _paint(self) -> None:
        """Let the user paint on a copy of the sketch of the open store."""
        opened = self.session.require()
        store = opened.store
        if (painted := copy_in(self._viewer, store)) is not None:
            self._paint_on(painted, store)
            return
        edges = empty_copy(store)

        def on_end(completed: bool) -> str:
            if not completed:
                return "Cancelled. Nothing was added."
            self._viewer.dims.ndisplay = 2  # first, as it shows again what 3-D had hidden
            self._paint_on(self.scene.add_copy(opened, edges), store)
            return "Paint with 255, erase with 0, then press Generate low-res."

        self.jobs.start("sketch", iter_read_sketch(store, edges), on_end=on_end)

    def _paint_on(self, painted: Labels, store: PyramidStore) -> None:
        """Make a sketch the source, and choose model, seed and precision of its store."""
        self._viewer.dims.ndisplay = 2  # edges are painted on slices
        self.source.choose(painted)
        with suppress(ModelError):  # not here: the sketch is used as any other, as the hint says
            self.model.choose(find_by_identity(store.info.model_sha256, store.info.model_path))
        self.source.seed.setValue(store.info.seed)
        if (made := store.info.fingerprint) is not None:
            self.source.choose_precision(made.precision)
        self._viewer.layers.selection.active = painted
        painted.visible, painted.mode = True, "paint"

    def _clear(self) -> None:
        boxes, scale = self.refine.boxes_to_clear(), self.refine.target
        if self.refine.is_everything(boxes) and not self._is_sure(scale):
            return
        self.stores.clear(boxes, scale)

    def _is_sure(self, scale: int) -> bool:
        text = f"Remove all tiles of scale {scale} and of finer ones, of the whole image?"
        answer = QMessageBox.question(self, "Clear region", text)
        return answer == QMessageBox.StandardButton.Yes

    def _list_layers(self, event: object = None) -> None:
        self.source.list_layers()
        self.refine.list_results()
        self.refine.watch_shapes()

    def _on_active(self, event: object = None) -> None:
        """Work on the result that is selected in the layer list."""
        active = self._viewer.layers.selection.active
        self.refine.update_later()  # the rectangles of the active layer count
        if active is not None and active in self.scene.results() and not self.job.is_running:
            self.refine.result.setCurrentIndex(self.refine.result.findData(key_of(active)))

    def _on_model(self) -> None:
        self.source.set_model(self.model.folder, self.model.spec)

    def _fit_model(self) -> None:
        """Choose a model for images like the source, unless the user chose one that can be used."""
        layer = self.source.layer
        if layer is not None:
            in_hu = None if self.source.is_sketch.isChecked() else is_in_hu(layer)
            self.model.choose_for(layer.ndim, in_hu=in_hu)

    def _show_store(self, *_: object) -> None:
        self.refine.list_results()  # if the open one is gone, this opens another
        opened: Opened | None = self.session.opened
        if opened is not self._shown and not self.job.is_running:
            self.job.outcome = ""  # it belonged to another store
        self._shown = opened
        self.refine.show_store(opened)
        self.view.show_store(opened)
        self.save.show_store(opened)
        self._show_job()

    def _show_job(self, *_: object) -> None:
        job, has_store = self.job, self.session.opened is not None
        running = job.is_running
        self.generate_button.setEnabled(not running and self.source.check.problem is None)
        of_store = (self.refine_button, self.clear_button, self.paint_button, self.save.save)
        for widget in of_store:
            widget.setEnabled(not running and has_store)
        for section in (self.model, self.source, self.source.where, self.refine.result):
            section.setEnabled(not running)
        layer = self._viewer.layers.selection.active
        # Not the layer itself: it would be kept alive, and each access gives the panel a new proxy.
        active = None if layer is None else key_of(layer)
        if running and not self._was_running:
            self._active_at_start = active
        has_ended = self._was_running and not running
        self._was_running = running
        self.bar.show_job(job)
        if has_ended:
            self.source.propose_next_path()
            self.refine.update_summary()
            if active != self._active_at_start:  # another layer was selected meanwhile
                self._on_active()
        if not running:
            self._timer.stop()
        elif not self._timer.isActive():  # restarting it would delay the redraw
            self._timer.start()

    def _redraw(self) -> None:
        """Show new tiles; less often if drawing is slow, so that the window stays responsive."""
        started = time.monotonic()
        if started >= self._next_redraw_s:
            self.stores.redraw_if_stale()
            ended = time.monotonic()
            self._next_redraw_s = ended + 3 * (ended - started)
