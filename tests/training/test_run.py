"""A run that is begun again: with what it began, and with nothing that was left half-made."""

import json
import os
import shutil
from contextlib import closing
from io import BytesIO

import numpy as np
import pytest
import tifffile
import torch

from napari_msgan.config import PatchNetwork
from napari_msgan.errors import ModelError, TrainingError
from napari_msgan.model import load_model, read_spec
from napari_msgan.sketch_settings import SketchSettings
from napari_msgan.steps import n_cores
from napari_msgan.training import iter_train, run, sources, survey
from napari_msgan.training import scale as one_scale
from napari_msgan.training.config import SketchChanges
from napari_msgan.training.gan import ScaleGan
from napari_msgan.training.record import Record
from napari_msgan.training.run import open_fabric
from napari_msgan.training.same_run import run_file
from tests.training.made import blobs, config_of, write_image


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for index, side in enumerate((128, 260)):
        write_image(folder / f"{index}.tif", blobs((side, side), index))
    return folder


def train(data, out, config, given=None):
    for _ in iter_train(survey(data, config, given), out, config):
        pass


def weights(out):
    return [path.read_bytes() for path in sorted(out.glob("*.safetensors"))]


def test_images_that_were_half_made_with_other_settings_are_made_again(data, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    config = config_of(2, base_size=64)
    with monkeypatch.context() as patched:
        patched.setattr(sources, "iter_sketch_scales", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "model", config_of(2))
    assert list((tmp_path / "model" / ".training" / "cache").rglob("image_2.npy"))
    train(data, tmp_path / "model", config)
    train(data, tmp_path / "clean", config)
    assert weights(tmp_path / "model") == weights(tmp_path / "clean")


def test_several_threads_draw_the_samples_of_one(data, tmp_path, monkeypatch):
    assert (one_scale.loaders_for("cpu"), one_scale.loaders_for("cuda") > 1) == (1, n_cores() > 1)
    train(data, tmp_path / "one", config_of(2))
    monkeypatch.setattr(one_scale, "loaders_for", lambda device: 3)
    train(data, tmp_path / "three", config_of(2))
    assert weights(tmp_path / "one") == weights(tmp_path / "three")
    monkeypatch.setattr(one_scale.ScaleTrainer, "_draw", late(one_scale.ScaleTrainer._draw))
    train(data, tmp_path / "late", config_of(2))
    assert weights(tmp_path / "one") != weights(tmp_path / "late")


def late(draw):
    return lambda trainer, step: draw(trainer, step + 1)


def test_a_run_goes_on_with_the_same_sketches_only(data, tmp_path):
    config, given = config_of(2), tmp_path / "given"
    given.mkdir()
    for index, side in enumerate((128, 260)):
        write_image(given / f"{index}.tif", 255 * np.eye(side, dtype=np.uint8))
    train(data, tmp_path / "model", config)
    with pytest.raises(TrainingError, match=r"2 new \(sketch of 0.tif, sketch of 1.tif\)"):
        train(data, tmp_path / "model", config, given)
    train(data, tmp_path / "other", config, given)
    (given / "0.tif").unlink()
    write_image(given / "0.tif", 255 * np.eye(128, dtype=np.uint8)[::-1])
    with pytest.raises(TrainingError, match=r"1 changed \(sketch of 0.tif\)"):
        train(data, tmp_path / "other", config, given)


def test_an_image_that_kept_its_size_but_not_its_values_is_noticed(data, tmp_path):
    tifffile.imwrite(data / "0.tif", blobs((128, 128), 0))
    size = (data / "0.tif").stat().st_size
    train(data, tmp_path / "model", config_of(2))
    tifffile.imwrite(data / "0.tif", blobs((128, 128), 5))
    assert (data / "0.tif").stat().st_size == size
    with pytest.raises(TrainingError, match=r"1 changed \(0.tif\)"):
        train(data, tmp_path / "model", config_of(2))
    tifffile.imwrite(data / "0.tif", blobs((128, 128), 0)[:, ::-1])  # the same percentiles
    with pytest.raises(TrainingError, match=r"1 changed \(0.tif\)"):
        train(data, tmp_path / "model", config_of(2))
    tifffile.imwrite(data / "0.tif", blobs((128, 128), 0))
    train(data, tmp_path / "model", config_of(2))


def test_long_names_of_any_script_are_no_obstacle(data, tmp_path):
    (data / "0.tif").rename(data / ("胸部CT画像データ" * 6 + "一.tif"))
    (data / "1.tif").rename(data / ("胸部CT画像データ" * 6 + "二.tif"))
    train(data, tmp_path / "model", config_of(2))
    assert len(list((tmp_path / "model" / ".training" / "cache").iterdir())) == 2


@pytest.mark.parametrize("in_a_job", [False, True], ids=["login node", "job"])
def test_slurm_is_neither_asked_nor_told(in_a_job, tmp_path, monkeypatch):
    """A warning would be an error here, and so would be a job of three tasks for one process."""
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    if in_a_job:
        job = {"NTASKS": "3", "JOB_NAME": "train", "NODELIST": "a", "PROCID": "1", "LOCALID": "1"}
        for name, value in {**job, "JOB_ID": "7", "NODEID": "0", "NNODES": "1"}.items():
            monkeypatch.setenv(f"SLURM_{name}", value)
    fabric = open_fabric(config_of(2))
    assert (fabric.world_size, fabric.global_rank) == (1, 0)


def test_half_a_line_that_a_full_disk_left_is_dropped(tmp_path):
    path = tmp_path / "scale_0.jsonl"
    path.write_text('{"step": 1, "l1": 0.5}\n{"step": 9, "l1": 0.4}\n{"step": 2, "l')
    Record(tmp_path, 0, 5).close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1]
    path.write_bytes(b'{"step": 1}\n{"step": 2, "l\n\0\0\0\n{"step": 3}\n[]\n')  # a power cut
    Record(tmp_path, 0, 5).close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 3]


def _weights(model):
    return [generator.state_dict() for generator in load_model(model).generators]


def _farthest(some, others):
    return max(
        float((a[name] - b[name]).abs().max())
        for a, b in zip(some, others, strict=True)
        for name in a
    )


def test_a_run_starts_from_the_weights_of_a_model(data, tmp_path):
    first, second, alone = tmp_path / "first", tmp_path / "second", tmp_path / "alone"
    train(data, first, config_of(2, seed=1))
    slow = config_of(2, seed=2, learning_rate=1e-9)
    train(data, second, slow.model_copy(update={"start_from": str(first)}))
    train(data, alone, slow)
    assert _farthest(_weights(second), _weights(first)) < 1e-6
    assert _farthest(_weights(alone), _weights(first)) > 0.01


def test_a_stochastic_model_generates_with_the_noise_of_training(data, tmp_path):
    """So do the coarse images that its next scale learns from, and no other."""
    plain, noisy = tmp_path / "plain", tmp_path / "noisy"
    train(data, plain, config_of(2))
    train(data, noisy, config_of(2, stochastic=True))
    specs = [load_model(out).spec for out in (plain, noisy)]
    assert [(spec.stochastic, spec.noise) for spec in specs] == [(False, 0), (True, 0.01)]
    for scale, is_equal in ((0, True), (1, False)):
        made = [
            np.load(next((out / ".training" / "cache").glob(f"1*/generated_{scale}.npy")))
            for out in (plain, noisy)
        ]
        assert np.array_equal(*made) == is_equal


def test_a_random_part_without_noise_is_refused(data, tmp_path):
    config = config_of(2, stochastic=True, sketches=SketchChanges(noise=0))
    with pytest.raises(TrainingError, match="stochastic is True, but noise is 0"):
        train(data, tmp_path / "model", config)


def _without_steps(config, *scales):
    plans = list(config.scales)
    for scale in scales:
        plans[scale] = plans[scale].model_copy(update={"steps": 0})
    return config.model_copy(update={"scales": tuple(plans)})


def test_a_scale_without_steps_is_taken_as_it_is(data, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    train(data, first, config_of(2, 2, seed=1))
    config = _without_steps(config_of(2, 3, seed=2, start_from=str(first)), 0, 1)
    train(data, second, config)
    assert weights(second)[:2] == weights(first)
    # scale 2 is not in that model: it starts from scale 1, and learns
    before, after = _weights(first)[1], _weights(second)[2]
    assert 0 < _farthest([after], [before]) < 0.01
    assert not (second / ".training" / "pool").exists()
    train(data, second, config)
    assert weights(second)[:2] == weights(first)


def test_a_scale_without_steps_needs_a_model_that_has_it(data, tmp_path):
    train(data, tmp_path / "first", config_of(2, 2))
    given = config_of(2, 3, start_from=str(tmp_path / "first"))
    with pytest.raises(TrainingError, match=r"scale 2 has 0 steps.*which has scales 0 to 1"):
        train(data, tmp_path / "second", _without_steps(given, 2))
    with pytest.raises(TrainingError, match=r"scale 1 has 0 steps.*--start-from"):
        train(data, tmp_path / "third", _without_steps(config_of(2), 1))


def test_a_scale_without_steps_is_refused_where_it_would_be_another(data, tmp_path):
    noisy = {"stochastic": True, "sketches": SketchChanges(noise=0.05)}
    train(data, tmp_path / "first", config_of(2, **noisy))
    given = config_of(2, start_from=str(tmp_path / "first"))
    out = tmp_path / "second"
    with pytest.raises(TrainingError, match=r"scale 1 .* noise .* is 0.05, but .* it is 0.0"):
        train(data, out, _without_steps(given, 1))
    network = given.scales[0].network.model_copy(update={"upsampling": "linear"})
    scales = (given.scales[0].model_copy(update={"network": network}), *given.scales[1:])
    other = given.model_copy(update={"scales": scales})
    with pytest.raises(TrainingError, match=r"upsampling is nearest, but .* it is linear"):
        train(data, out, _without_steps(other, 0))
    shifted = given.model_copy(update={"window": (0.0, 100.0)})
    with pytest.raises(TrainingError, match=r"window is .* but in the settings it is \(0"):
        train(data, out, _without_steps(shifted, 0))
    with pytest.raises(TrainingError, match="nothing would be trained"):
        train(data, out, _without_steps(given, *range(len(given.scales))))
    assert not out.exists()
    train(data, out, _without_steps(given, 0))  # its sketch has no noise when it generates


def test_a_scale_without_steps_may_have_other_windows_at_other_scales(data, tmp_path):
    def windows(*coarse):
        return {"sketch": SketchSettings(window=(0, 1000), coarse_windows=coarse)}

    first, second = tmp_path / "first", tmp_path / "second"
    train(data, first, config_of(2, 3, **windows()))
    given = config_of(2, 3, start_from=str(first), **windows((0, 1000), (100, 800)))
    with pytest.raises(TrainingError, match=r"scale 1 has 0 steps.*=\(\(100.0, 800.0\),\)"):
        train(data, second, _without_steps(given, 1, 2))
    with pytest.raises(TrainingError, match=r"scale 0 has 0 steps.*=\(\(100.0, 800.0\),\)"):
        train(data, second, _without_steps(given, 0, 2))  # it reads the sketch of scale 1
    train(data, second, _without_steps(given, 2))
    before, after = weights(first), weights(second)
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True]
    assert read_spec(second).sketch == given.sketch


def test_a_run_goes_on_from_no_other_model_of_that_name(data, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    train(data, first, config_of(2, seed=1))
    config = config_of(2, seed=2, start_from=str(first))
    run = iter_train(survey(data, config), second, config)
    next(run)
    run.close()
    shutil.move(first, tmp_path / "aside")
    train(data, first, config_of(2, seed=3))
    with pytest.raises(TrainingError, match=r"no longer the model .* put that model back"):
        train(data, second, config)
    shutil.rmtree(first)
    shutil.move(tmp_path / "aside", first)
    train(data, second, config)


def test_a_model_with_other_networks_is_no_start(data, tmp_path):
    train(data, tmp_path / "first", config_of(2))
    config = config_of(2, start_from=str(tmp_path / "first"))
    wider = config.scales[1].model_copy(update={"network": PatchNetwork(width=8, blocks=1)})
    config = config.model_copy(update={"scales": (config.scales[0], wider)})
    with pytest.raises(TrainingError, match="scale 1 cannot start from 'made'"):
        train(data, tmp_path / "second", config)
    with pytest.raises(ModelError, match="there is no model 'nothing'"):
        train(data, tmp_path / "third", config_of(2, start_from="nothing"))


def test_a_run_that_an_earlier_version_began_goes_on(data, tmp_path):
    train(data, tmp_path, config_of(2))
    begun = run_file(tmp_path)
    content = json.loads(begun.read_text())
    del content["start_from"], content["scales"][0]["network"]["upsampling"]
    begun.write_text(json.dumps(content))
    train(data, tmp_path, config_of(2))
    with pytest.raises(TrainingError, match="other settings"):
        train(data, tmp_path, config_of(2, seed=9))


def test_a_checkpoint_of_other_networks_is_told(data, tmp_path):
    """A discriminator of an earlier version saw a channel less; finished scales stay."""
    config = config_of(2)
    run = iter_train(survey(data, config), tmp_path, config)
    for report in run:
        if (report.stage, report.scale) == ("train", 2):
            break
    run.close()
    for scale in (1, 2):
        _take_a_channel(tmp_path / ".training" / f"scale_{scale}.pt")
    with pytest.raises(
        TrainingError, match=r"scale_2.pt is damaged or of other networks.*delete it"
    ):
        train(data, tmp_path, config)
    before = weights(tmp_path)
    (tmp_path / ".training" / "scale_2.pt").unlink()
    train(data, tmp_path, config)
    assert weights(tmp_path)[:2] == before[:2]


def test_a_scale_that_begins_anew_takes_what_followed_with_it(data, tmp_path):
    """What finer scales learnt from another scale 0 is no model with this one."""
    model, clean = tmp_path / "model", tmp_path / "clean"
    train(data, model, config_of(2))
    train(data, clean, config_of(2))
    work = model / ".training"
    state = torch.load(work / "scale_1.pt", weights_only=True)
    for part in state["average"].values():
        part += 1  # as if it had learnt from another one
    torch.save(state, work / "scale_1.pt")
    (work / "scale_0.pt").unlink()
    train(data, model, config_of(2))
    assert weights(model) == weights(clean)


def test_a_finished_model_keeps_its_scales_while_the_same_command_runs(data, tmp_path):
    config, out = config_of(2), tmp_path / "model"
    train(data, out, config)
    before = (out / "model.json").read_bytes()
    with closing(iter_train(survey(data, config), out, config)) as again:
        for report in again:
            if (report.stage, report.scale) == ("generate", 1):
                break
    assert (out / "model.json").read_bytes() == before


def test_no_more_is_validated_at_a_time_than_is_trained(data, tmp_path, monkeypatch):
    config, sizes = config_of(2, validation_every=2), set()
    apply = ScaleGan.apply

    def seen(self, batch):
        sizes.add(len(batch.image))
        return apply(self, batch)

    monkeypatch.setattr(ScaleGan, "apply", seen)
    train(data, tmp_path, config)
    assert sizes == {config.scales[0].batch}


@pytest.mark.parametrize(("adversarial", "end"), [({"gan_weight": 0}, 7), ({"gan_from": 0.5}, 16)])
def test_patience_begins_with_the_adversarial_loss_and_outlasts_a_stop(
    data, tmp_path, adversarial, end
):
    whole, finer = config_of(2, 2).scales
    scales = whole.model_copy(update={"steps": 20, **adversarial}), finer
    config = config_of(2, scales=scales, validation_every=2, learning_rate=1e-9)
    files = survey(data, config)

    def last_step(stop):
        """Train scale 0, at most up to a step."""
        step = 0
        with closing(iter_train(files, tmp_path, config)) as run:
            for report in run:
                if report.stage == "train":
                    step = report.step
                if report.stage == "generate" or step == stop:
                    break
        return step

    assert last_step(4) == 4
    assert last_step(None) == end


def _take_a_channel(checkpoint):
    state = torch.load(checkpoint, weights_only=True)
    parts = state["discriminator"]
    first = next(name for name, part in parts.items() if part.dim() == 4)
    parts[first] = parts[first][:, :3]
    torch.save(state, checkpoint)


def test_a_finished_model_is_not_overwritten(data, tmp_path):
    out = tmp_path / "model"
    train(data, out, config_of(2))
    before = weights(out)
    train(data, out, config_of(2))  # the same run: nothing is left to do
    shutil.rmtree(out / ".training")
    with pytest.raises(TrainingError, match="holds a finished model"):
        train(data, out, config_of(2, seed=1))
    with pytest.raises(TrainingError, match="is the model to start from"):
        train(data, out, config_of(2, start_from=str(out)))
    assert weights(out) == before


def test_two_runs_in_one_folder_are_kept_apart(data, tmp_path):
    config = config_of(2)
    first = iter_train(survey(data, config), tmp_path, config)
    next(first)
    with pytest.raises(TrainingError, match="is being written by this process"):
        train(data, tmp_path, config)
    first.close()
    train(data, tmp_path, config)


def saved(state):
    content = BytesIO()
    torch.save(state, content)
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", b'{"name": "ma', "config.json is damaged"),
        ("images.json", b"", "images.json is damaged"),
        ("images.json", b"[]", "images.json is damaged"),
        ("scale_1.pt", b"PK", "checkpoint .*scale_1.pt cannot be read"),
        ("scale_1.pt", saved({"step": 1}), "checkpoint .*scale_1.pt is damaged or of other"),
        ("scale_1.pt", saved([1]), "checkpoint .*scale_1.pt is damaged or of other"),
        ("cache/1.tif.0/image_1.npy", b"", "image_1.npy is damaged .*delete .*1.tif.0, and"),
        ("cache/1.tif.0/generated_0.npy", b"\x93NUMPY", "generated_0.npy is damaged"),
        ("pool/images.npy", b"\x93NUMPY\x01\0", "images.npy is damaged .*delete .*pool, and"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(data, tmp_path, name, content, said):
    config = config_of(2)
    with closing(iter_train(survey(data, config), tmp_path, config)) as run:
        for report in run:
            if (report.stage, report.scale) == ("train", 1):
                break
    if "pool" in name:  # which only scale 0 reads
        (tmp_path / ".training" / "scale_0.pt").unlink()
    (tmp_path / ".training" / name).write_bytes(content)
    with pytest.raises(TrainingError, match=said):
        train(data, tmp_path, config_of(2))


def test_a_run_that_diverges_says_so(data, tmp_path):
    with pytest.raises(TrainingError, match="scale 0 diverged in step"):
        train(data, tmp_path, config_of(2, learning_rate=1e30))


def test_names_that_are_not_unicode_are_no_obstacle(data, tmp_path):
    name = os.fsdecode(b"M\xfcller.tif")
    (data / "0.tif").rename(data / name)
    train(data, tmp_path / "model", config_of(2))
    assert len(weights(tmp_path / "model")) == 3


def test_an_image_is_opened_once_for_all_its_variants(data, tmp_path, monkeypatch):
    config, opened = config_of(2, variants=3), []
    files = survey(data, config)
    read = sources.read_volume
    monkeypatch.setattr(sources, "read_volume", lambda path: opened.append(path) or read(path))
    made = [pyramid for _, _, pyramid in sources.prepare(files, tmp_path, config)]
    assert len(made) == 3 * len(files)
    assert opened == [file.path for file in files]
    assert len([p for _, _, p in sources.prepare(files, tmp_path, config)]) == len(made)
    assert len(opened) == len(files)  # what is on disk needs no image


def test_what_is_validated_is_kept_out_and_nothing_else(tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    for index, side in enumerate((260, 128, 260)):
        write_image(data / f"{index}.tif", blobs((side, side), index))
    config, pools, sampled = config_of(2, validation_every=3), {}, []
    make_pool, sampler = run.iter_make_pool, one_scale.PatchSampler

    def names(pyramids):
        return {p.name for p in pyramids}

    def iter_make_pool(pyramids, size, folder, config):
        pools[folder.name] = names(pyramids)
        return make_pool(pyramids, size, folder, config)

    def patch_sampler(pyramids, *rest):
        sampled.append(names(pyramids))
        return sampler(pyramids, *rest)

    monkeypatch.setattr(run, "iter_make_pool", iter_make_pool)
    monkeypatch.setattr(one_scale, "PatchSampler", patch_sampler)
    for _ in iter_train(survey(data, config), tmp_path / "model", config):
        pass
    assert pools == {"pool": {"1.tif", "2.tif"}, "validation_pool": {"0.tif"}}
    assert sampled == [{"1.tif", "2.tif"}, {"0.tif"}] * 2  # of scales 1 and 2
