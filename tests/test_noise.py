"""Noise of models with a random part: the same for every tile, another for every seed."""

from itertools import combinations

import numpy as np
import pytest

from napari_msgan import jobs
from napari_msgan.computing import TileContext
from napari_msgan.errors import StoreError
from napari_msgan.evaluation.seams import certify_seams, tile_maker
from napari_msgan.geometry import Affine, Box
from napari_msgan.model import load_folder
from napari_msgan.noise import add_noise, read_sketch
from napari_msgan.volume import Volume
from tests.models import write_model

SHAPES = {2: (101, 83), 3: (37, 50, 41)}


def noise_in(box, sigma=1.0, seed=0, scale=1):
    values = np.zeros(box.shape, np.float32)
    add_noise(values, box, sigma, seed=seed, scale=scale)
    return values


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_voxel_has_the_same_noise_in_every_box(ndim):
    whole = Box((-20,) * ndim, (150,) * ndim)  # over the border of the image, and of blocks
    part = Box((-7, 40, 63)[-ndim:], (90, 66, 129)[-ndim:])
    inside = noise_in(whole)[part.relative_to(whole.start).slices]
    np.testing.assert_array_equal(noise_in(part), inside)
    moved = noise_in(part.shift((1,) * ndim))
    assert abs(np.corrcoef(moved.ravel(), inside.ravel())[0, 1]) < 0.05


@pytest.mark.parametrize("ndim", [2, 3])
def test_noise_is_normal_and_another_for_each_seed_scale_and_block(ndim):
    side = {2: 256, 3: 64}[ndim]
    box = Box.of_shape((side,) * ndim)
    first = noise_in(box, 0.5)
    assert abs(first.mean()) < 0.01
    assert first.std() == pytest.approx(0.5, rel=0.02)
    assert np.mean(np.abs(first) < 0.5) == pytest.approx(0.683, abs=0.01)
    others = [
        noise_in(box, 0.5, seed=1),
        noise_in(box, 0.5, scale=2),
        noise_in(box.shift((side,) * ndim), 0.5),
    ]
    for other in others:
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.05
    np.testing.assert_array_equal(first, noise_in(box, 0.5))


def test_noise_stays_what_it_is():
    """Stores are gone on with by later versions of this program, and of numpy."""
    known = [[0.3267453, 0.16382492], [0.52351916, 0.5686995]]
    np.testing.assert_allclose(noise_in(Box((3, 5), (5, 7)), seed=7, scale=2), known, rtol=1e-6)
    known = [[2.0562444, -0.9982713], [-0.00951299, 0.7675667]]  # where four blocks meet
    corner = Box((255, 511), (257, 513))
    np.testing.assert_allclose(noise_in(corner, seed=-1000, scale=3), known, rtol=1e-6)
    known = [[[-0.9713759, 0.12209624], [1.9161013, -1.2446399]]]
    corner = Box((-1, 63, 127), (0, 65, 129))
    np.testing.assert_allclose(noise_in(corner, seed=1000), known, rtol=1e-6)


def test_sketches_are_read_from_0_to_1_with_noise_above_scale_0():
    sketch = np.arange(0, 256, 5, dtype=np.uint8).reshape(4, 13)
    box = Box((-1, 2), (3, 15))  # over two borders, where the border voxel is repeated
    expected = np.pad(sketch, 2, mode="edge")[1:5, 4:] / np.float32(255)
    for sigma, scale in ((0.0, 1), (0.0, 0), (0.3, 0)):
        read = read_sketch(sketch, box, sigma, seed=5, scale=scale)
        np.testing.assert_array_equal(read, expected)
        assert read.dtype == np.float32
    noisy = read_sketch(sketch, box, 0.3, seed=5, scale=1)
    np.testing.assert_array_equal(noisy, expected + noise_in(box, 0.3, seed=5))


def test_any_whole_number_is_a_seed():
    box = Box.of_shape((8, 8))
    made = [noise_in(box, seed=seed) for seed in (0, -1, 2**62, 2**63 - 2, 10**30)]
    assert all(not np.array_equal(a, b) for a, b in combinations(made, 2))


@pytest.fixture(scope="module", params=[2, 3], ids=["2d", "3d"])
def noisy(request, tmp_path_factory):
    """A model with a random part, and a source."""
    ndim = request.param
    folder = tmp_path_factory.mktemp("noisy")
    model = load_folder(write_model(folder / "model", ndim=ndim, noise=0.2))
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPES[ndim]), indexing="ij")
    rings = 300 * np.sin(9 * np.sqrt(sum((g - 0.1) ** 2 for g in grid)))
    unit = "millimeter" if ndim == 3 else "pixel"
    source = Volume(rings.astype(np.float32), Affine.of_spacing((1.0,) * ndim), unit)
    whole = jobs.generate(source, folder / "0.ome.zarr", model, device="cpu", workers=1)
    return model, source, whole


def images(store):
    return [np.asarray(store.array(scale)[...]) for scale in range(store.n_scales)]


def test_regions_tiles_and_workers_change_no_bit(noisy, tmp_path):
    model, source, whole = noisy
    out = tmp_path / "parts.ome.zarr"
    end = Box(tuple(n // 2 for n in whole.geometry.shape), whole.geometry.shape)
    jobs.generate(source, out, model, device="cpu", region=end, workers=2)
    store = jobs.refine(out, model=model, device="cpu", workers=3)
    for made, expected in zip(images(store), images(whole), strict=True):
        np.testing.assert_array_equal(made, expected)


def test_another_tile_grid_shows_no_seam(noisy):
    model, _, whole = noisy
    context = TileContext(whole, model, "cpu", "fp32")
    scale = whole.geometry.finest_scale
    context.prepare([scale])
    factor, shape = whole.geometry.factor(scale), whole.geometry.shape
    make = tile_maker(context, scale)
    seams = certify_seams(make, shape, whole.info.tile_shape, factor)
    assert seams.max_near < 1e-5
    # a tile that took its noise from its own corner would show
    torn = certify_seams(lambda box: make(box) + noise_in(Box.of_shape(box.shape)), shape,
                         whole.info.tile_shape, factor)  # fmt: skip
    assert torn.max_near > 0.1


def test_seeds_share_scale_0_and_differ_above(noisy, tmp_path):
    model, source, whole = noisy
    store = jobs.generate(source, tmp_path / "1.ome.zarr", model, device="cpu", seed=1)
    before, after = images(whole), images(store)
    np.testing.assert_array_equal(before[0], after[0])
    assert all((a != b).mean() > 0.5 for a, b in zip(before[1:], after[1:], strict=True))
    with pytest.raises(StoreError, match=r"another seed \(1\)"):
        jobs.generate(source, tmp_path / "1.ome.zarr", model, device="cpu")


def test_verify_makes_the_same_tiles_again(noisy, tmp_path):
    model, source, _ = noisy
    store = jobs.generate(source, tmp_path / "7.ome.zarr", model, device="cpu", seed=7)
    assert jobs.verify(store.address, model=model).is_sound
