"""Read the pixels of a TIFF series as one grey array, shape (Z, Y, X) or (Y, X)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tifffile import EXTRASAMPLE, ORIENTATION, PHOTOMETRIC, TiffFile, TiffPageSeries

from napari_msgan.errors import VolumeError
from napari_msgan.intensity import luminance
from napari_msgan.io._arrays import Block, converted, native
from napari_msgan.io._checks import check_is_plausible, warn
from napari_msgan.io._unpacked import empty_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_msgan.volume import ArrayLike

#: Fewest bytes that the offset and length of a strip or tile take.
_LEAST_SEGMENT_BYTES = 2 + 2
#: Bytes of packed segments that are read at a time; tifffile's default is 256 MiB.
_PACKED_BYTES = 16 << 20
#: Z, and tifffile's names for pages without further metadata.
_STACK_AXES = "ZIQ"
_FROM_THE_RIGHT = (
    ORIENTATION.TOPRIGHT,
    ORIENTATION.BOTRIGHT,
    ORIENTATION.RIGHTTOP,
    ORIENTATION.RIGHTBOT,
)
_FROM_BELOW = (
    ORIENTATION.BOTRIGHT,
    ORIENTATION.BOTLEFT,
    ORIENTATION.RIGHTBOT,
    ORIENTATION.LEFTBOT,
)


def data_offset(series: TiffPageSeries) -> int | None:
    """Return the offset of the pixels in the file; None if they are compressed or scattered."""
    return None if series.is_multifile else series.dataoffset


def stored_pixels(path: Path, tif: TiffFile, series: TiffPageSeries) -> npt.NDArray[Any]:
    """Return the array of a series as it is stored, memory-mapped if possible.

    Compressed or scattered pixels are unpacked, tile by tile or strip by strip.

    Raises
    ------
    VolumeError
        If the file is too small for what it declares, or there is no room to unpack it.
    """
    offset = data_offset(series)
    if offset is not None:
        dtype = series.dtype.newbyteorder(tif.byteorder)
        return np.memmap(path, dtype, "r", offset, series.shape)
    check_is_plausible(path, series.nbytes)
    n_segments = len(series.pages) * math.prod(series.keyframe.chunked)
    if n_segments * _LEAST_SEGMENT_BYTES > path.stat().st_size and not series.is_multifile:
        raise VolumeError(
            f"{path} declares {n_segments} strips or tiles, more than fit into it: it is damaged "
            "or incomplete; fetch or save it again"
        )
    target = empty_image(path, series.shape, series.dtype)
    stored: npt.NDArray[Any] = series.asarray(out=target, buffersize=_PACKED_BYTES)
    return stored


def grey_pixels(path: Path, series: TiffPageSeries, stored: npt.NDArray[Any]) -> ArrayLike:
    """Return the array as grey values, shape (Z, Y, X) or (Y, X), in which large ones are bright.

    Signed values that are stored with small ones bright are not inverted; a warning says so.
    """
    axes = series.axes
    # by index, because a letter may occur twice
    along = [i for i, n in enumerate(stored.shape) if axes[i] not in "YXS" and n > 1]
    if "Y" not in axes or "X" not in axes:
        raise VolumeError(f"{path} holds no image: its axes are {axes}")
    if len(along) > 1 or any(axes[i] not in _STACK_AXES for i in along):
        found = ", ".join(f"{stored.shape[i]} along {axes[i]}" for i in along)
        raise VolumeError(
            f"{path} is more than one 2-D or 3-D image: it has {found} (T is time, C channels). "
            "Save one of them as a file of its own; if T is really depth, swap it with Z "
            "(Fiji: Image > Properties)"
        )
    order = [*along, axes.index("Y"), axes.index("X")]
    if "S" in axes:
        order.append(axes.index("S"))
    dropped = [i for i in range(len(axes)) if i not in order]
    turned = np.transpose(stored, dropped + order).reshape([stored.shape[i] for i in order])
    turned = _upright(turned, _orientation(series), x_axis=-2 if "S" in axes else -1)
    convert = _to_grey(path, series, samples=turned.shape[-1] if "S" in axes else 0)
    if convert is None:
        return native(turned)
    dtype = turned.dtype.newbyteorder("=")
    return converted(turned, convert, dtype=dtype, ndim=len(along) + 2)


def is_turned(series: TiffPageSeries) -> bool:
    """Return whether rows in the file are columns of the image."""
    return _orientation(series) >= ORIENTATION.LEFTTOP


def _orientation(series: TiffPageSeries) -> int:
    tag = series.keyframe.tags.get("Orientation")
    known = tag is not None and tag.value in list(ORIENTATION)
    return int(tag.value) if tag is not None and known else ORIENTATION.TOPLEFT


def _upright(stored: npt.NDArray[Any], orientation: int, *, x_axis: int) -> npt.NDArray[Any]:
    """Turn the array so that rows run from the top and columns from the left (tag Orientation)."""
    y_axis = x_axis - 1
    if orientation >= ORIENTATION.LEFTTOP:
        stored = np.swapaxes(stored, y_axis, x_axis)
    if orientation in _FROM_THE_RIGHT:
        stored = np.flip(stored, x_axis)
    return np.flip(stored, y_axis) if orientation in _FROM_BELOW else stored


def _to_grey(
    path: Path, series: TiffPageSeries, *, samples: int
) -> Callable[[Block], Block] | None:
    page = series.keyframe
    alpha = any(e != EXTRASAMPLE.UNSPECIFIED for e in page.extrasamples)
    if page.photometric in (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR) and samples in (3, 4):
        warn(path, "colours were turned into luminance")
        return luminance
    if samples > 1 and not (samples == 2 and alpha):
        kind = PHOTOMETRIC(page.photometric).name
        raise VolumeError(
            f"{path} has {samples} channels a pixel ({kind}); save one of them, or the image in "
            "grey, as a file of its own"
        )
    if page.photometric == PHOTOMETRIC.PALETTE:
        warn(path, "the colour table is ignored: the numbers in the file are read as grey values")
    first = (..., 0) if samples else ...
    if page.photometric == PHOTOMETRIC.MINISWHITE and series.dtype.kind == "u":
        warn(path, "stored with small values bright (MinIsWhite): the values were inverted")
        top = 2**page.bitspersample - 1
        return lambda block: top - block[first]
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        warn(path, "stored with small values bright (MinIsWhite): signed, they were not inverted")
    return (lambda block: block[first]) if samples else None
