"""*Edge sketch of an image*: makes a sketch to be painted on and used as the source."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

import napari.viewer
import numpy as np
import numpy.typing as npt
from magicgui.widgets import ComboBox, Container, FloatSlider, PushButton, create_widget
from napari.layers import Image
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QVBoxLayout

from napari_msgan._napari.connecting import connected
from napari_msgan._napari.controllers import JobController
from napari_msgan._napari.docked import Docked, leave_room
from napari_msgan._napari.from_layer import KEY, store_link, to_volume
from napari_msgan._napari.job_bar import JobBar
from napari_msgan._napari.painting import add_sketch
from napari_msgan._napari.state import JobState
from napari_msgan._napari.to_layer import Placement, exact_place
from napari_msgan._napari.widgets import Hint
from napari_msgan._napari.workers import start_in_thread
from napari_msgan.errors import MsganError
from napari_msgan.geometry import Box
from napari_msgan.jobs import Progress, default_workers
from napari_msgan.sketch import lazy_sketch
from napari_msgan.sketch_settings import SketchSettings
from napari_msgan.steps import iter_in_threads
from napari_msgan.volume import Volume

#: Block computed at a time: small enough to cancel soon, large beside what is read around it.
_BLOCK = {2: (1024, 1024), 3: (64, 128, 128)}


def settings_of(ndim: int, percent: float) -> SketchSettings:
    """Return the default settings with another share (in percent) of voxels that become edges."""
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

    with closing(iter_in_threads(fill, boxes, default_workers("cpu"))) as filled:
        for done, _ in enumerate(filled, 1):
            left = (time.monotonic() - started) / done * (len(boxes) - done)
            yield Progress("sketch", done, len(boxes), left)


class SketchWidget(Docked):
    """Makes the sketch of a layer as a Labels layer: 255 is the strongest edge, 0 is none."""

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._has_proposed = False
        self.job = JobState()
        self.jobs = JobController(self.job, start_in_thread)
        image = create_widget(
            annotation=Image,
            label="Image",
            options={"tooltip": "The image whose edges are found, at its own resolution."},
        )
        assert isinstance(image, ComboBox)
        self.image = image
        self.density = FloatSlider(
            value=9,
            min=1,
            max=25,
            step=0.1,
            label="Edges (% of voxels)",
            tooltip="The largest share of voxels that become edges. The bundled models were "
            "trained with 5 to 9 %\nin 2-D and 9 to 14 % in 3-D; many more edges copy the image "
            "instead of sketching it.",
        )
        self.make = PushButton(
            text="Make the sketch",
            tooltip="Adds a Labels layer: paint with label 255 for a strong edge, 0 erases. Then "
            "choose\nit as the source of Generate and refine.",
        )
        self._form = Container(widgets=[self.image, self.density, self.make])
        self.problem = Hint(is_warning=True)
        self.bar = JobBar(self.jobs.cancel, "Stop. No layer is added.")
        layout = QVBoxLayout(self)
        for widget in (self._form.native, self.problem, self.bar):
            layout.addWidget(widget)
        layout.addStretch(1)
        self._disconnect = connected(
            (self.job.events, self._show_job),
            (viewer.layers.events.removing, self.make_canvas_current),
        )
        self.make.clicked.connect(self._make)
        self.image.changed.connect(lambda: self.problem.say(""))
        self._show_job()

    def showEvent(self, event: QShowEvent | None) -> None:
        super().showEvent(event)
        leave_room(self)
        self.reset_choices()  # only now can the form find its viewer
        if not self._has_proposed:
            self._has_proposed = True
            self._propose()

    def _propose(self) -> None:
        """Choose the active image, or the first one, among those not of a store."""
        active = self._viewer.layers.selection.active
        images = [layer for layer in self._viewer.layers if isinstance(layer, Image)]
        real = [layer for layer in images if store_link(layer) is None]
        if real:
            self.image.value = active if active in real else real[0]

    def let_go(self) -> None:
        self.jobs.close()
        self._disconnect()

    def reset_choices(self, event: object = None) -> None:
        """List the images again; napari calls this whenever its layers change."""
        self._form.reset_choices()
        self._show_job()

    def _make(self) -> None:
        """Start making the sketch; the layer is added when it is done."""
        layer = self.image.value
        if layer is None:
            return
        self.problem.say("")
        try:
            volume = to_volume(layer)
            edges = np.zeros(volume.shape, np.uint8)
            placement = Placement.of_layer(layer, volume.affine)
            place = placement.transform(volume.affine)
            name = f"{layer.name} (sketch)"
            note = exact_place(volume, place) if KEY in layer.metadata else {}

            def on_end(completed: bool) -> str:
                if not completed:
                    return "Cancelled. Nothing was added."
                add_sketch(self._viewer, replace(volume, data=edges), placement, name, note)
                return "Made the sketch. Paint with 255, erase with 0."

            settings = settings_of(len(volume.shape), self.density.value)
            self.jobs.start("sketch", iter_sketch(volume, settings, edges), on_end=on_end)
        except MsganError as error:
            self.problem.say(str(error))

    def _show_job(self, *_: object) -> None:
        self.make.enabled = not self.job.is_running and self.image.value is not None
        self.bar.show_job(self.job)
