"""Intensity windows (low, high) in which images are shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Layer

from napari_msgan._napari.from_layer import has_voxel_size
from napari_msgan.pyramid import PyramidStore

#: Windows (low, high) of the usual presets, in HU.
CT_WINDOWS = {
    "Lung": (-1350.0, 150.0),
    "Soft tissue": (-160.0, 240.0),
    "Bone": (-770.0, 1730.0),
}
#: Window in HU for the mean along the line of sight through a body, as a radiograph shows it.
PROJECTION = (-800.0, 100.0)


def window_of(data: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the range of an image, or of an evenly spread sample if it is large."""
    step = max(1, round((data.size / 1e6) ** (1 / data.ndim)))
    sample = data[(slice(None, None, step),) * data.ndim]
    low, high = float(np.nanmin(sample)), float(np.nanmax(sample))
    return (low, high) if high > low else (low, low + 1)


def default_window(store: PyramidStore) -> tuple[float, float]:
    """Return the window in which a result is first shown: soft tissue for CT."""
    return preset(store, "Soft tissue" if is_ct(store) else "Full")


def preset(store: PyramidStore, name: str) -> tuple[float, float]:
    """Return the part of a window in `CT_WINDOWS` that a result can have; "Full" is all of it."""
    low, high = store.info.window
    first, last = CT_WINDOWS.get(name, (low, high))
    return max(low, first), min(high, last)


def is_ct(store: PyramidStore) -> bool:
    return store.info.modality.upper() == "CT"


def rendering_of(store: PyramidStore) -> str:
    """Return how a volume is shown in 3-D: as the mean for CT, whose brightest voxels are bone."""
    return "average" if is_ct(store) else "mip"


def is_in_hu(layer: Layer) -> bool:
    """Return whether an image can only be in Hounsfield units, because air is far below 0."""
    if not isinstance(layer, Image) or layer.rgb or not has_voxel_size(layer):
        return False
    data = layer.data[-1] if layer.multiscale else layer.data
    return window_of(np.asarray(data[data.shape[0] // 2]))[0] < -200  # reads only one slice
