"""Levels of plain zarr groups, for tests of what reads and writes them."""

import math
from pathlib import Path

import zarr

from napari_msgan.pyramid import place_of
from napari_msgan.pyramid._level import Level
from napari_msgan.zarr_folder import ChunkSize


def level_of(root: Path, key: str) -> Level:
    """Return an array of a group as a level that may be written."""
    array = zarr.open_group(root, mode="r")[key]
    assert isinstance(array, zarr.Array)
    chunk = ChunkSize(math.prod(array.chunks) * array.dtype.itemsize, "zstd")
    return Level(array, place_of(root), chunk)
