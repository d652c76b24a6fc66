"""Pictures of a case: sketch, scales, truth and difference side by side, whole and zoomed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_msgan.evaluation.case import Case
    from napari_msgan.intensity import Float32Array, Window

_GAP = 6
_TITLE_HEIGHT = 14
#: What the zoomed row shows: this share of the picture, around this place (from top, from left).
_ZOOM, _ZOOM_CENTRE = 0.25, (0.5, 0.33)
#: A difference of a quarter of the window is white.
_DIFFERENCE_GAIN = 4
#: Sketch strengths above this are white, because most edges are weak.
_SKETCH_WHITE = 160


@dataclass(frozen=True)
class Panel:
    """One picture in a row: grey values in [0, 1], shape (height, width)."""

    title: str
    grey: Float32Array


def overview(case: Case, *, size: int = 420, with_difference: bool = True) -> Image.Image:
    """Draw all scales of a case in one picture; for volumes the middle coronal slice.

    Parameters
    ----------
    size : longest side of a panel in pixels.
    with_difference : add |result - truth| (white is a quarter of the window) and a second row
        that shows a part magnified four times.
    """
    panels = _panels(case, with_difference=with_difference)
    shape = panels[-1].grey.shape
    spacing = case.store.geometry.spacing_at(case.finest_scale)
    height_mm, width_mm = shape[0] * spacing[0], shape[1] * spacing[-1]
    ratio = size / max(height_mm, width_mm)
    target = max(1, round(width_mm * ratio)), max(1, round(height_mm * ratio))
    rows = [[_resized(panel.grey, target) for panel in panels]]
    if with_difference:
        rows.append([_resized(_zoomed(panel.grey), target) for panel in panels])
    return _sheet(rows, [panel.title for panel in panels], target)


def _panels(case: Case, *, with_difference: bool) -> list[Panel]:
    store, window, finest = case.store, case.window, case.finest_scale
    shown = min(finest, 2)
    sketch = _plane(np.asarray(store.sketch_array(shown)[...])).astype(np.float32)

    def grey(stored: npt.NDArray[Any]) -> Float32Array:
        return to_unit(_plane(stored), window)

    made = [Panel(f"scale {s}", grey(case.made(s))) for s in range(finest + 1)]
    truth = Panel("truth", grey(case.truth[finest]))
    sketch /= np.float32(_SKETCH_WHITE)
    panels = [Panel(f"sketch of scale {shown}", sketch), *made, truth]
    if with_difference:
        difference = np.abs(made[-1].grey - truth.grey) * np.float32(_DIFFERENCE_GAIN)
        panels.append(Panel(f"difference x {_DIFFERENCE_GAIN}", difference))
    return panels


def _plane(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a 2-D image as it is, or the middle coronal slice of a volume, head up."""
    return array if array.ndim == 2 else array[::-1, array.shape[1] // 2]


def _zoomed(grey: Float32Array) -> Float32Array:
    """Return a part centred a third from the left, where a lung is; the middle is the spine."""
    key = []
    for n, place in zip(grey.shape, _ZOOM_CENTRE, strict=True):
        size = max(1, round(n * _ZOOM))
        start = round(n * place - size / 2)
        key.append(slice(start, start + size))
    return grey[tuple(key)]


def to_unit(stored: npt.NDArray[Any], window: Window) -> Float32Array:
    """Convert stored values to float32, mapping the window of the model to [0, 1]."""
    return (window.to_network(stored) + np.float32(1)) * np.float32(0.5)


def to_picture(grey: Float32Array) -> Image.Image:
    """Convert grey values in [0, 1] to an 8-bit picture; values outside are clipped."""
    return Image.fromarray(np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8))


def _resized(grey: Float32Array, target: tuple[int, int]) -> Image.Image:
    picture = to_picture(grey)
    smaller = target[0] < picture.size[0]
    return picture.resize(target, Image.Resampling.LANCZOS if smaller else Image.Resampling.NEAREST)


def _sheet(
    rows: Sequence[Sequence[Image.Image]], titles: Sequence[str], target: tuple[int, int]
) -> Image.Image:
    width, height = (n + _GAP for n in target)
    size = width * len(titles) - _GAP, _TITLE_HEIGHT + height * len(rows) - _GAP
    sheet = Image.new("L", size, 128)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((column * width + 2, 1), title, fill=255)
        for row, pictures in enumerate(rows):
            sheet.paste(pictures[column], (column * width, _TITLE_HEIGHT + row * height))
    return sheet
