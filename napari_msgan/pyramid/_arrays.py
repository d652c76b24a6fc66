"""Groups and arrays of a store as zarr makes and opens them, and the files of their chunks."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_msgan.durable import write_atomically
from napari_msgan.errors import StoreError
from napari_msgan.folders import check_inside
from napari_msgan.geometry import Box, Ints, level_of_scale
from napari_msgan.pyramid._level import UNREADABLE, Level
from napari_msgan.pyramid.attributes import (
    ATTRIBUTES_KEY,
    info_from_attributes,
    root_attributes,
    sketch_attributes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_msgan.pyramid.metadata import StoreInfo


def array_key(scale: int, n_scales: int, *, sketch: bool) -> str:
    level = level_of_scale(scale, n_scales)
    return f"sketch/{level}" if sketch else str(level)


def create_groups(root: Path, info: StoreInfo) -> None:
    """Write an empty store: both groups and every level of them declared."""
    import zarr
    from zarr.codecs import ZstdCodec
    from zarr.storage import LocalStore

    geometry = info.to_geometry()
    group = zarr.create_group(LocalStore(root), zarr_format=3, attributes=root_attributes(info))
    group.create_group("sketch", attributes=sketch_attributes(info))
    for sketch, fill in ((False, info.fill_value), (True, np.uint8(0))):
        for scale in range(geometry.n_scales):
            group.create_array(
                array_key(scale, geometry.n_scales, sketch=sketch),
                shape=geometry.shape_at(scale),
                chunks=info.chunk_shape,
                dtype=fill.dtype,
                fill_value=fill,
                # Without its checksum most flipped bits of a chunk read as other voxels; with it
                # none do, and its cost cannot be measured.
                compressors=ZstdCodec(level=1, checksum=True),
                dimension_names=geometry.axes,
            )


def read_info(root: Path) -> StoreInfo:
    """Return the metadata of a store.

    Raises
    ------
    StoreError
        If there is no store, or its metadata are not ours.
    """
    if not root.is_dir():
        raise StoreError(f"there is no store at {root}. Check the path.")
    attributes = read_attributes(root)
    try:
        return info_from_attributes(attributes)
    except StoreError as error:
        raise StoreError(f"{root}: {error}") from error


def read_attributes(root: Path, key: str = "") -> dict[str, Any]:
    """Return the attributes of a group of a store.

    Raises
    ------
    StoreError
        If it is none, or cannot be read.
    """
    import zarr

    from napari_msgan.zarr_folder import ZarrFolder

    try:
        store = ZarrFolder(root, read_only=True)
        group = zarr.open_group(store, path=key, mode="r", zarr_format=3, use_consolidated=False)
        attributes: dict[str, Any] = group.attrs.asdict()
    except UNREADABLE as error:
        raise StoreError(
            f"{root / key} is no OME-Zarr 0.5 group, or its zarr.json is damaged ({error}). "
            "Give the folder that `generate` wrote."
        ) from error
    return attributes


def write_info(root: Path, info: StoreInfo) -> None:
    """Replace our attributes in one step; zarr does not wait until they are on the disk."""
    path = root / "zarr.json"
    content = json.loads(path.read_bytes())
    content["attributes"][ATTRIBUTES_KEY] = info.model_dump(mode="json")
    write_atomically(path, json.dumps(content, indent=2).encode())


def open_level(
    root: Path, info: StoreInfo, scale: int, *, sketch: bool = False, writable: bool = False
) -> Level:
    """Open one level and check that it is what the metadata say. All arrays are opened here.

    Raises
    ------
    StoreError
        If the array cannot be read, or disagrees with the metadata.
    """
    import zarr

    from napari_msgan.zarr_folder import ChunkSize, ZarrFolder

    geometry = info.to_geometry()
    key = array_key(scale, geometry.n_scales, sketch=sketch)
    fill = np.uint8(0) if sketch else info.fill_value
    chunk = ChunkSize(math.prod(info.chunk_shape) * fill.dtype.itemsize, "zstd")
    folder = ZarrFolder(root, read_only=not writable, chunk=chunk)
    try:
        array = zarr.open(folder.with_read_only(True), path=key, mode="r", zarr_format=3)
        if not isinstance(array, zarr.Array):
            raise TypeError("it is a group")
        codecs: Any = array.metadata.to_dict()["codecs"]
        seen = {
            "shape": array.shape,
            "chunks": array.chunks,
            "shards": array.shards,
            "dtype": array.dtype,
            "fill_value": array.fill_value,
            "chunk file": array.metadata.encode_chunk_key((1,) * geometry.ndim),
            "codecs": [codec["name"] for codec in codecs],
            "byte order": codecs[0].get("configuration", {}).get("endian", "little"),
        }
    except UNREADABLE as error:
        raise StoreError(
            f"{root}: level {key!r} is missing or damaged ({error}). Generate the image again."
        ) from error
    expected = {
        "shape": geometry.shape_at(scale),
        "chunks": info.chunk_shape,
        "shards": None,
        "dtype": fill.dtype,
        "fill_value": fill,
        "chunk file": "/".join(["c", *"1" * geometry.ndim]),
        "codecs": ["bytes", "zstd"],
        "byte order": "little",
    }
    for name, value in expected.items():
        if seen[name] != value:
            raise StoreError(
                f"{root}: level {key!r} has {name} {seen[name]}, but the metadata of the store "
                f"say {value}. Generate the image again."
            )
    return Level(array, folder)


def chunk_grid(shape: Ints, chunk_shape: Ints) -> Ints:
    return Box.of_shape(shape).cover(chunk_shape).shape


def chunk_file(root: Path, key: str, index: Ints) -> Path:
    return root.joinpath(key, "c", *map(str, index))


def scan_chunks(root: Path, key: str, grid: Ints) -> tuple[npt.NDArray[np.bool_], list[Path]]:
    """Return which chunks have a file, and the leftovers of interrupted writes."""
    present = np.zeros(grid, dtype=np.bool_)
    leftovers = []
    check_inside(root, root / key / "c")
    for index, entry in _walk(root, root / key / "c", grid):
        if index is None:
            leftovers.append(Path(entry.path))
        else:
            present[index] = True
    return present, leftovers


def _walk(
    root: Path, folder: Path | str, grid: Ints, prefix: Ints = ()
) -> Iterator[tuple[Ints | None, os.DirEntry[str]]]:
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise StoreError(
            f"{folder} is a file, where a folder of chunks belongs. Delete it."
        ) from error
    is_last = len(prefix) == len(grid) - 1
    with entries:
        for entry in entries:
            name = entry.name
            if entry.is_symlink():
                check_inside(root, Path(entry.path))
            if name.endswith(".partial"):
                yield None, entry
            elif name.isascii() and name.isdecimal() and str(int(name)) == name:
                index = (*prefix, int(name))
                if index[-1] >= grid[len(prefix)]:
                    continue
                if is_last:
                    yield index, entry
                else:
                    yield from _walk(root, entry.path, grid, index)
