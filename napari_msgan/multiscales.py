"""The ``ome`` attribute of OME-Zarr 0.5, for stores and exported images, and the key of our own.

References
----------
OME-Zarr 0.5, "multiscales" metadata, https://ngff.openmicroscopy.org/0.5/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_msgan.geometry import Floats, Unit

OME_VERSION = "0.5"
#: Key of our own attributes, and of our note in files of other formats.
OUR_KEY = "napari_msgan"


def ome_attributes(
    axes: Sequence[str], unit: Unit, levels: Sequence[tuple[Floats, Floats]], **more: object
) -> dict[str, Any]:
    """Return the ``ome`` attribute of an image whose levels are stored as ``0``, ``1``, ...

    Parameters
    ----------
    levels : spacing and translation of each level, in `unit`, finest first.
    more : further entries for the image, such as its name.
    """
    named: list[dict[str, str]] = [{"name": axis, "type": "space"} for axis in axes]
    if unit == "millimeter":  # "pixel" is not a unit of the format
        named = [{**axis, "unit": unit} for axis in named]
    datasets = [
        {
            "path": str(index),
            "coordinateTransformations": [
                {"type": "scale", "scale": list(spacing)},
                {"type": "translation", "translation": list(translation)},
            ],
        }
        for index, (spacing, translation) in enumerate(levels)
    ]
    return {
        "version": OME_VERSION,
        "multiscales": [{"axes": named, "datasets": datasets, **more}],
    }
