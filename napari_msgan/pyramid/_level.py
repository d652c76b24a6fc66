"""One level of a store, whose chunks are read and written in the calling thread.

zarr passes every chunk through an event loop and other threads. While all cores compute tiles, that
takes two to five times as long as unpacking and makes tiles wait: see docs/performance.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_msgan.errors import FolderError, GeometryError, MsganError, StoreError
from napari_msgan.geometry import Box, Ints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import zarr

    from napari_msgan.pyramid._place import Place
    from napari_msgan.zarr_folder import ChunkSize

    ZarrArray = zarr.Array[Any]


class Level:
    """Read boxes of an array; any thread may do so.

    Parameters
    ----------
    array : read-only array whose chunks are plain little-endian voxels compressed with Zstandard.
    place : place of the store.
    size : limits on the unpacked size of a chunk.
    """

    def __init__(self, array: ZarrArray, place: Place, size: ChunkSize) -> None:
        from numcodecs import Zstd  # type: ignore[import-untyped]

        self.array = array
        self.key: str = array.path
        self.shape: Ints = array.shape
        self.chunks: Ints = array.chunks
        self.dtype: np.dtype[Any] = array.dtype
        self.place, self._size = place, size
        packing: Any = array.compressors[0]
        self.has_checksums: bool = packing.checksum
        self.codec: Any = Zstd(packing.level, packing.checksum)

    def read(
        self,
        box: Box,
        missing: list[Ints] | None = None,
        find: Callable[[Level, Ints], npt.NDArray[Any] | None] | None = None,
    ) -> npt.NDArray[Any]:
        """Read a box; chunks without a file read as the fill value.

        Parameters
        ----------
        missing : list to which the indices of such chunks are appended.
        find : function that returns a chunk, or None if it has no file; by default `find_chunk`.

        Raises
        ------
        GeometryError
            If the box extends beyond the image.
        StoreError
            If a chunk is damaged.
        """
        whole = Box.of_shape(self.shape)
        if not whole.contains(box):
            raise GeometryError(f"box {box} leaves the image, which is {whole}")
        result = np.empty(box.shape, self.dtype)
        for index, cell in self.cells(box):
            part = cell.intersect(box)
            source, target = part.relative_to(cell.start), part.relative_to(box.start)
            chunk = self.find_chunk(index) if find is None else find(self, index)
            if chunk is None and missing is not None:
                missing.append(index)
            result[target.slices] = self.array.fill_value if chunk is None else chunk[source.slices]
        return result

    def read_whole(self, box: Box) -> npt.NDArray[Any]:
        """Read a box all of whose chunks must have a file.

        Raises
        ------
        StoreError
            If a chunk has no file or is damaged; otherwise see `read`.
        """
        missing: list[Ints] = []
        result = self.read(box, missing)
        if missing:
            raise self._is_missing(missing[0])
        return result

    def cells(self, box: Box) -> Iterator[tuple[Ints, Box]]:
        """Yield the index of each chunk that a box touches, and the box of the image it holds."""
        whole = Box.of_shape(self.shape)
        for index in box.cover(self.chunks).indices():
            yield index, Box.of_cell(index, self.chunks).intersect(whole)

    def read_chunk(self, index: Ints) -> npt.NDArray[Any]:
        """Read a whole chunk; one at the border of the image extends beyond it.

        Raises
        ------
        StoreError
            If it is damaged or has no file.
        MsganError
            If the disk or the network fails.
        """
        chunk = self.find_chunk(index)
        if chunk is None:
            raise self._is_missing(index)
        return chunk

    def _is_missing(self, index: Ints) -> StoreError:
        return StoreError(
            f"{self.place.address}/{self.file_key(index)} is missing: the image is incomplete, or "
            "files of the store were deleted or not copied. napari-msgan verify says "
            "what can be repaired."
        )

    def find_chunk(self, index: Ints) -> npt.NDArray[Any] | None:
        """Read a whole chunk, or return None if it has no file; raises as `read_chunk` does."""
        where = f"{self.place.address}/{self.file_key(index)}"
        try:
            content = self.place.read(self.file_key(index), self._size.most_packed_bytes)
            if content is None:
                return None
            self._size.check(content)
            stored = np.frombuffer(self.codec.decode(content), self.dtype.newbyteorder("<"))
            return stored.reshape(self.chunks).astype(self.dtype, copy=False)
        except (FolderError, ValueError, RuntimeError) as error:  # also those of the codec
            raise StoreError(
                f"{where} cannot be read: {error}. The chunk is damaged: napari-msgan verify says "
                "what can be repaired."
            ) from error
        except OSError as error:
            raise MsganError(
                f"{where} cannot be read: {error}. Try again; the store itself may be sound."
            ) from error

    def stamp(self, index: Ints) -> object:
        """Return a token that changes when a chunk is written anew; None if it is not known."""
        return self.place.stamp(self.file_key(index))

    def file_key(self, index: Ints) -> str:
        return f"{self.key}/{self.array.metadata.encode_chunk_key(index)}"


def write_chunks(
    level: Level,
    box: Box,
    data: npt.NDArray[Any],
    *,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Write whole chunks; a reader sees the old or the new chunk, never a part of one.

    check : called before each chunk is written, after the slow work on it; may raise to stop.

    Raises
    ------
    GeometryError
        If the box does not consist of whole chunks inside the image: writers could collide there.
    StoreError
        If the data have another shape or type.
    """
    whole = Box.of_shape(level.shape)
    chunks = box.cover(level.chunks).multiply(level.chunks).intersect(whole)
    if box.size == 0 or box != chunks:
        raise GeometryError(
            f"box {box} is not whole chunks of {level.chunks} inside the image, which is {whole}"
        )
    if data.shape != box.shape or data.dtype != level.dtype:
        raise StoreError(
            f"box {box} needs {level.dtype} of shape {box.shape}, "
            f"got {data.dtype} of shape {data.shape}"
        )
    for index, cell in level.cells(box):
        chunk = data[cell.relative_to(box.start).slices]
        if cell.shape != level.chunks:
            part = chunk
            chunk = np.full(level.chunks, level.array.fill_value, level.dtype)
            chunk[tuple(slice(0, n) for n in cell.shape)] = part
        plain = np.ascontiguousarray(chunk, level.dtype.newbyteorder("<"))
        content = level.codec.encode(plain)
        check()
        level.place.write(level.file_key(index), content)
