"""Units of reported figures: HU for physical CT models, grey levels of 255 for all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_msgan.config import ModelSpec
    from napari_msgan.intensity import Float32Array


@dataclass(frozen=True, slots=True)
class ReportUnits:
    """How stored values are converted to reported ones.

    low : stored value at the low end of the model's window.
    factor : reported units per stored unit.
    zero : reported value of `low`.
    data_range : width of the model's window in reported units, which PSNR uses.
    """

    name: str
    low: float
    factor: float
    zero: float
    data_range: float

    @property
    def is_hu(self) -> bool:
        return self.name == "HU"

    @property
    def window(self) -> tuple[float, float]:
        """The model's window in reported units."""
        return self.zero, self.zero + self.data_range

    def convert(self, stored: npt.NDArray[Any]) -> Float32Array:
        """Convert stored values to float32 in reported units."""
        above: Float32Array = np.asarray(stored, np.float32) - np.float32(self.low)
        return above * np.float32(self.factor) + np.float32(self.zero)


def units_of(spec: ModelSpec) -> ReportUnits:
    """Return the units for the results of a model.

    A relative model, or one whose sketch settings say so, stretches its source by percentiles, so
    its values are not HU, even for a CT.
    """
    low, high = spec.window
    is_stretched = spec.sketch.window == "percentiles"
    if spec.modality == "CT" and spec.kind == "physical" and not is_stretched:
        return ReportUnits("HU", low, 1.0, low, high - low)
    return ReportUnits("grey levels of 255", low, 255 / (high - low), 0.0, 255.0)
