"""PNG and JPEG, read only: grey values without a voxel size."""

from __future__ import annotations

import struct
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from napari_msgan.errors import VolumeError
from napari_msgan.geometry import Affine
from napari_msgan.io._checks import check_dtype, warn
from napari_msgan.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

#: What Pillow was seen to raise for damaged files (SyntaxError: "broken PNG file").
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
_GREY = ("L", "I", "F", "I;16", "I;16L", "I;16B")


def read(path: Path) -> Volume:
    """Return a picture in pixels, upright as its EXIF orientation says."""
    try:
        with warnings.catch_warnings():
            # It warns from half the size that it refuses; large radiographs are welcome.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture: Image.Image = Image.open(path, formats=("PNG", "JPEG"))
    except Image.DecompressionBombError as error:
        raise VolumeError(
            f"{path} is too large for a picture: {error}. Save it as TIFF or .ome.zarr"
        ) from error
    with picture:
        if picture.format == "PNG" and picture.mode not in _GREY and _bits_of_png(path) == 16:
            warn(
                path, "its 16 bits are read as 8: save it as 16-bit grey, or as TIFF, to keep them"
            )
        upright = ImageOps.exif_transpose(picture)
        data = np.asarray(_grey(path, upright))
    check_dtype(path, data.dtype)
    return Volume(data.astype(data.dtype.newbyteorder("="), copy=False), Affine(np.eye(3)), "pixel")


def read_description(path: Path) -> dict[str, Any] | None:
    """Return None: we write no pictures."""
    return None


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
    """Return the bits of a sample, which Pillow does not tell: the 25th byte of the file."""
    with path.open("rb") as file:
        return file.read(25)[24]
