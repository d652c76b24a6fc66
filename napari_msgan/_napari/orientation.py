"""Radiological views: coronal and sagittal slices stand upright, with letters at the edges."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from napari.components import ViewerModel
from napari.components.overlays import TextOverlay
from napari.layers import Image
from napari.utils.events import Event

from napari_msgan._napari.connecting import connected
from napari_msgan._napari.from_layer import has_voxel_size, is_anatomical

#: What lies at the low and at the high end of the axes z, y, x.
_ENDS = (("I", "S"), ("A", "P"), ("R", "L"))
#: For each plane, as indices into (z, y, x): the axis across its slices, vertical, horizontal.
PLANES = {"Axial": (0, 1, 2), "Coronal": (1, 0, 2), "Sagittal": (2, 0, 1)}
_PLACES = ("top_center", "bottom_center", "middle_left", "middle_right")
_PREFIX = "napari_msgan_"
#: Changes that affect which images are shown, and whether they are anatomical.
_LAYER_CHANGES = ("inserted", "removed", "visible", "units")


def _is_even(order: Sequence[int]) -> bool:
    """Return whether an order results from an even number of swaps."""
    pairs = combinations(order, 2)
    return sum(a > b for a, b in pairs) % 2 == 0


class UprightView:
    """Keeps the camera of a viewer upright while volumes of ours are shown."""

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._default = viewer.scene.camera.orientation
        self._are_letters_wanted = True
        for place in _PLACES:
            overlay = TextOverlay(
                position=place, font_size=14, box=False, color="#ffb000", visible=False
            )
            viewer.canvas.overlays[_PREFIX + place] = overlay
        self._disconnect = connected(
            (viewer.dims.events.order, self.update),
            (viewer.dims.events.ndisplay, self.update),
            (viewer.layers.events, self._on_layers),
        )
        self.update()

    def set_letters(self, wanted: bool) -> None:
        self._are_letters_wanted = wanted
        self.update()

    def show_plane(self, name: str) -> None:
        """Show slices of a plane at the current slider position."""
        dims = self._viewer.dims
        first = dims.ndim - 3
        dims.order = (*range(first), *(first + axis for axis in PLANES[name]))

    def letters(self) -> dict[str, str]:
        """Return the letter for each edge; nothing if letters would not be true."""
        if not self._is_anatomical() or self._viewer.dims.ndisplay == 3:
            return {}
        offset = self._viewer.dims.ndim - 3
        displayed = [axis - offset for axis in self._viewer.dims.displayed]
        if min(displayed) < 0:
            return {}
        vertical, horizontal = (_ENDS[axis] for axis in displayed)
        top, bottom = vertical if displayed[0] else vertical[::-1]  # z grows upwards
        values = (top, bottom, *horizontal)
        return dict(zip(_PLACES, values, strict=True))

    def update(self, event: object = None) -> None:
        """Set the camera and the letters for the axes that are displayed."""
        self._set_camera()
        letters = self.letters() if self._are_letters_wanted else {}
        for place in _PLACES:
            overlay = self._viewer.canvas.overlays[_PREFIX + place]
            overlay.text = letters.get(place, "")
            overlay.visible = place in letters

    def close(self) -> None:
        """Restore the viewer to how it was."""
        self._disconnect()
        for place in _PLACES:
            self._viewer.canvas.overlays.pop(_PREFIX + place, None)
        self._viewer.scene.camera.orientation = self._default

    def _on_layers(self, event: Event) -> None:
        if event.type in _LAYER_CHANGES:  # events of the list and of every layer arrive here
            self.update()

    def _is_anatomical(self) -> bool:
        """Return whether there is a volume of ours, and all shown images could be such volumes.

        The source of a volume qualifies, so both appear the same way up when either is hidden.
        """
        layers = self._viewer.layers
        shown = [layer for layer in layers if isinstance(layer, Image) and layer.visible]
        are_volumes = all(layer.ndim == 3 and has_voxel_size(layer) for layer in shown)
        return are_volumes and any(is_anatomical(layer) for layer in layers)

    def _set_camera(self) -> None:
        camera, dims = self._viewer.scene.camera, self._viewer.dims
        depth, vertical, horizontal = self._default
        if self._is_anatomical() and dims.ndisplay == 2:
            # z grows upwards in a patient, and y towards the back: down, as in every axial slice
            is_z = dims.displayed[0] == dims.ndim - 3
            vertical, horizontal = ("up" if is_z else "down"), "right"
        elif self._is_anatomical():
            # Left, posterior, superior is right-handed; napari's default mirrors such volumes.
            depth = "away" if _is_even(dims.displayed) else "towards"
            vertical, horizontal = "down", "right"
        wanted = (depth, vertical, horizontal)
        if tuple(camera.orientation) != wanted:
            camera.orientation = wanted

    def look_from_the_front(self) -> None:
        """Turn the camera of the 3-D display to the patient's front, head up."""
        last = self._viewer.dims.ndim - 1
        towards_back = tuple(float(axis == last - 1) for axis in self._viewer.dims.displayed)
        upwards = tuple(float(axis == last - 2) for axis in self._viewer.dims.displayed)
        self._viewer.scene.camera.set_view_direction(towards_back, upwards)
