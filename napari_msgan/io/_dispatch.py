"""Read and write image files: choose the module of a format, and turn its errors into ours."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from napari_msgan.errors import VolumeError
from napari_msgan.io._atomic import complete_or_nothing
from napari_msgan.io._dicom_files import is_dicom, is_dicom_folder
from napari_msgan.io._errors import named_errors
from napari_msgan.io._unpacked import IN_MEMORY_BYTES
from napari_msgan.steps import run_to_end

if TYPE_CHECKING:
    from napari_msgan.volume import Volume

Format = Literal["pictures", "tiff", "nifti", "ome_zarr", "dicom"]
Progress = Callable[[float], None]
#: Writes the chunks of an OME-Zarr image whose levels are already declared in a folder.
Fill = Callable[[Path, Progress], None]

_FORMATS: dict[str, Format] = {
    ".png": "pictures",
    ".jpg": "pictures",
    ".jpeg": "pictures",
    ".ome.tif": "tiff",
    ".ome.tiff": "tiff",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".ome.zarr": "ome_zarr",
    ".zarr": "ome_zarr",
    ".dcm": "dicom",
}
#: How many folders, and how many files, are examined to tell what a folder holds.
_LOOKED_AT = 100
_TITLES = {
    "pictures": "a picture",
    "tiff": "TIFF",
    "nifti": "NIfTI",
    "ome_zarr": "OME-Zarr",
    "dicom": "DICOM",
}
_ZARR_FILES = ("zarr.json", ".zgroup", ".zarray")

READABLE: tuple[str, ...] = tuple(_FORMATS)
WRITABLE: tuple[str, ...] = (
    ".ome.tif",
    ".ome.tiff",
    ".tif",
    ".tiff",
    ".nii",
    ".nii.gz",
    ".ome.zarr",
)
#: Formats for 2-D images only.
_WRITABLE_2D = (".png",)


class _Module(Protocol):
    """Interface of a format module.

    Not all have every function: `write` is missing if the format is only read, `iter_read` replaces
    `read` if unpacking may take long, `read_geometry` is there only if a file may have to be
    unpacked, and only OME-Zarr has `create`.
    """

    UNREADABLE: tuple[type[Exception], ...]

    def read(self, path: Path) -> Volume: ...
    def iter_read(self, path: Path) -> Generator[float, None, Volume]: ...
    def read_geometry(self, path: Path) -> tuple[Volume, int]: ...
    def read_description(self, path: Path) -> dict[str, Any] | None: ...
    def write(
        self,
        target: Path,
        levels: Sequence[Volume],
        description: Mapping[str, Any],
        progress: Progress,
    ) -> None: ...
    def create(
        self, target: Path, levels: Sequence[Volume], description: Mapping[str, Any]
    ) -> None: ...


def format_of(path: Path | str) -> Format:
    """Return the format of a file, by its suffix, or as a Zarr folder or DICOM by its content.

    Raises
    ------
    VolumeError
        If `path` is not a path, or it has none of the `READABLE` suffixes and is neither a Zarr
        folder nor DICOM.

    Examples
    --------
    >>> format_of("head.NII.gz")
    'nifti'
    """
    if not isinstance(path, (str, os.PathLike)):
        raise VolumeError(
            f"an image is given as a file or as a Volume, not as {type(path).__name__}: an array "
            "becomes one with Volume(array, Affine.of_spacing(spacing), unit)"
        )
    path = Path(path)
    suffix = _suffix(path, READABLE)
    if suffix is not None:
        return _FORMATS[suffix]
    if any((path / name).is_file() for name in _ZARR_FILES):
        return "ome_zarr"
    if is_dicom_folder(path) if path.is_dir() else is_dicom(path.parent, path):
        return "dicom"
    what = "a folder, not an image file" if path.is_dir() else "of an unknown file type"
    raise VolumeError(f"{path} is {what}; {readable_text(path)}")


def readable_text(path: Path) -> str:
    """Return, for an error message, what can be read instead of this file or folder."""
    if path.is_dir() and not path.is_symlink():
        walked = islice(os.walk(path), _LOOKED_AT)
        there = (Path(name) / file for name, _, names in walked for file in names)
        for file in islice(there, _LOOKED_AT):
            if is_dicom(path, file):
                if file.parent == path:
                    return "it is the folder of one DICOM series: give that above it"
                return f"it has DICOM in folders inside: give one series, such as {file.parent}"
    return f"readable are {', '.join(READABLE)}, and folders of one DICOM series"


def read_volume(path: Path | str) -> Volume:
    """Read the image in a file, or in the folder of a DICOM series, with its geometry.

    Where the format allows it, voxels are read only when the volume is sliced. Images compressed as
    a whole (.nii.gz, .tif) are unpacked first, see `iter_read_volume`.

    Raises
    ------
    VolumeError
        If the file is missing, damaged, of an unknown type, or not a single 2-D or 3-D grey image;
        or if there is no room to unpack it.
    """
    return run_to_end(iter_read_volume(path))


def iter_read_volume(path: Path | str) -> Generator[float, None, Volume]:
    """Read an image as `read_volume` does; yield the fraction done while it is being unpacked.

    A large image is unpacked to an unnamed temporary file, in the folder ``TMPDIR`` if that is set
    (see `temporary_folder`). It disappears with the volume, or when the process ends in any way.
    """
    with _reading(path) as (module, path):
        if hasattr(module, "iter_read"):
            return (yield from module.iter_read(path))
        return module.read(path)


def read_geometry(path: Path | str) -> tuple[Volume, int]:
    """Read an image as `read_volume` does, but unpack nothing: such an image holds zeros instead.

    Returns
    -------
    Volume, int
        The image, and the bytes of temporary files that unpacking it would take.

    Raises
    ------
    VolumeError
        See `read_volume`.
    """
    with _reading(path) as (module, path):
        if not hasattr(module, "read_geometry"):
            return module.read(path), 0
        volume, n_bytes = module.read_geometry(path)
        return volume, n_bytes if n_bytes > IN_MEMORY_BYTES else 0


def read_description(path: Path | str) -> dict[str, Any] | None:
    """Return the description that `write_volume` stored in a file; None if there is none.

    Raises
    ------
    VolumeError
        If the file is missing, damaged or of an unknown type.
    """
    with _reading(path) as (module, path):
        return module.read_description(path)


def write_volume(
    path: Path | str,
    levels: Sequence[Volume],
    *,
    description: Mapping[str, Any],
    progress: Progress | None = None,
    overwrite: bool = False,
    fill: Fill | None = None,
) -> None:
    """Write an image to a file, which appears under its name only when it is complete.

    Parameters
    ----------
    path : file to write; its suffix, one of `WRITABLE` or for 2-D images ``.png``, selects the
        format.
    levels : the image, finest level first; only OME-Zarr stores the coarser ones. Their data are
        read in slices, so memory does not grow with the image.
    description : stored in the file as JSON, see `read_description`.
    progress : called with the fraction written, up to 1.0.
    overwrite : whether an existing image of this name may be replaced.
    fill : for OME-Zarr only: function that writes the chunks; None to write them here.

    Raises
    ------
    VolumeError
        If the name is taken or has another suffix, the image does not fit the format, or the disk
        is full or read-only.
    """
    path = Path(path)
    endings = (*WRITABLE, *_WRITABLE_2D)
    if _suffix(path, endings) is None:
        raise VolumeError(f"{path} cannot be written: the name must end in {', '.join(endings)}")
    if not levels:
        raise VolumeError(f"{path} cannot be written: there is no image to write")
    module = _load(format_of(path))
    report = progress if progress is not None else lambda fraction: None
    # OME-Zarr stores all levels, the others the first; compression will make it less
    stored = levels if format_of(path) == "ome_zarr" else levels[:1]
    needed = sum(math.prod(level.shape) * level.data.dtype.itemsize for level in stored)
    with complete_or_nothing(path, overwrite=overwrite, needed_bytes=needed) as target:
        if fill is None:
            module.write(target, levels, description, report)
        else:
            module.create(target, levels, description)
            fill(target, report)


def _suffix(path: Path, suffixes: Sequence[str]) -> str | None:
    name = path.name.lower()
    fitting = [s for s in suffixes if name.endswith(s) and name != s]
    return max(fitting, key=len, default=None)


def _load(name: Format) -> _Module:
    return cast("_Module", importlib.import_module(f"napari_msgan.io.{name}"))


@contextmanager
def _reading(given: Path | str) -> Iterator[tuple[_Module, Path]]:
    """Give the module that reads an existing file; errors in the ``with`` block name the file."""
    name, path = format_of(given), Path(given)
    if not path.exists():
        raise VolumeError(f"{path} does not exist: check the name and the folder")
    if not (path.is_file() or path.is_dir()):
        raise VolumeError(f"{path} is a pipe or a device: give a file, or a folder of OME-Zarr")
    if name != "dicom" and path.is_dir() != (name == "ome_zarr"):
        kind = "a folder" if path.is_dir() else "a file, OME-Zarr is a folder"
        raise VolumeError(f"{path} cannot be read as {_TITLES[name]}: it is {kind}")
    module = _load(name)
    with named_errors(path, _TITLES[name], module.UNREADABLE):
        yield module, path
