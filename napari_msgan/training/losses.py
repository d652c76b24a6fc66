"""Losses of the generators and the discriminator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_msgan.networks.blocks import crop, reduce_mean, upsample

if TYPE_CHECKING:
    from torch import Tensor

    from napari_msgan.geometry import Ints


def lsgan_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return the least-squares loss of the discriminator (Mao et al., ICCV 2017)."""
    return 0.5 * ((real_logits - 1).square().mean() + fake_logits.square().mean())


def lsgan_generator(fake_logits: Tensor) -> Tensor:
    """Return the least-squares loss of the generator."""
    return (fake_logits - 1).square().mean()


def l1_per_sample(image: Tensor, truth: Tensor) -> Tensor:
    """Return the mean absolute difference of each sample, shape (N,)."""
    return (image - truth).abs().flatten(1).mean(1)


def high_pass(image: Tensor, factor: Ints) -> Tensor:
    """Return what the next coarser scale cannot show; the outer blocks are left out."""
    coarse = reduce_mean(image, factor)
    return crop(image - upsample(coarse, factor), factor)


def coarse_consistency(image: Tensor, coarse_core: Tensor, factor: Ints) -> Tensor:
    """Return how far block means of the image are from the coarse image, shape (N,)."""
    return l1_per_sample(reduce_mean(image, factor), coarse_core)


def discriminator_accuracy(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return the share of windows that the discriminator judges rightly (raw logits at 0.5)."""
    right = (real_logits > 0.5).float().mean() + (fake_logits < 0.5).float().mean()
    return 0.5 * right
