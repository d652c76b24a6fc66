"""Prepare a source for a model: its grids, its image pyramid, and the sketch of every scale."""

from napari_msgan.source._edited import iter_sketch_edited, plan_edited
from napari_msgan.source._images import (
    hash_pixels,
    image_pyramid,
    lazy_image,
    warn_of_unknown,
    write_image_pyramid,
)
from napari_msgan.source._magnified import n_scales_magnified, plan_magnified
from napari_msgan.source._plan import (
    SourcePlan,
    honest_scale,
    n_scales_of,
    plan_source,
)
from napari_msgan.source._sketches import (
    check_given,
    iter_sketch_given,
    iter_sketch_image,
    iter_sketch_scales,
    top_of,
)

__all__ = [
    "SourcePlan",
    "check_given",
    "hash_pixels",
    "honest_scale",
    "image_pyramid",
    "iter_sketch_edited",
    "iter_sketch_given",
    "iter_sketch_image",
    "iter_sketch_scales",
    "lazy_image",
    "n_scales_magnified",
    "n_scales_of",
    "plan_edited",
    "plan_magnified",
    "plan_source",
    "top_of",
    "warn_of_unknown",
    "write_image_pyramid",
]
