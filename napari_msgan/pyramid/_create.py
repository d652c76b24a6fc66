"""Create stores: built in a temporary folder, moved to their place when complete."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_msgan.errors import StoreError
from napari_msgan.pyramid._arrays import (
    array_key,
    chunk_grid,
    create_groups,
    open_level,
    write_info,
)
from napari_msgan.pyramid._folder import FolderPlace
from napari_msgan.pyramid._level import write_chunks
from napari_msgan.pyramid._place import place_of
from napari_msgan.pyramid.metadata import SketchInfo, StoreInfo
from napari_msgan.pyramid.store import PyramidStore, open_pyramid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from napari_msgan.geometry import Box, PyramidGeometry
    from napari_msgan.pyramid._place import Place


class PyramidBuilder:
    """A store whose sketch is still being written; threads may write different chunks of it."""

    def __init__(self, temporary: Path, target: Place, info: StoreInfo) -> None:
        self.info, self._target = info, target
        #: Folder for temporary files; if they are left behind, the next creator removes them.
        self.scratch = temporary
        self._place = FolderPlace(temporary)
        self.geometry: PyramidGeometry = info.to_geometry()
        create_groups(temporary, info)
        self._sketches = [
            open_level(self._place, info, scale, sketch=True)
            for scale in range(self.geometry.n_scales)
        ]

    def write_sketch(self, scale: int, box: Box, data: npt.NDArray[np.uint8]) -> None:
        """Write whole chunks of the sketch of a scale.

        Raises
        ------
        GeometryError
            If the box does not consist of whole chunks inside the image.
        StoreError
            If the data have another shape or type.
        """
        self.geometry.check_scale(scale)
        write_chunks(self._sketches[scale], box, data)

    def read_sketch(self, scale: int, box: Box) -> npt.NDArray[np.uint8]:
        """Read back a box of the sketch; 0 where nothing has been written."""
        self.geometry.check_scale(scale)
        return self._sketches[scale].read(box)

    def finish(self, sketch: SketchInfo) -> PyramidStore:
        """Move the store to its place and return it, open for writing.

        Raises
        ------
        StoreError
            If the sketch has no hash, chunks of it were never written, or the place has been taken
            meanwhile.
        """
        if sketch.sha256 is None:
            raise StoreError("a finished sketch needs its sha256")
        for scale in range(self.geometry.n_scales):
            self._check_complete(scale)
        # validated anew, which model_copy would not do
        info = StoreInfo.model_validate({**dict(self.info), "sketch": sketch})
        write_info(self._place, info)
        self._target.adopt(self.scratch)
        return open_pyramid(self._target.address, writable=True)

    def _check_complete(self, scale: int) -> None:
        key = array_key(scale, self.geometry.n_scales, sketch=True)
        grid = chunk_grid(self.geometry.shape_at(scale), self.info.chunk_shape)
        present, _ = self._place.scan(key, grid)
        if not present.all():
            raise StoreError(
                f"the sketch of scale {scale} misses {int((~present).sum())} of {present.size} "
                "chunks. Write all of them before finish()."
            )


@contextmanager
def create_pyramid(path: Path | str, info: StoreInfo) -> Iterator[PyramidBuilder]:
    """Build a new store; leaving the ``with`` block without `finish` leaves nothing behind.

    Parameters
    ----------
    path : folder to create, or URL, usually ending in ``.ome.zarr``.
    info : metadata of the store. `finish` replaces their `sketch`, so it needs neither thresholds
        nor hash yet.

    Raises
    ------
    StoreError
        If the path exists, or another process is creating it.

    Examples
    --------
    >>> with create_pyramid("hand.ome.zarr", info) as builder:  # doctest: +SKIP
    ...     builder.write_sketch(0, box, sketch)
    ...     store = builder.finish(sketch_info)
    """
    target = place_of(path)
    with target.creating() as temporary:
        yield PyramidBuilder(temporary, target, info)
