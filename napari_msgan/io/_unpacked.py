"""Unpack images that a file holds in one compressed piece, so that they can be read in pieces.

Large ones are unpacked to a temporary file without a name, mapped into memory. It disappears when
it is no longer in use, even if the process is killed. It is a flat file, because a temporary Zarr
takes longer and has a name that has to be removed; for reading in blocks, the cache of the
operating system will do.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_msgan.durable import take_room
from napari_msgan.errors import VolumeError

if TYPE_CHECKING:
    from napari_msgan.geometry import Ints

#: Images of up to this many bytes are unpacked in memory.
IN_MEMORY_BYTES = 64 * 2**20
_VARIABLES = ("TMPDIR", "TEMP", "TMP")
#: Where Unix keeps large temporary files; /tmp is in memory on some systems.
_LARGE_FILES = Path("/var/tmp")


def temporary_folder() -> Path:
    """Return the folder for large temporary files: ``TMPDIR`` (TEMP, TMP) if set, else on disk."""
    chosen = any(os.environ.get(name) for name in _VARIABLES)
    if not chosen and os.access(_LARGE_FILES, os.W_OK):
        return _LARGE_FILES
    return Path(tempfile.gettempdir())


def empty_image(path: Path, shape: Ints, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return an empty array to unpack a file into, in a temporary file if it is large.

    Raises
    ------
    VolumeError
        If the image is large and the folder of temporary files has no room for it.
    """
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes <= IN_MEMORY_BYTES:
        return np.empty(shape, dtype)
    folder = temporary_folder()
    try:
        free = shutil.disk_usage(folder).free
        if n_bytes > free:
            raise _no_room(path, n_bytes, folder, free)
        with tempfile.TemporaryFile(dir=folder, prefix="napari-msgan-") as file:
            file.truncate(n_bytes)
            take_room(file)
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        raise _no_room(path, n_bytes, folder, shutil.disk_usage(folder).free) from error


def _no_room(path: Path, n_bytes: int, folder: Path, free: int) -> VolumeError:
    return VolumeError(
        f"{path} is compressed as a whole: unpacked, its {n_bytes / 1e9:.2f} GB need a temporary "
        f"file, and {folder} has {free / 1e9:.2f} GB free. Set TMPDIR to a folder with more room, "
        "or save the image uncompressed (.nii, .tif) or as .ome.zarr: these are read in pieces"
    )
