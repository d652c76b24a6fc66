"""Losses by hand, and bands of an image: what blocks of voxels keep, and what is finer."""

import pytest
import torch

from napari_msgan.training.losses import (
    block_means,
    detail,
    discriminator_accuracy,
    l1_per_sample,
    lsgan_discriminator,
    lsgan_generator,
)


@pytest.mark.parametrize(
    ("shape", "block", "counts"),
    [((16, 24), (8, 8), (2, 3)), ((8, 16, 24), (4, 8, 8), (2, 2, 3)), ((20, 3), (8, 8), (2, 1))],
    ids=["2-D", "anisotropic 3-D", "blocks that do not fit"],
)
def test_blocks_fill_the_image(shape, block, counts):
    image = torch.rand(2, 1, *shape)
    means = block_means(image, block)
    assert means.shape == (2, 1, *counts)
    assert detail(image, block).shape == image.shape
    first = (slice(None), slice(None), *(slice(n // c) for n, c in zip(shape, counts, strict=True)))
    inside = image[first].flatten(1).mean(1)
    torch.testing.assert_close(means.flatten(1)[:, 0], inside)


def test_detail_is_what_is_finer_than_the_blocks():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    ramp = (0.01 * x)[None, None]
    fine = torch.cos(torch.pi * (x + y))[None, None]  # a checkerboard
    wide = torch.cos(2 * torch.pi * x / 64)[None, None]
    inside = (..., slice(8, -8), slice(8, -8))
    torch.testing.assert_close(detail(ramp, (8, 8))[inside], 0 * ramp[inside], atol=1e-6, rtol=0)
    torch.testing.assert_close(detail(ramp + fine, (8, 8))[inside], fine[inside])
    assert detail(wide, (8, 8)).std() < 0.1 * wide.std()
    assert detail(wide, (64, 64)).std() > 0.9 * wide.std()


def test_least_squares_losses_by_hand():
    real, fake = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 2.0]])
    assert lsgan_discriminator(real, fake) == 2  # half of 4 / 2 away from 1, and of 4 / 2 from 0
    assert lsgan_generator(fake) == 1
    assert lsgan_generator(torch.tensor([[4.0, 1.0]])) == 4.5
    assert lsgan_discriminator(torch.ones(2), torch.zeros(2)) == lsgan_generator(torch.ones(2)) == 0


def test_accuracy_is_the_mean_of_that_for_real_and_for_made_windows():
    real, fake = torch.tensor([0.6, 0.7, 0.4, 5.0]), torch.tensor([0.6, 0.4])
    assert discriminator_accuracy(real, fake) == (3 / 4 + 1 / 2) / 2
    undecided = torch.full((3,), 0.5)  # right about neither
    assert discriminator_accuracy(undecided, undecided) == 0


def test_distance_of_each_sample_is_its_own_mean():
    image = torch.ones(2, 1, 2, 3)
    truth = torch.stack([torch.full((1, 2, 3), -1.0), torch.arange(1.0, 7).reshape(1, 2, 3)])
    assert l1_per_sample(image, truth).tolist() == [2, 2.5]
