"""One level of a store: its chunks, read and written in the calling thread.

zarr hands every chunk through an event loop and other threads. Where all cores compute tiles, that
takes two to five times what unpacking does, and keeps tiles waiting: see docs/performance.md.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_msgan.errors import GeometryError, StoreError
from napari_msgan.geometry import Box, Ints

if TYPE_CHECKING:
    from collections.abc import Iterator

    import zarr

    from napari_msgan.zarr_folder import ZarrFolder

    ZarrArray = zarr.Array[Any]

#: What zarr and its codecs raise for metadata and chunks that somebody damaged.
UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,  # of its codecs, and RecursionError of deep JSON
)


class Level:
    """Boxes of one array; any thread may read, and write chunks that no other writes.

    Parameters
    ----------
    array : read-only; its chunks are plain little-endian voxels packed with Zstandard.
    folder : that the array is in.
    """

    def __init__(self, array: ZarrArray, folder: ZarrFolder) -> None:
        from numcodecs import Zstd  # type: ignore[import-untyped]

        self.array = array
        self.key: str = array.path
        self.shape: Ints = array.shape
        self.chunks: Ints = array.chunks
        self.dtype: np.dtype[Any] = array.dtype
        self._folder = folder
        packing: Any = array.compressors[0]
        self.has_checksums: bool = packing.checksum
        self._codec: Any = Zstd(packing.level, packing.checksum)

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Return a box; chunks without a file are the fill value.

        Raises
        ------
        GeometryError
            If the box leaves the image.
        StoreError
            If a chunk of it is damaged.
        """
        whole = Box.of_shape(self.shape)
        if not whole.contains(box):
            raise GeometryError(f"box {box} leaves the image, which is {whole}")
        result = np.empty(box.shape, self.dtype)
        for index, cell in self.cells(box):
            part = cell.intersect(box)
            source, target = part.relative_to(cell.start), part.relative_to(box.start)
            result[target.slices] = self.read_chunk(index)[source.slices]
        return result

    def cells(self, box: Box) -> Iterator[tuple[Ints, Box]]:
        """Yield the index of each chunk that a box touches, and what of the image it holds."""
        whole, cells = Box.of_shape(self.shape), box.cover(self.chunks)
        for index in product(*(range(a, b) for a, b in zip(cells.start, cells.stop, strict=True))):
            cell = Box(index, tuple(i + 1 for i in index)).multiply(self.chunks)
            yield index, cell.intersect(whole)

    def read_chunk(self, index: Ints) -> npt.NDArray[Any]:
        """Return a whole chunk, which at the border is larger than what the image has of it.

        Raises
        ------
        StoreError
            If it is damaged.
        """
        try:
            content = self._folder.read_chunk(self._chunk_key(index))
            if content is None:
                return np.full(self.chunks, self.array.fill_value, self.dtype)
            stored = np.frombuffer(self._codec.decode(content), self.dtype.newbyteorder("<"))
            return stored.reshape(self.chunks).astype(self.dtype, copy=False)
        except UNREADABLE as error:
            raise StoreError(
                f"{self._folder.root / self._chunk_key(index)} cannot be read: {error}. The chunk "
                "is damaged: napari-msgan verify names such chunks, and removes them with --repair."
            ) from error

    def write(self, box: Box, data: npt.NDArray[Any]) -> None:
        """Write whole chunks; a reader sees an old or a new chunk, never a part.

        Raises
        ------
        GeometryError
            If the box is not whole chunks inside the image, where writers could meet.
        StoreError
            If the data have another shape or type.
        """
        whole = Box.of_shape(self.shape)
        chunks = box.cover(self.chunks).multiply(self.chunks).intersect(whole)
        if box.size == 0 or box != chunks:
            raise GeometryError(
                f"box {box} is not whole chunks of {self.chunks} inside the image, which is {whole}"
            )
        if data.shape != box.shape or data.dtype != self.dtype:
            raise StoreError(
                f"box {box} needs {self.dtype} of shape {box.shape}, "
                f"got {data.dtype} of shape {data.shape}"
            )
        for index, cell in self.cells(box):
            chunk = data[cell.relative_to(box.start).slices]
            if cell.shape != self.chunks:
                part = chunk
                chunk = np.full(self.chunks, self.array.fill_value, self.dtype)
                chunk[tuple(slice(0, n) for n in cell.shape)] = part
            plain = np.ascontiguousarray(chunk, self.dtype.newbyteorder("<"))
            self._folder.write_chunk(self._chunk_key(index), self._codec.encode(plain))

    def _chunk_key(self, index: Ints) -> str:
        return f"{self.key}/{self.array.metadata.encode_chunk_key(index)}"
