"""The attributes of a store: those of OME-Zarr 0.5 for every program, and our own beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_msgan.config import SKETCH_DESCRIPTION
from napari_msgan.errors import MsganError, NoStoreError, StoreError
from napari_msgan.folders import read_inside
from napari_msgan.multiscales import OME_VERSION, OUR_KEY, ome_attributes
from napari_msgan.pyramid.metadata import SCHEMA_VERSION, StoreInfo
from napari_msgan.settings import first_problem

if TYPE_CHECKING:
    from pathlib import Path

    from napari_msgan.geometry import Floats, PyramidGeometry


def is_store(folder: Path) -> bool:
    """Return whether a folder is a store; it may be damaged, which opening it would report."""
    try:
        content = json.loads(read_inside(folder, "zarr.json"))
        return "schema_version" in content["attributes"][OUR_KEY]
    except (MsganError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def level_place(geometry: PyramidGeometry, scale: int) -> tuple[Floats, Floats]:
    """Return the spacing and translation of the level of a scale.

    Translations include the (F - 1) / 2 shift of block averages. If a scale and a translation of
    OME-Zarr 0.5 cannot express the affine, they are along the image's own axes, from the centre of
    its first voxel; the exact affine is in our own attributes.
    """
    spacing = geometry.spacing_at(scale)
    if geometry.affine.is_upright:
        return spacing, geometry.affine_at(scale).origin
    factors, finest = geometry.total_factor(scale), geometry.affine.spacing
    return spacing, tuple((f - 1) / 2 * v for f, v in zip(factors, finest, strict=True))


def multiscale_of(geometry: PyramidGeometry, name: str, method: str) -> dict[str, Any]:
    """Return the ``ome`` attribute of an image with all its levels.

    name : name of the image.
    method : how the levels were made.
    """
    return ome_attributes(
        geometry.axes,
        geometry.unit,
        [level_place(geometry, scale) for scale in range(geometry.finest_scale, -1, -1)],
        name=name,
        type=method,
        metadata={"method": "napari_msgan", "description": method},
    )


def root_attributes(info: StoreInfo) -> dict[str, Any]:
    """Return the attributes of the root group."""
    method = "synthetic image of a multi-scale GAN"
    ome = multiscale_of(info.to_geometry(), info.model_name, method)
    return {"ome": ome, OUR_KEY: info.model_dump(mode="json")}


def sketch_attributes(info: StoreInfo) -> dict[str, Any]:
    """Return the attributes of the child group ``sketch``, which reads like an exported image."""
    method = "edges found at each scale"
    if info.sketch.given:
        is_thinned = info.sketch.settings.given == "thinned"
        method = "block maximum, thinned" if is_thinned else "interpolated from the finest scale"
    geometry = info.geometry.model_dump(mode="json")
    return {
        "ome": multiscale_of(info.to_geometry(), "sketch", method),
        OUR_KEY: {"description": SKETCH_DESCRIPTION, "geometry": geometry},
    }


def info_from_attributes(attributes: Mapping[str, Any]) -> StoreInfo:
    """Return the metadata in the root attributes of a store.

    Raises
    ------
    NoStoreError
        If they are those of an exported image.
    StoreError
        If they are missing, damaged, of another version, or of a store that was never finished.
    """
    ours, ome = attributes.get(OUR_KEY), attributes.get("ome")
    if not isinstance(ours, Mapping) or not isinstance(ome, Mapping):
        raise StoreError(
            f"the attributes 'ome' and {OUR_KEY!r} are not both there, so this is not a store of "
            "napari-msgan. Give the folder that `generate` wrote."
        )
    schema = ours.get("schema_version")
    if schema is None and "description" in ours:
        raise NoStoreError(
            "this is an exported image, not a store: nothing can be refined in it. Give the "
            "folder that `generate` wrote."
        )
    if schema != SCHEMA_VERSION or ome.get("version") != OME_VERSION:
        raise StoreError(
            f"the store has format {schema!r} (of napari-msgan {ours.get('version')!r}, OME-Zarr "
            f"{ome.get('version')!r}), this program reads format {SCHEMA_VERSION} of OME-Zarr "
            f"{OME_VERSION}. Use the version that wrote it, or generate the image again."
        )
    try:
        info = StoreInfo.model_validate(ours)
    except ValidationError as error:
        raise StoreError(
            f"the attributes {OUR_KEY!r} are damaged: {first_problem(error)}. "
            "Restore the file zarr.json, or generate the image again."
        ) from error
    if info.sketch.sha256 is None:
        raise StoreError("the sketch was never finished. Generate the image again.")
    return info
