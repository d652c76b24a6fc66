"""Patches of a tile are those of the whole image, for any shape, tile and order."""

import itertools

import numpy as np
import pytest
import torch

from napari_msgan.geometry import Affine, Box, PyramidGeometry
from napari_msgan.networks import patchwork
from napari_msgan.networks.megan import MeganLowResGenerator, MeganPatchGenerator
from napari_msgan.networks.patchwork import iter_patches, patch_starts
from napari_msgan.tiling import Tiling
from napari_msgan.volume import read_padded
from tests.megan import random_weights

FACTOR = (2, 2, 2)


@pytest.fixture(scope="module")
def generator():
    made = MeganPatchGenerator(4).eval().requires_grad_(False)
    made.load_state_dict(random_weights(4, low_res=False, seed=0))
    return made


def inputs_of(shape, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-1, 1, [-(-n // 2) for n in shape]).astype(np.float32)
    sketch = (rng.random(shape) * (rng.random(shape) < 0.1)).astype(np.float32)
    return coarse, sketch


def padded(image, before, after, value):
    return np.pad(image, list(zip(before, after, strict=True)), constant_values=value)


def whole_image(generator, coarse, sketch, stride=20, margin=6, last_counts=2):
    """Return the image as the authors make it: all patches, two sums, the outer frame replaced."""
    image = sketch.shape
    full = [max(32, n) for n in image]
    sketch = padded(sketch, (0, 0, 0), [f - n for f, n in zip(full, image, strict=True)], 0)
    coarse = padded(coarse, (8, 8, 8), (40, 40, 40), -1)
    sums, counts = np.zeros((2, *full)), np.zeros((2, *full))
    starts = [[*range(0, n - 32, stride), n - 32] for n in full]
    last = tuple(n - 32 for n in full)
    for start in itertools.product(*starts):
        seen = coarse[tuple(slice(a // 2, a // 2 + 32) for a in start)]
        drawn = sketch[tuple(slice(a, a + 32) for a in start)]
        made = generator(torch.tensor(seen)[None, None], torch.tensor(drawn)[None, None])[0, 0]
        times = last_counts if start == last else 1
        for which, cut in ((0, 0), (1, margin)):
            key = (which, *(slice(a + cut, a + 32 - cut) for a in start))
            sums[key] += times * made.numpy()[(slice(cut, 32 - cut),) * 3]
            counts[key] += times
    result = sums[0] / counts[0]
    inner = (slice(margin, -margin),) * 3
    result[inner] = (sums[1] / np.maximum(counts[1], 1))[inner]
    return result[tuple(slice(n) for n in image)]


def tiled(generator, coarse, sketch, tile_shape):
    shape = sketch.shape
    geometry = PyramidGeometry(
        ("z", "y", "x"), shape, (FACTOR,), Affine.of_spacing((1, 1, 1)), "pixel"
    )
    tiling = Tiling(geometry, tile_shape, ((0, 0, 0), generator.halo))
    result = np.full(shape, np.nan, np.float32)
    for tile in tiling.tiles(1, Box.of_shape(shape)):
        windows = tiling.windows(tile)
        read = [
            read_padded(coarse, windows.coarse.start, windows.coarse.stop),
            read_padded(sketch, windows.sketch.start, windows.sketch.stop),
        ]
        with torch.inference_mode():
            made = generator.tile(windows, *(torch.from_numpy(a[None, None]) for a in read))
        result[windows.core.slices] = made[0, 0].numpy()
    return result


SHAPES = [(64, 64, 64), (72, 33, 47), (20, 40, 70), (5, 9, 31), (52, 32, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_tiles_are_the_authors_whole_image(generator, shape):
    coarse, sketch = inputs_of(shape)
    expected = whole_image(generator, coarse, sketch)
    assert np.ptp(expected) > 0.1
    for tile_shape in ((64, 64, 64), (24, 40, 32)):
        result = tiled(generator, coarse, sketch, tile_shape)
        np.testing.assert_allclose(result, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("change", [{"stride": 16}, {"margin": 5}, {"last_counts": 1}], ids=str)
def test_another_stride_margin_or_weight_is_noticed(generator, change):
    coarse, sketch = inputs_of((72, 33, 64))
    other = whole_image(generator, coarse, sketch, **change)
    assert np.abs(tiled(generator, coarse, sketch, (64, 64, 64)) - other).max() > 1e-2


def test_tiles_of_other_shapes_have_the_same_bits(generator):
    coarse, sketch = inputs_of((72, 50, 47))
    one = tiled(generator, coarse, sketch, (96, 96, 96))
    np.testing.assert_array_equal(tiled(generator, coarse, sketch, (16, 24, 32)), one)


def test_halo_is_enough_and_half_of_it_is_not(generator):
    everywhere = Box.of_shape((90, 90, 90)).blocks((18, 18, 18))
    halo = np.array(generator.halo)

    def fits(halo):
        return all(
            box.cover(FACTOR).grow(tuple(halo)).contains(patch.coarse)
            and box.grow(tuple(2 * halo)).contains(patch.sketch)
            for box in everywhere
            for patch in iter_patches((90, 90, 90), box, FACTOR)
        )

    assert fits(halo)
    assert not fits(halo // 2)


def test_work_for_a_tile_does_not_grow_with_the_image():
    def count(size):
        box = Box((256,) * 3, (384,) * 3)
        return sum(1 for _ in iter_patches((size,) * 3, box, FACTOR))

    assert count(640) == count(6400) < 512


@pytest.mark.parametrize("size", [1, 31, 32, 33, 52, 64, 128, 1001])
def test_patches_cover_an_axis_and_stay_inside(size):
    starts = patch_starts(size)
    assert starts[0] == 0
    assert starts[-1] == max(0, size - patchwork.PATCH)
    assert all(0 < b - a <= 20 for a, b in itertools.pairwise(starts))


@pytest.mark.parametrize("shape", [(64, 64, 64), (36, 40, 34), (2, 18, 100)], ids=str)
def test_low_resolution_generator_takes_any_shape(shape):
    torch.manual_seed(0)
    generator = MeganLowResGenerator(2).eval()
    with torch.inference_mode():
        made = generator(torch.rand(1, 1, *shape))
    assert tuple(made.shape[2:]) == tuple(n // 2 for n in shape)
    assert bool(torch.isfinite(made).all())
    assert made.std() > 0
