"""The edited sketch of a store: coarser scales change only where the finest was edited."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_msgan.errors import GeometryError
from napari_msgan.geometry import Affine
from napari_msgan.resampling import reduce_max
from napari_msgan.source._plan import SourcePlan
from napari_msgan.source._sketches import (
    ReadSketch,
    SketchSteps,
    WriteSketch,
    check_given,
    coarser_sketch,
    sketch_levels,
    strengths_of,
    top_of,
)
from napari_msgan.volume import orient, read_padded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_msgan.config import ModelSpec
    from napari_msgan.geometry import Box, Ints
    from napari_msgan.pyramid import SketchInfo, StoreInfo
    from napari_msgan.sketch import Uint8Array
    from napari_msgan.volume import ArrayLike, Volume

#: Largest shift between the edited sketch and that of the store, as a share of a voxel.
_SAME_PLACE = 0.01
#: Distance, in coarse voxels, beyond which an edge of a coarser scale belongs to no finer edge.
_REACH = 8
#: If a larger share of the edges changed, a warning asks whether the sketch is a copy.
_MOSTLY = 0.75
#: Distance, in coarse voxels, from a change at which the coarse edge may lie.
_AROUND = 1


def plan_edited(volume: Volume, spec: ModelSpec, original: StoreInfo) -> SourcePlan:
    """Plan the pyramid of an edited sketch: it is that of the store whose sketch was copied.

    Raises
    ------
    GeometryError
        If the shape or place of the sketch differs from the finest scale of that store.
    """
    geometry = original.to_geometry()
    # files saved by an image editor may keep nothing but the voxel size
    bare = Affine.of_spacing(volume.spacing)
    has_place = volume.unit == geometry.unit == "millimeter" and volume.affine != bare
    turned, orientation = orient(volume, spec.orientation if has_place else None)
    if turned.shape != geometry.shape:
        raise GeometryError(
            f"the edited sketch has shape {turned.shape}, the sketch of the store "
            f"{geometry.shape}: save it with all its voxels"
        )
    apart = np.abs(turned.affine.matrix - geometry.affine.matrix).max()
    if has_place and apart > _SAME_PLACE * min(geometry.affine.spacing):
        raise GeometryError(
            f"the edited sketch does not lie where the sketch of the store lies ({apart:.3g} mm "
            "apart, or turned)"
        )
    ones, zeros = (1.0,) * geometry.ndim, (0.0,) * geometry.ndim
    return SourcePlan(
        turned,
        orientation,
        geometry,
        ones,
        zeros,
        original.source.honest_scale,
        original.extra_scales,
        spec.tile_shape,
    )


def iter_sketch_edited(
    plan: SourcePlan,
    original: SketchInfo,
    before: Sequence[ArrayLike],
    read_sketch: ReadSketch,
    write: WriteSketch,
) -> SketchSteps:
    """Write an edited sketch at every scale; yields and returns as `iter_sketch_image` does.

    The finest scale is written as given. Coarser scales are those of the original, which has edges
    of its own there, except at and near changes of the next finer scale: these parts are made from
    it. So a sketch without edits gives all scales of the original.

    before : sketch of the original at every scale, coarsest first.
    """
    geometry = plan.geometry
    data, top = plan.volume.data, top_of(plan.volume.data.dtype, check_given(plan.volume))
    now = sketch_levels(geometry, read_sketch)

    def is_touched(scale: int, box: Box) -> npt.NDArray[np.bool_]:
        factor, wide = geometry.factor(scale + 1), box.grow(_REACH)
        read = wide.multiply(factor)
        old, new = (read_padded(x[scale + 1], read.start, read.stop) for x in (before, now))
        return _touched(old, new, factor)[box.relative_to(wide.start).slices]

    def edited(scale: int, box: Box) -> npt.NDArray[np.uint8]:
        if scale == geometry.finest_scale:
            return strengths_of(np.asarray(data[box.slices]), top)
        block: npt.NDArray[np.uint8] = before[scale][box.slices]
        touched = is_touched(scale, box)
        if touched.any():
            made = coarser_sketch(now, geometry, original.settings, scale, box)
            block = np.where(touched, made, block)
        return block

    total = sum(len(plan.blocks(s)) for s in range(geometry.n_scales))
    done = edges = changed = 0
    for scale in range(geometry.finest_scale, -1, -1):
        for box in plan.blocks(scale):
            block = edited(scale, box)
            write(scale, box, block)
            if scale == geometry.finest_scale:
                old = np.asarray(before[scale][box.slices])
                edges += int(np.count_nonzero(old))
                changed += int(np.count_nonzero((old > 0) & (block != old)))
            done += 1
            yield done, total
        if scale == geometry.finest_scale:
            _warn_of_no_copy(changed, edges)
    return list(original.thresholds or ())


def _touched(old: Uint8Array, new: Uint8Array, factor: Ints) -> npt.NDArray[np.bool_]:
    """Return where the sketch of a scale is to be made anew from that of the finer scale.

    That is at and beside changes. Soft borders have edges at coarse scales only, where nobody sees
    or can erase them: they are removed together with the edges around them.
    """
    touched: npt.NDArray[np.bool_] = ndimage.maximum_filter(
        reduce_max(old != new, factor), 2 * _AROUND + 1
    )
    erased = reduce_max((old > 0) & (new == 0), factor)
    if erased.any():
        to_erased = _distance_to(erased)
        to_kept = _distance_to(reduce_max(new, factor) > 0)
        touched |= (to_erased <= _REACH) & (to_erased < to_kept)
    return touched


def _distance_to(edges: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """Return the distance to the nearest edge in voxels; more than `_REACH` if there is none."""
    if not edges.any():
        return np.full(edges.shape, _REACH + 1)
    distance: npt.NDArray[Any] = ndimage.distance_transform_cdt(~edges, "chessboard")
    return distance


def _warn_of_no_copy(changed: int, edges: int) -> None:
    """Warn if most edges of the store's sketch are gone, or have another strength."""
    if changed > _MOSTLY * edges:
        warnings.warn(
            f"{changed / edges:.0%} of the edges of the store's sketch are erased or have another "
            "strength in the edited one. If you edited less, it is not a copy of that sketch, or "
            "it was saved with other grey values: save it as PNG, TIFF or NIfTI with the grey "
            "values of the copy",
            stacklevel=3,
        )
