"""The two networks of one scale and a single step of their optimisation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from napari_msgan.networks import LowResGenerator, PatchDiscriminator, build_generator
from napari_msgan.networks.blocks import crop, fold, upsample
from napari_msgan.training.cost import judged_channels
from napari_msgan.training.losses import (
    block_means,
    detail,
    discriminator_accuracy,
    l1_per_sample,
    lsgan_discriminator,
    lsgan_generator,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning_fabric import Fabric

    from napari_msgan.geometry import Ints
    from napari_msgan.intensity import Float32Array
    from napari_msgan.networks.build import Build
    from napari_msgan.training.config import TrainConfig
    from napari_msgan.training.samples import Sample

_BETAS = (0.5, 0.999)
_LAST_LEARNING_RATE = 0.02
#: Details are a hundredth of the range, wider bands a few hundredths: gains that even them out.
_GAINS = (4.0, 2.0)

Losses = dict[str, float]
NetworkT = TypeVar("NetworkT", bound=nn.Module)


@dataclass(frozen=True)
class Batch:
    """Samples as tensors, shape (N, 1, ...); `truthful` has shape (N,) and is 1 or 0."""

    sketch: Tensor
    image: Tensor
    coarse: Tensor | None
    truthful: Tensor

    @classmethod
    def of(cls, samples: Sequence[Sample], device: torch.device) -> Batch:
        coarse = [s.coarse for s in samples if s.coarse is not None]
        return cls(
            to_tensor([s.sketch for s in samples], device),
            to_tensor([s.image for s in samples], device),
            to_tensor(coarse, device) if coarse else None,
            torch.tensor([float(s.truthful) for s in samples], device=device),
        )

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The arguments of a generator."""
        return (self.sketch,) if self.coarse is None else (self.coarse, self.sketch)


def to_tensor(arrays: Sequence[Float32Array], device: torch.device | str) -> Tensor:
    """Stack arrays without channels into a batch, shape (N, 1, ...), in channels-last layout."""
    tensor = torch.from_numpy(np.stack(arrays)[:, None]).to(device)
    return tensor.to(memory_format=_layout(tensor.dim() - 2))


def _layout(ndim: int) -> torch.memory_format:
    return torch.channels_last if ndim == 2 else torch.channels_last_3d


class ScaleGan:
    """Generator with its running average, discriminator and optimisers of one scale.

    A least-squares GAN plus L1 [1]_; the discriminator is conditioned on sketch and coarse image.

    build : makes the generators; pass another one to compare other networks with the project's.

    References
    ----------
    .. [1] Uzunova et al., "Multi-scale GANs for memory-efficient generation of high resolution
       medical images", MICCAI 2019.
    """

    def __init__(
        self, config: TrainConfig, scale: int, fabric: Fabric, build: Build = build_generator
    ) -> None:
        self.config, self.plan = config, config.scales[scale]
        self.scale, self.fabric = scale, fabric
        torch.manual_seed(config.seed + scale)
        ndim = len(self.plan.factor)
        self.generator = self._place(build(self.plan.network, self.plan.factor))
        if isinstance(self.generator, LowResGenerator):
            self.generator.drop_out(self.plan.dropout)
        self.average = self._place(build(self.plan.network, self.plan.factor)).eval()
        self.average.requires_grad_(False)
        self.discriminator = self._place(
            PatchDiscriminator(
                ndim,
                judged_channels(self.plan.factor, low_res=scale == 0),
                self.plan.discriminator_width,
                self.plan.discriminator_strides,
                spectrally_normalised=config.spectral_norm,
            )
        )
        self.start_average()
        rate = config.learning_rate
        self._g_optimiser = torch.optim.Adam(self.generator.parameters(), rate, _BETAS)
        self._d_optimiser = torch.optim.Adam(self.discriminator.parameters(), rate, _BETAS)
        # Steps go through the wrapped networks, which share gradients between all processes.
        self._g, self._g_steps = fabric.setup(self.generator, self._g_optimiser)
        self._d, self._d_steps = fabric.setup(self.discriminator, self._d_optimiser)

    def _place(self, network: NetworkT) -> NetworkT:
        network.to(self.fabric.device)
        return network.to(memory_format=_layout(len(self.plan.factor)))  # type: ignore[call-overload,no-any-return]

    def start_average(self) -> None:
        """Start the running average from the generator's current weights."""
        self.average.load_state_dict(self.generator.state_dict())

    def parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Return everything whose state belongs in a checkpoint, by name."""
        return {
            "generator": self.generator,
            "average": self.average,
            "discriminator": self.discriminator,
            "g_optimiser": self._g_optimiser,
            "d_optimiser": self._d_optimiser,
        }

    def is_adversarial(self, step: int) -> bool:
        return self.plan.becomes_adversarial and step >= self.plan.gan_from * self.plan.steps

    def step(self, step: int, batch: Batch) -> Losses:
        """Update both networks and return the losses, averaged over all processes."""
        self._set_rate(step)
        # Each process has different samples, and drops different channels for them.
        torch.manual_seed(hash((self.config.seed, self.scale, step)) + self.fabric.global_rank)
        fake: Tensor = self._g(*batch.inputs)
        condition = self._condition(batch)
        losses: dict[str, Tensor] = {}
        adversarial = self.is_adversarial(step)
        if adversarial:
            real, false = self._judged(batch.image), self._judged(fake)
            losses |= self._discriminate(condition, real, false.detach())
        loss = self.config.l1_weight * self._distance(fake, batch)
        losses["l1"] = l1_per_sample(fake.detach(), batch.image).mean()
        if adversarial:
            self.discriminator.requires_grad_(False)
            with self.fabric.autocast():
                logits = self.discriminator(torch.cat([condition, false], 1)).float()
            self.discriminator.requires_grad_(True)
            convincing = lsgan_generator(logits)
            loss = loss + self.plan.gan_weight * convincing
            losses["adversarial"] = convincing.detach()
        self._g_steps.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self._g_steps.step()
        self._update_average(step)
        return self._shared(losses)

    def _set_rate(self, step: int) -> None:
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.plan.steps))
        share = _LAST_LEARNING_RATE + (1 - _LAST_LEARNING_RATE) * cosine
        for group in self._g_optimiser.param_groups:
            group["lr"] = self.config.learning_rate * share

    def _condition(self, batch: Batch) -> Tensor:
        """Return what the discriminator sees besides the image, on the image's grid."""
        factor, sketch = self.plan.factor, batch.sketch
        if batch.coarse is None:
            return fold(sketch, factor)
        sizes = zip(sketch.shape[2:], batch.image.shape[2:], strict=True)
        margin = [(a - b) // 2 for a, b in sizes]
        aligned = crop(upsample(batch.coarse, factor), margin)
        return torch.cat([crop(sketch, margin), aligned], 1)

    def _judged(self, image: Tensor) -> Tensor:
        """Return what the discriminator judges, besides the condition.

        At scale 0 that is the image. Above, it is what the scale adds, amplified, in two bands:
        what its coarse image cannot show, and everything finer than the blocks whose means it
        keeps. In the image itself, real and generated details differ by a hundredth of the range,
        and in 160 steps the discriminator found no difference (accuracy 0.50; amplified 8 times:
        0.98 after 90 steps).
        """
        if self.scale == 0:
            return image
        bands = zip(_GAINS, (self.plan.factor, self._kept_block()), strict=True)
        return torch.cat([gain * detail(image, block) for gain, block in bands], 1)

    def _kept_block(self) -> Ints:
        return tuple(f * self.config.coarse.kept for f in self.plan.factor)

    def _distance(self, fake: Tensor, batch: Batch) -> Tensor:
        """Return the L1 loss; for untruthful samples, only of what the scale can know."""
        whole = l1_per_sample(fake, batch.image)
        if batch.coarse is None:
            return whole.mean()
        block, kept = self._kept_block(), (self.config.coarse.kept,) * len(self.plan.factor)
        details = l1_per_sample(detail(fake, block), detail(batch.image, block))
        given = block_means(crop(batch.coarse, self._margin(batch)), kept)
        # Via the coarse grid, so that both have the same blocks even if these do not fit evenly.
        made = block_means(block_means(fake, self.plan.factor), kept)
        consistent = l1_per_sample(made, given)
        truthful = batch.truthful
        return (truthful * whole + (1 - truthful) * (details + consistent)).mean()

    def _margin(self, batch: Batch) -> Ints:
        """Return by how many coarse voxels the coarse image extends beyond the patch, per side."""
        coarse = cast("Tensor", batch.coarse)
        sizes = zip(coarse.shape[2:], batch.image.shape[2:], self.plan.factor, strict=True)
        return tuple((n - m // f) // 2 for n, m, f in sizes)

    def _discriminate(self, condition: Tensor, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        both = torch.cat([torch.cat([condition, real], 1), torch.cat([condition, fake], 1)])
        real_logits, fake_logits = self._d(both).float().chunk(2)
        loss = lsgan_discriminator(real_logits, fake_logits)
        accuracy = discriminator_accuracy(real_logits.detach(), fake_logits.detach())
        accuracy = cast("Tensor", self.fabric.all_reduce(accuracy, reduce_op="mean"))
        gate = self.config.accuracy_gate
        skipped = gate is not None and float(accuracy) > gate
        self._d_steps.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        if not skipped:
            self._d_steps.step()
        losses = {"discriminator": loss.detach(), "accuracy": accuracy}
        if gate is not None:
            losses["skipped"] = torch.tensor(float(skipped))
        return losses

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        decay = min(self.config.average, (1 + step) / (10 + step))
        pairs = zip(self.average.parameters(), self.generator.parameters(), strict=True)
        for average, current in pairs:
            average.lerp_(current, 1 - decay)

    def _shared(self, losses: dict[str, Tensor]) -> Losses:
        device = self.fabric.device  # fetched from it all at once
        values = torch.stack([losses[name].float().to(device) for name in sorted(losses)])
        if self.fabric.world_size > 1:
            values = cast("Tensor", self.fabric.all_reduce(values, reduce_op="mean"))
        return dict(zip(sorted(losses), values.tolist(), strict=True))

    def pictures(self, batch: Batch, made: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return sketch, result and truth of a batch on the image's grid, in [0, 1]."""
        sketch = self._condition(batch)
        sketch = sketch.amax(1, keepdim=True) if self.scale == 0 else sketch[:, :1]
        return sketch, (made + 1) / 2, (batch.image + 1) / 2

    @torch.inference_mode()
    def apply(self, batch: Batch) -> Tensor:
        """Run the running average of the generator on a batch; return float32."""
        with self.fabric.autocast():
            result: Tensor = self.average(*batch.inputs)
        return result.float()
