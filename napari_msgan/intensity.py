"""Stored intensities to the networks' range [-1, 1] and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
#: Of red, green and blue: ITU-R BT.601, as Pillow has it.
_LUMINANCE = (0.299, 0.587, 0.114)


def luminance(colours: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the grey values, in the same type, of what has red, green, blue on its last axis.

    More on that axis, as transparency, is ignored. Integers are rounded.
    """
    dtype = colours.dtype
    real = np.float32 if dtype.itemsize <= 2 else np.float64
    grey: npt.NDArray[Any] = colours[..., :3].astype(real) @ np.array(_LUMINANCE, real)
    return (grey if dtype.kind == "f" else np.rint(grey)).astype(dtype)


@dataclass(frozen=True)
class Window:
    """Output window of a model: `low` becomes -1, `high` becomes 1, stored as `dtype`."""

    low: float
    high: float
    dtype: np.dtype[Any]

    def to_network(self, stored: npt.NDArray[Any]) -> Float32Array:
        """Return stored values as float32; the window becomes [-1, 1], nothing is clipped."""
        unit = (np.asarray(stored, np.float32) - np.float32(self.low)) / np.float32(
            self.high - self.low
        )
        return unit * np.float32(2) - np.float32(1)

    def to_stored(self, values: Float32Array) -> npt.NDArray[Any]:
        """Return network values clipped to the window, rounded for integer types."""
        unit = (np.clip(values, -1, 1) + np.float32(1)) * np.float32(0.5)
        stored = unit * np.float32(self.high - self.low) + np.float32(self.low)
        if self.dtype.kind in "iu":
            stored = np.clip(np.rint(stored), self.low, self.high)
        return stored.astype(self.dtype)
