"""Tiled output equals whole-image output, for every patch generator that the project ships."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_msgan.config import PatchNetwork
from napari_msgan.geometry import Affine, Box, PyramidGeometry
from napari_msgan.model import bundled_folder, load_folder
from napari_msgan.networks import build_generator, required_halo
from napari_msgan.tiling import Tiling
from napari_msgan.volume import read_padded

TOLERANCE = 1e-5


def fresh(factor, width=8, blocks=2):
    torch.manual_seed(1)
    generator = build_generator(PatchNetwork(width=width, blocks=blocks), factor).eval()
    with torch.no_grad():
        generator.tail.weight.mul_(20 * torch.rand_like(generator.tail.weight))
    return generator


def shipped():
    for folder in sorted(bundled_folder().glob("*/model.json")):
        model = load_folder(folder.parent)
        for scale in range(1, model.spec.n_scales):
            yield pytest.param(model.generators[scale], id=f"{model.spec.name}-{scale}")


NETWORKS = [
    *shipped(),
    pytest.param(fresh((2, 2)), id="fresh-2d"),
    pytest.param(fresh((2, 2, 2)), id="fresh-3d"),
    pytest.param(fresh((1, 2, 2)), id="fresh-thick-slices"),
    pytest.param(fresh((3, 2)), id="fresh-factor-3"),
]


def window_output(generator, coarse, sketch, core, halo):
    """Return the output of a fine box on the coarse grid; it may leave the image."""
    window = core.cover(generator.factor).grow(halo)
    fine = window.multiply(generator.factor)
    inputs = [
        read_padded(coarse, window.start, window.stop),
        read_padded(sketch, fine.start, fine.stop),
    ]
    with torch.inference_mode():
        return generator(*(torch.from_numpy(a[None, None]) for a in inputs))[0, 0].numpy()


def inputs_for(generator, coarse_shape, odd, seed):
    rng = np.random.default_rng(seed)
    shape = [n * f - o for n, f, o in zip(coarse_shape, generator.factor, odd, strict=True)]
    coarse = rng.uniform(-1, 1, coarse_shape).astype(np.float32)
    sketch = (rng.random(shape) * (rng.random(shape) < 0.1)).astype(np.float32)
    return coarse, sketch


def compare(generator, coarse, sketch, tile_shape, halo):
    """Return the largest difference of all tiles to the whole image, and the image's range."""
    shape, ndim = sketch.shape, sketch.ndim
    axes = ("z", "y", "x")[-ndim:]
    geometry = PyramidGeometry(
        axes, shape, (generator.factor,), Affine.of_spacing((1,) * ndim), "pixel"
    )
    tiling = Tiling(geometry, tile_shape, ((0,) * ndim, halo))
    everything = Box.of_shape(coarse.shape).multiply(generator.factor)
    inside = Box.of_shape(shape)
    true_halo = required_halo(generator)
    whole = window_output(generator, coarse, sketch, everything, true_halo)[inside.slices]
    trim = tuple(t - h for t, h in zip(true_halo, halo, strict=True))
    worst = 0.0
    for tile in tiling.tiles(1, inside):
        window = tiling.coarse_window(tile)
        full = tiling.grid(1).full_box(tile.index)
        if any(trim):
            # too small a halo: what is missing is filled with the tile's own border, as many do
            block = read_padded(coarse, window.start, window.stop)
            fine = window.multiply(generator.factor)
            lines = read_padded(sketch, fine.start, fine.stop)
            block = np.pad(block, [(t, t) for t in trim], mode="edge")
            lines = np.pad(
                lines,
                [(t * f, t * f) for t, f in zip(trim, generator.factor, strict=True)],
                mode="edge",
            )
            with torch.inference_mode():
                values = generator(*(torch.from_numpy(a[None, None]) for a in (block, lines)))[
                    0, 0
                ].numpy()
        else:
            values = window_output(generator, coarse, sketch, full, halo)
        core = tiling.core(tile)
        difference = values[tuple(slice(n) for n in core.shape)] - whole[core.slices]
        worst = max(worst, float(np.abs(difference).max()))
    return worst, float(whole.max() - whole.min())


@pytest.mark.parametrize("generator", NETWORKS)
@settings(max_examples=6)
@given(st.data())
def test_tiled_output_equals_whole_image_output(generator, data):
    ndim = len(generator.factor)
    sizes = st.integers(3, 40 if ndim == 2 else 14)
    coarse_shape = tuple(data.draw(sizes) for _ in range(ndim))
    odd = tuple(data.draw(st.integers(0, f - 1)) for f in generator.factor)
    tile_shape = tuple(
        f * data.draw(st.integers(2, 20 if ndim == 2 else 8)) for f in generator.factor
    )
    coarse, sketch = inputs_for(generator, coarse_shape, odd, data.draw(st.integers(0, 99)))
    worst, spread = compare(generator, coarse, sketch, tile_shape, required_halo(generator))
    assert worst <= TOLERANCE
    assert spread > 0.1


@pytest.mark.parametrize("generator", NETWORKS)
def test_half_the_halo_changes_the_output(generator):
    ndim = len(generator.factor)
    coarse, sketch = inputs_for(generator, (24,) * ndim, (0,) * ndim, 0)
    halo = tuple(h // 2 for h in required_halo(generator))
    worst, _ = compare(generator, coarse, sketch, tuple(8 * f for f in generator.factor), halo)
    assert worst > 10 * TOLERANCE


@pytest.mark.parametrize("generator", NETWORKS)
def test_halo_is_the_border_that_the_forward_pass_uses_up(generator):
    ndim, halo = len(generator.factor), required_halo(generator)
    n = 2 * max(halo) + 3
    coarse = torch.zeros(1, 1, *(n,) * ndim)
    sketch = torch.zeros(1, 1, *(n * f for f in generator.factor))
    with torch.inference_mode():
        made = generator(coarse, sketch)
    assert tuple(made.shape[2:]) == tuple(
        (n - 2 * h) * f for h, f in zip(halo, generator.factor, strict=True)
    )


@pytest.mark.parametrize("generator", NETWORKS)
def test_voxel_depends_on_its_halo_and_not_beyond(generator):
    ndim, halo = len(generator.factor), required_halo(generator)
    n = 2 * max(halo) + 3
    middle = n // 2
    torch.manual_seed(0)
    coarse = torch.rand(1, 1, *(n,) * ndim).mul(0.2).requires_grad_()
    sketch = torch.rand(1, 1, *(n * f for f in generator.factor))
    made = generator.train()(coarse, sketch)
    generator.eval()
    core = [(s // 2) for s in made.shape[2:]]
    made[(0, 0, *core)].backward()
    reached = np.argwhere(coarse.grad[0, 0].numpy() != 0)
    assert (np.abs(reached - middle).max(axis=0) == np.array(halo)).all()
