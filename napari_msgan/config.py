"""The content of ``model.json``: the description of a model."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import operator
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from napari_msgan.settings import Positive, Settings
from napari_msgan.sketch_settings import SketchSettings

SCHEMA_VERSION = 1

#: Descriptions may come from anybody: none may ask for more voxels in one piece than this (512^3).
MAX_BLOCK_VOXELS = 2**27

ModelKind = Literal["physical", "relative"]
StoredType = Literal["int16", "uint16", "float32"]
Precision = Literal["fp32", "bf16"]
_LIMITS = {
    "int16": (-(2**15), 2**15 - 1),
    "uint16": (0, 2**16 - 1),
    "float32": (-math.inf, math.inf),
}

Factor = tuple[Annotated[int, Field(ge=1, le=8)], ...]


def _check_short_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        raise ValueError(
            f"a model's short name has 1 to 64 small letters, digits and . _ -, a letter or digit "
            f"first, got {name!r}"
        )
    return name


def short_name(text: str, default: str) -> str:
    """Turn a text into a valid short name of a model; `default` if nothing of it can be kept.

    Examples
    --------
    >>> short_name("My Scans (2)", "model")
    'my-scans-2'
    """
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64] or default


def check_window(window: tuple[float, float], dtype: StoredType) -> None:
    """Check that an intensity window rises, and that the stored type can hold it.

    Raises
    ------
    ValueError
        If it does not, or the type cannot.
    """
    low, high = window
    if low >= high:
        raise ValueError(f"window {window} must go from low to high")
    least, most = _LIMITS[dtype]
    if not least <= low < high <= most or (dtype != "float32" and not low.is_integer()):
        raise ValueError(f"window {window} does not fit {dtype}")


class LowResNetwork(Settings):
    """Residual U-Net on the whole image of scale 0.

    widths : channels at each depth.
    upsampling : how one depth is upsampled to the one above. ``"nearest"``, the default for models
        that do not say, repeats voxels; where the sketch is empty this shows as a woven texture.
    """

    type: Literal["low_res"] = "low_res"
    widths: Annotated[
        tuple[Annotated[int, Field(ge=1, le=1024)], ...], Field(min_length=1, max_length=8)
    ] = (32, 64, 128, 256)
    upsampling: Literal["nearest", "linear"] = "nearest"


class PatchNetwork(Settings):
    """Residual network of valid (unpadded) convolutions on the coarse grid."""

    type: Literal["patch"] = "patch"
    width: Annotated[int, Field(ge=1, le=1024)] = 48
    blocks: Annotated[int, Field(ge=1, le=64)] = 5


Network = Annotated[LowResNetwork | PatchNetwork, Field(discriminator="type")]


class MeganLowResNetwork(Settings):
    """Low-resolution generator with the layout of the method's authors (3-D, factor 2)."""

    type: Literal["megan_low_res"] = "megan_low_res"
    width: Annotated[int, Field(ge=1, le=256)] = 64


class MeganPatchNetwork(Settings):
    """High-resolution generator with the layout of the method's authors (3-D, factor 2).

    Its instance normalisation makes each voxel depend on the patch in which it is computed.
    """

    type: Literal["megan_patch"] = "megan_patch"
    width: Annotated[int, Field(ge=1, le=256)] = 64


AnyNetwork = Annotated[
    LowResNetwork | PatchNetwork | MeganLowResNetwork | MeganPatchNetwork,
    Field(discriminator="type"),
]
_WHOLE_IMAGE_NETWORKS = ("low_res", "megan_low_res")
_MEGAN_NETWORKS = ("megan_low_res", "megan_patch")

#: What users are told about models and images with ``"exact": false``.
INEXACT_NOTE = (
    "not exact: voxels depend on the tile (the patch) that they are made in, because the networks "
    "normalise each patch by itself"
)
#: Description stored with edges that were found in an image.
SKETCH_DESCRIPTION = {
    "content": "sketch",
    "notice": "The edges of a patient's image are that patient's data.",
}


class EdgeCondition(Settings):
    """The generators read the sketch."""

    kind: Literal["edge"] = "edge"


class ScaleGrid(Settings):
    """The voxel grid of a scale.

    factor : how much finer this scale is than the previous one, per axis; at scale 0, how much
        finer the sketch that it reads is, which is the factor of scale 1.
    spacing_mm : voxel size in mm per axis; physical models only.
    """

    factor: Factor
    spacing_mm: tuple[Positive, ...] | None = None
    experimental: str | None = None


class ScaleSettings(ScaleGrid):
    """A scale to be trained."""

    network: Network


class ScaleSpec(ScaleGrid):
    """A trained scale; its network may be of a type that this package cannot train."""

    network: AnyNetwork
    file: Annotated[str, Field(pattern=r"^scale_\d+\.safetensors$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ModelSpec(Settings):
    """The content of ``model.json``.

    kind : "physical" (voxel sizes in mm) or "relative" (the source's own pixels).
    base_size : longest side of the training images at scale 0, in voxels.
    window : intensities that the networks' -1 and 1 stand for.
    stochastic : whether another seed gives another image.
    noise : standard deviation of the noise added to the sketch above scale 0, as in training, to
        give regions without edges a texture; stochastic models only.
    """

    schema_version: Literal[1] = 1
    name: Annotated[str, AfterValidator(_check_short_name)]
    title: str = ""
    kind: ModelKind
    axes: tuple[Literal["z", "y", "x"], ...]
    orientation: str | None = None
    modality: str
    base_size: Annotated[int, Field(ge=8, le=4096)]
    scales: Annotated[tuple[ScaleSpec, ...], Field(min_length=2, max_length=16)]
    tile_shape: tuple[Annotated[int, Field(ge=1, le=8192)], ...]
    chunk_shape: tuple[Annotated[int, Field(ge=1, le=8192)], ...]
    conditions: Annotated[tuple[EdgeCondition, ...], Field(min_length=1, max_length=1)] = (
        EdgeCondition(),
    )
    sketch: SketchSettings = SketchSettings()
    window: tuple[float, float]
    dtype: StoredType
    exact: bool = True
    stochastic: bool = False
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    licence: str = ""

    @model_validator(mode="after")
    def _fits_together(self) -> ModelSpec:
        n = len(self.axes)
        if self.axes not in (("z", "y", "x"), ("y", "x")):
            raise ValueError(f"axes must be z, y, x or y, x, got {self.axes}")
        check_window(self.window, self.dtype)
        if len(self.tile_shape) != n or len(self.chunk_shape) != n:
            raise ValueError(f"tile_shape and chunk_shape need {n} numbers")
        if math.prod(self.tile_shape) > MAX_BLOCK_VOXELS or self.base_size**n > MAX_BLOCK_VOXELS:
            raise ValueError(
                f"tile_shape {self.tile_shape} or base_size {self.base_size}: more than "
                f"{MAX_BLOCK_VOXELS} voxels at once"
            )
        if any(t % c for t, c in zip(self.tile_shape, self.chunk_shape, strict=True)):
            raise ValueError(
                f"tile_shape {self.tile_shape} must be whole chunks {self.chunk_shape}"
            )
        if self.scales[0].factor != self.scales[1].factor:
            raise ValueError("scale 0 reads the sketch of scale 1: their factors must be equal")
        for index, scale in enumerate(self.scales):
            if len(scale.factor) != n:
                raise ValueError(f"scale {index}: factor {scale.factor} needs {n} numbers")
            if any(t % f for t, f in zip(self.tile_shape, scale.factor, strict=True)):
                raise ValueError(f"scale {index}: tile_shape must be a multiple of {scale.factor}")
            if (scale.network.type in _WHOLE_IMAGE_NETWORKS) != (index == 0):
                raise ValueError(
                    f"scale {index} cannot have a network of type {scale.network.type}"
                )
            if scale.network.type in _MEGAN_NETWORKS and scale.factor != (2, 2, 2):
                raise ValueError(
                    f"scale {index}: a network of type {scale.network.type} needs the factor "
                    f"(2, 2, 2), got {scale.factor}"
                )
            if (self.kind == "physical") != (scale.spacing_mm is not None):
                raise ValueError(
                    "a physical model has spacing_mm at each scale, a relative has none"
                )
        self._check_grids()
        if self.stochastic != (self.noise > 0):
            raise ValueError(
                f"stochastic is {self.stochastic}, but noise is {self.noise:g}: the random part of "
                "a model is its noise"
            )
        inexact = any(scale.network.type in _MEGAN_NETWORKS for scale in self.scales)
        if self.exact == inexact:
            raise ValueError(
                f"exact is {self.exact}, but the networks of this model are "
                f"{'not ' if inexact else ''}exact"
            )
        if self.kind == "physical" and self.orientation is None and n == 3:
            raise ValueError("a physical 3-D model needs an orientation such as 'LPS'")
        return self

    def _check_grids(self) -> None:
        """Check that the factors of scales match their voxel sizes."""
        if self.kind == "relative":
            factors = {scale.factor[-1] for scale in self.scales}
            if min(factors) < 2:
                raise ValueError("each scale of a relative model must make the last axis finer")
            if len(factors) > 1:  # the number of scales of an image is computed from one factor
                raise ValueError(
                    "the scales of a relative model must have the same factor along the last axis, "
                    f"got {', '.join(map(str, sorted(factors)))}"
                )
        for index, (coarse, fine) in enumerate(itertools.pairwise(self.scales), 1):
            if coarse.spacing_mm is None or fine.spacing_mm is None:
                continue
            expected = [mm * f for mm, f in zip(fine.spacing_mm, fine.factor, strict=True)]
            pairs = zip(coarse.spacing_mm, expected, strict=True)
            if not all(math.isclose(a, b, rel_tol=1e-3) for a, b in pairs):
                raise ValueError(
                    f"scale {index}: with factor {fine.factor} its voxels of {fine.spacing_mm} mm "
                    f"do not make those of {coarse.spacing_mm} mm before it"
                )

    @property
    def n_scales(self) -> int:
        return len(self.scales)

    @property
    def longest_sides(self) -> list[int]:
        """Return the longest side of training images in pixels, per scale (relative models)."""
        finer = (scale.factor[-1] for scale in self.scales[1:])
        return list(itertools.accumulate(finer, operator.mul, initial=self.base_size))

    @property
    def identity(self) -> str:
        """Return the sha256 of everything that determines what the model computes."""
        content = self.model_dump(mode="json", exclude={"title", "licence"})
        # defaults are left out, so that models made before these options keep their hash
        if self.sketch.given == "thinned":
            del content["sketch"]["given"]
        if self.noise == 0:
            del content["noise"]
        for scale in content["scales"]:
            if scale["network"].get("upsampling") == "nearest":
                del scale["network"]["upsampling"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
