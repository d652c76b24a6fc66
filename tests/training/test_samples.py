import itertools

import numpy as np
import pytest

from napari_msgan.errors import TrainingError
from napari_msgan.geometry import Box
from napari_msgan.resampling import reduce_mean
from napari_msgan.sketch import reduce_sketch
from napari_msgan.training.config import CoarseMixture, ImageChanges, SketchChanges
from napari_msgan.training.samples import (
    LowResPool,
    PatchSampler,
    _blur,
    _changed_grey,
    _changed_grid,
    _changed_image,
    _field_of_view,
    _shift_grey,
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


def test_seed_scale_step_and_index_all_give_other_samples():
    drawn = {
        int(sample_random(config_of(2, seed=seed), *numbers).integers(2**62))
        for seed, *numbers in itertools.product((0, 1), repeat=4)
    }
    assert len(drawn) == 16


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


def test_a_pool_takes_images_in_turn_and_changes_each_in_its_own_way(prepared, tmp_path):
    config, (first, second), _, _ = prepared
    made = {}
    for name, pyramids in {"both": [first, second], "1": [first], "2": [second]}.items():
        list(iter_make_pool(pyramids, 4, tmp_path / name, config))
        made[name] = [np.load(tmp_path / name / f"{part}.npy") for part in ("images", "sketches")]
    for both, one, two in zip(made["both"], made["1"], made["2"], strict=True):
        np.testing.assert_array_equal(both[::2], one[::2])
        np.testing.assert_array_equal(both[1::2], two[1::2])
        assert len({values.tobytes() for values in one}) == 4


def test_a_reduced_sketch_of_a_patch_is_that_of_its_image(prepared):
    config, (pyramid, _), _, _ = prepared
    config = config.model_copy(update={"sketches": SketchChanges(reduced=1)})
    whole = reduce_sketch(np.asarray(pyramid.sketch(2)), config.scales[2].factor)
    ndim = len(config.axes)
    box = Box((4,) * ndim, (14,) * ndim)
    sampler = PatchSampler([pyramid], 1, (4,) * ndim, config)
    found = sampler._sketch(pyramid, box, np.random.default_rng(0))
    np.testing.assert_array_equal(found, whole[box.slices])
    assert found.any()


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
    declared = {"thick*": 1.0}, {"thick*": 2.5}, {"*": 1.0, "thick*": 2.5, "*.tif": 0.5}
    configs = [config_of(3, slice_mm=patterns) for patterns in declared]
    n_scales = [
        next(prepare(files, tmp_path / str(index), config))[2].n_scales
        for index, config in enumerate(configs)
    ]
    assert n_scales == [n_scales_reached(files[0], config) for config in configs] == [3, 2, 2]


def test_every_variant_of_every_image_has_its_own_size(tmp_path):
    (tmp_path / "data").mkdir()
    for name in "ab":
        write_image(tmp_path / "data" / f"{name}.ome.tif", blobs((200, 190), 0))
    config = config_of(2, variants=2, zoom=(0.7, 0.95))
    again = [
        [p.shapes[-1] for _, _, p in prepare(survey(tmp_path / "data"), cache, config)]
        for cache in (tmp_path / "one", tmp_path / "two")
    ]
    assert again[0] == again[1]
    assert len(set(again[0])) == 4


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


def grids(n_grids=200, **changes):
    """Return where the voxels of images with no changes but these lie in a volume."""
    still = {"turn": 0, "stretch": 0, "view": (1, 1), "flip": False}
    config = config_of(3, images=ImageChanges(**(still | changes)))
    return np.stack(
        [
            _changed_grid((20, 60, 40), (8, 16, 12), 1, np.random.default_rng(seed), config)
            for seed in range(n_grids)
        ]
    )


def steps_of(points):
    """Return how far voxels that are neighbours along the same axis lie apart."""
    return np.stack([np.diff(points[:, axis], axis=axis + 1)[:, 0, 0, 0] for axis in range(3)], 1)


def test_an_image_with_all_changes_off_is_only_shifted_and_stays_in_its_source():
    points = grids()
    first = points[:, :, :1, :1, :1]
    moved = np.broadcast_to(np.indices((8, 16, 12)), points.shape)
    np.testing.assert_allclose(points - first, moved, atol=1e-5)
    assert (points > 0).all()
    assert (points.max((0, 2, 3, 4)) < (19, 59, 39)).all()
    centres = points.mean((2, 3, 4)) - (9.5, 29.5, 19.5)
    assert (np.abs(centres).max(0) > 0.43 * np.array((12, 44, 28))).all()
    assert np.abs(np.corrcoef(centres.T) - np.eye(3)).max() < 0.25


def test_every_axis_of_an_image_is_stretched_by_itself():
    stretch = np.log(steps_of(grids(stretch=0.1)))
    np.testing.assert_allclose(stretch.std(0), 0.1, rtol=0.2)
    assert np.abs(np.corrcoef(stretch.T) - np.eye(3)).max() < 0.25


def test_a_field_of_view_magnifies_all_axes_alike():
    steps = steps_of(grids(view=(0.5, 1.5)))
    np.testing.assert_allclose(steps, np.tile(steps[:, :1], 3), rtol=1e-5)
    assert 0.5 <= steps.min() < 0.52
    assert 1.48 < steps.max() <= 1.5


def test_whole_images_are_mirrored_half_of_the_time_and_never_upside_down():
    steps = steps_of(grids(flip=True))
    np.testing.assert_allclose(np.abs(steps), 1, atol=1e-6)
    assert (steps[:, :2] > 0).all()
    assert 0.4 < (steps[:, 2] < 0).mean() < 0.6


def test_a_bend_displaces_voxels_smoothly_by_a_share_of_the_field_of_view():
    bend = grids(60, bend=0.1) - grids(60)
    sizes = bend.std((0, 2, 3, 4)) / (8, 16, 12)
    assert (sizes > 0.06).all()
    assert (sizes < 0.1).all()
    assert np.abs(np.diff(bend, axis=3)).mean() < 0.5 * np.abs(bend).mean()  # by at most a node
    ends = bend[:, 1, :, 0].ravel(), bend[:, 1, :, -1].ravel()
    assert abs(np.corrcoef(*ends)[0, 1]) < 0.3


def changed_sketches(sketch, n_sketches=100, **changes):
    """Return a sketch with no changes but these."""
    still = {"noise": 0, "share": 1, "strength": (1, 1), "weakest": 0, "gaps": 0}
    config = config_of(2, sketches=SketchChanges(**(still | changes)))
    return np.stack(
        [change_sketch(sketch, np.random.default_rng(seed), config) for seed in range(n_sketches)]
    )


@pytest.fixture
def drawn():
    return np.random.default_rng(0).integers(1, 256, (60, 44)).astype(np.uint8)


def test_a_sketch_with_all_changes_off_is_as_stored(drawn):
    for share in (0, 1):
        np.testing.assert_allclose(changed_sketches(drawn, 2, share=share)[1], drawn / 255)


def test_sketches_are_drawn_more_faintly_and_more_strongly(drawn):
    made = changed_sketches(drawn, strength=(0.5, 2))
    factors = np.median(made[:, drawn < 100] * 255 / drawn[drawn < 100], axis=1)
    np.testing.assert_allclose(made, np.minimum(1, factors[:, None, None] * drawn / 255), atol=1e-5)
    assert 0.5 <= factors.min() < 0.55
    assert 1.9 < factors.max() <= 2


def test_weak_edges_are_left_out_up_to_a_limit_that_differs(drawn):
    made = changed_sketches(drawn, weakest=0.4)
    weakest = [one[one > 0].min() for one in made]
    for one, limit in zip(made, weakest, strict=True):
        np.testing.assert_allclose(one, np.where(drawn / 255 >= limit - 1e-6, drawn / 255, 0))
    assert min(weakest) < 0.02
    assert 0.38 < max(weakest) < 0.41


def test_gaps_in_a_sketch_are_whole_blocks(drawn):
    made = changed_sketches(drawn, gaps=0.6)
    is_missing = made == 0
    np.testing.assert_allclose(made, np.where(is_missing, 0, drawn / 255), rtol=1e-6)
    blocks = is_missing[:, ::8, ::8]
    whole = blocks.repeat(8, 1).repeat(8, 2)[:, :60, :44]
    np.testing.assert_array_equal(is_missing, whole)
    assert 0.25 < blocks.mean() < 0.35  # from none to 0.6
    assert blocks.mean((1, 2)).max() > 0.5


def test_as_many_sketches_are_changed_as_the_settings_say(drawn):
    made = changed_sketches(drawn, 400, share=0.2, strength=(0.5, 0.5))
    assert 0.14 < (made.max((1, 2)) < 0.6).mean() < 0.26


def test_noise_is_added_to_every_sketch_and_changes_no_mean(drawn):
    noise = changed_sketches(drawn, 20, share=0, noise=0.05) - drawn / 255
    np.testing.assert_allclose(noise.std((1, 2)), 0.05, rtol=0.1)
    assert np.abs(noise.mean((1, 2))).max() < 0.005
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1


def test_a_blurred_coarse_image_loses_its_details_and_gets_noise():
    checkers = (np.indices((64, 64)).sum(0) % 2 - 0.25).astype(np.float32)  # 0.25 on average
    is_odd = checkers > 0
    made = [_blur(checkers, np.random.default_rng(seed), 3.0) for seed in range(60)]
    contrast = np.array([one[is_odd].mean() - one[~is_odd].mean() for one in made])
    assert (contrast < 0.1).mean() > 0.6  # of 1, unless it is hardly blurred
    assert contrast.max() > 0.8
    assert max(abs(one.mean() - 0.25) for one in made) < 0.01
    flat = np.full((64, 64), 0.25, np.float32)
    noise = [np.std(_blur(flat, np.random.default_rng(seed), 3.0)) for seed in range(60)]
    assert min(noise) < 0.003
    assert 0.037 < max(noise) < 0.042
    bright = _blur(np.ones((64, 64), np.float32), np.random.default_rng(0), 3.0)
    assert bright.max() == 1 > bright.min()


def test_other_grey_values_of_a_coarse_image_are_a_gain_and_a_shift():
    values = np.linspace(-1, 1, 101, dtype=np.float32)
    found = []
    for seed in range(200):
        made = _shift_grey(values, np.random.default_rng(seed))
        gain, shift = np.polyfit(values[10:-20], made[10:-20], 1)
        np.testing.assert_allclose(made, np.clip(gain * values + shift, -1, 1), atol=1e-5)
        found.append((gain, shift))
    lows, highs = np.min(found, axis=0), np.max(found, axis=0)
    np.testing.assert_allclose(lows, (0.9, -0.08), atol=0.01)
    np.testing.assert_allclose(highs, (1.1, 0.08), atol=0.01)
    assert (lows >= (0.9 - 1e-6, -0.08 - 1e-6)).all()
    assert (highs <= (1.1 + 1e-6, 0.08 + 1e-6)).all()


def still_config(coarse, *, reduced=0.0, flip=True, sizes=(1.0, 1.0)):
    """Return settings with unchanged sketches."""
    return config_of(
        2,
        coarse=coarse,
        zoom=sizes,
        images=ImageChanges(flip=flip),
        sketches=SketchChanges(noise=0, share=0, reduced=reduced),
    )


@pytest.mark.parametrize("reduced", [0, 1])
def test_sketch_and_image_of_a_patch_show_the_same_place(reduced, tmp_path):
    """Also if both are mirrored, and if the sketch is reduced from a finer scale."""
    image = np.random.default_rng(0).integers(0, 1000, (10, 8)).repeat(13, 0).repeat(15, 1)
    (tmp_path / "data").mkdir()
    write_image(tmp_path / "data" / "0.ome.tif", image.astype(np.uint16))
    config = still_config(CoarseMixture(true=1, generated=0, blurred=0, grey=0), reduced=reduced)
    pyramids = [p for _, _, p in prepare(survey(tmp_path / "data"), tmp_path / "cache", config)]
    sampler, shifts = PatchSampler(pyramids, 1, (4, 4), config), range(-2, 3)
    found = []
    for step in range(60):
        sample = sampler.draw(sample_random(config, 1, step, 0))
        steep = np.hypot(*np.gradient(sample.image))
        agreement = {
            (dy, dx): (steep * sample.sketch[8 + dy : 24 + dy, 8 + dx : 24 + dx]).sum()
            for dy in shifts
            for dx in shifts
        }
        found.append(max(agreement, key=agreement.get))
    assert found.count((0, 0)) > 40  # if only one of them were mirrored, about 15


@pytest.mark.parametrize("target", ["truth", "detail"])
def test_coarse_images_and_sources_are_drawn_as_often_as_is_said(target, tmp_path):
    (tmp_path / "data").mkdir()
    for name, side in (("large", 128), ("small", 32)):
        write_image(tmp_path / "data" / f"{name}.ome.tif", blobs((side, 128), 0))
    mixture = CoarseMixture(true=0.1, generated=0.6, blurred=0, grey=0.3, target=target)
    config = still_config(mixture)
    pyramids = [p for _, _, p in prepare(survey(tmp_path / "data"), tmp_path / "cache", config)]
    for pyramid, value in zip(pyramids, (0.25, -0.25), strict=True):
        made = quantise(np.full(pyramid.shapes[0], value, np.float32))
        np.save(pyramid.generated_path(0), made)
    sampler = PatchSampler(pyramids, 1, (4, 4), config)
    samples = [sampler.draw(sample_random(config, 1, step, 0)) for step in range(400)]
    generated = [s for s in samples if np.ptp(s.coarse) == 0]
    assert 0.54 < len(generated) / 400 < 0.66
    assert {s.truthful for s in generated} == {target == "truth"}
    truthful = sum(s.truthful for s in samples if np.ptp(s.coarse) > 0)
    assert 0.06 < truthful / 400 < 0.14
    # a source of four times the voxels is drawn twice as often
    large = np.mean([s.coarse[0, 0] > 0 for s in generated])
    assert 0.6 < large < 0.74


def test_patches_without_content_are_rare(tmp_path):
    image = blobs((128, 256), 0)
    image[:, :160] = 500
    (tmp_path / "data").mkdir()
    write_image(tmp_path / "data" / "0.ome.tif", image)
    config = still_config(CoarseMixture())
    pyramids = [p for _, _, p in prepare(survey(tmp_path / "data"), tmp_path / "cache", config)]
    sampler = PatchSampler(pyramids, 1, (4, 4), config)
    samples = [sampler.draw(sample_random(config, 1, step, 0)) for step in range(200)]
    assert 0.05 < np.mean([s.image.std() < 0.03 for s in samples]) < 0.3  # of the image: 0.5


@pytest.mark.parametrize("reduced", [0, 1])
def test_sketches_of_whole_images_have_the_window_of_their_scale(prepared, reduced):
    config, pyramids, _, _ = prepared
    settings = config.model_copy(update={"sketches": SketchChanges(reduced=reduced)})

    def sketch_with(*coarse_windows):
        windows = {"window": (0, 1), "coarse_windows": coarse_windows}
        sketch = config.sketch.model_copy(update=windows)
        with_it = settings.model_copy(update={"sketch": sketch})
        return _changed_image(pyramids[0], np.random.default_rng(0), with_it)[0]

    plain, narrow, whole = sketch_with(), (0.4, 0.6), (0, 1)
    made_at = 1 + reduced
    assert not np.array_equal(sketch_with(*[whole] * made_at, narrow), plain)
    np.testing.assert_array_equal(sketch_with(*[narrow] * made_at), plain)


def test_whole_images_keep_their_grey_values(prepared):
    config, pyramids, _, _ = prepared
    still = config.model_copy(update={"images": ImageChanges(turn=0, stretch=0, view=(1, 1))})
    for reduced in (0, 1):
        changes = {"sketches": SketchChanges(reduced=reduced)}
        random = np.random.default_rng(0)
        _, image = _changed_image(pyramids[0], random, still.model_copy(update=changes))
        shares = np.linspace(0.1, 0.9, 5)
        made = np.quantile(dequantise(image), shares)
        source = np.quantile(dequantise(np.asarray(pyramids[0].image(0))), shares)
        np.testing.assert_allclose(made, source, atol=0.15)


@pytest.mark.parametrize("reduced", [0, 1])
def test_whole_images_may_have_thick_slices(reduced, tmp_path):
    (tmp_path / "data").mkdir()
    write_image(tmp_path / "data" / "0.ome.tif", blobs((30, 60, 60), 0), (2.0, 1.0, 1.0))
    config = config_of(3, zoom=(1, 1), sketches=SketchChanges(reduced=reduced))
    grids = ((4.0,) * 3, (2, 2, 2)), ((2.0,) * 3, (2, 2, 2)), ((2.0, 1.0, 1.0), (1, 2, 2))
    scales = [
        scale.model_copy(update={"spacing_mm": mm, "factor": factor})
        for scale, (mm, factor) in zip(config.scales, grids, strict=True)
    ]
    config = config.model_copy(update={"scales": tuple(scales)})
    ((_, _, pyramid),) = prepare(survey(tmp_path / "data"), tmp_path / "cache", config)
    sketch, image = _changed_image(pyramid, np.random.default_rng(0), config)
    assert sketch.shape == (32, 32, 32)
    assert image.shape == (16, 16, 16)


def test_watched_sketches_are_as_stored(prepared, tmp_path):
    config, pyramids, _, _ = prepared
    list(iter_make_pool(pyramids, config.pool, tmp_path, config))
    stored = np.load(tmp_path / "sketches.npy")
    watched = LowResPool(tmp_path, config).fixed(99)
    assert len(watched) == config.pool
    for sample, sketch in zip(watched, stored, strict=True):
        np.testing.assert_allclose(sample.sketch, sketch / 255, rtol=1e-6)
    sampler = PatchSampler(pyramids, 1, (4,) * len(config.axes), config)
    steps = np.stack([255 * sample.sketch for sample in sampler.fixed(8)])
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
    assert steps.max() == 255


def test_patches_lie_anywhere_in_an_image(tmp_path):
    (tmp_path / "data").mkdir()
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint16), (64, 64))
    write_image(tmp_path / "data" / "a.ome.tif", ramp)
    config = config_of(2, zoom=(1, 1))
    ((_, _, pyramid),) = prepare(survey(tmp_path / "data"), tmp_path / "cache", config)
    sampler = PatchSampler([pyramid], 1, (4, 4), config)
    images = [sampler.draw(sample_random(config, 1, step, 0)).image for step in range(200)]
    whole = dequantise(pyramid.image(1))
    assert (np.min(images), np.max(images)) == (whole.min(), whole.max())


def test_patches_come_from_images_that_reach_the_scale(tmp_path):
    (tmp_path / "data").mkdir()
    write_image(tmp_path / "data" / "coarse.ome.tif", blobs((64, 64), 0))
    write_image(tmp_path / "data" / "fine.ome.tif", blobs((128, 128), 0))
    config = config_of(2, zoom=(1, 1))
    pyramids = [p for _, _, p in prepare(survey(tmp_path / "data"), tmp_path / "cache", config)]
    assert [p.n_scales for p in pyramids] == [2, 3]
    sampler = PatchSampler(pyramids, 2, (4, 4), config)
    for step in range(8):
        assert sampler.draw(sample_random(config, 2, step, 0)).image.shape == (16, 16)
    with pytest.raises(TrainingError, match="no training image is fine enough for scale 2"):
        PatchSampler(pyramids[:1], 2, (4, 4), config)
