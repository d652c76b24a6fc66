from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from napari_msgan.errors import TrainingError, VolumeError
from napari_msgan.sketch_settings import SketchSettings
from napari_msgan.training.checks import (
    check_run,
    kept_out_of,
    model_spec,
    n_scales_trained,
    scale_spec,
)
from napari_msgan.training.config import TrainConfig
from napari_msgan.training.cost import disk_of, memory_of
from napari_msgan.training.plan import derive_config, plan_table
from napari_msgan.training.survey import TrainingFile
from tests.training.made import config_of

GB = 10**9


def file_of(shape, spacing=None, low=0.0, high=1000.0, name="a"):
    return TrainingFile(name, Path(name), None, shape, spacing, low, high)


def spacings(config):
    return [scale.spacing_mm for scale in config.scales]


def test_isotropic_volumes_are_halved_down_to_a_small_whole_image():
    config = derive_config([file_of((200, 256, 256), (1.0, 0.9, 0.9))] * 3, "m", "fast", 8 * GB)
    assert config.kind == "physical"
    assert spacings(config) == [(mm,) * 3 for mm in (8.0, 4.0, 2.0, 1.0)]
    assert config.scales[0].patch_shape == (24, 32, 32)
    assert config.base_size == 32


def test_thick_slices_stay_thick_until_the_other_axes_have_caught_up():
    config = derive_config([file_of((60, 512, 512), (5.0, 0.7, 0.7))] * 3, "m", "fast", 8 * GB)
    assert [s.factor for s in config.scales[1:]] == [(2, 2, 2), (1, 2, 2), (1, 2, 2), (1, 2, 2)]
    assert [mm[0] for mm in spacings(config)] == [10, 5, 5, 5, 5]
    assert [mm[1] for mm in spacings(config)] == pytest.approx([11.2, 5.6, 2.8, 1.4, 0.7])
    assert config.scales[0].patch_shape == (32, 32, 32)


def test_hounsfield_units_are_kept_and_other_grey_values_are_not():
    ct = [file_of((128, 128, 128), (1.0,) * 3, -1000, 480)] * 3
    mr = [file_of((128, 128, 128), (1.0,) * 3, 0, 900)] * 3
    made = derive_config(ct, "m", "fast", 8 * GB)
    assert (made.modality, made.window, made.dtype) == ("CT", (-1000, 500), "int16")
    assert made.sketch.window == (-1000, 500)
    made = derive_config(mr, "m", "fast", 8 * GB)
    assert (made.modality, made.window, made.dtype) == ("OT", (0, 65535), "uint16")
    assert made.sketch.window == "percentiles"
    mixed = [*ct[1:], replace(mr[0], name="b")]
    assert derive_config(mixed, "m", "fast", 8 * GB).modality == "OT"


def test_pictures_have_a_random_part_and_mend_textures():
    picture = derive_config([file_of((512, 512))] * 3, "m", "fast", 8 * GB)
    volume = derive_config([file_of((128, 128, 128), (1.0,) * 3)] * 3, "m", "fast", 8 * GB)
    assert (picture.stochastic, picture.coarse.target) == (True, "detail")
    assert picture.coarse.generated > volume.coarse.generated
    assert (volume.stochastic, volume.coarse.target) == (False, "truth")


def test_a_plan_changes_images_in_every_way_and_grey_values_of_ct_the_most():
    volumes = {
        "CT": file_of((128, 128, 128), (1.0,) * 3, -1000, 480),
        "MR": file_of((128, 128, 128), (1.0,) * 3, 0, 900),
        "XR": file_of((512, 512)),
    }
    plans = {kind: derive_config([file] * 3, "m", "fast", 8 * GB) for kind, file in volumes.items()}
    assert {kind: plan.images.gamma for kind, plan in plans.items()} == {
        "CT": 0.3,
        "MR": 0.15,
        "XR": 0.15,
    }
    for plan in plans.values():
        changes = plan.images
        assert (changes.turn, changes.stretch, changes.bend) == (0.1, 0.1, 0.02)
        assert changes.flip


def test_volumes_are_less_adversarial_than_pictures_and_scale_0_later_than_the_others():
    picture = derive_config([file_of((512, 512))] * 3, "m", "fast", 8 * GB)
    volume = derive_config([file_of((128, 128, 128), (1.0,) * 3)] * 3, "m", "fast", 8 * GB)
    assert [scale.gan_weight for scale in picture.scales] == [1, 1, 1]
    assert [scale.gan_weight for scale in volume.scales] == [0.5, 0.2, 0.2]
    for plan in (picture, volume):
        assert [scale.gan_from for scale in plan.scales] == [0.4, 0.2, 0.2]
        kinds = [scale.network.type for scale in plan.scales]
        assert kinds == ["low_res", "patch", "patch"]


def test_a_model_adds_the_noise_that_it_was_trained_with():
    for stochastic, noise in ((True, 0.01), (False, 0)):
        config = config_of(2, stochastic=stochastic)
        spec = model_spec(config, [scale_spec(config, scale, "0" * 64) for scale in range(3)])
        assert spec.noise == noise
        assert (spec.window, spec.base_size) == (config.window, config.base_size)


@pytest.mark.parametrize(
    ("longest", "n_scales", "base"), [(2048, 5, 128), (512, 3, 128), (100, 2, 32)]
)
def test_pictures_have_as_many_scales_as_their_size_gives(longest, n_scales, base):
    config = derive_config([file_of((longest, longest // 2))] * 8, "m", "fast", 8 * GB)
    assert config.kind == "relative"
    assert (len(config.scales), config.base_size) == (n_scales, base)
    assert all(scale.spacing_mm is None for scale in config.scales)


def test_a_quarter_of_the_pictures_is_enough_for_a_finer_scale():
    files = [file_of((128, 128), name=name) for name in "abc"]
    config = derive_config([*files, file_of((512, 512), name="d")], "m", "fast", 8 * GB)
    assert (len(config.scales), config.base_size) == (3, 128)
    assert derive_config(files, "m", "fast", 8 * GB).base_size == 64


def test_patches_are_no_longer_than_thin_or_small_images():
    thin = derive_config([file_of((20, 512, 512), (5.0, 0.7, 0.7))] * 3, "m", "fast", 8 * GB)
    assert {s.patch_shape for s in thin.scales[2:]} == {(24, 40, 40)}
    assert {s.discriminator_strides for s in thin.scales} == {(2, 1)}
    narrow = derive_config([file_of((256, 60))] * 3, "m", "fast", 8 * GB)
    assert [s.patch_shape for s in narrow.scales[1:]] == [(96, 64)]
    assert [s.discriminator_strides for s in narrow.scales[1:]] == [(2, 2, 1)]
    usual = derive_config([file_of((200, 256, 256), (1.0, 0.9, 0.9))] * 3, "m", "fast", 8 * GB)
    assert {s.patch_shape for s in usual.scales[1:]} == {(40, 40, 40)}


def test_less_memory_gives_smaller_steps_and_too_little_is_refused():
    files = [file_of((256, 256, 256), (1.0,) * 3)] * 3
    plenty = derive_config(files, "m", "balanced", 16 * GB)
    needed = max(memory_of(plan) for plan in plenty.scales)
    less = derive_config(files, "m", "balanced", needed)
    assert max(memory_of(plan) for plan in less.scales) <= 0.6 * needed
    assert less.scales[0].batch < plenty.scales[0].batch
    assert less.scales[0].network == plenty.scales[0].network
    with pytest.raises(TrainingError, match=r"scale 0 needs .* of memory even with one sample"):
        derive_config(files, "m", "balanced", GB // 10)


def test_few_images_are_validated_on_one_and_two_on_none():
    def every(n):
        files = [file_of((256, 256), name=str(i)) for i in range(n)]
        return derive_config(files, "m", "fast", 8 * GB).validation_every

    assert [every(n) for n in (1, 2, 3, 4, 20, 160)] == [0, 0, 3, 4, 5, 10]


def test_all_images_of_a_patient_are_kept_out_or_none():
    names = [f"{patient}_{n}.tif" for patient in "abcdefg" for n in range(3)]
    files = [file_of((256, 256), name=name) for name in names]
    config = derive_config(files, "m", "fast", 8 * GB, patient="^[^_]+")
    assert config.validation_every == 5
    assert kept_out_of(names, config) == {f"{p}_{n}.tif" for p in "af" for n in range(3)}
    by_file = derive_config(files, "m", "fast", 8 * GB)
    assert (
        len({name[0] for name in kept_out_of(names, by_file)}) == 5
    )  # of seven patients, each in part
    two = [file_of((256, 256), name=f"{n % 2}_{n}.tif") for n in range(8)]
    assert derive_config(two, "m", "fast", 8 * GB, patient="^[^_]+").validation_every == 0
    with pytest.raises(VolumeError, match="finds no patient in the name a_0"):
        derive_config(files, "m", "fast", 8 * GB, patient="scan")


def test_images_that_are_too_coarse_are_not_what_is_kept_out():
    """One fine patient and two coarse ones: the fine one is all that there is to train on."""
    fine = [file_of((128,) * 3, (1.0,) * 3, name=f"a_{n}") for n in range(4)]
    coarse = [file_of((13,) * 3, (10.0,) * 3, name=name) for name in ("b_0", "c_0")]
    config = derive_config([*fine, *coarse], "m", "fast", 8 * GB, patient="^[^_]+")
    assert config.validation_every == 0
    assert n_scales_trained([*fine, *coarse], config) == len(config.scales) == 3


def test_images_that_are_too_coarse_do_not_count_where_every_nth_is_kept_out():
    spacings_mm = {"a": 10.0, "b": 1.0, "c": 2.0, "d": 1.0}
    files = [file_of((64,) * 3, (mm,) * 3, name=name) for name, mm in spacings_mm.items()]
    config = config_of(3, validation_every=2)
    assert n_scales_trained(files, config) == 2  # b and d are kept out
    assert n_scales_trained(files, config.model_copy(update={"validation_every": 0})) == 3


def test_images_that_are_kept_out_are_told_from_images_that_are_missing(tmp_path):
    files = [file_of((128, 128), name="a"), *(file_of((60, 60), name=n) for n in "bcd")]
    config = config_of(2, zoom=(1, 1), validation_every=2, scales=config_of(2).scales[:3])
    with pytest.raises(TrainingError, match=r"for scale 2 are kept out .* validation_every 2"):
        check_run(files, tmp_path, config)
    with pytest.raises(TrainingError, match=r"fine enough for scale 2, the finest .* is 1"):
        check_run(files[1:], tmp_path, config)


def _with_scale(scale, **changes):
    plans = list(config_of(2).scales)
    plans[scale] = plans[scale].model_copy(update=changes)
    return {"scales": tuple(plans)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (_with_scale(0, patch_shape=(16, 16)), r"scale 0: patch_shape \(16, 16\) differs from"),
        (_with_scale(0, patch_shape=(32, 16)), r"differs from \(32, 32\)"),
        (_with_scale(1, patch_shape=(17, 16)), r"scale 1: .* multiple of the factor \(2, 2\)"),
        (_with_scale(2, factor=(4, 4)), r"the same factor along the last axis, got 2, 4"),
        ({"window": (0, 70000)}, r"window \(0.0, 70000.0\) does not fit uint16"),
        ({"sketch": SketchSettings(window=(0, 500))}, r"must be the same \(or .* 'percentiles'\)"),
        ({"validation_every": 1}, r"validation_every 1 keeps every image out"),
        (_with_scale(1, discriminator_strides=(2, 2, 1)), r"is smaller than the 34 voxels"),
    ],
    ids=str,
)
def test_settings_of_a_model_that_would_be_wrong_are_refused(tmp_path, changes, said):
    files = [file_of((128, 128), name=name) for name in "ab"]
    check_run(files, tmp_path, config_of(2, sketch=SketchSettings(window=(0, 1000))))
    with pytest.raises(TrainingError, match=said):
        check_run(files, tmp_path, config_of(2, **changes))


@pytest.mark.parametrize("changes", [{"gan_weight": 0.0}, {"gan_from": 1.0}], ids=str)
def test_patches_may_be_small_where_the_discriminator_judges_none(tmp_path, changes):
    files = [file_of((128, 128), name=name) for name in "ab"]
    small = {"patch_shape": (8, 8), "discriminator_strides": (2, 2, 2, 1)}
    config = config_of(2, **_with_scale(1, **small, **changes))
    check_run(files, tmp_path, config)
    assert memory_of(config.scales[1]) > 0


def test_every_device_needs_as_many_samples_of_a_batch(tmp_path):
    files = [file_of((128, 128), name=name) for name in "ab"]
    config = config_of(2, **_with_scale(0, batch=4))
    check_run(files, tmp_path, config, devices=2)
    config = config_of(2, **_with_scale(0, batch=3))
    with pytest.raises(TrainingError, match=r"scale 0: a batch of 3 cannot be shared by 2"):
        check_run(files, tmp_path, config, devices=2)


def test_too_small_images_are_refused():
    with pytest.raises(TrainingError, match=r"too small for two scales.*\(20, 20, 20\)"):
        derive_config([file_of((20, 20, 20), (1.0,) * 3)], "m", "fast", 8 * GB)
    with pytest.raises(TrainingError, match=r"too small for two scales.*\(23, 8\)"):
        derive_config([file_of((23, 8))], "m", "fast", 8 * GB)
    assert len(derive_config([file_of((24, 24))], "m", "fast", 8 * GB).scales) == 2


@pytest.mark.parametrize("preset", ["fast", "balanced", "quality"])
def test_plan_can_be_written_edited_and_read(preset):
    config = derive_config([file_of((300, 200))] * 5, "my-model", preset, 32 * GB)
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config
    headings, *rows = plan_table(config)
    assert len(rows) == len(config.scales)
    assert {len(row) for row in rows} == {len(headings)}


def test_better_presets_cost_more():
    files = [file_of((256, 256, 256), (1.0,) * 3)] * 3
    configs = [derive_config(files, "m", p, 64 * GB) for p in ("fast", "balanced", "quality")]
    memory = [max(memory_of(plan) for plan in c.scales) for c in configs]
    steps = [sum(plan.steps for plan in c.scales) for c in configs]
    disk = [disk_of(c, files) for c in configs]
    for costs in (memory, steps, disk):
        assert costs == sorted(set(costs))


def test_scales_that_only_images_kept_out_reach_are_not_planned():
    files = [file_of((520, 520), name="a"), *(file_of((200, 200), name=n) for n in "bc")]
    config = derive_config(files, "model", "fast", 8 * GB)
    assert config.validation_every == 3  # a is kept out
    assert len(config.scales) == n_scales_trained(files, config) == 2
    largest_is_trained = [file_of((200, 200), name="a"), *files[:1], *files[2:]]
    renamed = [replace(f, name=n) for f, n in zip(largest_is_trained, "abc", strict=True)]
    assert len(derive_config(renamed, "model", "fast", 8 * GB).scales) > 2


@pytest.mark.parametrize(
    "changes",
    [
        {"zoom": (0.95, 0.6)},
        {"zoom": (1e300, 1e300)},
        {"seed": -1},
        {"include": ("/somewhere/*.png",)},
        {"include": ("",)},
        {"include": ("../*.png",)},
        {"sketches": {"strength": (1.5, 0.6)}},
        {"sketch": {"window": (100, 100)}},
        {"images": {"view": (2, 1)}},
        {"learning_rate": float("inf")},
        {"checkpoint_s": float("inf")},
        {"slice_mm": {"a": float("inf")}},
    ],
    ids=str,
)
def test_settings_that_cannot_be_followed_are_refused(changes):
    content = config_of(2).model_dump()
    TrainConfig.model_validate(content)
    with pytest.raises(ValidationError):
        TrainConfig.model_validate(content | changes)
