"""Place a source on the grids of a model: which scales it has, and where their voxels lie."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_msgan.errors import GeometryError, VolumeError
from napari_msgan.geometry import Box, Floats, Ints, PyramidGeometry
from napari_msgan.resampling import corner_aligned_first
from napari_msgan.volume import Orientation, Volume, orient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_msgan.config import ModelSpec, ScaleGrid

#: Along each axis, the voxels of a scale may be this share of those of the source.
HONEST_RATIO = 0.7
#: Images shorter than this share of a model's training images are taken to be parts of such images.
_SMALL_PART = 0.5
#: Allows for the rounding of voxel sizes to float32, so that it does not add a voxel.
_ROUNDED = 1 - 1e-6


@dataclass(frozen=True)
class SourcePlan:
    """A source placed on the grids of a model.

    volume : the source, in the orientation of the model.
    orientation : how the source was permuted and flipped for that.
    step, first : voxel i of the finest scale lies at index ``first + step * i`` of `volume`.
    honest_scale : finest scale that the resolution of the source supports.
    extra_scales : number of finest scales that reuse the last generator.
    block_shape : shape of the blocks to work on: whole chunks of the store.
    """

    volume: Volume
    orientation: Orientation
    geometry: PyramidGeometry
    step: Floats
    first: Floats
    honest_scale: int
    extra_scales: int
    block_shape: Ints

    def blocks(self, scale: int) -> list[Box]:
        """Return the blocks that a scale is divided into."""
        return Box.of_shape(self.geometry.shape_at(scale)).blocks(self.block_shape)


def plan_source(volume: Volume, spec: ModelSpec, scale: int | None = None) -> SourcePlan:
    """Plan the pyramid of a source for a model.

    Parameters
    ----------
    scale : finest scale wanted; None for the finest honest one, as for any coarser one (physical
        models). Relative models always have all scales, up to the pixels of the source.

    Raises
    ------
    VolumeError
        If the source has another number of axes, or no voxel size although the model needs one.
    GeometryError
        If the scale does not exist, or the image is smaller than one of its voxels.
    """
    if len(volume.shape) != len(spec.axes):
        raise VolumeError(
            f"the image has shape {volume.shape}, but model {spec.name!r} is for "
            f"{len(spec.axes)}-D images ({', '.join(spec.axes)})"
        )
    if spec.kind == "relative":
        return _plan_relative(volume, spec, scale)
    return _plan_physical(volume, spec, scale)


def n_scales_of(longest: int, base_size: int, factor: int) -> int:
    """Return how many scales (2 or more) bring the longest side closest to `base_size`."""
    return max(2, 1 + round(math.log(longest / base_size) / math.log(factor)))


def _plan_relative(volume: Volume, spec: ModelSpec, scale: int | None) -> SourcePlan:
    factor = spec.scales[-1].factor
    n_scales = n_scales_of(max(volume.shape), spec.base_size, factor[-1])
    if scale is not None and not 0 <= scale < n_scales:
        raise GeometryError(
            f"scale {scale} does not exist: an image of {volume.shape} has the scales 0 to "
            f"{n_scales - 1}, the finest has the pixels of the image"
        )
    extra = max(0, n_scales - spec.n_scales)
    if extra:
        warnings.warn(
            f"the image is larger than model {spec.name!r} was trained for: its last generator "
            f"is applied {extra} more time{'s' * (extra != 1)}",
            stacklevel=2,
        )
    fewest = math.ceil(spec.base_size * math.sqrt(factor[-1]))  # of two scales
    if max(volume.shape) < 0.99 * fewest:
        warnings.warn(
            f"the image has {max(volume.shape)} pixels on its longest side, fewer than model "
            f"{spec.name!r} was trained for ({fewest}): the result will not look like an image. "
            "Use it at its full size",
            stacklevel=2,
        )
    known = [s.factor for s in spec.scales[1:]]
    factors = tuple((known + [factor] * extra)[: n_scales - 1])
    geometry = PyramidGeometry(volume.axes, volume.shape, factors, volume.affine, volume.unit)
    same = Orientation.identity(len(volume.shape))
    ones, zeros = (1.0,) * len(volume.shape), (0.0,) * len(volume.shape)
    return SourcePlan(volume, same, geometry, ones, zeros, n_scales - 1, extra, spec.tile_shape)


def honest_scale(scales: Sequence[ScaleGrid], spacing_mm: Floats) -> int:
    """Return the finest scale with voxels of at least 0.7 times the given size per axis, or -1."""
    fits = [
        index
        for index, scale in enumerate(scales)
        if scale.spacing_mm
        and all(
            mm >= HONEST_RATIO * own * (1 - 1e-6)
            for mm, own in zip(scale.spacing_mm, spacing_mm, strict=True)
        )
    ]
    return max(fits, default=-1)


def _plan_physical(volume: Volume, spec: ModelSpec, scale: int | None) -> SourcePlan:
    if volume.unit != "millimeter":
        raise VolumeError(
            f"the image has no voxel size in mm, which model {spec.name!r} needs. Save it with "
            "its voxel size (NIfTI, OME-TIFF); generate and estimate also take one with --spacing "
            "(in Python spacing=), napari takes the layer's scale and units"
        )
    turned, orientation = orient(volume, spec.orientation)
    honest = max(0, honest_scale(spec.scales, turned.spacing))
    finest = max(1, honest if scale is None else max(scale, honest))
    if finest >= spec.n_scales:
        raise GeometryError(
            f"scale {scale} does not exist: model {spec.name!r} has the scales 0 to "
            f"{spec.n_scales - 1}"
        )
    spacing = spec.scales[finest].spacing_mm
    assert spacing is not None
    if finest > honest:
        warnings.warn(
            f"scale {finest} ({min(spacing):g} mm) is finer than the source, whose voxels are up "
            f"to {max(turned.spacing):g} mm: details beyond scale {honest} are invented",
            stacklevel=2,
        )
    _warn_of_a_part(turned, spec)
    step = tuple(mm / own for mm, own in zip(spacing, turned.spacing, strict=True))
    first = corner_aligned_first(step)
    sizes = [n / s for n, s in zip(turned.shape, step, strict=True)]
    if max(sizes) < 1:
        longest = max(n * mm for n, mm in zip(sizes, spacing, strict=True))
        raise GeometryError(
            f"the image is {longest:.3g} mm long, less than a voxel of scale {finest} "
            f"({min(spacing):g} mm): is its voxel size in mm? Give another one with --spacing (in "
            "Python spacing=)"
        )
    shape = tuple(math.ceil(n * _ROUNDED) for n in sizes)
    factors = tuple(s.factor for s in spec.scales[1 : finest + 1])
    affine = turned.affine.rescaled(step, first)
    geometry = PyramidGeometry(turned.axes, shape, factors, affine, "millimeter")
    return SourcePlan(turned, orientation, geometry, step, first, honest, 0, spec.tile_shape)


def _warn_of_a_part(volume: Volume, spec: ModelSpec) -> None:
    """Warn if an image is far smaller than those that a physical model was trained on."""
    coarsest = spec.scales[0].spacing_mm
    assert coarsest is not None
    seen_mm = max(n * mm for n, mm in zip(volume.shape, volume.spacing, strict=True))
    trained_mm = spec.base_size * min(coarsest)
    if seen_mm < _SMALL_PART * trained_mm:
        warnings.warn(
            f"the image is {seen_mm:.0f} mm long, model {spec.name!r} was trained on images of "
            f"about {trained_mm:.0f} mm: from a part, the model cannot tell what it sees, and may "
            "make dark regions bright. Use the whole image, and refine the part",
            stacklevel=2,
        )
