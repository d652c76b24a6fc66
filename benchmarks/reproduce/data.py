"""The images that methods are compared on: one set of X-rays, one of CT volumes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from napari_msgan.model import bundled_folder, find_model
from napari_msgan.training import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

#: X-rays of the first group are of the hospital that the training images are of.
IN_DOMAIN = "kermany_"
_XRAY_VALIDATION_EVERY = 16


@dataclass(frozen=True)
class DataSet:
    """Images, and the settings that `ours` is trained with on them.

    training : folder of the images, of which `config.include` selects some.
    heldout : images of other patients.
    patch : side of a patch of the authors' layout, in voxels.
    whole_scale : the scale whose image the whole-image method makes at once.
    whole_tile : side of a tile that holds any image of that scale.
    tile : side of the tiles of exact generators when figures are measured.
    """

    name: str
    training: Path
    heldout: tuple[Path, ...]
    config: TrainConfig
    patch: int
    whole_scale: int
    whole_tile: int
    tile: int

    @property
    def ndim(self):
        return len(self.config.axes)

    @property
    def finest(self):
        return len(self.config.scales) - 1


def xray(data, work, size):
    """Return chest X-rays of children, reduced to `size` pixels on their longest side.

    This removes the 8-pixel blocks of their JPEG files, and gives scale 0 a size of 96 to 128
    pixels.
    """
    config = bundled_config("chest-xray")
    n_scales = 1
    while config.base_size << (n_scales - 1) < size:
        n_scales += 1
    if config.base_size << (n_scales - 1) != size or n_scales < 2:
        raise SystemExit(f"--xray-size {size}: choose 256, 512, 1024 or 2048")
    folder = work / "data" / f"xray-{size}"
    for part in ("train", "heldout"):
        _shrink(data / part / "xray2d", folder / part, size)
    config = config.model_copy(
        update={
            "scales": config.scales[:n_scales],
            "include": (f"{IN_DOMAIN}*.png",),
            "zoom": (0.75, 1.0),
            "validation_every": _XRAY_VALIDATION_EVERY,
        }
    )
    return DataSet(
        name=f"xray-{size}",
        training=folder / "train",
        heldout=tuple(sorted((folder / "heldout").glob("*.png"))),
        config=config,
        patch=96,
        whole_scale=n_scales - 1,
        whole_tile=size,
        tile=128,
    )


def ct(data, n_scales):
    """Return thorax CT from 12 mm on: to 3 mm with three scales, to 1.5 mm with four.

    The whole-image method makes 3 mm at the finest, which is what fits into memory.
    """
    config = bundled_config("thorax-ct")
    config = config.model_copy(
        update={"scales": config.scales[:n_scales], "include": ("ct3d/*.nii.gz",)}
    )
    finest = config.scales[-1].spacing_mm[0]
    return DataSet(
        name=f"ct-{finest:g}mm",
        training=data / "train",
        heldout=tuple(sorted((data / "heldout" / "ct3d").glob("*.nii.gz"))),
        config=config,
        patch=32,
        whole_scale=min(2, n_scales - 1),
        whole_tile=128,
        tile=64,
    )


def bundled_config(name):
    """Return the settings of a bundled model, except for the steps, which a budget decides."""
    path = find_model(bundled_folder() / name) / "training.json"
    config = TrainConfig.model_validate_json(path.read_bytes())
    scales = tuple(plan.model_copy(update={"steps": 1}) for plan in config.scales)
    return config.model_copy(update={"scales": scales, "patience": None, "name": "compared"})


def _shrink(source, target, size):
    """Write the pictures of a folder as PNG, `size` pixels on their longest side."""
    if not source.is_dir():
        raise SystemExit(f"{source} is missing: name the folder of the data with --data")
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        out = target / f"{path.stem}.png"
        if out.exists():
            continue
        with Image.open(path) as picture:
            grey = picture.convert("L")
        ratio = size / max(grey.size)
        shape = [round(n * ratio) for n in grey.size]
        partial = out.with_suffix(".partial")
        grey.resize(shape, Image.Resampling.LANCZOS, reducing_gap=3).save(partial, "PNG")
        partial.replace(out)
