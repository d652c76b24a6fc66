"""Pyramid stores: their files and metadata, and views of them while they are refined.

zarr and filelock are imported when a store is opened, not here.
"""

from napari_msgan.pyramid._create import PyramidBuilder, create_pyramid
from napari_msgan.pyramid._place import Place, place_of
from napari_msgan.pyramid.attributes import is_store
from napari_msgan.pyramid.chunk_cache import ChunkCache
from napari_msgan.pyramid.metadata import (
    Fingerprint,
    GeometryInfo,
    SketchInfo,
    SourceInfo,
    StoreInfo,
    check_sizes,
)
from napari_msgan.pyramid.store import PyramidStore, open_pyramid
from napari_msgan.pyramid.view import (
    PyramidView,
    SketchView,
    levels,
    refresh_coarsest,
    sketch_levels,
    view_volume,
)

__all__ = [
    "ChunkCache",
    "Fingerprint",
    "GeometryInfo",
    "Place",
    "PyramidBuilder",
    "PyramidStore",
    "PyramidView",
    "SketchInfo",
    "SketchView",
    "SourceInfo",
    "StoreInfo",
    "check_sizes",
    "create_pyramid",
    "is_store",
    "levels",
    "open_pyramid",
    "place_of",
    "refresh_coarsest",
    "sketch_levels",
    "view_volume",
]
