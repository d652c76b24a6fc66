"""The settings of a training run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from napari_msgan.config import (
    ModelKind,
    Positive,
    ScaleSettings,
    Settings,
    SketchSettings,
    StoredType,
)


class ScaleTraining(ScaleSettings):
    """How one scale is trained.

    patch_shape : what one sample covers, in voxels of the scale (scale 0: the whole low-
        resolution image, cut or stretched to this shape).
    gan_from : share of the steps after which the adversarial loss joins L1.
    """

    steps: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)] = 8
    patch_shape: tuple[Annotated[int, Field(ge=8)], ...]
    discriminator_width: Annotated[int, Field(ge=4)] = 32
    discriminator_strides: tuple[Literal[1, 2], ...] = (2, 2, 1)
    gan_from: Annotated[float, Field(ge=0, le=1)] = 0.3
    gan_weight: Annotated[float, Field(ge=0)] = 1.0


class TrainConfig(Settings):
    """Everything that decides a training run, besides the data.

    include : patterns of the files below DATA.
    slice_mm : true slice thickness of the files that match a pattern, where the voxels were
        interpolated to less; a file trains no scale finer than 0.7 times its thickest axis.
    zoom : range of the random factor by which each source is resampled first.
    variants : how often each source is resampled, each time by another factor.
    pool : number of augmented images that scale 0 is trained on.
    generated_target : what patches from a generated coarse image are compared with: "detail", the
        high-pass band of the truth, or "truth", which also sharpens what the coarse image blurred.
    validation_every : each n-th file is kept out of training to watch the loss; 0 for none.
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
    include: tuple[str, ...] = ("**/*",)
    slice_mm: dict[str, float] = Field(default_factory=dict)
    zoom: tuple[Positive, Positive] = (0.6, 0.95)
    variants: Annotated[int, Field(ge=1)] = 1
    pool: Annotated[int, Field(ge=1)] = 1500
    validation_every: Annotated[int, Field(ge=0)] = 0
    learning_rate: Positive = 2e-4
    l1_weight: Positive = 10.0
    sketch_noise: Annotated[float, Field(ge=0)] = 0.01
    generated_target: Literal["detail", "truth"] = "detail"
    seed: int = 0
