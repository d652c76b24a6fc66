"""Convert stored intensities to the range [-1, 1] of the networks, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
#: Weights of red, green and blue: ITU-R BT.601, as in Pillow.
_LUMINANCE = (0.299, 0.587, 0.114)


def luminance(colours: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert colours, with red, green and blue on the last axis, to grey values of the same type.

    Further channels, such as transparency, are ignored. Integers are rounded.
    """
    dtype = colours.dtype
    real = np.float32 if dtype.itemsize <= 2 else np.float64
    grey: npt.NDArray[Any] = colours[..., :3].astype(real) @ np.array(_LUMINANCE, real)
    return (grey if dtype.kind == "f" else np.rint(grey)).astype(dtype)


@dataclass(frozen=True)
class Window:
    """Output window of a model: stored values `low` to `high`, of type `dtype`, are -1 to 1."""

    low: float
    high: float
    dtype: np.dtype[Any]

    def to_network(self, stored: npt.NDArray[Any]) -> Float32Array:
        """Convert stored values to float32; the window becomes [-1, 1], without clipping."""
        unit = (np.asarray(stored, np.float32) - np.float32(self.low)) / np.float32(
            self.high - self.low
        )
        return unit * np.float32(2) - np.float32(1)

    def to_stored(self, values: Float32Array) -> npt.NDArray[Any]:
        """Convert values in [-1, 1] to stored ones: clipped to the window, integers are rounded."""
        unit = (np.clip(values, -1, 1) + np.float32(1)) * np.float32(0.5)
        stored = unit * np.float32(self.high - self.low) + np.float32(self.low)
        if self.dtype.kind in "iu":
            stored = np.clip(np.rint(stored), self.low, self.high)
        return stored.astype(self.dtype)
