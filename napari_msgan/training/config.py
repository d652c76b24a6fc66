"""The settings of a training run."""

from __future__ import annotations

import math
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from napari_msgan.config import MAX_BLOCK_VOXELS, ModelKind, Precision, ScaleSettings, StoredType
from napari_msgan.settings import Positive, Settings
from napari_msgan.sketch_settings import SketchSettings

Share = Annotated[float, Field(ge=0, le=1)]


def _ordered(values: tuple[float, float]) -> tuple[float, float]:
    if values[0] > values[1]:
        raise ValueError(f"{values} must go from low to high")
    return values


_Factor = Annotated[float, Field(ge=1e-3, le=1e3)]
Range = Annotated[tuple[_Factor, _Factor], AfterValidator(_ordered)]


def pattern_below(pattern: str) -> str:
    """Return `pattern`, which must be a pattern for files below a folder.

    Raises
    ------
    ValueError
        If it is empty, absolute, or leaves the folder through "..".
    """
    parts = PurePath(pattern).parts
    if not parts or PurePath(pattern).is_absolute() or ".." in parts:
        raise ValueError(
            f"{pattern!r} is not a pattern of files below a folder, such as '**/*.png'"
        )
    return pattern


Pattern = Annotated[str, AfterValidator(pattern_below)]


class ImageChanges(Settings):
    """How whole images are changed for scale 0; with all values zero, only shifted and scaled.

    turn : standard deviation of each off-diagonal entry of the affine matrix, roughly in radians.
    stretch : standard deviation of the logarithm of the stretch of each axis.
    view : range of the field of view, as a share of what `patch_shape` covers at the scale's
        spacing (physical models; relative ones see between 0.85 of the second longest side and the
        longest side).
    bend : standard deviation of a smooth displacement, as a share of the field of view.
    gamma : standard deviation of the logarithm of the exponent of the grey values; in CT only for
        values between air and water, which makes the lungs more or less inflated.
    flip : whether left and right are swapped half of the time; in patches of the finer scales of
        volumes also front and back.
    """

    turn: Annotated[float, Field(ge=0, le=0.5)] = 0.04
    stretch: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    view: Range = (0.75, 1.25)
    bend: Annotated[float, Field(ge=0, le=0.2)] = 0.0
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.0
    flip: bool = True


class SketchChanges(Settings):
    """How sketches are changed, so that models also work with drawn and foreign sketches.

    noise : standard deviation of the noise added to every sketch (paper: 0.01).
    share : how often `strength`, `weakest` and `gaps` are applied.
    strength : range of the factor that multiplies all values.
    weakest : edges below a random value, at most this one, are left out.
    gaps : up to about this share of the sketch is left out, in blocks 8 voxels wide.
    reduced : how often the sketch is reduced from the next finer scale, as given sketches are.
    """

    noise: Annotated[float, Field(ge=0)] = 0.01
    share: Share = 0.5
    strength: Range = (0.6, 1.5)
    weakest: Share = 0.1
    gaps: Share = 0.3
    reduced: Share = 0.25


class CoarseMixture(Settings):
    """What patches are conditioned on: the share of each kind of coarse image.

    true : the true coarse image.
    generated : what the coarser scale makes of the training image.
    blurred : the true one, blurred by up to `blur` voxels (Gaussian sigma), with noise.
    grey : blurred, and with other grey values.
    target : what patches with a generated coarse image are compared with: "truth", or "detail",
        which is the part of the truth that is finer than blocks of `kept` coarse voxels.
    kept : width in coarse voxels of the blocks whose means are kept where the coarse image cannot
        be true: for generated ones if `target` is "detail", and for grey ones.
    """

    true: Share = 0.25
    generated: Share = 0.25
    blurred: Share = 0.4
    grey: Share = 0.1
    blur: Annotated[float, Field(ge=0, le=8)] = 3.0
    target: Literal["detail", "truth"] = "truth"
    kept: Annotated[int, Field(ge=1, le=64)] = 4

    @model_validator(mode="after")
    def _sums_to_one(self) -> CoarseMixture:
        total = sum(self.shares)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares must sum to 1, got {total:g}")
        return self

    @property
    def shares(self) -> tuple[float, float, float, float]:
        return self.true, self.generated, self.blurred, self.grey


class ScaleTraining(ScaleSettings):
    """How one scale is trained.

    steps : number of optimiser steps; 0 takes the scale unchanged from the model that the run
        starts from.
    patch_shape : what one sample covers, in voxels of the scale (scale 0: the whole low-
        resolution image, cut or stretched to this shape).
    gan_from : share of the steps after which the adversarial loss is added to L1.
    dropout : share of the deepest channels that scale 0 leaves out, against overfitting; several
        devices leave out other channels than one device would.
    """

    steps: Annotated[int, Field(ge=0)]
    batch: Annotated[int, Field(ge=1, le=4096)] = 8
    patch_shape: tuple[Annotated[int, Field(ge=8, le=8192)], ...]
    discriminator_width: Annotated[int, Field(ge=4, le=1024)] = 32
    discriminator_strides: tuple[Literal[1, 2], ...] = (2, 2, 1)
    gan_from: Share = 0.3
    gan_weight: Annotated[float, Field(ge=0)] = 1.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _can_be_held(self) -> ScaleTraining:
        if math.prod(self.patch_shape) > MAX_BLOCK_VOXELS:
            raise ValueError(
                f"patch_shape {self.patch_shape} has more than {MAX_BLOCK_VOXELS} voxels"
            )
        return self

    @property
    def becomes_adversarial(self) -> bool:
        """Whether the discriminator takes part in any step."""
        return self.gan_weight > 0 and self.gan_from < 1


class TrainConfig(Settings):
    """Everything that determines a training run, apart from the data.

    include : patterns for the files below DATA.
    slice_mm : true slice thickness of the files that match a pattern, where the voxels were
        interpolated to less; a file trains no scale finer than 0.7 times its thickest axis.
    zoom : range of the random factor by which each source is resampled first.
    variants : how many times each source is resampled, each time by a different factor.
    pool : number of changed images that scale 0 is trained on.
    images, sketches, coarse : how samples are changed.
    validation_every : every n-th patient is kept out of training to monitor the loss; 0: none.
    patient : regular expression that finds the patient in the path of a file below DATA, as its
        first group or else its whole match; None: each file is of a different patient.
    stochastic : whether the model also adds `sketches.noise` when it generates, above scale 0.
    start_from : name or folder of a model whose generators are trained further, or None.
    warm_start : whether a finer scale starts from the weights of the coarser one.
    spectral_norm : whether the discriminator is spectrally normalised.
    accuracy_gate : the discriminator is not updated while its accuracy is above this share, as in
        the paper (which has no spectral_norm); None: it always is.
    average : decay per step of the running average of the weights, which are the ones saved;
        0: no averaging.
    precision : of the convolutions; "bf16" keeps weights and losses in float32.
    patience : scale 0 ends, once adversarial, after this share of its steps without a better
        validation loss; None: never. It needs validation_every.
    checkpoint_s : seconds between checkpoints, the most that an interruption costs.
    """

    name: str
    title: str = ""
    kind: ModelKind
    axes: tuple[Literal["z", "y", "x"], ...]
    orientation: str | None = None
    modality: str
    base_size: int
    tile_shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    sketch: SketchSettings = SketchSettings()
    window: tuple[float, float]
    dtype: StoredType
    licence: str = ""
    scales: Annotated[tuple[ScaleTraining, ...], Field(min_length=2, max_length=16)]
    include: tuple[Pattern, ...] = ("**/*",)
    slice_mm: dict[str, float] = Field(default_factory=dict)
    zoom: Range = (0.6, 0.95)
    variants: Annotated[int, Field(ge=1)] = 1
    pool: Annotated[int, Field(ge=1)] = 1500
    validation_every: Annotated[int, Field(ge=0)] = 0
    patient: str | None = None
    learning_rate: Positive = 2e-4
    l1_weight: Positive = 10.0
    images: ImageChanges = ImageChanges()
    sketches: SketchChanges = SketchChanges()
    coarse: CoarseMixture = CoarseMixture()
    stochastic: bool = False
    start_from: str | None = None
    warm_start: bool = True
    spectral_norm: bool = True
    accuracy_gate: Share | None = None
    average: Annotated[float, Field(ge=0, lt=1)] = 0.999
    precision: Precision = "bf16"
    patience: Annotated[float, Field(gt=0, le=1)] | None = 0.3
    checkpoint_s: Annotated[float, Field(ge=0)] = 60.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @property
    def noise(self) -> float:
        """The noise of the model, see `ModelSpec.noise`."""
        return self.sketches.noise if self.stochastic else 0.0
