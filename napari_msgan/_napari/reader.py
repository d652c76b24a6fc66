"""File > Open: our stores, to continue them; our exports, NIfTI and DICOM, upright and in mm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from napari_msgan._napari.stores import name_of, shared_store
from napari_msgan._napari.to_layer import (
    LayerTuple,
    Placement,
    result_layer,
    sketch_layer,
    volume_layer,
)
from napari_msgan.errors import MsganError
from napari_msgan.io import format_of, read_description, read_volume
from napari_msgan.pyramid import is_store

Paths = str | Sequence[str]
Reader = Callable[[Paths], list[LayerTuple]]


def get_reader(path: Paths) -> Reader | None:
    """Return the function that reads this path, or None if it is not for us.

    npe2 asks for every folder, whatever its name.
    """
    if not isinstance(path, str):
        return None
    if is_store(Path(path)):
        return read_store
    try:
        if format_of(path) in ("nifti", "dicom") or read_description(path) is not None:
            return read_image
    except (MsganError, OSError):
        pass
    return None


def read_store(path: Paths) -> list[LayerTuple]:
    """Return result and sketch of a store; the panel can continue it.

    Raises
    ------
    StoreError
        If it is damaged or of another version.
    """
    store = shared_store(str(path))
    geometry = store.geometry
    placement = Placement.of_affine(geometry.affine, geometry.unit)
    name = name_of(store)
    return [
        result_layer(store, placement, name),
        sketch_layer(store, placement, f"sketch of {name}"),
    ]


def read_image(path: Paths) -> list[LayerTuple]:
    """Return the image in a file, turned upright.

    Raises
    ------
    VolumeError
        If it is damaged, or not a grey 2-D or 3-D image.
    """
    name = Path(str(path)).name
    for suffix in (".gz", ".nii", ".dcm", ".zarr", ".tif", ".tiff", ".ome"):
        name = name.removesuffix(suffix)
    said = read_description(str(path))
    return [volume_layer(read_volume(str(path)), name, description=said)]
