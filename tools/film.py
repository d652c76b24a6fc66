"""Film the window of napari while an X-ray is generated, refined, and given a larger heart.

    xvfb-run -a -s "-screen 0 1280x800x24 +extension GLX" python tools/film.py docs/images

The screen is filmed in real time: waiting is shown as long as it took.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from napari.layers import Labels
from PIL import Image, ImageGrab
from qtpy.QtWidgets import QApplication

from napari_msgan._napari import sample_data
from napari_msgan._napari.demo import Demo

_SIZE = (1280, 800)
_WIDTH = 960
_INTERVAL_S = 0.125
#: The left border of the heart in the sample, and where it is painted instead: rows and columns.
_ROWS = np.array([340.0, 400, 450, 500, 550, 600, 650, 697])
_BORDER = np.array([565.0, 600, 632, 662, 690, 703, 697, 672])
_PAINTED = np.array([567.0, 622, 670, 710, 738, 750, 746, 718])


class Camera(threading.Thread):
    """Takes a picture of the screen every eighth of a second until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.pictures: list[Image.Image] = []
        self.times_ms: list[int] = []
        self._stopped = threading.Event()

    def run(self) -> None:
        began = time.monotonic()
        while not self._stopped.wait(_INTERVAL_S):
            picture = ImageGrab.grab().resize(
                (_WIDTH, _WIDTH * _SIZE[1] // _SIZE[0]), Image.Resampling.LANCZOS
            )
            now = time.monotonic()
            self.times_ms.append(round((now - began) * 1000))
            self.pictures.append(picture)
            began = now

    def save_last(self, path: Path) -> None:
        """Save the last picture taken."""
        self.pictures[-1].save(path, quality=85, method=6)

    def save(self, path: Path) -> None:
        """Stop, and save the film."""
        self._stopped.set()
        self.join()
        first, *others = self.pictures
        first.save(
            path,
            save_all=True,
            append_images=others,
            duration=[*self.times_ms[1:], 3000],
            loop=0,
            quality=60,
            method=6,
        )


class Film(Demo):
    """Does what the guide shows, slowly enough to be watched."""

    def zoom(self, factor: float, centre: tuple[float, float]) -> None:
        camera, steps = self.viewer.scene.camera, 8
        begin = np.array(camera.center)
        end = np.array([0.0, *centre])
        for step in range(1, steps + 1):
            camera.zoom *= factor ** (1 / steps)
            camera.center = tuple(begin + (end - begin) * step / steps)
            self.settle(0.1)

    def enlarge_heart(self) -> None:
        """Erase the border of the heart and paint it further out, stroke by stroke."""
        self.stroke((_BORDER + _PAINTED) / 2, 0, 64)
        self.settle(0.5)
        self.stroke(_PAINTED, 255, 3)
        self.settle(1)

    def stroke(self, columns: npt.NDArray[np.float64], label: int, width: int) -> None:
        layer = self.viewer.layers.selection.active
        assert isinstance(layer, Labels)
        layer.brush_size = width
        for start, end in pairwise(np.stack([_ROWS, columns], axis=1)):
            for at in np.linspace(start, end, 60):
                layer.paint(tuple(at), label)
            self.settle(0.15)


def film(out: Path) -> None:
    """Write the film and two of its pictures into a folder."""
    with tempfile.TemporaryDirectory() as folder:
        demo = Film(Path(folder))
        viewer, panel = demo.viewer, demo.panel
        viewer.window.resize(*_SIZE)
        demo.low_res("chest-xray", sample_data.chest_xray())  # loads torch
        viewer.layers.clear()
        demo.settle()
        camera = Camera()
        camera.start()
        demo.low_res("chest-xray", sample_data.chest_xray())
        demo.settle(1.5)
        viewer.layers[-1].visible = False
        demo.zoom(1.7, (530, 640))
        panel.refine_button.click()
        demo.finish()
        demo.settle(2)
        panel.paint_button.click()
        demo.finish()
        demo.settle(1)
        demo.enlarge_heart()
        camera.save_last(out / "edit-sketch.webp")
        painted = viewer.layers.selection.active
        panel.generate_button.click()
        demo.finish()
        opened = panel.session.opened
        assert opened is not None
        for layer in (painted, *panel.scene.layers_of(opened.store, "sketch")):
            layer.visible = False
        demo.settle(0.8)
        panel.refine_button.click()
        demo.finish()
        demo.settle(2)
        camera.save_last(out / "edit-result.webp")
        camera.save(out / "film.webp")
        viewer.close()
        QApplication.processEvents()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for film.webp and two pictures of it")
    film(parser.parse_args().out)
