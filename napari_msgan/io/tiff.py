"""TIFF: reads plain, OME-TIFF and ImageJ TIFF, and writes tiled, compressed OME-TIFF."""

from __future__ import annotations

import logging
import math
import struct
import threading
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tifffile import TiffFile, TiffFileError, TiffPageSeries, TiffWriter

from napari_msgan.errors import VolumeError
from napari_msgan.geometry import Affine, Floats, Unit
from napari_msgan.io import _note
from napari_msgan.io._arrays import iter_slabs, scaled
from napari_msgan.io._checks import check_dtype, check_has_values, warn
from napari_msgan.io._tiff_metadata import (
    imagej_calibration,
    note_of,
    ome_metadata,
    spacing_mm,
    warn_of_lost_tags,
)
from napari_msgan.io._tiff_pixels import data_offset, grey_pixels, is_turned, stored_pixels
from napari_msgan.volume import ArrayLike, Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

#: What tifffile, imagecodecs (RuntimeError) and the XML parser (SyntaxError) have been seen to
#: raise for damaged files.
UNREADABLE: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    ArithmeticError,
    AssertionError,
    LookupError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    TypeError,
    struct.error,
    zlib.error,
    TiffFileError,
)
#: How many of tifffile's messages about a file are shown, and how many characters of each.
_MOST_WARNINGS, _LONGEST_WARNING = 3, 300
_WRITABLE_TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8")
_TILE = 256
#: Bytes of tiles that tifffile collects for its threads; its default is 512 MiB.
_COLLECTED = 16 * 2**20
#: Number of entries, a single entry, and the offset of the next page.
_LEAST_PAGE_BYTES = 2 + 12 + 4
#: Classic TIFF has 32-bit offsets; compressed data may be a little larger than the image.
_CLASSIC_LIMIT = 2**32 - 2**27


def read(path: Path) -> Volume:
    """Read the first image; its voxels stay in the file until it is sliced, unless compressed."""
    with _warned(path), TiffFile(path) as tif:
        series = _first_series(path, tif)
        return _volume(path, tif, series, stored_pixels(path, tif, series))


def read_geometry(path: Path) -> tuple[Volume, int]:
    """Return the image and 0; if it is compressed, zeros with its geometry, and its bytes."""
    with _warned(path), TiffFile(path) as tif:
        series = _first_series(path, tif)
        if data_offset(series) is not None:
            return _volume(path, tif, series, stored_pixels(path, tif, series)), 0
        stored = np.broadcast_to(np.zeros((), series.dtype), series.shape)  # takes no memory
        return _volume(path, tif, series, stored), stored.nbytes


def _first_series(path: Path, tif: TiffFile) -> TiffPageSeries:
    # Counting makes tifffile look for cycles of pages, which it would otherwise follow for ever.
    n_pages = len(tif.pages)
    if n_pages * _LEAST_PAGE_BYTES > path.stat().st_size:
        raise VolumeError(f"{path} has {n_pages} pages, more than fit into it: it is damaged")
    if not tif.series:
        raise VolumeError(f"{path} holds no image")
    warn_of_lost_tags(path, tif)
    if len(tif.series) > 1:
        warn(path, f"only the first of {len(tif.series)} images is read")
    series = tif.series[0]
    check_dtype(path, series.dtype)
    if n_missing := sum(page is None for page in series.pages):
        raise VolumeError(
            f"{path} lacks {n_missing} of the {len(series.pages)} pages that its metadata declare: "
            "put the other files of the image beside it, or save it again"
        )
    return series


@contextmanager
def _warned(path: Path) -> Iterator[None]:
    """Turn what tifffile logs while it reads an incomplete file into warnings."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    me = threading.get_ident()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    handler.addFilter(lambda record: record.thread == me)
    logger = logging.getLogger("tifffile")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    for text in list(dict.fromkeys(said))[:_MOST_WARNINGS]:
        warn(
            path,
            f"it may be incomplete or damaged: {' '.join(text.split())[:_LONGEST_WARNING]}",
        )


def _volume(path: Path, tif: TiffFile, series: TiffPageSeries, stored: npt.NDArray[Any]) -> Volume:
    data = scaled(grey_pixels(path, series, stored), *imagej_calibration(path, tif))
    spacing = spacing_mm(path, tif, len(data.shape))
    if spacing is not None and is_turned(series):
        spacing = (*spacing[:-2], spacing[-1], spacing[-2])
    check_has_values(path, data)
    return _with_geometry(data, spacing, note_of(tif))


def read_description(path: Path) -> dict[str, Any] | None:
    """Return the description that `write` stored in the OME-XML."""
    with TiffFile(path) as tif:
        return _note.description_of(note_of(tif))


def write(
    target: Path,
    levels: Sequence[Volume],
    description: Mapping[str, Any],
    progress: Callable[[float], None],
) -> None:
    """Write the finest level tile by tile, as BigTIFF if it might exceed 4 GiB."""
    volume = levels[0]
    dtype = volume.data.dtype.newbyteorder("=")
    if dtype.str[1:] not in _WRITABLE_TYPES:
        raise VolumeError(
            f"OME-TIFF cannot store voxels of type {dtype}: convert them to one of "
            "uint8, int16, uint16, float32"
        )
    n_bytes = math.prod(volume.shape) * dtype.itemsize
    resolution: dict[str, Any] = {}
    if volume.unit == "millimeter":
        y, x = volume.spacing[-2:]
        resolution = {"resolution": (10 / x, 10 / y), "resolutionunit": "CENTIMETER"}
    with TiffWriter(target, bigtiff=n_bytes > _CLASSIC_LIMIT, ome=True) as tif:
        tif.write(
            _tiles(volume.data, dtype, progress),
            shape=volume.shape,
            dtype=dtype,
            tile=(_TILE, _TILE),
            photometric="minisblack",
            compression="zlib",
            compressionargs={"level": 4},
            # of a single column tifffile would difference rows, and readers would undo columns
            predictor=dtype.kind in "iu" and volume.shape[-1] > 1,
            buffersize=_COLLECTED,
            software="napari-msgan",
            metadata=ome_metadata(volume, description),
            **resolution,
        )
    progress(1.0)  # the generator is not resumed after the last tile


def _tiles(
    data: ArrayLike, dtype: np.dtype[Any], progress: Callable[[float], None]
) -> Iterator[npt.NDArray[Any]]:
    for slab in iter_slabs(data, row_step=_TILE, progress=progress):
        for z in range(len(slab)):
            for y in range(0, slab.shape[1], _TILE):
                for x in range(0, slab.shape[2], _TILE):
                    # A copy: tifffile keeps some tiles while the next slab is read.
                    yield np.array(slab[z, y : y + _TILE, x : x + _TILE], dtype)
        del slab  # before the next one is read


def _with_geometry(
    data: ArrayLike, spacing: Floats | None, note: Mapping[str, Any] | None
) -> Volume:
    """Return the volume, with the exact affine from our note if its shape and spacing still fit."""
    exact, shape = _note.noted_affine(note), _note.noted_shape(note)
    unit: Unit = "pixel" if spacing is None else "millimeter"
    if exact is not None and shape in (data.shape, (1, *data.shape)) and exact.ndim == len(shape):
        known = spacing or exact.spacing
        if unit == _note.noted_unit(note) and np.allclose(exact.spacing[-len(known) :], known):
            return Volume(np.asarray(data).reshape(shape), exact, unit)
    return Volume(data, Affine.of_spacing(spacing or (1.0,) * len(data.shape)), unit)
