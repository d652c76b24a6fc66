"""Checks that all readers make, and units of length."""

from __future__ import annotations

import math
import warnings
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil  # type: ignore[import-untyped]

from napari_msgan.errors import VolumeError
from napari_msgan.io._arrays import iter_slabs

if TYPE_CHECKING:
    from pathlib import Path

    from napari_msgan.geometry import Floats
    from napari_msgan.volume import ArrayLike

#: Largest plausible compression ratio: zlib reaches 1032, LZW about 2700. It is checked only above
#: `_LARGE` bytes, because small files do no harm.
_BEST_COMPRESSION = 5000
_LARGE = 2**30
_MOST_SLABS = 32

_MM = {
    "m": 1e3,
    "meter": 1e3,
    "metre": 1e3,
    "cm": 10.0,
    "centimeter": 10.0,
    "mm": 1.0,
    "millimeter": 1.0,
    "um": 1e-3,
    "\u00b5m": 1e-3,  # micro sign
    "\u03bcm": 1e-3,  # Greek mu
    "\\u00b5m": 1e-3,  # as ImageJ writes it
    "micron": 1e-3,
    "microns": 1e-3,
    "micrometer": 1e-3,
    "dm": 100.0,
    "decimeter": 100.0,
    "km": 1e6,
    "kilometer": 1e6,
    "nm": 1e-6,
    "nanometer": 1e-6,
    "pm": 1e-9,
    "picometer": 1e-9,
    "angstrom": 1e-7,
    "\u00c5": 1e-7,
    "in": 25.4,
    "inch": 25.4,
    "inches": 25.4,
    "foot": 304.8,
    "yard": 914.4,
    "mile": 1609344.0,
}


def mm_per(unit: str | None) -> float | None:
    """Return the length of a unit in mm; None if it is no length (pixel, reference frame, none).

    Examples
    --------
    >>> mm_per("micrometer"), mm_per("pixel")
    (0.001, None)
    """
    name = (unit or "").strip()
    # Lower case only as a second try, and not for two letters: "Mm" is not "mm".
    return _MM.get(name, _MM.get(name.lower()) if len(name) > 2 else None)


def is_spacing(values: Floats) -> bool:
    return all(math.isfinite(v) and v > 0 for v in values)


def warn(path: Path, text: str) -> None:
    """Warn, naming the file, that the image may not be read exactly as the file means it."""
    warnings.warn(f"{path}: {text}", UserWarning, stacklevel=4)


def check_dtype(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise VolumeError(
            f"{path} has voxels of type {dtype}; only integers and real numbers of up to 64 bits "
            "can be read. Convert it (masks to uint8, colours to grey, complex to magnitude)"
        )


def check_fits_memory(path: Path, n_bytes: int) -> None:
    """Check the size that a header declares before anything of that size is allocated."""
    free = psutil.virtual_memory().available
    if n_bytes > free:
        raise VolumeError(
            f"{path} declares {n_bytes / 2**30:.1f} GiB of voxels that can only be read at once, "
            f"but {free / 2**30:.1f} GiB of memory are free. If the file is not damaged, save it "
            "uncompressed (.nii, .tif) or as .ome.zarr: these are read in pieces"
        )


def check_is_plausible(path: Path, n_bytes: int, size: int | None = None) -> None:
    """Check that a compressed file is not absurdly small for the size that its header declares.

    size : bytes of several files together; None for those of `path`.
    """
    size = path.stat().st_size if size is None else size
    if n_bytes > _LARGE and n_bytes > _BEST_COMPRESSION * size:
        raise VolumeError(
            f"{path} declares {n_bytes / 2**30:.1f} GiB of voxels but has {size} bytes: it is "
            "damaged or incomplete; fetch or save it again"
        )


def check_has_values(path: Path, data: ArrayLike) -> None:
    """Check that an image of floats is not NaN or infinite throughout.

    It stops at the first slab with a finite voxel, so it seldom reads much; and after some GiB,
    because metadata may declare any size.
    """
    slabs = islice(iter_slabs(data), _MOST_SLABS)
    if data.dtype.kind == "f" and not any(np.isfinite(slab).any() for slab in slabs):
        raise VolumeError(
            f"{path} holds no number: every voxel is NaN or infinite. Export the image again"
        )
