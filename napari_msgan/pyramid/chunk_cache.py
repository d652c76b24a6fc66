"""Decoded chunks, kept for the next tiles: neighbouring tiles read the same chunks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from functools import partial
from mmap import mmap
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_msgan.volume import LazyArray

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_msgan.geometry import Box, Ints
    from napari_msgan.pyramid._level import Level

    Chunk = npt.NDArray[Any]
    Key = tuple[str, Ints]

#: Smaller chunks (bytes) get no map of their own: a process may have only so many maps.
_LARGE = 1 << 16


class ChunkCache:
    """Cache of the most recently used chunks, for several threads.

    Use `view` for chunks that no longer change while the cache is in use; each of them is read by
    one thread only. `find` is for chunks that may change.

    Parameters
    ----------
    capacity_bytes : most bytes of chunks to keep; the least recently used ones are dropped.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._chunks: OrderedDict[Key, Chunk] = OrderedDict()
        self._stamps: dict[Key, object] = {}
        self._size = 0
        self._pending: dict[Key, Future[Chunk]] = {}
        self._lock = threading.Lock()
        #: Number of chunks that were read, decoded and kept.
        self.n_reads = 0

    def view(self, level: Level) -> LazyArray:
        """Return a level as an array-like that reads through the cache."""
        return LazyArray(level.shape, level.dtype, partial(self._read, level), level.chunks)

    def find(self, level: Level, index: Ints) -> Chunk | None:
        """Return a chunk as it is now, or None if it has no file.

        Any process may remove it and write it anew at any time.
        """
        key, stamp = (level.key, index), level.stamp(index)
        with self._lock:
            if key in self._chunks and stamp is not None and self._stamps.get(key) == stamp:
                self._chunks.move_to_end(key)
                return self._chunks[key]
        chunk = level.find_chunk(index)
        with self._lock:
            self._forget(key)
            if chunk is not None and stamp is not None:
                self._stamps[key] = stamp
                self._keep(key, chunk)
        return chunk

    def _read(self, level: Level, part: Box) -> Chunk:
        """Return a part of one chunk."""
        cell = part.cover(level.chunks)
        chunk = self._get((level.key, cell.start), partial(level.read_chunk, cell.start))
        return chunk[part.relative_to(cell.multiply(level.chunks).start).slices]

    def _get(self, key: Key, load: Callable[[], Chunk]) -> Chunk:
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
                return self._chunks[key]
            waiting = self._pending.get(key)
            if waiting is None:
                mine = self._pending[key] = Future()
        if waiting is not None:
            return waiting.result()
        try:
            mine.set_result(_outside_the_heap(load()))
        except BaseException as error:
            mine.set_exception(error)
        with self._lock:
            del self._pending[key]
            if mine.exception() is None:
                self._keep(key, mine.result())
        return mine.result()

    def _keep(self, key: Key, chunk: Chunk) -> None:
        self.n_reads += 1
        self._chunks[key] = chunk
        self._size += chunk.nbytes
        while self._size > self._capacity:
            self._forget(next(iter(self._chunks)))

    def _forget(self, key: Key) -> None:
        self._stamps.pop(key, None)
        if (chunk := self._chunks.pop(key, None)) is not None:
            self._size -= chunk.nbytes


def _outside_the_heap(chunk: Chunk) -> Chunk:
    """Return a copy in memory pages of its own, which `buffers.private_bytes` does not count.

    Chunks live longer than the buffers of tiles. Lying between those, they would keep the heap from
    being reused or given back.
    """
    if chunk.nbytes < _LARGE:
        return chunk
    copy: Chunk = np.frombuffer(mmap(-1, chunk.nbytes), chunk.dtype).reshape(chunk.shape)
    copy[...] = chunk
    return copy
