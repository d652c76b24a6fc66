"""The pyramid store: the chunks of every scale, which of them are refined, and who may write."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_msgan.durable import told_if_unwritable
from napari_msgan.errors import StoreError
from napari_msgan.geometry import Box, Ints
from napari_msgan.pyramid._arrays import count_voxels, open_level, read_info, write_info
from napari_msgan.pyramid._level import write_chunks
from napari_msgan.pyramid._place import Place, place_of
from napari_msgan.pyramid._refined import RefinedChunks
from napari_msgan.pyramid._writers import Writers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from napari_msgan.pyramid._level import Level, ZarrArray
    from napari_msgan.pyramid.chunk_cache import ChunkCache
    from napari_msgan.pyramid.metadata import Fingerprint, StoreInfo
    from napari_msgan.tiling import Tile


def open_pyramid(path: Path | str, *, writable: bool = False) -> PyramidStore:
    """Open a store in a folder, or at a URL that fsspec can open (``s3://bucket/a.ome.zarr``).

    Raises
    ------
    StoreError
        If there is no store, its metadata are damaged or of another version, or a level does not
        match them.
    """
    place = place_of(path)
    return PyramidStore(place, read_info(place), writable=writable)


class PyramidStore:
    """A generated image and its sketch at every scale, stored as an OME-Zarr 0.5 group.

    A chunk without a file is not refined yet. Any thread may read; inside ``with store.writing()``
    several threads may write different tiles.

    Attributes
    ----------
    place : where its files are.
    info, geometry, tiling : its metadata, and the geometry and tile grids that follow from them.
    """

    def __init__(self, place: Place, info: StoreInfo, *, writable: bool) -> None:
        self.place, self.info = place, info
        self.geometry, self.tiling = info.to_geometry(), info.to_tiling()
        scales = range(self.geometry.n_scales)
        self._images = [open_level(place, info, s) for s in scales]
        self._sketches = [open_level(place, info, s, sketch=True) for s in scales]
        self._refined = RefinedChunks(place, info)
        self._writers = Writers(place, allowed=writable)
        self._is_untidy = False

    def __repr__(self) -> str:
        refined = ", ".join(f"{self.refined_fraction(s):.0%}" for s in range(self.n_scales))
        return f"<PyramidStore {self.address}, {self.info.model_name}, refined {refined}>"

    def __reduce__(self) -> tuple[Callable[[str], PyramidStore], tuple[str]]:
        return partial(open_pyramid, writable=self._writers.allowed), (self.address,)

    @property
    def address(self) -> str:
        """Return the path or URL of the store."""
        return self.place.address

    @property
    def path(self) -> Path:
        """Return the folder of the store.

        Raises
        ------
        StoreError
            If the store is at a URL.
        """
        return self.place.path

    @property
    def n_scales(self) -> int:
        return self.geometry.n_scales

    def array(self, scale: int) -> ZarrArray:
        """Return the stored image of a scale, read-only; the fill value where it is not refined."""
        return self.level(scale).array

    def sketch_array(self, scale: int) -> ZarrArray:
        """Return the stored sketch of a scale, uint8 (value / 255), read-only."""
        return self.level(scale, sketch=True).array

    def level(self, scale: int, *, sketch: bool = False) -> Level:
        """Return the image or the sketch of a scale, to read its chunks from."""
        self.geometry.check_scale(scale)
        return (self._sketches if sketch else self._images)[scale]

    def read(
        self,
        scale: int,
        box: Box,
        *,
        missing: list[Ints] | None = None,
        cache: ChunkCache | None = None,
    ) -> npt.NDArray[Any]:
        """Read a box of a scale, in the stored type; the fill value where it is not refined.

        Refined chunks that another process has removed count as not refined from then on.

        Parameters
        ----------
        missing : list to which the indices of chunks without a file are appended.
        cache : keeps the chunks read most recently.

        Raises
        ------
        GeometryError
            If the box extends beyond the image.
        """
        level, chunks = self.level(scale), self._chunks(box)
        before = self._refined.of(scale)[chunks.slices].copy()
        without_file: list[Ints] = []
        result = level.read(box, without_file, None if cache is None else cache.find)
        for index in without_file:
            if before[tuple(i - f for i, f in zip(index, chunks.start, strict=True))]:
                self._refined.check_removed(scale, index)
        if missing is not None:
            missing += without_file
        return result

    def read_sketch(
        self, scale: int, box: Box, *, cache: ChunkCache | None = None
    ) -> npt.NDArray[np.uint8]:
        """Read a box of the sketch of a scale, uint8 (value / 255); for `cache` see `read`.

        Raises
        ------
        GeometryError
            If the box extends beyond the image.
        """
        find = None if cache is None else cache.find
        return self.level(scale, sketch=True).read(box, find=find)

    def write(self, scale: int, box: Box, data: npt.NDArray[Any]) -> None:
        """Write whole chunks of a scale, which are refined from then on.

        Raises
        ------
        GeometryError
            If the box does not consist of whole chunks inside the image.
        StoreError
            If the writer's lock is not held, the data have another shape or type, or the chunks
            cannot be written.
        """
        self._writers.check()
        with told_if_unwritable(self.address, StoreError):
            write_chunks(self.level(scale), box, data, check=self._writers.check)
        self._refined.add(scale, self._chunks(box))

    def refined_chunks(self, scale: int) -> npt.NDArray[np.bool_]:
        """Return which chunks are refined, on the chunk grid; read-only, and soon out of date."""
        self.geometry.check_scale(scale)
        return self._refined.of(scale)

    def is_refined(self, scale: int, box: Box) -> bool:
        """Return whether every chunk that a box touches is refined."""
        inside = box.intersect(Box.of_shape(self.geometry.shape_at(scale)))
        return bool(self.refined_chunks(scale)[self._chunks(inside).slices].all())

    def refined_fraction(self, scale: int, box: Box | None = None) -> float:
        """Return the fraction of the voxels of a scale, or of a box of it, that are refined."""
        box = box or Box.of_shape(self.geometry.shape_at(scale))
        return count_voxels(self.refined_chunks(scale), self.info.chunk_shape, box) / box.size

    def reload(self) -> None:
        """Look anew which chunks exist, e.g. after another process wrote some."""
        self._refined.scan()

    def look(self, scale: int, box: Box) -> bool:
        """Return whether every chunk that a box touches has a file right now.

        If so, they count as refined from then on, whichever process wrote them.
        """
        self.geometry.check_scale(scale)
        return self._refined.look(scale, self._chunks(box))

    def put_mark(self) -> str:
        """Put a mark into the store and return its name; the next holder of the lock removes it."""
        with told_if_unwritable(self.address, StoreError):
            return self._writers.put_mark()

    def assist(self, mark: str) -> None:
        """Let this object write without the lock, on behalf of its holder, who planned the work.

        Parameters
        ----------
        mark : name of an empty file by which helpers recognise the store (`put_mark`). Once it is
            gone nothing more is written: if the holder was killed, another process may be writing.

        Raises
        ------
        StoreError
            If the store was opened for reading only, or has no such mark.
        """
        self._writers.assist(mark)

    @contextmanager
    def writing(self) -> Iterator[PyramidStore]:
        """Be the only writer: hold the lock until the last ``with`` block of this object ends.

        Raises
        ------
        StoreError
            If the store was opened for reading only, or another process is writing.
        """
        with self._writers.hold(self._take_over):
            try:
                yield self
            finally:
                self._clean_if_last()
            # Not after an error or a cancelled job: on a slow disk, cancelling would take long.
            with told_if_unwritable(self.address, StoreError):
                self._refined.sync()
                with self._writers.paused() as is_only:
                    if is_only and not self._refined.has_unsynced:
                        self.place.note_unsynced(are_there=False)

    def clear(self, scale: int, box: Box) -> dict[int, list[Box]]:
        """Remove the tiles of a scale that a box touches, and all finer tiles made from them.

        Returns
        -------
        dict
            Per scale, the boxes of the tiles of which something was removed.

        Raises
        ------
        StoreError
            If the scale is 0, the writer's lock is not held, or this process has other writers.
        """
        self._writers.check()
        self.geometry.check_scale(scale)
        if not scale:
            raise StoreError(
                "scale 0 cannot be cleared: everything is made from it. Delete the store."
            )
        return self.discard(self.tiling.tiles(scale, box))

    def discard(self, tiles: Iterable[Tile]) -> dict[int, list[Box]]:
        """Remove tiles, also those of scale 0, and all finer tiles made from them.

        Returns
        -------
        dict
            See `clear`.

        Raises
        ------
        StoreError
            If the writer's lock is not held, or this process has other writers, which might be
            making tiles from those to remove.
        """
        self._writers.check()
        with self._writers.alone(), told_if_unwritable(self.address, StoreError):
            return self._discard(self.tiling.with_dependents(tiles))

    def _discard(self, doomed: Sequence[set[Tile]]) -> dict[int, list[Box]]:
        removed = {}
        # Finest first: tiles left by an interruption were then made from tiles that still exist.
        for scale in reversed(range(self.n_scales)):
            boxes, keys = [], []
            for tile in sorted(doomed[scale]):
                core = self.tiling.core(tile)
                if found := self._refined.remove(scale, self._chunks(core)):
                    boxes.append(core)
                    keys += found
            if boxes:
                removed[scale] = boxes
            self.place.sync(keys)  # or a power cut might bring back tiles that were found wrong
        return removed

    def set_fingerprint(self, fingerprint: Fingerprint) -> None:
        """Record how tiles are made; if there are tiles, warn if new ones may differ from them.

        Call it before the first tile is made: it also notes that some may not be on the disk yet.

        Raises
        ------
        StoreError
            If the device, the precision, its arithmetic or the tile shape differ from those of
            existing tiles, or the writer's lock is not held.
        """
        self._writers.check()
        known = self.info.fingerprint
        with told_if_unwritable(self.address, StoreError), self._writers.paused() as is_only:
            has_tiles = any(self.refined_chunks(scale).any() for scale in range(self.n_scales))
            if known is not None and (has_tiles or not is_only):
                known.check_continued(fingerprint, self.address)
            elif fingerprint != known:
                self.info = self.info.model_copy(update={"fingerprint": fingerprint})
                write_info(self.place, self.info)
            self.place.note_unsynced(are_there=True)

    def tidy(self, mark: str) -> None:
        """Remove the mark of helpers, note the chunks they wrote and remove half-written ones.

        Raises
        ------
        StoreError
            If the writer's lock is not held, or the mark cannot be removed.
        """
        self._writers.check()
        with told_if_unwritable(self.address, StoreError):
            self.place.remove(mark)
        self._is_untidy = True
        self._clean_if_last()
        if self._is_untidy:  # the last writer of this process will do the rest
            self._refined.scan()

    def _clean_if_last(self) -> None:
        with self._writers.paused() as is_only:
            if is_only and self._is_untidy:
                self._clean()

    def _clean(self) -> None:
        self._is_untidy = False
        for key in (*self._refined.scan(), *self.place.marks()):
            self.place.remove(key)

    def _take_over(self) -> None:
        """Note what the previous writer did, and remove what it left half-written."""
        info = read_info(self.place)
        if info.model_copy(update={"fingerprint": self.info.fingerprint}) != self.info:
            raise StoreError(f"{self.address} was replaced after it was opened. Open it again.")
        self.info = info
        self._clean()
        if self.place.has_unsynced():
            self._refined.add_unsynced()  # the previous writer did not wait for its last chunks

    def _chunks(self, box: Box) -> Box:
        """Return the chunks that a box of voxels touches, as a box on the chunk grid."""
        return box.cover(self.info.chunk_shape)
