"""New stores: built in a temporary folder beside their place, moved there when complete."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from napari_msgan.durable import sync_folder, sync_tree, told_if_disk_full
from napari_msgan.errors import StoreError
from napari_msgan.locking import hold_lock
from napari_msgan.pyramid._arrays import (
    array_key,
    chunk_grid,
    create_groups,
    open_level,
    scan_chunks,
    write_info,
)
from napari_msgan.pyramid.metadata import SketchInfo, StoreInfo
from napari_msgan.pyramid.store import PyramidStore, open_pyramid

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

    from napari_msgan.geometry import Box, PyramidGeometry


class PyramidBuilder:
    """A store that has no sketch yet; several threads may write different chunks of it."""

    def __init__(self, temporary: Path, target: Path, info: StoreInfo) -> None:
        self._temporary, self._target, self._info = temporary, target, info
        self.geometry: PyramidGeometry = info.to_geometry()
        create_groups(temporary, info)
        self._sketches = [
            open_level(temporary, info, scale, sketch=True, writable=True)
            for scale in range(self.geometry.n_scales)
        ]

    @property
    def info(self) -> StoreInfo:
        return self._info

    @property
    def scratch(self) -> Path:
        """Return a folder for temporary files, which whoever creates the store next removes."""
        return self._temporary

    def write_sketch(self, scale: int, box: Box, data: npt.NDArray[np.uint8]) -> None:
        """Write whole chunks of the sketch of a scale.

        Raises
        ------
        GeometryError
            If the box is not whole chunks inside the image.
        StoreError
            If the data have another shape or type.
        """
        self.geometry.check_scale(scale)
        self._sketches[scale].write(box, data)

    def read_sketch(self, scale: int, box: Box) -> npt.NDArray[np.uint8]:
        """Return what was written; 0 where nothing was."""
        self.geometry.check_scale(scale)
        return self._sketches[scale].read(box)

    def finish(self, sketch: SketchInfo) -> PyramidStore:
        """Move the store to its place and return it, open for writing.

        Raises
        ------
        StoreError
            If chunks of the sketch were never written, or the place is taken by now.
        """
        if sketch.sha256 is None:
            raise StoreError("a finished sketch needs its sha256")
        for scale in range(self.geometry.n_scales):
            self._check_complete(scale)
        # copied through validation: model_copy would not check it
        info = StoreInfo.model_validate({**dict(self._info), "sketch": sketch})
        write_info(self._temporary, info)
        sync_tree(self._temporary)
        try:
            self._temporary.rename(self._target)
        except OSError as error:
            if self._target.exists():
                raise _taken(self._target) from error
            raise StoreError(f"{self._target} cannot be made: {error}") from error
        sync_folder(self._target.parent)
        return open_pyramid(self._target, writable=True)

    def _check_complete(self, scale: int) -> None:
        key = array_key(scale, self.geometry.n_scales, sketch=True)
        grid = chunk_grid(self.geometry.shape_at(scale), self._info.chunk_shape)
        present, _ = scan_chunks(self._temporary, key, grid)
        if not present.all():
            raise StoreError(
                f"the sketch of scale {scale} misses {int((~present).sum())} of {present.size} "
                "chunks. Write all of them before finish()."
            )


@contextmanager
def create_pyramid(path: Path | str, info: StoreInfo) -> Iterator[PyramidBuilder]:
    """Build a new store; leaving without `finish` leaves nothing behind.

    Parameters
    ----------
    path : folder to make, usually ending in ``.ome.zarr``.
    info : its `sketch` is replaced by that of `finish`, so it needs no thresholds and hash yet.

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
    target = Path(path).absolute()
    _check_free(target)
    lock_file = target.with_name(f".{target.name}.lock")
    prefix = f".{target.name}.partial-"
    with hold_lock(lock_file, str(target)):
        _check_free(target)
        # Whoever made these held the lock and is gone.
        for stale in [p for p in target.parent.iterdir() if p.name.startswith(prefix)]:
            shutil.rmtree(stale)
        temporary = target.with_name(f"{prefix}{os.getpid()}")
        try:
            with told_if_disk_full(target, StoreError):
                yield PyramidBuilder(temporary, target, info)
        finally:
            if temporary.exists():
                shutil.rmtree(temporary)
            # Unlinked while held: whoever opened it in between sees a file without a name and
            # tries again. Windows refuses to delete an open file; an empty one then stays.
            with suppress(PermissionError):
                lock_file.unlink(missing_ok=True)


def _check_free(target: Path) -> None:
    if not target.parent.is_dir():
        raise StoreError(f"the folder {target.parent} does not exist. Make it first.")
    if target.exists() or target.is_symlink():
        raise _taken(target)


def _taken(target: Path) -> StoreError:
    return StoreError(
        f"{target} exists already. Choose another name, delete it, or open it to go on with it."
    )
