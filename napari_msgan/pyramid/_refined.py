"""Keep track of the refined chunks of a store, and of those that may not be on the disk yet."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_msgan.pyramid._arrays import array_key, chunk_grid, chunk_key

if TYPE_CHECKING:
    from napari_msgan.geometry import Box, Ints
    from napari_msgan.pyramid._place import Place
    from napari_msgan.pyramid.metadata import StoreInfo

    Flags = npt.NDArray[np.bool_]


class RefinedChunks:
    """What this process knows about the chunk files of every scale; any thread may use it.

    Boxes in this class count chunks, not voxels. A chunk is refined if its file exists. Chunks
    written by other processes are noticed by `scan` and `look`, removed ones by `scan` and
    `check_removed`.
    """

    def __init__(self, place: Place, info: StoreInfo) -> None:
        geometry = info.to_geometry()
        self._place = place
        self._keys = [
            array_key(scale, geometry.n_scales, sketch=False) for scale in range(geometry.n_scales)
        ]
        self._grids = [
            chunk_grid(geometry.shape_at(scale), info.chunk_shape)
            for scale in range(geometry.n_scales)
        ]
        self._refined: list[Flags] = self._none()
        self._unsynced: list[Flags] = self._none()
        self._lock = threading.Lock()
        self.scan()
        self._unsynced = self._none()  # their writers have waited, or noted that they did not

    def scan(self) -> list[str]:
        """List which chunks exist; return the keys of leftovers of interrupted writes.

        `sync` will also wait for the chunks that are new since the last scan.
        """
        with self._lock:
            scans = [self._place.scan(*at) for at in zip(self._keys, self._grids, strict=True)]
            before, self._refined = self._refined, [present for present, _ in scans]
            for unsynced, then, now in zip(self._unsynced, before, self._refined, strict=True):
                unsynced |= now & ~then
        return [key for _, leftovers in scans for key in leftovers]

    def _none(self) -> list[Flags]:
        return [np.zeros(grid, np.bool_) for grid in self._grids]

    def of(self, scale: int) -> Flags:
        """Return which chunks are refined, on the chunk grid; read-only, and soon out of date."""
        view = self._refined[scale].view()
        view.setflags(write=False)
        return view

    def add(self, scale: int, chunks: Box) -> None:
        """Record that chunks have been written."""
        with self._lock:
            self._refined[scale][chunks.slices] = True
            self._unsynced[scale][chunks.slices] = True

    def look(self, scale: int, chunks: Box) -> bool:
        """Return whether all these files exist right now; if so, record them as refined."""
        for index in chunks.indices():
            if not self._place.exists(chunk_key(self._keys[scale], index)):
                return False
        self.add(scale, chunks)
        return True

    def check_removed(self, scale: int, index: Ints) -> None:
        """Record a chunk whose file was missing as not refined, unless it exists again by now."""
        with self._lock:
            if not self._place.exists(chunk_key(self._keys[scale], index)):
                self._refined[scale][index] = False

    def remove(self, scale: int, chunks: Box) -> list[str]:
        """Remove the files of the refined chunks among these; return their keys."""
        with self._lock:
            found = np.argwhere(self._refined[scale][chunks.slices]) + chunks.start
        keys = []
        for index in map(tuple, found.tolist()):
            keys.append(chunk_key(self._keys[scale], index))
            self._place.remove(keys[-1])
            with self._lock:
                self._refined[scale][index] = False
        return keys

    def add_unsynced(self) -> None:
        """Make `sync` wait for all existing chunks, whoever wrote them."""
        with self._lock:
            for refined, unsynced in zip(self._refined, self._unsynced, strict=True):
                unsynced |= refined

    @property
    def has_unsynced(self) -> bool:
        """Return whether there are chunks that `sync` has not waited for yet."""
        with self._lock:
            return any(unsynced.any() for unsynced in self._unsynced)

    def sync(self) -> None:
        """Wait until all chunks not yet waited for are on the disk."""
        with self._lock:
            taken = [unsynced.copy() for unsynced in self._unsynced]
            for unsynced in self._unsynced:
                unsynced[...] = False
        try:
            self._place.sync(
                chunk_key(key, tuple(index))
                for key, flags in zip(self._keys, taken, strict=True)
                for index in np.argwhere(flags).tolist()
            )
        except BaseException:
            with self._lock:
                for unsynced, flags in zip(self._unsynced, taken, strict=True):
                    unsynced |= flags
            raise
