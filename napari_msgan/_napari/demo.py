"""The demonstration: napari with the panel and a sample; unattended, it saves screenshots."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import napari
from qtpy.QtWidgets import QApplication

from napari_msgan._napari import sample_data
from napari_msgan._napari.panel import GeneratePanel
from napari_msgan._napari.to_layer import LayerTuple
from napari_msgan.errors import JobError

_SIZE = (1580, 960)
_PATIENCE_S = 1800.0


def run(output: Path, *, unattended: bool) -> None:
    """Open napari with a sample X-ray and its low-resolution image.

    Parameters
    ----------
    output : folder for the stores, and for the pictures and files of an unattended run.
    unattended : refine, save, continue with a CT in 3-D, save screenshots, and close.

    Raises
    ------
    JobError
        If a job of an unattended run fails.
    """
    output.mkdir(parents=True, exist_ok=True)
    demo = Demo(output)
    demo.low_res("chest-xray", sample_data.chest_xray())
    if not unattended:
        napari.run()
        return
    try:
        demo.xray()
        demo.ct()
    finally:
        demo.viewer.close()
        QApplication.processEvents()


class Demo:
    """Presses the buttons of the panel, one after the other."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self.viewer = napari.Viewer(title="napari-msgan", show_welcome_screen=False)
        self.viewer.window.resize(*_SIZE)
        self.panel = GeneratePanel(self.viewer)
        self.viewer.window.add_dock_widget(self.panel, name="Generate and refine", area="right")
        self.settle()

    def low_res(self, model: str, layers: list[LayerTuple]) -> None:
        """Add a sample and make its low-resolution image."""
        for data, options, _ in layers:
            source = self.viewer.add_image(data, **options)
        panel = self.panel
        panel.model.choose_name(model)
        panel.source.choose(source)
        panel.source.path.setText(str(self._free(model, ".ome.zarr")))
        panel.generate_button.click()
        self.finish()
        self.settle()

    def xray(self) -> None:
        """Refine the middle of the X-ray and save it."""
        panel, viewer = self.panel, self.viewer
        self.picture("xray-1-low-res")
        viewer.scene.camera.zoom *= 2.2
        self.settle()
        self.picture("xray-2-before")
        panel.refine_button.click()
        self.wait(lambda: panel.job.done >= panel.job.total / 2 > 0 or not panel.job.is_running)
        self.picture("xray-3-refining")
        self.finish()
        self.picture("xray-4-refined")
        panel.view.compare.setCurrentText("Wipe")
        self.picture("xray-5-wipe")
        panel.view.compare.setCurrentText("Off")
        panel.save.save_to(self._free("chest-xray", ".ome.tif"))
        self.finish()

    def ct(self) -> None:
        """Refine a slice and a box of the CT, look at it in 3-D, and save it."""
        panel, viewer = self.panel, self.viewer
        viewer.layers.clear()
        self.low_res("thorax-ct", sample_data.thorax_ct())
        self.picture("ct-1-low-res")
        viewer.dims.order = (1, 0, 2)
        self.settle()
        panel.refine_button.click()
        self.finish()
        self.picture("ct-2-coronal-refined")
        viewer.dims.order = (0, 1, 2)
        self._draw_box()
        panel.refine_button.click()
        self.finish()
        self.picture("ct-3-box-refined")
        panel.view.in_3d.click()
        self.picture("ct-4-3d")
        panel.save.format.setCurrentText("NIfTI")
        panel.save.save_to(self._free("thorax-ct", ".nii.gz"))
        self.finish()

    def finish(self) -> None:
        """Wait for the running job to end.

        Raises
        ------
        JobError
            If it failed.
        """
        self.wait(lambda: not self.panel.job.is_running)
        if self.panel.job.has_failed:
            raise JobError(f"the demonstration stopped: {self.panel.job.outcome}")

    def wait(self, is_over: Callable[[], bool]) -> None:
        ends = time.monotonic() + _PATIENCE_S
        while not is_over():
            if time.monotonic() > ends:
                raise JobError(f"the demonstration waited for {_PATIENCE_S:g} s")
            QApplication.processEvents()
            time.sleep(0.01)

    def settle(self, seconds: float = 0.5) -> None:
        """Give the window time to draw."""
        ends = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() > ends)

    def picture(self, name: str) -> None:
        """Save a screenshot of the whole window."""
        self.settle()
        self.viewer.screenshot(str(self._output / f"{name}.png"), canvas_only=False, flash=False)

    def _draw_box(self) -> None:
        """Draw a rectangle in the middle of the slice."""
        viewer = self.viewer
        self.panel.refine.draw.click()
        low, high = self.panel.scene.results()[-1].extent.world
        middle, half = (low + high) / 2, (high - low) / 6
        corners = [(-1, -1), (-1, 1), (1, 1), (1, -1)]
        rows, columns = middle[1], middle[2]
        shapes = viewer.layers.selection.active
        depth = viewer.dims.point[0]
        rectangle = [[depth, rows + a * half[1], columns + b * half[2]] for a, b in corners]
        shapes.add_rectangles([[shapes.world_to_data(corner) for corner in rectangle]])
        self.settle()

    def _free(self, stem: str, suffix: str) -> Path:
        """Return a path in the output folder that does not exist, so that nothing is replaced."""
        number = 1
        while (path := self._output / f"{stem}_{number}{suffix}").exists():
            number += 1
        return path
