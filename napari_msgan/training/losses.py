"""Losses of generators and discriminator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

from napari_msgan.networks.blocks import resize

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


def block_means(image: Tensor, block: Ints) -> Tensor:
    """Return means over blocks of about the given shape, which fill the image exactly."""
    counts = [max(1, round(n / b)) for n, b in zip(image.shape[2:], block, strict=True)]
    return functional.interpolate(image, counts, mode="area")


def detail(image: Tensor, block: Ints) -> Tensor:
    """Return what is finer than the blocks: the image minus their interpolated means."""
    return image - resize(block_means(image, block), image.shape[2:])


def discriminator_accuracy(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return the share of windows that are judged correctly (raw logits, threshold 0.5)."""
    right = (real_logits > 0.5).float().mean() + (fake_logits < 0.5).float().mean()
    return 0.5 * right
