"""What a trained scale makes of the training images, tile by tile, for the next scale to learn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_msgan.durable import create_array_file, patiently, sync_file
from napari_msgan.geometry import Box
from napari_msgan.noise import read_sketch
from napari_msgan.training.gan import to_tensor
from napari_msgan.training.sources import dequantise, quantise
from napari_msgan.volume import read_padded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lightning_fabric import Fabric

    from napari_msgan.intensity import Float32Array
    from napari_msgan.networks.generator import Generator
    from napari_msgan.training.config import TrainConfig
    from napari_msgan.training.sources import SourcePyramid


def iter_generate_coarse(
    generator: Generator,
    scale: int,
    pyramids: Sequence[SourcePyramid],
    config: TrainConfig,
    fabric: Fabric,
) -> Iterator[tuple[int, int]]:
    """Write a scale's result for every image that has a finer scale; yield (done, total)."""
    todo = [p for p in pyramids if p.n_scales > scale + 1]
    for done, pyramid in enumerate(todo, 1):
        path = pyramid.generated_path(scale)
        if not path.exists():
            partial = path.with_name(f".{path.name}.partial")
            shape = pyramid.shapes[scale]
            made = create_array_file(partial, np.uint16, shape)
            tile = config.tile_shape if scale else shape
            for box in Box.of_shape(shape).blocks(tile):
                made[box.slices] = quantise(
                    _generate(generator, scale, pyramid, box, config, fabric)
                )
            del made  # Windows cannot rename a file that is still mapped
            sync_file(partial)
            patiently(partial.replace, path)
        yield done, len(todo)


@torch.inference_mode()
def _generate(
    generator: Generator,
    scale: int,
    pyramid: SourcePyramid,
    box: Box,
    config: TrainConfig,
    fabric: Fabric,
) -> Float32Array:
    factor, inputs = config.scales[scale].factor, []
    if scale == 0:
        fine = box.multiply(factor)
    else:
        coarse = pyramid.generated(scale - 1)
        assert coarse is not None
        window = box.cover(factor).grow(generator.halo)
        inputs.append(dequantise(read_padded(coarse, window.start, window.stop)))
        fine = window.multiply(factor)
    sketch = pyramid.sketch(max(1, scale))  # scale 0 reads that of scale 1
    inputs.append(read_sketch(sketch, fine, config.noise, seed=0, scale=scale))
    with fabric.autocast():
        result = generator(*(to_tensor([array], fabric.device) for array in inputs))
    values: Float32Array = result[0, 0].float().cpu().numpy()
    return values[tuple(slice(n) for n in box.shape)]
