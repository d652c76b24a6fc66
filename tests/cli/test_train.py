"""train: from images to a model that generate uses; interrupted runs end with the same weights."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager

import numpy as np
import psutil
import pytest
import tifffile
import torch

from napari_msgan.cli._train_plan import read_config
from napari_msgan.locking import hold_lock
from napari_msgan.model import load_folder
from napari_msgan.training import iter_train, survey
from tests.cli.helpers import command, names_in, picture, pixels
from tests.training.made import write_image

CONFIG = {
    "name": "tiny",
    "kind": "relative",
    "axes": ["y", "x"],
    "modality": "XR",
    "base_size": 32,
    "tile_shape": [32, 32],
    "chunk_shape": [16, 16],
    "window": [0, 65535],
    "dtype": "uint16",
    "scales": [
        {
            "network": {"type": "low_res", "widths": [4, 8]},
            "factor": [2, 2],
            "steps": 6,
            "batch": 2,
            "patch_shape": [32, 32],
            "discriminator_width": 4,
            "discriminator_strides": [2],
            "gan_from": 0.5,
        },
        {
            "network": {"type": "patch", "width": 4, "blocks": 1},
            "factor": [2, 2],
            "steps": 6,
            "batch": 2,
            "patch_shape": [32, 32],
            "discriminator_width": 4,
            "discriminator_strides": [2],
            "gan_from": 0.5,
        },
    ],
    "include": ["*.tif"],
    "pool": 6,
}


@pytest.fixture(autouse=True)
def one_thread():
    """Sums of floats depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for index in range(3):
        tifffile.imwrite(folder / f"{index}.tif", picture((96, 80), seed=10 + index))
    return folder


@pytest.fixture
def write_config(tmp_path):
    def write(**changes):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(CONFIG | changes))
        return path

    return write


def hashes(folder):
    return [s["sha256"] for s in json.loads((folder / "model.json").read_text())["scales"]]


def test_trained_model_can_be_used_and_training_again_changes_nothing(
    cli, data, image, write_config, tmp_path
):
    out, store = tmp_path / "model", tmp_path / "a.ome.zarr"
    train = ("train", data, out, "--config", write_config(), "--device", "cpu")
    ended = cli(*train)
    assert ended.code == 0
    assert f"napari-msgan generate IMAGE NAME.ome.zarr --model {out}" in ended.out
    for stage in (
        "preparing images: 3 of 3",
        "training scale 0 (0 to 1): 6 of 6",
        "applying scale 0",
    ):
        assert stage in ended.err
    assert ", l1 0." in ended.err
    assert load_folder(out).spec.name == "tiny"
    assert cli("generate", image, store, "--model", out, "-q").code == 0
    assert pixels(store)[-1].std() > 0
    before = hashes(out)
    again = cli(*train)
    assert again.code == 0
    assert "training" not in again.err
    assert hashes(out) == before
    assert {"model.json", "training.json"} <= set(names_in(out))


def test_a_model_is_trained_on_with_its_own_settings(cli, data, write_config, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    config = write_config(patient=r"^\d+")  # of its images: says nothing of others
    assert cli("train", data, first, "--config", config, "--device", "cpu", "-q").code == 0
    start = ("train", data, second, "--start-from", first, "--device", "cpu")
    ended = cli(*start, "--plan-only")
    assert ended.code == 0
    assert f"settings of {first}" in ended.out
    assert cli(*start).code == 0
    kept = json.loads((second / "training.json").read_text())
    own = json.loads((first / "training.json").read_text())
    changed = {"name", "include", "start_from", "patient"}
    assert {name for name in own if own[name] != kept[name]} == changed
    assert hashes(second) != hashes(first)
    own["scales"][0]["steps"] = 0
    (first / "training.json").write_text(json.dumps(own))
    ended = cli(*start[:2], tmp_path / "taken", *start[3:], "--plan-only")
    assert f"Without steps, taken unchanged from {first}: scale 0." in ended.out
    (first / "training.json").unlink()
    refused = cli("train", data, tmp_path / "third", "--start-from", first, "--device", "cpu")
    refused.check_refused("training.json is missing")


def test_a_model_to_start_from_is_found_from_any_folder(
    cli, data, write_config, tmp_path, monkeypatch
):
    config = write_config()
    assert cli("train", data, tmp_path / "first", "--config", config, "--device", "cpu").code == 0
    start = ("train", data, tmp_path / "second", "--start-from", "first", "--device", "cpu")
    monkeypatch.chdir(tmp_path)
    assert cli(*start, "--plan-only").code == 0
    monkeypatch.chdir(data)
    assert cli(*start[:3], "--device", "cpu", "--plan-only").code == 0
    cli(*start, "--plan-only").check_refused("there is no model 'first'")
    monkeypatch.chdir(tmp_path)
    assert cli(*start).code == 0
    told = json.loads((tmp_path / "second" / "training.json").read_text())
    assert told["start_from"] == "first"
    begun = tmp_path / "second" / ".training" / "config.json"  # as an earlier version wrote it
    begun.write_text(json.dumps(json.loads(begun.read_text()) | {"start_from": "first"}))
    (tmp_path / "second" / "plan.json").unlink()
    assert cli(*start).code == 0


def test_settings_that_no_memory_is_free_for_are_told(cli, data, write_config, tmp_path):
    large = [CONFIG["scales"][0], CONFIG["scales"][1] | {"batch": 4096, "patch_shape": [512, 512]}]
    config = write_config(scales=large)
    ended = cli("train", data, tmp_path / "m", "--config", config, "--device", "cpu", "--plan-only")
    assert ended.code == 0
    assert "a step of scale 1 takes about" in ended.err
    assert "a smaller batch takes less" in ended.err
    small = cli("train", data, tmp_path / "n", "--config", write_config(), "--plan-only")
    assert "takes about" not in small.err


def test_a_plan_of_another_preset_is_refused(cli, data, tmp_path):
    plan = ("train", data, tmp_path / "model", "--device", "cpu", "--plan-only")
    assert cli(*plan, "--preset", "fast").code == 0
    assert cli(*plan, "--preset", "fast").code == 0
    assert "settings of" in cli(*plan).out
    cli(*plan, "--preset", "quality").check_refused("has other steps than --preset quality")


def test_a_run_that_has_begun_keeps_its_settings_and_says_so(cli, data, write_config, tmp_path):
    out = tmp_path / "model"
    train = ("train", data, out, "--device", "cpu", "-q")
    assert cli(*train, "--config", write_config()).code == 0
    before = hashes(out)
    plan = json.loads((out / "plan.json").read_text())
    assert [scale["steps"] for scale in plan["scales"]] == [6, 6]  # the plan is what is trained
    cli(*train, "--preset", "quality").check_refused(
        f"leave --preset out to continue it, or delete {out / '.training'} to start again"
    )
    (out / "plan.json").write_text(json.dumps(plan | {"seed": 5}))
    cli(*train).check_refused(f"{out / 'plan.json'} has other settings than the run")
    (out / "plan.json").write_text(json.dumps(plan))
    assert cli(*train).code == 0
    assert hashes(out) == before


@pytest.mark.parametrize("option", ["--config", "--start-from"])
def test_a_preset_beside_other_settings_is_refused(cli, data, tmp_path, option):
    given = ("--preset", "fast", option, "chest-xray")
    ended = cli("train", data, tmp_path / "model", *given)
    ended.check_refused(f"{option} brings settings of its own: leave --preset out")


def test_scales_of_a_model_to_start_from_that_no_image_reaches_are_left_out(
    cli, data, write_config, tmp_path
):
    first, finer, small = (tmp_path / name for name in ("first", "finer", "small"))
    finer.mkdir()
    small.mkdir()
    for index in range(3):
        tifffile.imwrite(finer / f"{index}.tif", picture((130, 120), seed=index))
        tifffile.imwrite(small / f"{index}.tif", picture((64, 60), seed=index))
    scales = [*CONFIG["scales"], CONFIG["scales"][1]]
    settings = ("--config", write_config(scales=scales), "--device", "cpu", "-q")
    assert cli("train", finer, first, *settings).code == 0
    assert load_folder(first).spec.n_scales == 3
    start = ("--start-from", first, "--device", "cpu")
    ended = cli("train", small, tmp_path / "second", *start)
    assert "whose finer scales than 1 no image reaches" in ended.out
    assert load_folder(tmp_path / "second").spec.n_scales == 2


def test_images_too_coarse_for_two_scales_are_named_and_not_counted(cli, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for index in range(5):
        write_image(data / f"{index}.nii", picture((40, 48, 48), seed=index), (1.0,) * 3)
    write_image(data / "6 mm.nii", picture((9, 48, 48), seed=9), (6.0, 1.0, 1.0))
    options = ("--preset", "fast", "--device", "cpu", "--plan-only")
    ended = cli("train", data, tmp_path / "model", *options)
    assert ended.code == 0
    assert "1 of 6 images are too coarse for two scales, and left out: 6 mm.nii." in ended.out
    assert "1 of 5 images are kept out of training" in ended.out


STOPS = {
    "while preparing": ("preparing images", 2),
    "in scale 0": ("training scale 0 (0 to 1)", 4),
    "between the scales": ("applying scale 0", 1),
    "in scale 1": ("training scale 1 (0 to 1)", 3),
}


@pytest.mark.parametrize(("stage", "step"), STOPS.values(), ids=STOPS)
def test_stopped_training_resumes_and_ends_with_the_same_weights(
    cli, data, write_config, tmp_path, monkeypatch, stage, step
):
    seen = []

    @contextmanager
    def watched(*, quiet):
        def show(name, done, total, note=""):
            seen.append((name, done))
            if stop_there and (name, done) == (stage, step):
                raise KeyboardInterrupt

        yield show

    monkeypatch.setattr("napari_msgan.cli._train.progress_shown", watched)
    options = ("--config", write_config(checkpoint_s=0), "--device", "cpu")
    stop_there = True
    ended = cli("train", data, tmp_path / "model", *options)
    assert ended.code == 130
    assert "The same command resumes" in ended.err
    stop_there = False
    seen.clear()
    assert cli("train", data, tmp_path / "model", *options).code == 0
    trained = [done for name, done in seen if name == stage]
    assert len(trained) == (6 - step if "training" in stage else trained[-1])
    assert cli("train", data, tmp_path / "whole", *options).code == 0
    assert hashes(tmp_path / "model") == hashes(tmp_path / "whole")


def test_another_seed_gives_other_weights(cli, data, write_config, tmp_path):
    for seed in (0, 1):
        options = ("--config", write_config(seed=seed), "--device", "cpu", "-q")
        assert cli("train", data, tmp_path / f"seed {seed}", *options).code == 0
    assert set(hashes(tmp_path / "seed 0")).isdisjoint(hashes(tmp_path / "seed 1"))


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for other processes there")
def test_ctrl_c_stops_a_real_process(data, write_config, tmp_path):
    long = [scale | {"steps": 100_000} for scale in CONFIG["scales"]]
    out = tmp_path / "model"
    options = ("--config", write_config(scales=long), "--device", "cpu")
    with subprocess.Popen(
        command("train", data, out, *options), stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and not (out / ".training" / "scale_0.jsonl").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopping after this step" in err
    assert torch.load(out / ".training" / "scale_0.pt", weights_only=True)["step"] > 0
    assert "stopped. The same command resumes" in err
    assert "Traceback" not in err
    assert not (out / "model.json").exists()


def test_settings_of_no_such_name_are_refused(cli, data, tmp_path):
    other = cli("train", data, tmp_path / "model", "--config", "brain")
    other.check_refused(
        "'brain' is not a file, and the bundled settings are brain-mri, chest-xray, thorax-ct"
    )
    assert names_in(tmp_path) == []


def test_bundled_settings_are_found_by_name(cli, data, tmp_path):
    # They ask for other files than these: so they were read.
    ended = cli("train", data, tmp_path / "model", "--config", "chest-xray")
    ended.check_refused("holds no image that matches kermany_*.jpg")
    assert names_in(tmp_path) == []


BAD_CONFIGS = {
    "misspelt": ({"colour": "red"}, "colour: there is no setting of this name"),
    "one scale": ({"scales": CONFIG["scales"][:1]}, "scales: "),
    "two low-res scales": ({"scales": CONFIG["scales"][:1] * 2}, "scale 1 cannot have a network"),
    "tile of no whole chunks": ({"tile_shape": [40, 40]}, "must be whole chunks"),
    "name": ({"name": "A Model"}, "name: "),
    "patch of three axes": (
        {"scales": [s | {"patch_shape": [32] * 3} for s in CONFIG["scales"]]},
        "patch_shape (32, 32, 32) needs 2 numbers",
    ),
    "patch below the window": (
        {"scales": [s | {"discriminator_strides": [2, 2, 1]} for s in CONFIG["scales"]]},
        "smaller than the 34 voxels",
    ),
    "no such files": ({"include": ["*.nii.gz"]}, "holds no image that matches *.nii.gz"),
}


@pytest.mark.parametrize(("changes", "advice"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_bad_settings_are_refused_before_anything_is_written(
    cli, data, write_config, tmp_path, changes, advice
):
    config = write_config(**changes)
    cli("train", data, tmp_path / "model", "--config", config).check_refused(advice)
    assert names_in(tmp_path) == ["config.json"]


def test_file_that_is_no_json_is_refused(cli, data, image, tmp_path):
    cli("train", data, tmp_path / "model", "--config", image).check_refused("Invalid JSON")


def test_bad_settings_of_a_model_to_start_from_are_named_by_their_file(cli, data, model, tmp_path):
    start = shutil.copytree(model, tmp_path / "start")
    (start / "training.json").write_text("{")
    ended = cli("train", data, tmp_path / "model", "--start-from", start)
    ended.check_refused(f"error: {start / 'training.json'}: Invalid JSON")


def test_images_that_cannot_be_used_are_named_on_a_line_each(cli, write_config, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.tif").write_bytes(b"hello")
    tifffile.imwrite(data / "b.tif", picture((8, 20, 24), seed=0))
    ended = cli("train", data, tmp_path / "model", "--config", write_config())
    assert ended.code == 2
    first, second, error = ended.err.splitlines()[-3:]
    assert first.startswith("a.tif: ")
    assert second.startswith("b.tif: ")
    assert error.startswith("error: 2 of the files in ")
    assert error.endswith("or name the others by --include (`include` in the settings)")
    assert not (tmp_path / "model").exists()


def test_images_are_chosen_by_their_paths(cli, tmp_path):
    data, out = tmp_path / "data", tmp_path / "model"
    for name in ("a/1.tif", "a/2.tif", "b/3.tif"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(data / name, picture((160, 170), seed=ord(name[2])))
    (data / "a" / "broken.tif").write_bytes(b"hello")
    plan = ("train", data, out, "--plan-only", "--device", "cpu")
    assert "name the others by --include" in cli(*plan).err
    cli(*plan, "--include", "../*.tif").check_refused("is not a pattern of files below a folder")
    assert cli(*plan, "--include", "a/[0-9].tif", "--include", "b/*").code == 0
    assert json.loads((out / "plan.json").read_text())["include"] == ["a/[0-9].tif", "b/*"]


def test_images_that_are_too_coarse_are_refused_before_training(cli, data, write_config, tmp_path):
    scales = [*CONFIG["scales"], *[CONFIG["scales"][1]] * 3]
    options = ("--config", write_config(scales=scales), "--device", "cpu", "-q")
    ended = cli("train", data, tmp_path / "model", *options)
    ended.check_refused(
        "no training image is fine enough for scale 4, the finest that they reach is 1"
    )


def test_folder_of_another_run_is_refused(cli, data, write_config, tmp_path):
    out = tmp_path / "model"
    train = ("train", data, out, "--device", "cpu", "-q", "--config")
    assert cli(*train, write_config()).code == 0
    before = hashes(out)
    cli(*train, write_config(seed=3)).check_refused("holds a training run with other settings")
    assert hashes(out) == before
    (tmp_path / "file").write_text("mine")
    cli("train", data, tmp_path / "file", "--config", write_config()).check_refused("file")


def test_a_run_goes_on_with_the_same_images_only(cli, data, write_config, tmp_path):
    mine, out = tmp_path / "mine", tmp_path / "model"
    shutil.copytree(data, mine)
    names = sorted(path.name for path in mine.iterdir())
    train = ("train", mine, out, "--config", write_config(), "--device", "cpu", "-q")
    assert cli(*train).code == 0
    before = hashes(out)
    assert cli(*train).code == 0  # nothing has changed
    (mine / names[0]).rename(mine / "added.tif")
    shutil.copy(mine / "added.tif", mine / "too.tif")
    tifffile.imwrite(mine / names[1], picture((40, 40), seed=5))
    cli(*train).check_refused(
        "holds a training run with other images: 2 new (added.tif, too.tif); "
        f"1 gone ({names[0]}); 1 changed ({names[1]})"
    )
    assert hashes(out) == before


def losses(folder):
    work = folder / ".training"
    return {file.name: file.read_text() for file in work.glob("*.jsonl")}


def test_stopped_training_goes_on_from_its_last_step(data, write_config, tmp_path):
    """Stopped sooner than it writes checkpoints, again and again, it ends, with the same bits."""
    steps = [scale | {"steps": 4} for scale in CONFIG["scales"]]
    config = read_config(str(write_config(scales=steps, checkpoint_s=3600)))
    files = survey(data)
    seen = []
    for name, steps_at_a_time in (("stopped", 1), ("whole", 99)):
        out, is_over = tmp_path / name, False
        while not is_over:
            with closing(iter_train(files, out, config)) as run:
                trained = []
                for report in run:
                    is_over = report.stage == "done"
                    trained += [(report.scale, report.step)] * (report.stage == "train")
                    if len(trained) == steps_at_a_time:
                        break
            seen += trained if name == "stopped" else []
    assert seen == [(scale, step) for scale in (0, 1) for step in (1, 2, 3, 4)]
    assert hashes(tmp_path / "stopped") == hashes(tmp_path / "whole")
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_killed_training_goes_on_as_if_it_had_not_been(data, write_config, tmp_path):
    steps = [scale | {"steps": 20} for scale in CONFIG["scales"]]
    config = write_config(scales=steps, validation_every=3, patience=None, checkpoint_s=0)

    def run(out, *, kill_at=None):
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        arguments = ("train", data, out, "--config", config, "--device", "cpu", "-q")
        with subprocess.Popen(command(*arguments), env=environment) as process:
            while process.poll() is None and kill_at and not kill_at():
                time.sleep(0.002)
            if kill_at:
                process.kill()
        return process.returncode

    out = tmp_path / "killed"
    work = out / ".training"
    for file in ("scale_0.pt", "scale_1.pt"):
        assert run(out, kill_at=lambda file=file: (work / file).exists()) == -signal.SIGKILL
        assert not (out / "training.json").exists()
    assert run(out) == 0
    assert run(tmp_path / "whole") == 0
    assert hashes(out) == hashes(tmp_path / "whole")
    assert losses(out) == losses(tmp_path / "whole")
    assert "validation_l1" in losses(out)["scale_1.jsonl"]


def test_two_processes_agree_with_one(data, write_config, tmp_path):
    scales = [scale | {"steps": 50, "batch": 4} for scale in CONFIG["scales"]]

    def curves(name, *options, **changes):
        config = write_config(scales=scales, precision="fp32", **changes)
        arguments = ("train", data, tmp_path / name, "--config", config, "--device", "cpu", "-q")
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command(*arguments, *options), check=True, env=environment)
        lines = [line for text in losses(tmp_path / name).values() for line in text.splitlines()]
        return [value for line in lines for value in json.loads(line).values()]

    one, two = curves("one"), curves("two", "--devices", "2")
    np.testing.assert_allclose(one, two, atol=1e-4)
    assert np.abs(np.subtract(one, curves("other", seed=1))).max() > 1e-2


def test_two_processes_end_where_another_run_trains(data, write_config, tmp_path):
    out, config = tmp_path / "m", write_config(scales=[s | {"batch": 2} for s in CONFIG["scales"]])
    arguments = ("train", data, out, "--config", config, "--device", "cpu", "--devices", "2")
    (out / ".training").mkdir(parents=True)
    with hold_lock(out / ".training" / "lock", str(out)):
        ended = subprocess.run(
            command(*arguments), check=False, capture_output=True, text=True, timeout=90
        )
    assert ended.returncode == 2
    assert f"{out} is being written by process {os.getpid()}" in ended.stderr
    assert ended.stderr.count("error: ") == 1
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_killed_process_ends_the_run_with_a_line(data, write_config, tmp_path):
    out = tmp_path / "m"
    scales = [scale | {"steps": 100000} for scale in CONFIG["scales"]]
    config = write_config(scales=scales, checkpoint_s=0.5)
    arguments = ("train", data, out, "--config", config, "--device", "cpu", "--devices", "2", "-q")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command(*arguments), env=environment, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not (out / ".training" / "scale_0.pt").exists():
        time.sleep(0.05)
    (other,) = psutil.Process(process.pid).children()
    other.kill()
    _, said = process.communicate(timeout=100)
    assert process.returncode == 2
    assert "Traceback" not in said
    assert "another process of this run has ended" in said
    assert "The same command resumes from the last checkpoint" in said


def test_batch_that_cannot_be_shared_is_refused(cli, data, write_config, tmp_path):
    ended = cli("train", data, tmp_path / "m", "--config", write_config(), "--devices", "4")
    ended.check_refused("a batch of 2 cannot be shared by 4 devices")


def test_without_settings_they_are_derived_shown_and_written(cli, data, tmp_path):
    out = tmp_path / "My Model"
    ended = cli("train", data, out, "--preset", "fast", "--plan-only")
    assert ended.code == 0
    assert "my-model: relative, axes y, x, 0 to 65535 (uint16)" in ended.out
    assert "U-Net" in ended.out
    assert "1 of 3 images are kept out of training" in ended.out
    assert names_in(out) == ["plan.json"]
    plan = json.loads((out / "plan.json").read_text())
    for scale in plan["scales"]:
        scale["steps"] = 2
    edited = tmp_path / "edited.json"
    edited.write_text(json.dumps(plan | {"pool": 3}))
    trained = cli("train", data, out, "--config", edited, "--device", "cpu")
    assert trained.code == 0
    assert load_folder(out).spec.name == "my-model"
    before = hashes(out)
    assert cli("train", data, out, "--device", "cpu").code == 0  # with what the run began with
    assert hashes(out) == before


def test_scale_0_ends_where_validation_becomes_no_better(cli, data, write_config, tmp_path):
    scales = [scale | {"steps": 60, "gan_from": 0.0} for scale in CONFIG["scales"]]
    out = tmp_path / "model"
    config = write_config(scales=scales, validation_every=3, patience=0.05, learning_rate=1e-9)
    ended = cli("train", data, out, "--config", config, "--device", "cpu")
    assert ended.code == 0
    first, finer = (
        json.loads(losses(out)[f"scale_{scale}.jsonl"].splitlines()[-1]) for scale in (0, 1)
    )
    assert first["step"] < 20
    assert f"Scale 0 took {first['step']} of 60 steps: its loss" in ended.out
    assert "Scale 1 took" not in ended.out
    assert first["validation_l1"] > 0
    assert finer["step"] == 60  # what it learns, texture, is not in its validation loss
    before = hashes(out)
    assert cli("train", data, out, "--config", config, "--device", "cpu", "-q").code == 0
    assert hashes(out) == before


def test_given_sketches_are_what_is_trained_on(cli, data, write_config, tmp_path):
    sketches = tmp_path / "sketches"
    sketches.mkdir()
    for index in range(3):
        lines = np.zeros((96, 80), np.uint8)
        lines[::16] = 255
        tifffile.imwrite(sketches / f"{index}.tif", lines)
    out = tmp_path / "model"
    options = ("--config", write_config(), "--sketches", sketches, "--device", "cpu", "-q")
    assert cli("train", data, out, *options).code == 0
    seen = np.load(out / ".training" / "cache" / "0.tif.0" / "sketch_1.npy")
    rows = (seen > 0).mean(axis=1)
    assert (rows > 0.9).sum() == pytest.approx(6, abs=1)
    assert (rows < 0.1).sum() > 0.7 * len(rows)


def test_borders_of_given_label_maps_are_what_is_trained_on(cli, data, write_config, tmp_path):
    labels = np.zeros((96, 80), np.uint8)
    labels[20:70, 15:65] = 3
    sketches = tmp_path / "labels"
    sketches.mkdir()
    for index in range(3):
        tifffile.imwrite(sketches / f"{index}.tif", labels)
    out = tmp_path / "model"
    options = ("--config", write_config(), "--sketches", sketches, "--device", "cpu", "-q")
    ended = cli("train", data, out, *options)
    assert ended.code == 0
    assert "label map: the borders between its labels are the edges" in ended.err
    seen = np.load(out / ".training" / "cache" / "0.tif.0" / "sketch_1.npy")
    assert seen.max() == 255
    assert 0.02 < (seen > 0).mean() < 0.1  # filled it would be 0.33
    height, width = seen.shape
    assert not seen[height // 2 - 5 : height // 2 + 5, width // 2 - 5 : width // 2 + 5].any()


def test_missing_packages_are_named(cli, data, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "napari_msgan.cli._train.find_spec", lambda name: None if name == "tensorboard" else name
    )
    ended = cli("train", data, tmp_path / "model")
    ended.check_refused("training needs tensorboard: install them with pip install")
