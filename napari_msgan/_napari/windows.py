"""Windows (low, high) of intensity that images are shown with."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Layer

from napari_msgan._napari.from_layer import has_voxel_size
from napari_msgan.pyramid import PyramidStore

#: Window (low, high) in HU of the usual presets.
CT_WINDOWS = {
    "Lung": (-1350.0, 150.0),
    "Soft tissue": (-160.0, 240.0),
    "Bone": (-770.0, 1730.0),
}
#: Window of the mean along the line of sight through a body: as a radiograph shows it.
PROJECTION = (-800.0, 100.0)


def window_of(data: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the range of an image, of an evenly spread sample where it is large."""
    step = max(1, round((data.size / 1e6) ** (1 / data.ndim)))
    sample = data[(slice(None, None, step),) * data.ndim]
    low, high = float(np.nanmin(sample)), float(np.nanmax(sample))
    return (low, high) if high > low else (low, low + 1)


def default_window(store: PyramidStore) -> tuple[float, float]:
    """Return the window that a result is shown with first: soft tissue for CT."""
    low, high = store.info.window
    if is_ct(store):
        soft = CT_WINDOWS["Soft tissue"]
        return max(low, soft[0]), min(high, soft[1])
    return low, high


def is_ct(store: PyramidStore) -> bool:
    return store.info.modality.upper() == "CT"


def rendering_of(store: PyramidStore) -> str:
    """Return how a volume is shown in 3-D: the mean of a CT, as its brightest voxels are bones."""
    return "average" if is_ct(store) else "mip"


def is_in_hu(layer: Layer) -> bool:
    """Return whether the values of an image can only be Hounsfield units: air is far below 0."""
    if not isinstance(layer, Image) or layer.rgb or not has_voxel_size(layer):
        return False
    data = layer.data[-1] if layer.multiscale else layer.data
    return window_of(np.asarray(data[data.shape[0] // 2]))[0] < -200  # the rest stays on the disk
