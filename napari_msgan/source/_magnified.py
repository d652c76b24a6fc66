"""Place a source on the grids of a model as in training: magnified by a factor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from napari_msgan.geometry import PyramidGeometry
from napari_msgan.resampling import corner_aligned_first
from napari_msgan.source._plan import SourcePlan, honest_scale, n_scales_of
from napari_msgan.volume import orient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_msgan.config import ModelKind, ScaleGrid
    from napari_msgan.geometry import Floats, Ints
    from napari_msgan.volume import Volume


class Grids(Protocol):
    """What models and training settings say about their grids."""

    @property
    def kind(self) -> ModelKind: ...
    @property
    def orientation(self) -> str | None: ...
    @property
    def base_size(self) -> int: ...
    @property
    def scales(self) -> Sequence[ScaleGrid]: ...
    @property
    def tile_shape(self) -> Ints: ...


def n_scales_magnified(
    shape: Ints, spacing: Floats | None, grids: Grids, zoom: float, slice_mm: float = 0.0
) -> int:
    """Return for how many of the scales an image is fine enough.

    Parameters
    ----------
    spacing : voxel size in mm; needed for physical grids.
    zoom : factor by which the image is magnified; it counts for relative grids only.
    slice_mm : true slice thickness, if the voxels were interpolated to a smaller size; otherwise 0.
    """
    if grids.kind == "relative":
        return min(_n_scales_of_pixels(shape, grids, zoom), len(grids.scales))
    assert spacing is not None
    return 1 + honest_scale(grids.scales, tuple(max(mm, slice_mm) for mm in spacing))


def plan_magnified(
    volume: Volume, grids: Grids, zoom: float, slice_mm: float = 0.0
) -> SourcePlan | None:
    """Plan a source, magnified by `zoom`, on the scales that it is fine enough for.

    Returns None if these are fewer than two. All axes are magnified alike; on physical grids the
    voxels then count as if they had the spacing of the scales. On relative grids, an image with
    more pixels than the finest scale is reduced to that scale.

    Parameters
    ----------
    slice_mm : see `n_scales_magnified`.

    Raises
    ------
    GeometryError
        If the volume cannot be turned to the orientation of the grids.
    """
    turned, orientation = orient(volume, grids.orientation)
    n_scales = n_scales_magnified(turned.shape, turned.spacing, grids, zoom, slice_mm)
    if n_scales < 2:
        return None
    spacing = grids.scales[n_scales - 1].spacing_mm or _spacing_of_pixels(turned, grids, zoom)
    step = tuple(mm / zoom / own for mm, own in zip(spacing, turned.spacing, strict=True))
    shape = tuple(max(1, round(n / s)) for n, s in zip(turned.shape, step, strict=True))
    factors = tuple(scale.factor for scale in grids.scales[1:n_scales])
    geometry = PyramidGeometry(turned.axes, shape, factors, turned.affine, turned.unit)
    first = corner_aligned_first(step)
    return SourcePlan(turned, orientation, geometry, step, first, n_scales - 1, 0, grids.tile_shape)


def _n_scales_of_pixels(shape: Ints, grids: Grids, zoom: float) -> int:
    """Return how many scales an image has on relative grids, even if more than the grids have."""
    longest = round(max(shape) * zoom)
    return n_scales_of(longest, grids.base_size, grids.scales[1].factor[-1])


def _spacing_of_pixels(volume: Volume, grids: Grids, zoom: float) -> Floats:
    """Return the voxel size of the finest scale that an image has on relative grids."""
    beyond = max(0, _n_scales_of_pixels(volume.shape, grids, zoom) - len(grids.scales))
    factor = grids.scales[-1].factor
    return tuple(own * f**beyond for own, f in zip(volume.spacing, factor, strict=True))
