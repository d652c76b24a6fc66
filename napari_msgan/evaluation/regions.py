"""Where figures are measured: the body, and its tissues in CT; always from the true image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

if TYPE_CHECKING:
    from napari_msgan.evaluation.units import ReportUnits
    from napari_msgan.intensity import Float32Array

BoolArray = npt.NDArray[np.bool_]

_BODY_ABOVE_HU = -500
_BODY_ABOVE_SHARE = 0.05
#: In HU, including the low and excluding the high end; fat (-150 to -50) and partial volumes are
#: in none.
TISSUES_HU = {
    "lung": (-np.inf, -500.0),
    "soft_tissue": (-50.0, 150.0),
    "bone": (200.0, np.inf),
}


def body_mask(true: Float32Array, units: ReportUnits) -> BoolArray:
    """Return the body: the largest connected part that is not air, with its slices' holes filled.

    Air is what is below -500 HU or, if values are not HU, in the lowest 5 % of the window. If
    nothing is above that, the whole image counts as body.

    Parameters
    ----------
    true : array, shape ([Z,] Y, X), the true image in `units`.

    Returns
    -------
    array, bool, of the same shape
    """
    share = units.zero + _BODY_ABOVE_SHARE * units.data_range
    parts, count = ndimage.label(true > (_BODY_ABOVE_HU if units.is_hu else share))
    if count == 0:
        return np.ones(true.shape, bool)
    largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    body: BoolArray = parts == largest
    slices = body if body.ndim == 3 else body[None]
    for plane in slices:  # lungs are open at the ends of a volume, but not within a slice
        plane[...] = ndimage.binary_fill_holes(plane)
    return body


def tissue_masks(true: Float32Array, body: BoolArray) -> dict[str, BoolArray]:
    """Return lung (below -500 HU), soft tissue (-50 to 150) and bone (200 or more) of the body.

    Parameters
    ----------
    true : array, the true image in HU.
    body : bool array, as returned by `body_mask`.
    """
    return {name: body & (true >= low) & (true < high) for name, (low, high) in TISSUES_HU.items()}
