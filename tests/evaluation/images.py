"""Small images with edges and texture, and units for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_msgan.evaluation import ReportUnits

if TYPE_CHECKING:
    import numpy.typing as npt

GREY = ReportUnits("grey levels of 255", 0, 255 / 65535, 0, 255)
HU = ReportUnits("HU", -1000, 1, -1000, 1600)


def smooth(shape: tuple[int, ...], seed: int, sigma: float = 3.0) -> npt.NDArray[np.float32]:
    """Return a smooth random image from 0 to 255."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), sigma)
    return (255 * (noise - noise.min()) / np.ptp(noise)).astype(np.float32)


def textured(shape: tuple[int, ...], seed: int) -> npt.NDArray[np.float32]:
    """Return a smooth random image with fine detail."""
    return smooth(shape, seed) + 0.2 * smooth(shape, seed + 1000, sigma=1.0)
