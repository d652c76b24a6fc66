"""How a sketch is made from an image."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from napari_msgan.settings import Positive, Settings


class SketchSettings(Settings):
    """How a sketch is made from an image (see `napari_msgan.sketch`).

    window : intensities are clipped to this range before the gradient is taken; "percentiles" for
        the 0.5 and 99.5 percentiles of the source.
    coarse_windows : narrower windows inside `window`, of scale 0 and those after it; scales beyond
        the last entry have `window`. Where strong borders take most of the edges (lungs in CT at
        6 mm), a narrower window leaves more to fainter ones (bones). Scale 0 reads the sketch of
        scale 1, and so has no use for its own.
    low_density, high_density : shares of all voxels that are on a ridge of the gradient and above
        the low, or high, threshold; the density of edges after hysteresis lies between the two.
    sigma : standard deviation of the derivative filter, in voxels of each scale.
    dilations : how many voxels hysteresis follows an edge from a strong voxel.
    given : how the coarser scales of a given sketch are made: "thinned" (block maxima, thinned to
        lines) or "interpolated" (linearly, with the corner voxels aligned).
    """

    window: Literal["percentiles"] | tuple[float, float] = "percentiles"
    coarse_windows: tuple[tuple[float, float], ...] = ()
    low_density: Annotated[float, Field(gt=0, lt=0.5)] = 0.09
    high_density: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    sigma: Positive = 1.0
    dilations: Annotated[int, Field(ge=0, le=256)] = 32
    given: Literal["thinned", "interpolated"] = "thinned"

    @classmethod
    def of_ndim(cls, ndim: int) -> SketchSettings:
        """Return the defaults: 5 to 9 % edges in 2-D, 9 to 14 % in 3-D."""
        if ndim == 2:
            return cls()
        return cls(low_density=0.14, high_density=0.09, dilations=8)

    @model_validator(mode="after")
    def _goes_from_low_to_high(self) -> SketchSettings:
        if self.window != "percentiles" and not self.window[0] < self.window[1]:
            raise ValueError(f"window {self.window} must go from low to high")
        if self.high_density > self.low_density:
            raise ValueError(
                f"high_density {self.high_density} must not exceed low_density {self.low_density}"
            )
        for low, high in self.coarse_windows:
            if self.window == "percentiles" or not self.window[0] <= low < high <= self.window[1]:
                raise ValueError(
                    f"coarse_windows: {low:g} to {high:g} must rise and lie in window {self.window}"
                )
        return self

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out `coarse_windows` if there are none: earlier versions do not know them."""
        written: dict[str, Any] = handler(self)
        if not self.coarse_windows:
            del written["coarse_windows"]
        return written

    def window_at(self, scale: int) -> tuple[float, float]:
        """Return the window of a scale, as shares of `window`."""
        if scale >= len(self.coarse_windows) or self.window == "percentiles":
            return 0.0, 1.0
        low, high = self.window
        start, stop = self.coarse_windows[scale]
        return (start - low) / (high - low), (stop - low) / (high - low)

    def of_scale(self, scale: int) -> SketchSettings:
        """Return the settings without the windows of other scales."""
        windows = self.coarse_windows[scale : scale + 1]
        return self.model_copy(update={"coarse_windows": windows})


class SketchThresholds(Settings):
    """Thresholds of one scale: gradients per voxel, of an image whose window is [0, 1].

    low, high : thresholds of hysteresis.
    normaliser : gradient that becomes the strongest edge.
    density : share of voxels that are edges.
    """

    low: float
    high: float
    normaliser: float
    density: Annotated[float, Field(ge=0, le=1)]
