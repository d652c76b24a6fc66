"""The metadata of a store, kept as JSON in our own attributes."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import numpy as np
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from napari_msgan.config import (
    MAX_BLOCK_VOXELS,
    Factor,
    ModelKind,
    Precision,
    StoredType,
    check_window,
)
from napari_msgan.errors import StoreError
from napari_msgan.geometry import Affine, Box, Ints, PyramidGeometry, Unit
from napari_msgan.settings import Settings
from napari_msgan.sketch_settings import SketchSettings, SketchThresholds
from napari_msgan.tiling import Tiling
from napari_msgan.volume import Orientation

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA_VERSION: Final = 1
#: The machine of stores that name none.
USUAL_MACHINE: Final = "Linux x86-64"

#: Metadata may come from anybody: larger stores are refused.
MAX_CHUNKS = 2**25
MAX_COARSEST_VOXELS = 2**28

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Shape = tuple[Annotated[int, Field(ge=1, lt=2**31)], ...]
BlockShape = tuple[Annotated[int, Field(ge=1, le=8192)], ...]
Halo = tuple[Annotated[int, Field(ge=0, le=8192)], ...]
Matrix = tuple[tuple[float, ...], ...]
Share = Annotated[float, Field(ge=0, le=1)]


def check_sizes(
    geometry: PyramidGeometry, tile_shape: Ints, chunk_shape: Ints, halos: Sequence[Ints]
) -> None:
    """Check that a store stays below the largest sizes allowed.

    Raises
    ------
    ValueError
        If there are too many chunks, or a tile, what it reads, or scale 0 has too many voxels.
    """
    shapes = [geometry.shape_at(scale) for scale in range(geometry.n_scales)]
    if sum(Box.of_shape(s).cover(chunk_shape).size for s in shapes) > MAX_CHUNKS:
        raise ValueError(f"more than {MAX_CHUNKS} chunks of {chunk_shape}")
    for factor, halo in zip(((1,) * geometry.ndim, *geometry.factors), halos, strict=True):
        reads = (t // f + 2 * h for t, f, h in zip(tile_shape, factor, halo, strict=True))
        if max(math.prod(reads), math.prod(tile_shape)) > MAX_BLOCK_VOXELS:
            raise ValueError(f"a tile is, or reads, more than {MAX_BLOCK_VOXELS} voxels")
    if math.prod(geometry.shape_at(0)) > MAX_COARSEST_VOXELS:
        raise ValueError(f"scale 0 has more than {MAX_COARSEST_VOXELS} voxels")


class GeometryInfo(Settings):
    """`PyramidGeometry` as JSON; `shape` and `affine` are those of the finest scale."""

    axes: tuple[Literal["z", "y", "x"], ...]
    shape: Shape
    factors: Annotated[tuple[Factor, ...], Field(min_length=1, max_length=15)]
    affine: Matrix
    unit: Unit

    @model_validator(mode="after")
    def _is_a_geometry(self) -> GeometryInfo:
        if self.axes not in (("z", "y", "x"), ("y", "x")):
            raise ValueError(f"axes must be z, y, x or y, x, got {self.axes}")
        self.to_geometry()
        return self

    @classmethod
    def from_geometry(cls, geometry: PyramidGeometry) -> GeometryInfo:
        return cls.model_validate(
            {
                "axes": geometry.axes,
                "shape": geometry.shape,
                "factors": geometry.factors,
                "affine": geometry.affine.matrix.tolist(),
                "unit": geometry.unit,
            }
        )

    def to_geometry(self) -> PyramidGeometry:
        affine = Affine(np.array(self.affine, dtype=np.float64))
        return PyramidGeometry(self.axes, self.shape, self.factors, affine, self.unit)


class SourceInfo(Settings):
    """The source that the sketch was made from, as it was before it was permuted and flipped.

    order, flipped : how it was permuted and flipped (see `Orientation`).
    sha256 : hash of its shape, type and pixels.
    name : recorded only if the user asked for it, because file names may identify patients.
    honest_scale : finest scale whose detail the source supports.
    is_sketch : whether the source was given as a sketch.
    """

    shape: Shape
    affine: Matrix
    unit: Unit
    order: Ints
    flipped: tuple[bool, ...]
    sha256: Sha256
    name: str | None = None
    honest_scale: Annotated[int, Field(ge=0)]
    is_sketch: bool = False

    @model_validator(mode="after")
    def _is_a_volume(self) -> SourceInfo:
        n = len(self.shape)
        if self.to_affine().ndim != n or len(self.flipped) != n:
            raise ValueError(f"affine and flipped do not fit the shape {self.shape}")
        if sorted(self.order) != list(range(n)):
            raise ValueError(f"order {self.order} is not an order of {n} axes")
        return self

    @property
    def orientation(self) -> Orientation:
        return Orientation(self.order, self.flipped)

    def to_affine(self) -> Affine:
        return Affine(np.array(self.affine, dtype=np.float64))


class SketchInfo(Settings):
    """How the stored sketch was made.

    given : whether it was made from a given sketch, not from an image.
    thresholds : those of each scale, or None for a given sketch.
    sha256 : hash of the stored sketch; None until it is complete.
    edited : hash of both the sketch that was edited and its edited copy; None if it was not edited.
    """

    settings: SketchSettings
    given: bool
    thresholds: tuple[SketchThresholds, ...] | None = None
    sha256: Sha256 | None = None
    edited: Sha256 | None = None


class Fingerprint(Settings):
    """What determines the bits of a tile besides the model, the seed and the sketch.

    gpu : name of the GPU, if one computed and its name is known.
    machine : operating system and kind of processor, whose libraries round differently.
    arithmetic : version of the way in which this package computes in that precision.
    """

    device: Literal["cpu", "cuda"]
    precision: Precision
    torch: str
    tile_shape: BlockShape
    gpu: str | None = None
    machine: str = USUAL_MACHINE
    arithmetic: Annotated[int, Field(ge=1)] = 1

    @model_serializer(mode="wrap")
    def _without_unknown(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out fields with these default values, which earlier versions do not know."""
        written: dict[str, Any] = handler(self)
        unsaid = [("gpu", None), ("machine", USUAL_MACHINE), ("arithmetic", 1)]
        return {name: value for name, value in written.items() if (name, value) not in unsaid}

    def check_continued(self, new: Fingerprint, address: str) -> None:
        """Refuse a fingerprint whose tiles would not fit those in the store; warn if they may not.

        Raises
        ------
        StoreError
            If the device, the precision, its arithmetic or the tile shape differ.
        """
        for name in ("device", "precision", "tile_shape"):
            old, now = getattr(self, name), getattr(new, name)
            if old != now:
                raise StoreError(
                    f"{address} was generated with {name} {old}, now it would be {now}: the "
                    f"tiles would not fit together. Use {name} {old}, or generate a new store."
                )
        if self.arithmetic != new.arithmetic:
            raise StoreError(
                f"{address} was generated by another version of this program, which computes "
                f"{self.precision} in another way: the tiles would not fit together. Continue with "
                "that version, or generate a new store."
            )
        if self.torch != new.torch:
            warnings.warn(
                f"{address} was generated with torch {self.torch}, this is torch "
                f"{new.torch}: new tiles may differ in the last bit.",
                stacklevel=3,
            )
        if self.machine != new.machine:
            warnings.warn(
                f"{address} was generated on {self.machine}, this is {new.machine}: new tiles may "
                "differ in the last bit, in bfloat16 by more.",
                stacklevel=3,
            )
        if self.gpu and new.gpu and self.gpu != new.gpu:
            warnings.warn(
                f"{address} was generated on {self.gpu}, this is {new.gpu}: new tiles may differ "
                "in the last bit, in bfloat16 by more.",
                stacklevel=3,
            )


class StoreInfo(Settings):
    """All metadata of a store.

    version : version of the package that created it.
    model_sha256 : `ModelSpec.identity` of the model.
    model_path : folder that the model was loaded from; None if it is in the catalogue.
    halos : coarse voxels around a tile, per scale; zeros at scale 0.
    extra_scales : number of finest scales that reuse the last generator.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    version: str
    synthetic: Literal[True] = True
    model_name: str
    model_sha256: Sha256
    model_path: str | None = None
    modality: str
    kind: ModelKind
    window: tuple[float, float]
    dtype: StoredType
    exact: bool
    stochastic: bool
    seed: int
    tile_shape: BlockShape
    chunk_shape: BlockShape
    halos: tuple[Halo, ...]
    extra_scales: Annotated[int, Field(ge=0)] = 0
    geometry: GeometryInfo
    source: SourceInfo
    sketch: SketchInfo
    fingerprint: Fingerprint | None = None

    def sketch_scale(self, scale: int) -> int:
        """Return the scale of the stored sketch that the tiles of a scale read."""
        if self.sketch.given and self.sketch.settings.given == "interpolated":
            return len(self.halos) - 1  # coarser ones are rounded: good enough for viewing only
        return max(scale, 1)  # scale 0 reads the sketch of scale 1

    @model_validator(mode="after")
    def _fits_together(self) -> StoreInfo:
        geometry = self.to_geometry()
        blocks = (self.tile_shape, self.chunk_shape, self.source.shape, *self.halos)
        if any(len(block) != geometry.ndim for block in blocks):
            raise ValueError(f"tile, chunk, halo and source shapes need {geometry.ndim} numbers")
        if any(t % c for t, c in zip(self.tile_shape, self.chunk_shape, strict=True)):
            raise ValueError(f"tile_shape {self.tile_shape} is not whole chunks {self.chunk_shape}")
        for factor in geometry.factors:
            if any(t % f for t, f in zip(self.tile_shape, factor, strict=True)):
                raise ValueError(f"tile_shape {self.tile_shape} must be a multiple of {factor}")
        if len(self.halos) != geometry.n_scales or any(self.halos[0]):
            raise ValueError(f"halos {self.halos}: need one per scale, zeros at scale 0")
        if self.extra_scales > geometry.finest_scale:
            raise ValueError(f"extra_scales {self.extra_scales} of {geometry.n_scales} scales")
        thresholds = self.sketch.thresholds
        if thresholds is not None and len(thresholds) != geometry.n_scales:
            raise ValueError(f"{len(thresholds)} thresholds for {geometry.n_scales} scales")
        check_window(self.window, self.dtype)
        check_sizes(geometry, self.tile_shape, self.chunk_shape, self.halos)
        return self

    @property
    def dtype_type(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)

    @property
    def fill_value(self) -> np.number[Any]:
        """Return the value of voxels that are not refined: the low end of the window."""
        low: np.number[Any] = self.dtype_type.type(self.window[0])
        return low

    def to_geometry(self) -> PyramidGeometry:
        return self.geometry.to_geometry()

    def to_tiling(self) -> Tiling:
        return Tiling(self.to_geometry(), self.tile_shape, self.halos)
