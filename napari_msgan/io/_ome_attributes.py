"""The ``multiscales`` attributes of OME-Zarr: 0.4 and 0.5 are read, 0.5 is written.

References
----------
OME-Zarr, https://ngff.openmicroscopy.org/0.4/ and https://ngff.openmicroscopy.org/0.5/.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_msgan.errors import VolumeError
from napari_msgan.geometry import Affine, Floats, Ints, Unit
from napari_msgan.io._checks import is_spacing, mm_per, warn
from napari_msgan.io._note import is_same_grid
from napari_msgan.multiscales import ome_attributes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import zarr

    from napari_msgan.volume import Volume

_READ_VERSIONS = ("0.4", "0.5")
_SPACE = ("z", "y", "x")


@dataclass(frozen=True)
class StoredImage:
    """What the attributes say about the finest level of an image.

    path : path of its array in the group.
    axes : names of the axes, in the order of the array.
    units : name of the unit, or None, per axis.
    scale, translation : per axis, in these units.
    """

    path: str
    axes: tuple[str, ...]
    units: tuple[str | None, ...]
    scale: tuple[float, ...]
    translation: tuple[float, ...]

    def kept_axes(self, path: Path, shape: Ints, *, is_volume: bool) -> list[int]:
        """Return which axes of the array are z, y and x; all others must have length 1.

        is_volume : keep z even if there is a single slice, which is a 2-D image otherwise.

        Raises
        ------
        VolumeError
            If another axis is longer, or the axes are not in the order z, y, x or y, x.
        """
        others = {a: n for a, n in zip(self.axes, shape, strict=True) if a not in _SPACE and n > 1}
        if others:
            found = ", ".join(f"{n} along {axis}" for axis, n in others.items())
            raise VolumeError(
                f"{path} is more than one image: it has {found} (t is time, c channels). Save "
                "one of them as a store of its own"
            )
        kept = [i for i, axis in enumerate(self.axes) if axis in _SPACE]
        if "".join(self.axes[i] for i in kept) not in ("zyx", "yx"):
            raise VolumeError(
                f"{path} has the axes {', '.join(self.axes)}; readable are z, y, x and y, x, in "
                "this order. Save it with its axes in that order"
            )
        return kept if is_volume or shape[kept[0]] > 1 else kept[-2:]

    def geometry(self, path: Path, kept: Sequence[int]) -> tuple[Affine, Unit]:
        """Return the affine and unit of the kept axes: mm if every axis has a unit of length."""
        scale = tuple(self.scale[i] for i in kept)
        mm = [mm_per(self.units[i]) for i in kept]
        if not is_spacing(scale):
            warn(path, f"the voxel size {scale} is wrong, so the unit is the voxel")
            return Affine(np.eye(len(kept) + 1)), "pixel"
        factors = [v for v in mm if v is not None]
        unit: Unit = "millimeter" if len(factors) == len(mm) else "pixel"
        if unit == "pixel":
            factors = [1.0] * len(mm)
            if len(set(scale)) > 1 or scale[0] != round(scale[0]):
                units = [self.units[i] for i in kept]
                warn(path, f"the voxel size {scale} has no unit of length: the units are {units}")
        spacing = [s * f for s, f in zip(scale, factors, strict=True)]
        origin = [self.translation[i] * f for i, f in zip(kept, factors, strict=True)]
        return Affine.of_spacing(spacing, origin), unit

    def is_on_grid_of(self, affine: Affine, kept: Sequence[int]) -> bool:
        """Return whether `attributes_of` would describe a volume with this affine the same way."""
        if affine.ndim != len(kept):
            return False
        told = Affine.of_spacing(affine.spacing, _translation(affine, affine))
        scale, translation = (tuple(v[i] for i in kept) for v in (self.scale, self.translation))
        return is_spacing(scale) and is_same_grid(told, Affine.of_spacing(scale, translation))


def find_image(path: Path, group: zarr.Group) -> StoredImage:
    """Return the first image in a group.

    Raises
    ------
    VolumeError
        If there is none, or it has another version of OME-Zarr.
    """
    attributes = group.attrs.asdict()
    ome: Any = attributes.get("ome", attributes)
    if not ome.get("multiscales"):
        names = ", ".join(sorted(group.keys())[:8]) or "nothing"
        raise VolumeError(
            f"{path} is a Zarr group without an OME-Zarr image; it contains {names}. "
            f"Give the image or array inside, for instance {path / names.split(',')[0]}"
        )
    image = ome["multiscales"][0]
    version = ome.get("version", image.get("version"))
    if version is not None and version not in _READ_VERSIONS:
        raise VolumeError(
            f"{path} is OME-Zarr {version}; readable are {' and '.join(_READ_VERSIONS)}. "
            "Convert it, for instance with ngff-zarr"
        )
    axes, finest = image["axes"], image["datasets"][0]
    scale, translation = _transform(finest["coordinateTransformations"], len(axes))
    # The transformation of the whole image, if there is one, is applied after that of the level.
    outer_scale, outer = _transform(image.get("coordinateTransformations", ()), len(axes))
    return StoredImage(
        path=str(finest["path"]),
        axes=tuple(str(axis["name"]).lower() for axis in axes),
        units=tuple(axis.get("unit") for axis in axes),
        scale=tuple(float(v) for v in scale * outer_scale),
        translation=tuple(float(v) for v in translation * outer_scale + outer),
    )


_TRANSFORMS: tuple[list[str], ...] = (
    [],
    ["identity"],
    ["scale"],
    ["translation"],
    ["scale", "translation"],
)


def _transform(steps: Sequence[Mapping[str, Any]], ndim: int) -> tuple[Any, Any]:
    """Return the scale and translation in a list of transformations, which come in that order."""
    if [step["type"] for step in steps] not in _TRANSFORMS:
        raise ValueError(
            f"coordinateTransformations {list(steps)}: known are scale, then "
            "translation, or identity"
        )
    found = {step["type"]: np.array(step.get(step["type"], 0), float) for step in steps}
    scale, translation = found.get("scale", np.ones(ndim)), found.get("translation", np.zeros(ndim))
    if scale.shape != (ndim,) or translation.shape != (ndim,):
        raise ValueError(f"coordinateTransformations {list(steps)} do not fit {ndim} axes")
    return scale, translation


def attributes_of(levels: Sequence[Volume], *, name: str) -> dict[str, Any]:
    """Return the content of the ``ome`` attribute for levels stored as ``0``, ``1``, ..."""
    finest = levels[0]
    places = [(level.spacing, _translation(level.affine, finest.affine)) for level in levels]
    return ome_attributes(finest.axes, finest.unit, places, name=name)


def _translation(affine: Affine, finest: Affine) -> Floats:
    """Return the position of voxel 0, in the world or along the image's own axes.

    Scale and translation cannot rotate or flip. If that is needed, levels are placed relative to
    voxel 0 of the finest, and the exact affine is in our own attributes.
    """
    if finest.is_upright:
        return affine.origin
    index = np.linalg.solve(finest.matrix, np.array([*affine.origin, 1.0]))[:-1]
    return tuple(float(v) for v in index * np.array(finest.spacing))
