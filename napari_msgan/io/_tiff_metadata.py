"""Voxel sizes and notes in TIFF files: OME-XML, ImageJ's text, resolution tags."""

from __future__ import annotations

import math
import struct
import uuid
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from napari_msgan.io import _note
from napari_msgan.io._checks import is_spacing, mm_per, warn
from napari_msgan.multiscales import OUR_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tifffile import TiffFile

    from napari_msgan.geometry import Floats
    from napari_msgan.volume import Volume

#: ImageJ's code for a straight line, and those taken as no calibration (none, optical density).
_STRAIGHT_LINE, _UNCALIBRATED = 0, (20, 21)
#: mm per ResolutionUnit: 2 is the inch, 3 the centimetre; 1 gives only an aspect ratio.
_TAG_UNITS_MM = {2: 25.4, 3: 10.0}


def spacing_mm(path: Path, tif: TiffFile, ndim: int) -> Floats | None:
    """Return the voxel size of the first image in mm; None (unit: pixels) if it is not known."""
    sizes = _ome_sizes(tif) or _imagej_sizes(tif) or _tag_sizes(tif)
    axes = "ZYX"[-ndim:]
    missing = [axis for axis in axes if axis not in sizes]
    if len(missing) == ndim:
        return None
    spacing = tuple(sizes.get(axis, 0.0) for axis in axes)
    if not is_spacing(spacing):
        lacking = " and ".join(missing) or "some axis"
        warn(path, f"the voxel size {sizes} (mm) lacks {lacking}, so the unit is the voxel")
        return None
    return spacing


def imagej_calibration(path: Path, tif: TiffFile) -> tuple[float | None, float | None]:
    """Return the slope and intercept that ImageJ applies to grey values; None if it applies none.

    ImageJ stores signed integers as unsigned ones, 32768 larger, with an intercept of -32768.
    """
    metadata = tif.imagej_metadata or {}
    function = _number(metadata.get("cf"))
    if function is None or function in _UNCALIBRATED:
        return None, None
    intercept, slope = _number(metadata.get("c0")), _number(metadata.get("c1"))
    if function != _STRAIGHT_LINE or not (
        intercept is not None and slope and math.isfinite(intercept + slope)
    ):
        warn(path, "grey values are read as stored: ImageJ's calibration of them is not linear")
        return None, None
    return slope, intercept


def warn_of_lost_tags(path: Path, tif: TiffFile) -> None:
    """Warn if tifffile skipped tags, which it only logs: the voxel size may be among them."""
    page = tif.pages.first
    tif.filehandle.seek(page.offset)
    (declared,) = struct.unpack(tif.tiff.tagnoformat, tif.filehandle.read(tif.tiff.tagnosize))
    if len(page.tags) < declared:
        warn(
            path,
            f"{declared - len(page.tags)} of {declared} entries of the header cannot be read: the "
            "file may be cut off, and the voxel size or other information be lost",
        )


def note_of(tif: TiffFile) -> dict[str, Any] | None:
    """Return the note that we wrote into the OME-XML of a file, or None."""
    for comment in _ome_elements(tif, "CommentAnnotation"):
        if comment.get("Namespace") == OUR_KEY:
            return _note.from_text("".join(comment.itertext()))
    return None


def ome_metadata(volume: Volume, description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata that tifffile writes into the OME-XML of our files."""
    note = _note.to_text(_note.make_note(volume, description))
    metadata: dict[str, Any] = {
        "axes": "".join(volume.axes).upper(),
        "Description": _note.label(description),
        "CommentAnnotation": {"Namespace": OUR_KEY, "Value": note},
        "Creator": "napari-msgan",
        "UUID": str(uuid.uuid4()),  # tifffile's default reveals the computer's network address
    }
    if volume.unit == "millimeter":
        for axis, size in zip(volume.axes, volume.spacing, strict=True):
            metadata[f"PhysicalSize{axis.upper()}"] = size
            metadata[f"PhysicalSize{axis.upper()}Unit"] = "mm"
    return metadata


def _ome_elements(tif: TiffFile, name: str) -> Iterator[ElementTree.Element]:
    xml = tif.ome_metadata
    if xml:
        for element in ElementTree.fromstring(xml).iter():
            if element.tag.rpartition("}")[2] == name:
                yield element


def _ome_sizes(tif: TiffFile) -> dict[str, float]:
    sizes: dict[str, float] = {}
    pixels = next(_ome_elements(tif, "Pixels"), None)
    if pixels is None:
        return {}
    for axis in "ZYX":
        size = _number(pixels.get(f"PhysicalSize{axis}"))
        # The default of the schema is the micrometre.
        mm = mm_per(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        if size is not None and mm is not None:
            sizes[axis] = size * mm
    return sizes


def _imagej_sizes(tif: TiffFile) -> dict[str, float]:
    metadata = tif.imagej_metadata or {}
    mm = mm_per(str(metadata.get("unit", "")))
    if mm is None:
        return {}
    sizes = {axis: size * mm for axis, size in _pixels_in_tags(tif).items()}
    depth = _number(metadata.get("spacing", 1.0))  # ImageJ omits a depth of 1
    return sizes if depth is None or not sizes else {**sizes, "Z": abs(depth) * mm}


def _tag_sizes(tif: TiffFile) -> dict[str, float]:
    unit = tif.pages.first.tags.valueof("ResolutionUnit", 0)
    mm = _TAG_UNITS_MM.get(int(unit))
    return {} if mm is None else {axis: v * mm for axis, v in _pixels_in_tags(tif).items()}


def _pixels_in_tags(tif: TiffFile) -> dict[str, float]:
    """Return the pixel size along Y and X, in the unit of the resolution tags."""
    sizes = {}
    for axis in "YX":
        count, length = tif.pages.first.tags.valueof(f"{axis}Resolution", (0, 0))
        if count and length:
            sizes[axis] = length / count
    return sizes


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None
