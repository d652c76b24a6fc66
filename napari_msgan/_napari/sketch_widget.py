"""*Edge sketch of an image*: a sketch that can be painted on and given back as the source."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import napari
import napari.viewer
import numpy as np
import numpy.typing as npt
from napari.layers import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFormLayout, QVBoxLayout
from superqt import QLabeledDoubleSlider

from napari_msgan._napari.controllers import JobController
from napari_msgan._napari.docked import Docked
from napari_msgan._napari.from_layer import to_volume
from napari_msgan._napari.job_bar import JobBar
from napari_msgan._napari.scene import layer_of
from napari_msgan._napari.state import JobState
from napari_msgan._napari.to_layer import Placement
from napari_msgan._napari.widgets import Hint, button, combo, list_layers
from napari_msgan._napari.workers import start_in_thread
from napari_msgan.config import SketchSettings
from napari_msgan.errors import MsganError
from napari_msgan.geometry import Box
from napari_msgan.jobs import Progress, default_workers
from napari_msgan.sketch import lazy_sketch
from napari_msgan.volume import Volume

#: Computed at once: small enough to cancel soon, large beside what is read around it.
_BLOCK = {2: (1024, 1024), 3: (64, 128, 128)}


def settings_of(ndim: int, percent: float) -> SketchSettings:
    """Return the usual settings with another share of voxels that become edges."""
    usual = SketchSettings.of_ndim(ndim)
    low = percent / 100
    high = low * usual.high_density / usual.low_density
    return SketchSettings(low_density=low, high_density=high, dilations=usual.dilations)


def iter_sketch(
    volume: Volume, settings: SketchSettings, out: npt.NDArray[np.uint8]
) -> Generator[Progress, None, None]:
    """Write the sketch of an image into an array of its shape."""
    yield Progress("sketch", 0, 0)
    sketch = lazy_sketch(volume.data, settings)
    boxes = Box.of_shape(volume.shape).blocks(_BLOCK[len(volume.shape)])
    started = time.monotonic()

    def fill(box: Box) -> None:
        out[box.slices] = sketch[box.slices]

    with ThreadPoolExecutor(default_workers("cpu"), "sketch") as pool:
        futures = [pool.submit(fill, box) for box in boxes]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                left = (time.monotonic() - started) / done * (len(boxes) - done)
                yield Progress("sketch", done, len(boxes), left)
        finally:  # who stops does not wait for blocks that are not begun
            pool.shutdown(wait=True, cancel_futures=True)


class SketchWidget(Docked):
    """Makes the sketch of a layer as a Labels layer: 255 is a strong edge, 0 is none."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self.job = JobState()
        self.jobs = JobController(self.job, start_in_thread)
        self.image = combo("The image whose edges are found, at its own resolution.")
        self.density = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self.density.setRange(1, 25)
        self.density.setDecimals(1)
        self.density.setValue(9)
        self.density.setToolTip(
            "How many voxels become edges at most. The bundled models were trained with 5 to 9 %\n"
            "in 2-D and 9 to 14 % in 3-D; much more copies the image instead of sketching it."
        )
        self.make = button(
            "Make the sketch",
            "Adds a Labels layer: paint with label 255 for a strong edge, 0 erases. Then choose\n"
            "it as the source of Generate and refine.",
            self._make,
        )
        self.problem = Hint(is_warning=True)
        self.bar = JobBar(self.jobs.cancel, "Stop. No layer is added.")
        form = QFormLayout()
        form.addRow("Image", self.image)
        form.addRow("Edges (% of voxels)", self.density)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        for widget in (self.make, self.problem, self.bar):
            layout.addWidget(widget)
        layout.addStretch(1)
        events = viewer.layers.events
        self._connections: list[tuple[Any, Callable[..., None]]] = [
            (event, self._list_images)
            for event in (events.inserted, events.removed, events.reordered, events.renamed)
        ]
        for emitter, callback in self._connections:
            emitter.connect(callback)
        self.job.events.connect(self._show_job)
        self.image.currentIndexChanged.connect(lambda: self.problem.say(""))
        self._list_images()
        active = viewer.layers.selection.active
        if isinstance(active, Image):
            self.image.setCurrentText(active.name)

    def let_go(self) -> None:
        self.jobs.close()
        for emitter, callback in self._connections:
            emitter.disconnect(callback)
        self.job.events.disconnect(self._show_job)

    def _list_images(self, event: object = None) -> None:
        list_layers(self.image, [x for x in self._viewer.layers if isinstance(x, Image)])
        self._show_job()

    def _make(self) -> None:
        """Start to make the sketch; the layer is added when it is done."""
        layer = layer_of(self._viewer, self.image.currentData())
        if layer is None:
            return
        self.problem.say("")
        try:
            volume = to_volume(layer)
            edges = np.zeros(volume.shape, np.uint8)
            place = Placement.of_layer(layer, volume).transform(volume.affine)
            name = f"{layer.name} (sketch)"

            def on_end(completed: bool) -> str:
                if not completed:
                    return "Cancelled. Nothing was added."
                options = {"name": name, "opacity": 0.8, "blending": "additive"}
                self._viewer.add_labels(edges, **options, **place).selected_label = 255
                return "Made the sketch. Paint with 255, erase with 0."

            settings = settings_of(len(volume.shape), self.density.value())
            self.jobs.start("sketch", iter_sketch(volume, settings, edges), on_end=on_end)
        except MsganError as error:
            self.problem.say(str(error))

    def _show_job(self, *_: object) -> None:
        self.make.setEnabled(not self.job.is_running and self.image.count() > 0)
        self.bar.show_job(self.job)


def sketch_widget() -> SketchWidget:
    """Return the widget for the window in front: napari tells a function of none.

    Raises
    ------
    MsganError
        If there is no window.
    """
    viewer = napari.current_viewer()
    if viewer is None:
        raise MsganError("there is no napari window. Open one first.")
    return SketchWidget(viewer)
