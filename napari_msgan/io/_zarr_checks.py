"""Check Zarr arrays, which may come from anybody: only codecs that unpack, chunks of sane sizes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import zarr

from napari_msgan.errors import VolumeError
from napari_msgan.packed_sizes import PACKERS
from napari_msgan.zarr_folder import ChunkSize, ZarrFolder

if TYPE_CHECKING:
    from pathlib import Path

#: Codecs allowed, of those that zarr knows: no pickle, no objects, and none whose unpacked size
#: cannot be known beforehand.
_CODECS = {
    *("bytes", "endian", "transpose", "sharding_indexed"),
    *PACKERS,
    *("crc32c", "crc32", "adler32", "fletcher32", "jenkins_lookup3"),
    *("shuffle", "delta", "fixedscaleoffset", "quantize", "bitround", "astype"),
}
#: Size of the largest type that is read; codecs may store a larger type than that of the array.
_VOXEL_BYTES, _SLACK = 8, 64
_MOST_CHUNK_VOXELS = 2**28
#: Many tiny chunks are refused: finding and opening one takes longer than reading some kilobytes.
_FEW_CHUNKS, _LEAST_MEAN_VOXELS = 2**16, 256


def open_node(path: Path) -> zarr.Group | zarr.Array[Any]:
    """Open the array or group in a folder, to read its metadata."""
    return zarr.open(store=ZarrFolder(path), mode="r")


def open_voxels(path: Path, array: zarr.Array[Any]) -> zarr.Array[Any]:
    """Open an array of a folder again, such that its chunks are checked when they are read.

    Raises
    ------
    VolumeError
        If it has unsupported codecs or shards, or chunks that are far too large or too small.
    """
    codecs = _codecs(array.metadata.to_dict())
    if unknown := [name for name in codecs if _plain(name) not in _CODECS]:
        raise VolumeError(
            f"{path} is packed with {unknown[0]!r}, which is not supported. Save it with one of "
            "blosc, zstd, gzip, zlib, lz4, bz2, or unpacked"
        )
    n_voxels = math.prod(array.chunks)
    n_chunks = math.prod(-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True))
    if n_voxels > _MOST_CHUNK_VOXELS:
        raise VolumeError(
            f"{path} has chunks of {array.chunks} voxels; readable are up to {_MOST_CHUNK_VOXELS} "
            "voxels. Save it with smaller ones, for instance 64 in every direction"
        )
    if n_chunks > _FEW_CHUNKS and math.prod(array.shape) < _LEAST_MEAN_VOXELS * n_chunks:
        raise VolumeError(
            f"{path} has {n_chunks} chunks of {array.chunks} voxels, which would take days to "
            "read. Save it with larger ones, for instance 64 in every direction"
        )
    chunk = _chunk_size(path, array, codecs)
    again = zarr.open(
        store=ZarrFolder(path, chunk=chunk),
        path=array.path,
        mode="r",
        zarr_format=array.metadata.zarr_format,
    )
    return cast("zarr.Array[Any]", again)


def _chunk_size(path: Path, array: zarr.Array[Any], codecs: list[str]) -> ChunkSize:
    n_bytes = math.prod(array.chunks) * _VOXEL_BYTES + _SLACK
    packed = [i for i, name in enumerate(codecs) if _plain(name) in PACKERS]
    packer = _plain(codecs[packed[-1]]) if packed else None
    after = (
        [name for name in codecs[packed[-1] + 1 :] if name != "sharding_indexed"] if packed else []
    )
    if len(packed) > 1 or any(name != "crc32c" for name in after):
        raise VolumeError(
            f"{path} is packed with {' and then '.join(codecs)}, an order that is not supported. "
            "Save it with one codec that packs, as the last"
        )
    chunk = ChunkSize(n_bytes, packer, trailer=4 * len(after))
    if array.shards is None:
        return chunk
    outer: Any = array.metadata.to_dict()["codecs"]
    settings = outer[0].get("configuration", {})
    index = settings.get("index_codecs", ())
    is_usual = (
        len(outer) == 1
        and [codec["name"] for codec in index] == ["bytes", "crc32c"]
        and index[0].get("configuration", {}).get("endian", "little") == "little"
        and settings.get("index_location", "end") == "end"
    )
    if not is_usual:
        raise VolumeError(
            f"{path} has shards of an unusual kind, which are not supported. Save it with those "
            "that zarr-python writes, or without shards"
        )
    n_inner = math.prod(n // c for n, c in zip(array.shards, array.chunks, strict=True))
    return ChunkSize(n_bytes * n_inner, None, inner=chunk, n_inner=n_inner)


def _codecs(metadata: dict[str, Any]) -> list[str]:
    """Return the names of all codecs, in the order in which chunks are packed."""
    if metadata["zarr_format"] == 2:
        stages = [*(metadata.get("filters") or ()), metadata.get("compressor")]
        return [str(stage["id"]) for stage in stages if stage]
    return _names(metadata["codecs"])


def _names(codecs: list[dict[str, Any]]) -> list[str]:
    names = []
    for codec in codecs:
        settings = codec.get("configuration") or {}
        names += _names(list(settings.get("codecs") or ()))  # inside shards
        names.append(str(codec["name"]))
    return names


def _plain(name: str) -> str:
    return name.removeprefix("numcodecs.")
