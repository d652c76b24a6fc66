"""PNG, and JPEG (read only): grey values; only our own note in a PNG holds a voxel size."""

from __future__ import annotations

import math
import struct
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from napari_msgan.errors import VolumeError
from napari_msgan.geometry import Affine
from napari_msgan.io import _note
from napari_msgan.io._arrays import iter_slabs
from napari_msgan.io._checks import check_dtype, warn
from napari_msgan.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

#: What Pillow has been seen to raise for damaged files (SyntaxError: "broken PNG file").
UNREADABLE: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    TypeError,
    struct.error,
    zlib.error,
)
#: Pillow writes a picture as a whole; more pixels belong in a format that is written in parts.
_MOST_PIXELS = 2**26
#: Keywords of our note, and of the text that everybody should read, which is one of PNG's own.
_NOTE, _LABEL = "napari-msgan", "Description"
_GREY = ("L", "I", "F", "I;16", "I;16L", "I;16B")


def read(path: Path) -> Volume:
    """Read a picture as grey values, upright according to EXIF; in pixels, unless we wrote it."""
    with _open(path) as picture:
        if picture.format == "PNG" and picture.mode not in _GREY and _bits_of_png(path) == 16:
            warn(
                path, "its 16 bits are read as 8: save it as 16-bit grey, or as TIFF, to keep them"
            )
        upright = ImageOps.exif_transpose(picture)
        data = np.asarray(_grey(path, upright))
        note = _note_of(picture)
    check_dtype(path, data.dtype)
    data = data.astype(data.dtype.newbyteorder("="), copy=False)
    exact, unit = _note.noted_affine(note), _note.noted_unit(note)
    if exact is not None and exact.ndim == 2 and _note.noted_shape(note) == data.shape:
        return Volume(data, exact, "millimeter" if unit == "millimeter" else "pixel")
    return Volume(data, Affine(np.eye(3)), "pixel")


def read_description(path: Path) -> dict[str, Any] | None:
    """Return the description that `write` stored in a PNG."""
    with _open(path) as picture:
        return _note.description_of(_note_of(picture))


def write(
    target: Path,
    levels: Sequence[Volume],
    description: Mapping[str, Any],
    progress: Callable[[float], None],
) -> None:
    """Write the finest level as a grey PNG of 8 or 16 bits."""
    volume = levels[0]
    dtype = volume.data.dtype.newbyteorder("=")
    if len(volume.shape) != 2 or dtype not in (np.uint8, np.uint16):
        raise VolumeError(
            f"PNG holds 2-D images of 8 or 16 bits from 0 on, this one has shape {volume.shape} "
            f"and voxels of type {dtype}: save it as .ome.tif, .nii.gz or .ome.zarr"
        )
    if math.prod(volume.shape) > _MOST_PIXELS:
        raise VolumeError(
            f"PNG is written whole, up to {_MOST_PIXELS} pixels, this image has {volume.shape}: "
            "save it as .ome.tif or .ome.zarr, or a region of it"
        )
    pixels = np.empty(volume.shape, dtype)
    done = 0
    for (slab,) in iter_slabs(volume.data, progress=progress):
        pixels[done : done + len(slab)] = slab
        done += len(slab)
    text = PngImagePlugin.PngInfo()
    text.add_text(_LABEL, _note.label(description))
    text.add_text(_NOTE, _note.to_text(_note.make_note(volume, description)))
    Image.fromarray(pixels).save(target, "PNG", pnginfo=text)


def _open(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow warns from half the size that it refuses; large radiographs are welcome.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path, formats=("PNG", "JPEG"))
    except Image.DecompressionBombError as error:
        raise VolumeError(
            f"{path} is too large for a picture: {error}. Save it as TIFF or .ome.zarr"
        ) from error


def _note_of(picture: Image.Image) -> dict[str, Any] | None:
    text = picture.info.get(_NOTE)
    return _note.from_text(text) if isinstance(text, str) else None


def _grey(path: Path, picture: Image.Image) -> Image.Image:
    if picture.mode in _GREY:
        return picture
    if picture.mode == "1":
        return picture.convert("L")  # 0 and 255
    if picture.mode in ("LA", "La"):
        warn(path, "the transparency of the picture is ignored")
        return picture.getchannel("L")
    transparency = ", transparency is ignored" if picture.mode in ("RGBA", "RGBa", "PA") else ""
    warn(path, f"colours ({picture.mode}) were turned into luminance{transparency}")
    return picture.convert("RGB").convert("L")


def _bits_of_png(path: Path) -> int:
    """Return the bits per sample, which Pillow does not tell: the 25th byte of the file."""
    with path.open("rb") as file:
        return file.read(25)[24]
