"""Small models with random weights: real networks, real files, no training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_msgan.config import LowResNetwork, ModelSpec, PatchNetwork, ScaleSpec
from napari_msgan.model import save_spec, save_weights
from napari_msgan.networks import build_generator
from napari_msgan.sketch_settings import SketchSettings

if TYPE_CHECKING:
    from pathlib import Path


def write_model(
    folder: Path,
    *,
    ndim: int = 2,
    n_scales: int = 3,
    name: str = "small",
    base_size: int | None = None,
    factor: tuple[int, ...] | None = None,
    tile: int = 32,
    chunk: int = 16,
    seed: int = 0,
    strength: float = 3.0,
    noise: float = 0.0,
) -> Path:
    """Write a model folder: 2-D relative, or 3-D physical (finest spacing 1 mm).

    strength : of the last layer of the patch generators, so that they visibly change the image.
    """
    folder.mkdir(parents=True, exist_ok=True)
    factor = factor or (2,) * ndim
    physical = ndim == 3
    torch.manual_seed(seed)
    scales = []
    for index in range(n_scales):
        network = LowResNetwork(widths=(4, 8)) if index == 0 else PatchNetwork(width=6, blocks=1)
        generator = build_generator(network, factor)
        if index:
            with torch.no_grad():
                generator.tail.weight.mul_(strength * torch.rand_like(generator.tail.weight))
        file = f"scale_{index}.safetensors"
        coarser = [f ** (n_scales - 1 - index) for f in factor]
        scales.append(
            ScaleSpec(
                network=network,
                factor=factor,
                spacing_mm=tuple(float(c) for c in coarser) if physical else None,
                file=file,
                sha256=save_weights(generator, folder / file),
            )
        )
    spec = ModelSpec(
        name=name,
        kind="physical" if physical else "relative",
        axes=("z", "y", "x")[-ndim:],
        orientation="LPS" if physical else None,
        modality="CT" if physical else "XR",
        base_size=base_size or {2: 32, 3: 8}[ndim],
        scales=tuple(scales),
        tile_shape=(tile,) * ndim,
        chunk_shape=(chunk,) * ndim,
        sketch=SketchSettings(dilations=4),
        window=(-1000, 600) if physical else (0, 65535),
        dtype="int16" if physical else "uint16",
        stochastic=noise > 0,
        noise=noise,
    )
    save_spec(spec, folder)
    return folder
