"""Read Zarr in a local folder that may come from anybody, limiting links and sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from zarr.abc.store import RangeByteRequest
from zarr.storage import LocalStore

from napari_msgan.errors import FolderError
from napari_msgan.folders import MOST_METADATA_BYTES, check_inside
from napari_msgan.packed_sizes import unpacked_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from pathlib import Path
    from typing import Self

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
#: What a codec may add to incompressible data: one part in `_GROWTH`, and a header.
_GROWTH, _HEADER = 64, 1 << 16
_CRC = 4
#: Offset and length, in the index of a shard, of a chunk that does not exist.
_EMPTY = 2**64 - 1


@dataclass(frozen=True)
class ChunkSize:
    """The size to which a chunk, or a shard of chunks, may unpack.

    n_bytes : bytes of its voxels.
    codec : codec that compresses it; None if none does.
    trailer : bytes of checksums after the compressed data.
    inner, n_inner : for a shard, the size of each of its chunks, and their number.
    """

    n_bytes: int
    codec: str | None
    trailer: int = 0
    inner: ChunkSize | None = None
    n_inner: int = 0

    @property
    def most_packed_bytes(self) -> int:
        return self.n_bytes + self.n_bytes // _GROWTH + _HEADER + 16 * self.n_inner

    def check(self, content: bytes) -> None:
        """Check the size to which stored content unpacks before memory is allocated for it.

        Raises
        ------
        FolderError
            If it is larger than the voxels of a chunk, or the content is shorter than it says.
        """
        if self.inner is not None:
            self._check_shard(content, self.inner)
        elif self.codec is not None:
            packed = content[: len(content) - self.trailer]
            if unpacked_bytes(packed, self.codec, self.n_bytes) > self.n_bytes:
                raise FolderError(f"it unpacks to more than the {self.n_bytes} bytes of its voxels")

    def _check_shard(self, content: bytes, inner: ChunkSize) -> None:
        start = len(content) - 16 * self.n_inner - _CRC
        if start < 0:
            raise FolderError("it is shorter than the index of a shard")
        index = np.frombuffer(content, "<u8", 2 * self.n_inner, start).reshape(-1, 2)
        for first, length in index[(index != _EMPTY).any(axis=1)].tolist():
            if first + length > start:
                raise FolderError("it ends before a chunk that its index places there")
            inner.check(content[first : first + length])


class ZarrFolder(LocalStore):
    """A read-only Zarr store that refuses links leading out of its folder, and absurd sizes.

    chunk : limits on the size of chunks; None if only metadata are read.
    """

    def __init__(self, root: Path | str, *, chunk: ChunkSize | None = None) -> None:
        super().__init__(root, read_only=True)
        self.chunk = chunk

    def with_read_only(self, read_only: bool = False) -> Self:
        if not read_only:
            raise FolderError(f"{self.root} is only read through zarr")
        return type(self)(self.root, chunk=self.chunk)

    def _check(self, key: str, byte_range: ByteRequest | None = None) -> None:
        path = self.root / key
        size = check_inside(self.root, path)
        if isinstance(byte_range, RangeByteRequest):
            if not byte_range.start <= byte_range.end <= size:
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
        if byte_range is not None:  # of a shard, whose index is requested relative to its end
            is_chunk = isinstance(byte_range, RangeByteRequest)
            size = size.inner if size is not None and is_chunk else None
        if content is not None and size is not None and not key.endswith(_METADATA):
            try:
                size.check(content.to_bytes())
            except FolderError as error:
                raise FolderError(f"{self.root / key}: {error}") from error
        return content

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

    async def get_ranges(
        self,
        key: str,
        byte_ranges: Sequence[ByteRequest | None],
        *,
        prototype: BufferPrototype,
        **tuning: int,
    ) -> AsyncIterator[list[tuple[int, Buffer | None]]]:
        """Yield (index, content) of each range, read separately.

        zarr 3.4 and newer would merge the chunks of a shard, and only single chunks can be checked.
        """
        for index, byte_range in enumerate(byte_ranges):
            yield [(index, await self.get(key, prototype, byte_range))]

    def get_ranges_sync(
        self,
        key: str,
        byte_ranges: Sequence[ByteRequest | None],
        *,
        prototype: BufferPrototype,
        **tuning: int,
    ) -> list[tuple[int, Buffer | None]]:
        """Return what `get_ranges` yields."""
        return [
            (index, self.get_sync(key, prototype=prototype, byte_range=byte_range))
            for index, byte_range in enumerate(byte_ranges)
        ]
