"""How much memory and disk space a training run will take."""

from __future__ import annotations

import math
import os
from functools import lru_cache
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn

from napari_msgan.networks import PatchDiscriminator, PatchGenerator, build_generator, required_halo
from napari_msgan.training.sources import n_scales_reached

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_msgan.geometry import Ints
    from napari_msgan.training.config import ScaleTraining, TrainConfig
    from napari_msgan.training.survey import TrainingFile

#: Weights, gradients, two moments of Adam and the running average, all float32.
_BYTES_PER_WEIGHT = 20
#: Gradients and temporaries of the backward pass, on top of what the forward pass keeps.
_BACKWARD = 1.5
#: Bytes per voxel: image and sketch at every scale, and what each scale generates.
_CACHED = 2 + 1 + 2
_POOLED = 2


def free_memory_of(device: str) -> int:
    """Return the free memory in bytes of a GPU, or of this machine for any other device.

    device : "cuda" means the GPU of this process if several processes train together.
    """
    if device.startswith("cuda"):
        rank = os.environ.get("LOCAL_RANK", "0")
        free: int = torch.cuda.mem_get_info(f"cuda:{rank}" if device == "cuda" else device)[0]
        return free
    return int(psutil.virtual_memory().available)


def memory_short_of(
    config: TrainConfig, device: str, devices: int = 1
) -> tuple[int, int, int] | None:
    """Return (scale, bytes needed, bytes free) for the largest step, or None if it fits.

    devices : how many share a batch; on the CPU their processes also share the memory.
    """
    share = devices if device.startswith("cuda") else 1
    needed, scale = max(
        (memory_of(plan.model_copy(update={"batch": max(1, plan.batch // share)})), scale)
        for scale, plan in enumerate(config.scales)
        if plan.steps
    )
    free = free_memory_of(device)
    return (scale, needed, free) if needed > free else None


@lru_cache(maxsize=64)
def memory_of(plan: ScaleTraining) -> int:
    """Return roughly how many bytes a training step of one scale takes.

    What autograd keeps is counted in a pass over tensors without data.
    """
    low_res = plan.network.type == "low_res"
    with torch.device("meta"):
        generator = build_generator(plan.network, plan.factor)
        image = torch.empty((plan.batch, 1, *plan.patch_shape))
        if isinstance(generator, PatchGenerator):
            halo = required_halo(generator)
            core = [
                n // f + 2 * h for n, f, h in zip(plan.patch_shape, plan.factor, halo, strict=True)
            ]
            fine = [n * f for n, f in zip(core, plan.factor, strict=True)]
            inputs = [torch.empty((plan.batch, 1, *core)), torch.empty((plan.batch, 1, *fine))]
        else:
            fine = [n * f for n, f in zip(plan.patch_shape, plan.factor, strict=True)]
            inputs = [torch.empty((plan.batch, 1, *fine))]
        n_in = judged_channels(plan.factor, low_res=low_res)
        discriminator = PatchDiscriminator(
            len(plan.factor), n_in, plan.discriminator_width, plan.discriminator_strides
        )
        judged = torch.empty((2 * plan.batch, n_in, *plan.patch_shape))
        kept = _kept_bytes(generator, *inputs)
        if plan.becomes_adversarial:
            kept += _kept_bytes(discriminator, judged)
    weights = sum(p.numel() for p in generator.parameters())
    weights += sum(p.numel() for p in discriminator.parameters())
    samples = 4 * (sum(i.numel() for i in inputs) + image.numel() + judged.numel())
    return round(_BYTES_PER_WEIGHT * weights + _BACKWARD * kept + samples)


def judged_channels(factor: Ints, *, low_res: bool) -> int:
    """Return how many channels the discriminator of a scale sees.

    They are sketch, coarse image, and the image in two bands. At scale 0 the sketch is folded,
    there is no coarse image, and the image is one channel.
    """
    return math.prod(factor) + 1 if low_res else 4


def _kept_bytes(network: nn.Module, *inputs: Tensor) -> int:
    kept: dict[int, int] = {}

    def remember(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        result = network(*inputs)
    del result
    return sum(kept.values())


def disk_of(config: TrainConfig, files: Sequence[TrainingFile]) -> int:
    """Return roughly how many bytes the resampled images and checkpoints take on disk."""
    finest = config.scales[-1]
    # Larger images are reduced to the finest scale, at most sqrt(factor) times its size.
    longest = config.base_size * finest.factor[-1] ** (len(config.scales) - 0.5)
    voxels, zoom = 0.0, config.zoom[1]
    for file in files:
        own_finest = config.scales[max(n_scales_reached(file, config), 1) - 1]
        if own_finest.spacing_mm and file.spacing:
            shape = [
                n * mm / new * zoom
                for n, mm, new in zip(file.shape, file.spacing, own_finest.spacing_mm, strict=True)
            ]
        else:
            shape = [n * min(zoom, longest / max(file.shape)) for n in file.shape]
        voxels += math.prod(shape)
    coarser = 1 / (1 - 1 / math.prod(finest.factor)) if math.prod(finest.factor) > 1 else 1
    first = config.scales[0]
    pooled = math.prod(first.patch_shape) * (_POOLED + math.prod(first.factor)) * config.pool
    with torch.device("meta"):
        networks = [build_generator(plan.network, plan.factor) for plan in config.scales]
    weights = sum(p.numel() for network in networks for p in network.parameters())
    return round(
        voxels * coarser * _CACHED * config.variants + pooled + 2 * _BYTES_PER_WEIGHT * weights
    )
