"""Zarr in a local folder of a stranger: its links, its metadata and the size of its chunks."""

from __future__ import annotations

import zlib
from bz2 import BZ2Decompressor
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
from zarr.abc.store import RangeByteRequest
from zarr.storage import LocalStore

from napari_msgan.errors import FolderError
from napari_msgan.folders import MOST_METADATA_BYTES, check_inside

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Self

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
#: What a codec may add to data that it cannot compress: a share, and a header.
_GROWTH, _HEADER = 64, 1 << 16
_BLOSC_HEADER, _CRC = 16, 4
#: Place in the index of a shard of a chunk that is not there.
_EMPTY = 2**64 - 1


@dataclass(frozen=True)
class ChunkSize:
    """What a chunk, or a shard of chunks, may unpack to.

    n_bytes : of its voxels.
    codec : that packed it, None if there is none.
    inner, n_inner : of a shard, what each of its chunks may be, and how many there are.
    """

    n_bytes: int
    codec: str | None
    inner: ChunkSize | None = None
    n_inner: int = 0

    @property
    def most_packed_bytes(self) -> int:
        return self.n_bytes + self.n_bytes // _GROWTH + _HEADER + 16 * self.n_inner

    def check(self, content: bytes) -> None:
        """Check what the content declares, or comes to, before memory is taken for it.

        Raises
        ------
        FolderError
            If it is more than the voxels of a chunk, or more than there is.
        """
        if self.inner is not None:
            self._check_shard(content, self.inner)
            return
        size = unpacked_bytes(content, self.codec, self.n_bytes)
        if size is not None and size > self.n_bytes:
            raise FolderError(f"it unpacks to more than the {self.n_bytes} bytes of its voxels")
        # C-Blosc believes the size that stands in the header, and reads behind the end.
        if self.codec == "blosc" and len(content) < max(
            _BLOSC_HEADER, int.from_bytes(content[12:16], "little")
        ):
            raise FolderError("it is shorter than its header says")

    def _check_shard(self, content: bytes, inner: ChunkSize) -> None:
        start = len(content) - 16 * self.n_inner - _CRC
        if start < 0:
            raise FolderError("it is shorter than the index of a shard")
        index = np.frombuffer(content, "<u8", 2 * self.n_inner, start).reshape(-1, 2)
        for first, length in index[index[:, 0] != _EMPTY].tolist():
            if first + length > start:
                raise FolderError("it ends before a chunk that its index places there")
            inner.check(content[first : first + length])


def unpacked_bytes(content: bytes, codec: str | None, limit: int) -> int | None:
    """Return how many bytes packed content stands for, None if it does not say.

    gzip, zlib and bz2 do not say it: they are unpacked up to `limit` + 1 bytes.

    References
    ----------
    .. [1] RFC 8878, Zstandard Compression, section 3.1.1.1: the header of a frame.
    """
    match codec:
        case "blosc":
            return int.from_bytes(content[4:8], "little")
        case "lz4":  # as numcodecs writes it
            return int.from_bytes(content[:4], "little")
        case "gzip" | "zlib" | "bz2":
            is_bz2 = codec == "bz2"
            unpacker = BZ2Decompressor() if is_bz2 else zlib.decompressobj(zlib.MAX_WBITS | 32)
            try:
                return len(unpacker.decompress(content, limit + 1))
            except (zlib.error, OSError):
                return None  # whoever unpacks it says so
        case "zstd" if len(content) > 4:
            flags = content[4]
            is_single, size = bool(flags & 0x20), (0, 2, 4, 8)[flags >> 6]
            start = 5 + (0 if is_single else 1) + (0, 1, 2, 4)[flags & 3]
            if size == 0 and not is_single:
                return None
            return int.from_bytes(content[start : start + max(size, 1)], "little") + 256 * (
                size == 2
            )
    return None


class ZarrFolder(LocalStore):
    """A local folder in which links that lead out of it, and absurd sizes, are refused.

    zarr only reads from it.

    chunk : what its chunks may be; None while only metadata are read.
    """

    def __init__(
        self, root: Path | str, *, read_only: bool = False, chunk: ChunkSize | None = None
    ) -> None:
        super().__init__(root, read_only=read_only)
        self.chunk = chunk

    def with_read_only(self, read_only: bool = False) -> Self:
        return type(self)(self.root, read_only=read_only, chunk=self.chunk)

    def _check(self, key: str, byte_range: ByteRequest | None = None) -> None:
        path = self.root / key
        size = check_inside(self.root, path)
        if isinstance(byte_range, RangeByteRequest) and byte_range.end > size:
            raise FolderError(f"{path} ends before the chunk that its index places there")
        most = MOST_METADATA_BYTES
        if path.name not in _METADATA:
            if self.chunk is None or byte_range is not None:
                return
            most = self.chunk.most_packed_bytes
        if size > most:
            raise FolderError(f"{path} has {size} bytes, more than the {most} that it can need")

    def _unpackable(
        self, key: str, content: Buffer | None, byte_range: ByteRequest | None
    ) -> Buffer | None:
        size = self.chunk
        if byte_range is not None:  # of a shard; its index is asked for from its end
            is_chunk = isinstance(byte_range, RangeByteRequest)
            size = size.inner if size is not None and is_chunk else None
        if content is not None and size is not None and not key.endswith(_METADATA):
            self._check_content(key, content.to_bytes(), size)
        return content

    def _check_content(self, key: str, content: bytes, size: ChunkSize) -> None:
        try:
            size.check(content)
        except FolderError as error:
            raise FolderError(f"{self.root / key}: {error}") from error

    def read_chunk(self, key: str) -> bytes | None:
        """Return the file of a chunk as it is, None if there is none.

        Raises
        ------
        FolderError
            If it lies elsewhere, or unpacks to more than the voxels of a chunk.
        """
        self._check(key)
        try:
            content = (self.root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        if self.chunk is not None:
            self._check_content(key, content, self.chunk)
        return content

    def write_chunk(self, key: str, content: bytes) -> None:
        """Replace the file of a chunk in one step.

        Raises
        ------
        FolderError
            If a link there leads out of the folder.
        """
        self._check_writable()
        path = self.root / key
        check_inside(self.root, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
        try:
            partial.write_bytes(content)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    async def get(
        self,
        key: str,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        self._check(key, byte_range)
        return self._unpackable(key, await super().get(key, prototype, byte_range), byte_range)

    def get_sync(
        self,
        key: str,
        *,
        prototype: BufferPrototype | None = None,
        byte_range: ByteRequest | None = None,
    ) -> Buffer | None:
        self._check(key, byte_range)
        content = super().get_sync(key, prototype=prototype, byte_range=byte_range)
        return self._unpackable(key, content, byte_range)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]
