import numpy as np
import pytest

from napari_msgan.resampling import reduce_mean
from napari_msgan.training.config import CoarseMixture, ImageChanges, SketchChanges
from napari_msgan.training.samples import (
    LowResPool,
    PatchSampler,
    _changed_grey,
    _changed_grid,
    _changed_image,
    _field_of_view,
    change_sketch,
    iter_make_pool,
    sample_random,
)
from napari_msgan.training.sources import dequantise, n_scales_reached, prepare, quantise
from napari_msgan.training.survey import survey
from tests.training.made import blobs, config_of, write_image


@pytest.fixture(scope="module", params=[2, 3], ids=["2d", "3d"])
def prepared(request, tmp_path_factory):
    ndim, data = request.param, tmp_path_factory.mktemp("data")
    shape, spacing = ((150, 130), None) if ndim == 2 else ((40, 50, 45), (1.0,) * 3)
    for seed in range(2):
        write_image(data / f"{seed}.ome.tif", blobs(shape, seed), spacing)
    config = config_of(ndim)
    cache = tmp_path_factory.mktemp("cache")
    return config, [p for _, _, p in prepare(survey(data), cache, config)], data, cache


def test_every_scale_is_the_block_mean_of_the_next(prepared):
    config, pyramids, _, _ = prepared
    for pyramid in pyramids:
        for scale in range(1, pyramid.n_scales):
            finer = dequantise(np.asarray(pyramid.image(scale)))
            coarser = dequantise(np.asarray(pyramid.image(scale - 1)))
            means = reduce_mean(finer, config.scales[scale].factor)
            np.testing.assert_allclose(coarser, means, atol=1e-4)


def test_true_coarse_patch_lies_exactly_under_its_image(prepared):
    config, pyramids, _, _ = prepared
    halo = (4,) * len(config.axes)
    sampler = PatchSampler(pyramids, 2, halo, config)
    exact = shifted = 0
    for step in range(60):
        sample = sampler.draw(sample_random(config, 2, step, 0))
        core = sample.coarse[tuple(slice(h, -h) for h in halo)]
        means = reduce_mean(sample.image, config.scales[2].factor)
        inside = tuple(slice(0, 5) for _ in halo)  # away from the far border of odd images
        exact += sample.truthful and np.allclose(core[inside], means[inside], atol=1e-3)
        moved = np.roll(means, 1, axis=-1)
        shifted += np.allclose(core[inside], moved[inside], atol=1e-3)
    assert exact > 5  # about a quarter; the others are blurred or in other grey values on purpose
    assert shifted == 0


def test_sample_depends_on_seed_scale_and_step_only(prepared):
    config, pyramids, _, _ = prepared
    sampler = PatchSampler(pyramids, 1, (4,) * len(config.axes), config)
    first, again, other = (sampler.draw(sample_random(config, 1, step, 0)) for step in (3, 3, 4))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.sketch, again.sketch)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("stochastic", [False, True])
def test_samples_that_are_watched_have_the_noise_of_the_model(prepared, stochastic):
    _, pyramids, _, _ = prepared
    config = prepared[0].model_copy(
        update={"stochastic": stochastic, "sketches": SketchChanges(noise=0.05)}
    )
    sampler = PatchSampler(pyramids, 1, (4,) * len(config.axes), config)
    first, again = sampler.fixed(2), sampler.fixed(2)
    np.testing.assert_array_equal(first[0].sketch, again[0].sketch)
    steps = 255 * first[0].sketch  # as stored, where nothing was added
    assert np.allclose(steps, np.rint(steps), atol=1e-3) != stochastic


def test_patches_are_mirrored_only_where_images_are(prepared):
    config, pyramids, _, _ = prepared
    still = config.model_copy(update={"images": ImageChanges(flip=False)})
    ndim = len(config.axes)
    axes = [(), (-1,)] if ndim == 2 else [(), (1,), (2,), (1, 2)]
    seen = set()
    for step in range(16):
        plain, mirrored = (
            PatchSampler(pyramids, 1, (4,) * ndim, c).draw(sample_random(c, 1, step, 0))
            for c in (still, config)
        )
        seen |= {a for a in axes if np.array_equal(np.flip(plain.image, a), mirrored.image)}
    assert seen == set(axes)


def test_prepared_sources_are_kept(prepared):
    config, pyramids, data, cache = prepared
    path = pyramids[0].folder / "image_1.npy"
    before = path.stat().st_mtime_ns
    list(prepare(survey(data), cache, config))
    assert path.stat().st_mtime_ns == before


def test_pool_sketch_is_twice_as_fine_as_its_image(prepared, tmp_path):
    config, pyramids, _, _ = prepared
    done = [made for made, _ in iter_make_pool(pyramids, config.pool, tmp_path, config)]
    assert done == [1, 2, 3, 4]
    assert list(iter_make_pool(pyramids, config.pool, tmp_path, config)) == []  # it is there
    pool = LowResPool(tmp_path, config)
    sample = pool.draw(np.random.default_rng(0))
    assert sample.image.shape == config.scales[0].patch_shape
    assert sample.sketch.shape == tuple(2 * n for n in sample.image.shape)
    assert sample.image.std() > 0.01


def test_changed_sketch_never_invents_edges():
    config = config_of(2, sketches=SketchChanges(noise=0))
    sketch = np.zeros((64, 64), np.uint8)
    sketch[20:22] = 180
    changed = 0
    for seed in range(20):
        made = change_sketch(sketch, np.random.default_rng(seed), config)
        assert not made[sketch == 0].any()
        assert made.max() <= 1
        changed += not np.allclose(made, sketch / 255)
    assert 5 < changed < 20


def test_quantised_image_comes_back():
    values = np.linspace(-1, 1, 1001, dtype=np.float32)
    np.testing.assert_allclose(dequantise(quantise(values)), values, atol=2e-5)


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "LAI"])
def test_as_many_scales_are_counted_as_are_made(orientation, tmp_path):
    write_image(tmp_path / "a.nii", blobs((16, 60, 60), 0), (4.0, 1.0, 1.0))
    config = config_of(3, orientation=orientation)
    thick = [
        scale.model_copy(update={"spacing_mm": (4.0, mm, mm), "factor": (1, 2, 2)})
        for scale, mm in zip(config.scales, (4.0, 2.0, 1.0), strict=True)
    ]
    config = config.model_copy(update={"scales": tuple(thick)})
    (file,) = survey(tmp_path)
    ((_, _, pyramid),) = prepare([file], tmp_path / "cache", config)
    assert n_scales_reached(file, config) == pyramid.n_scales == 3


def test_thick_slices_keep_a_source_from_the_fine_scales(tmp_path):
    write_image(tmp_path / "thick.ome.tif", blobs((20, 40, 40), 0), (1.0,) * 3)
    files = survey(tmp_path)
    n_scales = [
        next(prepare(files, tmp_path / str(mm), config_of(3, slice_mm={"thick*": mm})))[2].n_scales
        for mm in (1.0, 2.5)
    ]
    assert n_scales == [3, 2]


def test_reduced_sketch_of_a_whole_image_is_no_denser_and_lies_on_the_same_image(prepared):
    config, pyramids, _, _ = prepared
    made = []
    for reduced in (0, 1):
        still = ImageChanges(turn=0, stretch=0, view=(1, 1), flip=False)
        changes = SketchChanges(reduced=reduced)
        settings = config.model_copy(update={"sketches": changes, "images": still})
        random = np.random.default_rng(3)
        made.append(_changed_image(pyramids[0], random, settings))
    (sketch, image), (reduced_sketch, same) = made
    assert sketch.shape == reduced_sketch.shape
    assert not np.array_equal(sketch, reduced_sketch)
    assert 0.02 < (reduced_sketch > 0).mean() <= config.sketch.low_density + 0.01
    both = [dequantise(values).ravel() for values in (image, same)]
    assert np.corrcoef(*both)[0, 1] > 0.98
    moved = np.roll(dequantise(same), same.shape[-1] // 8, axis=-1).ravel()
    assert np.corrcoef(both[0], moved)[0, 1] < 0.95


def test_other_grey_values_of_ct_keep_air_water_and_bone():
    hounsfield = np.array([-1000, -850, 0, 400, 600], np.float32)
    unit = (hounsfield + 1000) / 1600
    changed = {}
    for modality in ("CT", "MR"):
        config = config_of(
            3, window=(-1000, 600), modality=modality, images=ImageChanges(gamma=0.3)
        )
        made = _changed_grey(unit.copy(), np.random.default_rng(0), config)
        changed[modality] = made * 1600 - 1000 - hounsfield
    assert np.abs(changed["CT"][[0, 2, 3, 4]]).max() < 1e-3
    assert 5 < abs(changed["CT"][1]) < 200
    assert np.abs(changed["MR"][2:4]).min() > 1


def test_larger_images_are_reduced_to_the_scales_that_are_trained(tmp_path):
    fine, _ = np.indices((256, 240), np.float32)
    for name, step in (("usual", 2), ("large", 1)):  # stripes a large image shows twice as wide
        image = 500 + 300 * np.sin(2 * np.pi * fine[::step] / 32)
        write_image(tmp_path / f"{name}.ome.tif", image[:, ::step].astype(np.uint16))
    write_image(tmp_path / "stripes.ome.tif", (1000 * (fine % 2)).astype(np.uint16))
    config = config_of(2, zoom=(1.0, 1.0))
    prepared = {p.name: p for _, _, p in prepare(survey(tmp_path), tmp_path / "cache", config)}
    usual, large = prepared["usual.ome.tif"], prepared["large.ome.tif"]
    assert usual.shapes == large.shapes == ((32, 30), (64, 60), (128, 120))
    same = np.abs(dequantise(usual.image(1)) - dequantise(large.image(1)))
    assert same[2:-2].max() < 0.12  # up to 2
    assert dequantise(prepared["stripes.ome.tif"].image(2)).std() < 0.1  # not aliased


def test_a_stack_of_few_slices_is_shown_whole(prepared):
    """A relative model sees the whole image: what its shortest side covers would be magnified."""
    config, _, _, _ = prepared
    relative = config.model_copy(update={"kind": "relative", "images": ImageChanges(stretch=0)})
    source = (160, 170)[-len(config.axes) :] if len(config.axes) == 2 else (12, 160, 170)
    views = [
        _field_of_view(source, config.scales[0].patch_shape, np.random.default_rng(seed), relative)
        for seed in range(200)
    ]
    assert 0.85 * 160 <= np.min(views) < 0.9 * 160
    assert 165 < np.max(views) <= 170


def test_turns_are_as_large_in_mm_whatever_the_voxels():
    images = ImageChanges(turn=0.1, stretch=0, bend=0, view=(1, 1))

    def tilt(spacing):
        """Return how steep, in mm per mm, lines along the last axis rise along the first."""
        config = config_of(3, images=images)
        scales = tuple(s.model_copy(update={"spacing_mm": spacing}) for s in config.scales)
        config, found = config.model_copy(update={"scales": scales}), []
        for seed in range(50):
            random = np.random.default_rng(seed)
            points = _changed_grid((20, 90, 90), (8, 16, 16), 1, random, config)
            step = np.diff(points, axis=-1)[:, 0, 0, 0] * spacing
            found.append(step[0] / abs(step[2]))
        return np.std(found)

    assert tilt((10.0, 1.0, 1.0)) == pytest.approx(tilt((1.0, 1.0, 1.0)), rel=1e-6)


@pytest.mark.parametrize(("kind", "truthful"), [("true", True), ("blurred", True), ("grey", False)])
def test_only_a_coarse_image_of_other_grey_values_is_untrue(prepared, kind, truthful):
    config, found, _, _ = prepared
    kinds = {name: float(name == kind) for name in ("true", "generated", "blurred", "grey")}
    config = config.model_copy(update={"coarse": CoarseMixture(**kinds)})
    sampler = PatchSampler(found, 1, (4,) * len(config.axes), config)
    assert {sampler.draw(sample_random(config, 1, n, 0)).truthful for n in range(5)} == {truthful}


def test_samples_that_are_watched_are_made_from_generated_images(tmp_path):
    (tmp_path / "data").mkdir()
    write_image(tmp_path / "data" / "0.ome.tif", blobs((150, 130), 0))
    config = config_of(2)
    ((_, _, pyramid),) = prepare(survey(tmp_path / "data"), tmp_path / "cache", config)
    np.save(pyramid.generated_path(0), quantise(np.full(pyramid.shapes[0], 0.25, np.float32)))
    sampler = PatchSampler([pyramid], 1, (4, 4), config)
    for sample in sampler.fixed(3):
        np.testing.assert_allclose(sample.coarse, 0.25, atol=1e-4)
