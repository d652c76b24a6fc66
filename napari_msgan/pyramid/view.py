"""Views of a store while it is refined: its chunks, or the coarser level where there are none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_msgan.geometry import Box, Ints, PyramidGeometry
from napari_msgan.resampling import blend
from napari_msgan.volume import ArrayLike, LazyArray, Volume, read_padded

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from napari_msgan.pyramid.chunk_cache import ChunkCache
    from napari_msgan.pyramid.store import PyramidStore


class _Window(LazyArray, ABC):
    """Array-like that shows a box of an image; beyond the image the border voxel is repeated.

    Parameters
    ----------
    shape : shape of the image.
    shown : box of the image that this array shows, which may extend beyond it; None for all.
    """

    def __init__(self, shape: Ints, shown: Box | None, dtype: np.dtype[Any]) -> None:
        shown = shown or Box.of_shape(shape)
        super().__init__(shown.shape, dtype, self._show)
        self._start, self._image = shown.start, LazyArray(shape, dtype, self._read)

    @abstractmethod
    def _read(self, box: Box) -> npt.NDArray[Any]:
        """Read a box that lies inside the image."""

    def _show(self, box: Box) -> npt.NDArray[Any]:
        there = box.shift(self._start)
        return read_padded(self._image, there.start, there.stop)


class PyramidView(_Window):
    """Array-like of a scale: refined chunks, and elsewhere the previous scale, upsampled.

    It reads only what is indexed. Any thread may read while others write tiles; every read shows
    the latest state.

    Parameters
    ----------
    shown : box to show, in voxels of the scale, which may extend beyond the image; None for all.
    whole : raise StoreError where scale 0 has no file; otherwise the fill value is shown there.
    cache : keeps the chunks read most recently, for reading slice by slice.
    """

    def __init__(
        self,
        store: PyramidStore,
        scale: int,
        *,
        shown: Box | None = None,
        whole: bool = False,
        cache: ChunkCache | None = None,
    ) -> None:
        store.geometry.check_scale(scale)
        super().__init__(store.geometry.shape_at(scale), shown, store.info.dtype_type)
        self._store, self._scale = store, scale
        self._chunk_shape = store.info.chunk_shape
        self._whole, self._cache = whole, cache
        coarser = PyramidView(store, scale - 1, whole=whole, cache=cache) if scale else None
        self._coarser = coarser

    def _read(self, box: Box) -> npt.NDArray[Any]:
        if self._coarser is None:
            if self._whole:
                return self._store.level(self._scale).read_whole(box)
            return self._store.read(self._scale, box)
        chunks = box.cover(self._chunk_shape)
        while True:
            refined = self._store.refined_chunks(self._scale)[chunks.slices].copy()
            missing: list[Ints] = []
            block = self._compose(box, refined, missing)
            # A chunk that was cleared meanwhile was read as the fill value: read again. Its flag
            # would not tell, because it may have been made again by now.
            if not any(
                refined[tuple(i - first for i, first in zip(index, chunks.start, strict=True))]
                for index in missing
            ):
                return block

    def _compose(
        self, box: Box, refined: npt.NDArray[np.bool_], missing: list[Ints]
    ) -> npt.NDArray[Any]:
        """Return a box, given which of the chunks that it touches are refined.

        missing : list to which the indices of chunks are appended that were read but have no file.
        """
        read_stored = partial(self._store.read, self._scale, missing=missing, cache=self._cache)
        if refined.all():
            return read_stored(box)
        if not refined.any():
            return self._upsample(box)
        first = box.cover(self._chunk_shape).start
        block = np.empty(box.shape, self.dtype)
        for chosen, read in ((refined, read_stored), (~refined, self._upsample)):
            where = np.argwhere(chosen)
            span = Box(tuple(where.min(axis=0).tolist()), tuple((where.max(axis=0) + 1).tolist()))
            part = span.shift(first).multiply(self._chunk_shape).intersect(box)
            voxels = zip(part.start, part.stop, self._chunk_shape, first, strict=True)
            mask = chosen[np.ix_(*(np.arange(a, b) // c - f for a, b, c, f in voxels))]
            np.copyto(block[part.relative_to(box.start).slices], read(part), where=mask)
        return block

    def _upsample(self, box: Box) -> npt.NDArray[Any]:
        assert self._coarser is not None
        factor = self._store.geometry.factor(self._scale)
        block = np.empty(box.shape, self.dtype)
        # In parts, because interpolation needs several times the memory of its result.
        for part in box.blocks(tuple(4 * n for n in self._chunk_shape)):
            values = upsample(self._coarser, factor, part)
            if self.dtype.kind != "f":
                np.rint(values, out=values)
            block[part.relative_to(box.start).slices] = values
        return block


class SketchView(_Window):
    """Array-like of the sketch of a scale, uint8; for the other parameters see `PyramidView`.

    whole : raise StoreError where a chunk has no file; otherwise no edges are shown there.
    """

    def __init__(
        self,
        store: PyramidStore,
        scale: int,
        *,
        shown: Box | None = None,
        whole: bool = False,
        cache: ChunkCache | None = None,
    ) -> None:
        store.geometry.check_scale(scale)
        super().__init__(store.geometry.shape_at(scale), shown, np.dtype(np.uint8))
        self._store, self._scale, self._whole, self._cache = store, scale, whole, cache

    def _read(self, box: Box) -> npt.NDArray[Any]:
        if self._whole:
            return self._store.level(self._scale, sketch=True).read_whole(box)
        return self._store.read_sketch(self._scale, box, cache=self._cache)


def upsample(coarse: ArrayLike, factor: Ints, box: Box) -> npt.NDArray[np.float32]:
    """Interpolate linearly to a grid `factor` times finer, and return a box of that grid.

    Fine voxel i lies at ``(i + 0.5) / factor - 0.5`` of the coarse grid; beyond the image the
    border voxel is repeated. A voxel has the same value whichever box it is read with.
    """
    below, weights = [], []
    for start, stop, f in zip(box.start, box.stop, factor, strict=True):
        # (2 i + 1 - f) / 2 f in integers, so that both voxel and weight are exact
        lower, rest = np.divmod(2 * np.arange(start, stop) + 1 - f, 2 * f)
        below.append(lower)
        weights.append((rest / (2 * f)).astype(np.float32))
    starts = [int(lower[0]) for lower in below]
    stops = [int(lower[-1]) + (2 if f > 1 else 1) for lower, f in zip(below, factor, strict=True)]
    block = read_padded(coarse, starts, stops)
    return blend(
        block, [lower - first for lower, first in zip(below, starts, strict=True)], weights
    )


def padded_box(geometry: PyramidGeometry, scale: int) -> Box:
    """Return the box of a scale, padded to the shape of scale 0 times the factors up to the scale.

    napari derives the factors of levels from the ratios of their shapes, which are then exact.
    """
    box = Box.of_shape(geometry.shape_at(0))
    for factor in geometry.factors[:scale]:
        box = box.multiply(factor)
    return box


def levels(
    store: PyramidStore, *, cache: ChunkCache | None = None
) -> list[PyramidView | npt.NDArray[Any]]:
    """Return views of all levels for napari, finest first, with padded shapes (`padded_box`).

    The coarsest is a plain array, because napari keeps the one that it got first: call
    `refresh_coarsest` after scale 0 has been written.
    """
    finer = [
        PyramidView(store, scale, shown=padded_box(store.geometry, scale), cache=cache)
        for scale in range(store.n_scales - 1, 0, -1)
    ]
    return [*finer, _coarsest(store)]


def sketch_levels(store: PyramidStore, *, cache: ChunkCache | None = None) -> list[SketchView]:
    """Return views of the sketch of all levels, finest first, with padded shapes."""
    return [
        SketchView(store, scale, shown=padded_box(store.geometry, scale), cache=cache)
        for scale in range(store.n_scales - 1, -1, -1)
    ]


def refresh_coarsest(store: PyramidStore, shown: Sequence[PyramidView | npt.NDArray[Any]]) -> None:
    """Copy scale 0 of the store into `shown[-1]`, the coarsest of `levels`, in place."""
    coarsest = shown[-1]
    assert isinstance(coarsest, np.ndarray)
    coarsest[...] = _coarsest(store)


def _coarsest(store: PyramidStore) -> npt.NDArray[Any]:
    return store.read(0, Box.of_shape(store.geometry.shape_at(0)))


def view_volume(store: PyramidStore, scale: int, region: Box | None = None) -> Volume:
    """Return a scale of a store, or a part of it, as a volume that is read when it is sliced.

    Parts that are not refined are upsampled from the coarser scale, as in exports. Reading raises
    StoreError if the store, or its scale 0, does not exist.

    Parameters
    ----------
    region : part of the image, in voxels of the finest scale; None for all of it.

    Raises
    ------
    GeometryError
        If the scale does not exist, or the region lies outside the image.
    """
    geometry = store.geometry
    box = geometry.box_at(scale, Box.of_shape(geometry.shape) if region is None else region)
    affine = geometry.affine_at(scale).rescaled((1,) * geometry.ndim, box.start)
    return Volume(PyramidView(store, scale, shown=box, whole=True), affine, geometry.unit)
