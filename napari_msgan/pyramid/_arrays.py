"""Create and open the Zarr groups and arrays of a store."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_msgan.errors import NoStoreError, StoreError
from napari_msgan.folders import MOST_METADATA_BYTES
from napari_msgan.geometry import Box, Ints, level_of_scale
from napari_msgan.multiscales import OUR_KEY
from napari_msgan.pyramid._level import Level
from napari_msgan.pyramid.attributes import (
    info_from_attributes,
    root_attributes,
    sketch_attributes,
)

if TYPE_CHECKING:
    from pathlib import Path

    from napari_msgan.pyramid._place import Place
    from napari_msgan.pyramid.metadata import StoreInfo


#: What zarr raises for damaged metadata.
UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,  # includes the RecursionError of deeply nested JSON
)


def array_key(scale: int, n_scales: int, *, sketch: bool) -> str:
    level = level_of_scale(scale, n_scales)
    return f"sketch/{level}" if sketch else str(level)


def create_groups(root: Path, info: StoreInfo) -> None:
    """Write an empty store: both groups, with every level declared."""
    import zarr
    from zarr.codecs import BytesCodec, ZstdCodec
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
                serializer=BytesCodec(endian="little" if fill.dtype.itemsize > 1 else None),
                # Without the checksum, most flipped bits of a chunk would read as other voxels;
                # with it none do, and it costs no measurable time.
                compressors=ZstdCodec(level=1, checksum=True),
                dimension_names=geometry.axes,
            )


def read_info(place: Place) -> StoreInfo:
    """Read and check the metadata of a store.

    Raises
    ------
    NoStoreError
        If there is nothing at this place, or an exported image.
    StoreError
        If the metadata are damaged, of another version, or not those of a store.
    """
    if not place.is_there():
        raise NoStoreError(
            f"there is no store at {place.address}. Give the folder, or URL, that `generate` wrote."
        )
    attributes = read_attributes(place)
    try:
        return info_from_attributes(attributes)
    except StoreError as error:
        raise type(error)(f"{place.address}: {error}") from error


def read_attributes(place: Place, key: str = "") -> dict[str, Any]:
    """Read the attributes of a group of a store; `key` "" is the root.

    Raises
    ------
    StoreError
        If there is no such group, or it cannot be read.
    """
    import zarr

    try:
        store = place.zarr_store()
        group = zarr.open_group(store, path=key, mode="r", zarr_format=3, use_consolidated=False)
        attributes: dict[str, Any] = group.attrs.asdict()
    except UNREADABLE as error:
        raise StoreError(
            f"{place.address} is not an OME-Zarr 0.5 group, or its {key and f'{key}/'}zarr.json is "
            f"damaged ({error}). Give the folder that `generate` wrote, or, for a new image, a "
            "name that is not in use."
        ) from error
    return attributes


def write_info(place: Place, info: StoreInfo) -> None:
    """Replace our attributes atomically and durably; zarr would not wait for the disk."""
    content = json.loads(place.read("zarr.json", MOST_METADATA_BYTES) or b"{}")
    content["attributes"][OUR_KEY] = info.model_dump(mode="json")
    place.write("zarr.json", json.dumps(content, indent=2).encode(), durably=True)


def open_level(place: Place, info: StoreInfo, scale: int, *, sketch: bool = False) -> Level:
    """Open a level and check it against the metadata; all arrays of a store are opened here.

    Raises
    ------
    StoreError
        If the array cannot be read or disagrees with the metadata.
    """
    import zarr

    from napari_msgan.zarr_folder import ChunkSize

    geometry = info.to_geometry()
    key = array_key(scale, geometry.n_scales, sketch=sketch)
    fill = np.uint8(0) if sketch else info.fill_value
    chunk = ChunkSize(math.prod(info.chunk_shape) * fill.dtype.itemsize, "zstd")
    try:
        array = zarr.open(place.zarr_store(chunk), path=key, mode="r", zarr_format=3)
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
            f"{place.address}: level {key!r} is missing or damaged ({error}). Generate the image "
            "again."
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
                f"{place.address}: level {key!r} has {name} {seen[name]}, but the metadata of the "
                f"store say {value}. Generate the image again."
            )
    return Level(array, place, chunk)


def chunk_grid(shape: Ints, chunk_shape: Ints) -> Ints:
    return Box.of_shape(shape).cover(chunk_shape).shape


def count_voxels(chunks: npt.NDArray[np.bool_], chunk_shape: Ints, box: Box) -> int:
    """Count the voxels of a box that lie in chunks which are marked on the chunk grid."""
    voxels: npt.NDArray[np.int64] = chunks.astype(np.int64)
    for start, stop, side, count in zip(
        box.start, box.stop, chunk_shape, voxels.shape, strict=True
    ):
        edges = np.clip(np.arange(count + 1) * side, start, stop)
        voxels = np.tensordot(np.diff(edges), voxels, axes=1)
    return int(voxels)


def chunk_key(array: str, index: Ints) -> str:
    return "/".join([array, "c", *map(str, index)])
