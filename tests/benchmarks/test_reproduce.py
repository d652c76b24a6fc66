"""The methods that are compared in docs/results.md, and how their figures become tables."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.reproduce import networks
from benchmarks.reproduce.__main__ import _budget, _command, _refuse_other_settings
from benchmarks.reproduce.ablations import LOSSES
from benchmarks.reproduce.budgets import Budget, budgeted, measure_step
from benchmarks.reproduce.compare import _refuse_other_measures, _with_published, iter_compare
from benchmarks.reproduce.data import DataSet, bundled_config
from benchmarks.reproduce.figures import (
    mean_and_interval,
    measure_heldout,
    measured,
    measures_of,
    model_of,
    paired_difference,
    read_csv,
    write_csv,
)
from benchmarks.reproduce.methods import METHODS, TRAINED_BY
from benchmarks.reproduce.pictures import picture_sheet
from benchmarks.reproduce.places import Places
from benchmarks.reproduce.train import curves, prepare_base, train, training_summary
from benchmarks.reproduce.yardstick import minutes_of, on_this_machine
from napari_msgan.config import LowResNetwork, PatchNetwork
from napari_msgan.training.config import ScaleTraining, TrainConfig
from napari_msgan.training.run import open_fabric
from napari_msgan.training.sources import dequantise, prepare

_ODD_SHAPE = (61, 83)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """X-rays of waves, three scales from 20 pixels on."""
    folder = tmp_path_factory.mktemp("data")
    for part, count, shape in (("train", 3, (80, 80)), ("heldout", 1, _ODD_SHAPE)):
        (folder / part).mkdir()
        for number in range(count):
            rows, columns = np.indices(shape) / 80
            waves = np.sin(9 * rows + number) * np.cos(7 * columns) + rows
            grey = Image.fromarray((100 + 60 * waves).astype(np.uint8))
            grey.save(folder / part / f"{number}.png")
    first = ScaleTraining(
        network=LowResNetwork(widths=(4, 8)),
        factor=(2, 2),
        steps=2,
        batch=2,
        patch_shape=(24, 24),
        discriminator_width=4,
        discriminator_strides=(2,),
        gan_from=0.5,
    )
    patch = {"network": PatchNetwork(width=4, blocks=1), "patch_shape": (32, 32)}
    finer = first.model_copy(update=patch)
    config = TrainConfig(
        name="made",
        kind="relative",
        axes=("y", "x"),
        modality="XR",
        base_size=20,
        tile_shape=(32, 32),
        chunk_shape=(32, 32),
        window=(0, 65535),
        dtype="uint16",
        scales=(first, finer, finer),
        zoom=(0.9, 1.0),
        pool=6,
        validation_every=3,
        patience=None,
        stochastic=True,
    )
    heldout = tuple(sorted((folder / "heldout").glob("*.png")))
    return DataSet(
        "made", folder / "train", heldout, config, patch=32, whole_scale=2, whole_tile=96, tile=32
    )


@pytest.fixture(scope="module")
def base(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    return folder, prepare_base(data, folder)


def _few_patches():
    return Budget(patches=4)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Let two steps be enough, and the slowest figure be rough."""
    monkeypatch.setattr("benchmarks.reproduce.budgets._FEWEST_STEPS", 2)
    monkeypatch.setattr("napari_msgan.evaluation.textures._PROJECTIONS", 4)


@pytest.mark.parametrize("name", METHODS)
def test_method_trains_and_makes_an_image_of_an_odd_shape(name, data, base, tmp_path):
    folder, files = base
    method = METHODS[name]
    run = METHODS[TRAINED_BY.get(name, name)].run(data)
    trained = train(run, data, files, folder, tmp_path / "run", _few_patches())
    generators = method.generators(data, trained)
    model = model_of(data, generators, method.tile(data), tmp_path)
    measure_heldout(data, model, tmp_path)
    (row,) = read_csv(tmp_path / "figures.csv")
    assert row["image"] == "0.png"
    assert 0 <= float(row["mae"]) < 255
    made = np.load(tmp_path / "pictures" / "0.png.npz")["made"]
    assert made.shape == _ODD_SHAPE
    summary = training_summary(run, tmp_path / "run", (32, 32))
    shown = [run.shown(scale) for scale in run.scales]
    assert [line["scale"] for line in summary] == shown
    assert {line["scale"] for line in curves(run, tmp_path / "run")} == set(shown)
    assert shown[-1] == data.finest


def test_a_run_that_is_asked_for_again_takes_no_step(data, base, tmp_path):
    folder, files = base
    run = METHODS["patches"].run(data)
    first = train(run, data, files, folder, tmp_path, _few_patches())
    minutes = (tmp_path / "minutes.json").read_text()
    again = train(run, data, files, folder, tmp_path, _few_patches())
    assert (tmp_path / "minutes.json").read_text() == minutes
    for one, other in zip(first[2].parameters(), again[2].parameters(), strict=True):
        assert torch.equal(one, other)


def test_work_that_was_begun_with_another_budget_is_refused(data, base, tmp_path):
    folder, files = base
    run = METHODS["patches"].run(data)
    train(run, data, files, folder, tmp_path, _few_patches())
    with pytest.raises(SystemExit, match="other settings"):
        train(run, data, files, folder, tmp_path, Budget(patches=400))


def test_methods_without_coarse_image_see_nothing_of_it(data, base):
    run = METHODS["patches"].run(data)
    seen = [run.view(p) for _, _, p in prepare(base[1], base[0] / "cache", data.config)]
    assert all(np.ptp(dequantise(pyramid.image(1))) == 0 for pyramid in seen)
    assert all(np.ptp(dequantise(pyramid.image(2))) > 0 for pyramid in seen)


@pytest.mark.parametrize("reads_coarse", [False, True])
def test_middle_of_patch_is_that_of_the_whole_patch(reads_coarse):
    torch.manual_seed(0)
    network = networks.MeganPatch(2, 4, 32, reads_coarse=reads_coarse).eval()
    tiles = networks.MiddleOfPatch(network)
    window = tiles.tile_side // 2 + 2 * tiles.halo[0]
    coarse, sketch = torch.rand(1, 1, window, window), torch.rand(1, 1, 2 * window, 2 * window)
    made = tiles(coarse, sketch)
    assert made.shape == (1, 1, 20, 20)
    middle = (2 * window - 32) // 2
    patch = sketch[..., middle : middle + 32, middle : middle + 32]
    whole = network(coarse, patch)
    assert torch.equal(made, whole[..., 6:26, 6:26])
    other = torch.rand_like(coarse)
    assert torch.equal(tiles(other, sketch), made) != reads_coarse


def test_three_dimensional_layout_keeps_the_shape_of_its_patch():
    low_res = networks.MeganLowRes(3, 2).eval()
    assert low_res(torch.rand(1, 1, 18, 32, 20)).shape == (1, 1, 9, 16, 10)
    patch = networks.MeganPatch(3, 2, 32, reads_coarse=True).eval()
    coarse, sketch = torch.rand(1, 1, 32, 32, 32), torch.rand(1, 1, 64, 64, 64)
    assert patch(coarse, sketch).shape == (1, 1, 32, 32, 32)


def test_equal_time_gives_half_to_scale_0_and_shares_the_rest(data):
    run = METHODS["ours"].run(data)
    config = budgeted(run, Budget(minutes=2), (32, 32), lambda scale: 0.5 + scale)
    assert [plan.steps for plan in config.scales] == [120, 20, 12]
    alone = budgeted(METHODS["patches"].run(data), Budget(minutes=2), (32, 32), lambda _: 0.5)
    assert alone.scales[2].steps == 240


def test_equal_patches_counts_a_larger_image_as_more_of_them(data):
    whole = METHODS["whole"].run(data)
    config = budgeted(whole, Budget(patches=900), (32, 32), None)
    assert whole.config.scales[0].patch_shape == (96, 96)  # nine patches
    assert config.scales[0].steps == 100


def test_measured_seconds_of_a_step_are_those_of_the_processor(data, base, tmp_path):
    run, (folder, files) = METHODS["patches"].run(data), base
    pyramids = [run.view(p) for _, _, p in prepare(files, folder / "cache", data.config)]
    fabric = open_fabric(run.config)

    def build_waiting(network, factor):
        generator = run.build(network, factor)
        generator.register_forward_pre_hook(lambda *_: time.sleep(0.25))
        return generator

    waiting = replace(run, build=build_waiting)
    started = time.monotonic()
    seconds = [measure_step(r, 2, tmp_path, pyramids, fabric) for r in (run, waiting)]
    assert time.monotonic() - started > 16 * 0.25
    assert max(seconds) < 0.25
    assert not list(tmp_path.iterdir())


def test_minutes_are_those_that_the_published_steps_of_ours_take_here(data, base, tmp_path):
    folder, files = base
    published, work = tmp_path / "runs.csv", tmp_path / "work"
    budget = partial(
        on_this_machine, Budget(minutes=90), METHODS, data, files, folder, work, published
    )
    assert budget() == Budget(minutes=90)  # nothing is published
    scales = [{"method": "ours", "scale": scale, "steps": 10**6} for scale in range(3)]
    write_csv(published, [*scales, {"method": "whole", "scale": 2, "steps": 10**9}])
    found = budget()
    assert 3e6 * 0.001 < 60 * found.minutes < 3e6 * 0.2
    assert budget() == found  # of all methods, also when the machine is busier
    assert not list(folder.glob("calibration*"))
    (work / "ours").mkdir()
    assert budget() == Budget(minutes=90)


def test_minutes_of_steps_of_known_seconds():
    assert minutes_of({0: 120, 2: 30}, {0: 0.5, 2: 4.0}.get) == 3.0


def test_equal_patches_are_equal_on_every_machine(data, base, tmp_path):
    folder, files = base
    published = tmp_path / "runs.csv"
    write_csv(published, [{"method": "ours", "scale": 0, "steps": 10}])
    budget = Budget(patches=4)
    assert on_this_machine(budget, METHODS, data, files, folder, tmp_path, published) == budget


def test_a_changed_run_takes_the_steps_that_were_published_elsewhere(data, tmp_path):
    methods = {"unchanged": METHODS["ours"], "changed": METHODS["ours"]}
    places = Places(tmp_path / "work", tmp_path / "results", tmp_path)
    compare = partial(
        iter_compare, "ablations", data, methods, {"changed"}, Budget(minutes=0.01), places
    )
    with pytest.raises(SystemExit, match="unchanged gives all others its number of steps"):
        next(compare(same_steps_as="unchanged"))
    runs = places.part("ablations") / "runs.csv"
    steps = {"0": "3", "1": "5", "2": "4"}
    row = {"method": "unchanged", "title": "ours", "minutes": "1", "patches": "9"}
    write_csv(runs, [row | {"scale": scale, "steps": n} for scale, n in steps.items()])
    assert list(compare(same_steps_as="unchanged")) == ["changed"]
    made = {row["scale"]: row["steps"] for row in read_csv(runs) if row["method"] == "changed"}
    assert made == steps


def test_losses_take_the_steps_of_the_ablations(data, tmp_path):
    places = Places(tmp_path / "work", tmp_path / "results", tmp_path)
    with pytest.raises(SystemExit, match="run that part first"):
        _budget("losses", None, places)
    row = {"method": "unchanged", "title": "ours", "scale": "1", "steps": "7"}
    write_csv(places.part("ablations") / "runs.csv", [row])
    assert _budget("losses", None, places) == Budget(steps={1: 7})
    # each row changes what it says, and nothing of scale 0, which all share
    data = replace(data, config=bundled_config("chest-xray"))
    configs = {name: method.run(data).config for name, method in LOSSES.items()}
    assert len({config.model_dump_json() for config in configs.values()}) == len(LOSSES)
    assert len({config.scales[0].model_dump_json() for config in configs.values()}) == 1
    assert configs["kept-voxels"].coarse == data.config.coarse.model_copy(update={"kept": 1})


def test_paired_difference_of_known_values():
    ours = {"a": 1.0, "b": 2.0, "c": 3.0}
    other = {"a": 1.5, "b": 2.5, "c": 3.5, "d": 99.0}
    assert paired_difference(ours, other) == pytest.approx((0.5, 0.5, 0.5))


def test_interval_of_a_difference_that_is_noise_holds_zero():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 20))
    ours, other = ({str(i): v for i, v in enumerate(row)} for row in values)
    mean, low, high = paired_difference(ours, other)
    assert low < 0 < high
    shifted = {name: value + 3 for name, value in ours.items()}
    mean, low, high = paired_difference(ours, shifted)
    assert mean == pytest.approx(3)
    assert low == pytest.approx(3)


def test_mean_leaves_out_what_could_not_be_measured():
    mean, low, high = mean_and_interval([1.0, math.nan, 3.0])
    assert mean == 2.0
    assert 1.0 <= low <= high <= 3.0
    assert all(math.isnan(value) for value in mean_and_interval([]))


def test_minutes_are_kept_as_numbers(data, base, tmp_path):
    folder, files = base
    train(METHODS["patches"].run(data), data, files, folder, tmp_path, _few_patches())
    assert json.loads((tmp_path / "minutes.json").read_text())["2"] >= 0


def _pictures(folder, seed):
    (folder / "pictures").mkdir(parents=True)
    for number in range(2):
        random = np.random.default_rng(number)
        grey = {name: random.integers(0, 255, (90, 70), np.uint8) for name in ("sketch", "truth")}
        made = np.random.default_rng(seed).integers(0, 255, (90, 70), np.uint8)
        np.savez(folder / "pictures" / f"{number}.npz", made=made, **grey)
    return folder


def test_sheet_keeps_the_columns_of_methods_that_were_run_elsewhere(tmp_path):
    folders = {title: _pictures(tmp_path / title, seed) for seed, title in enumerate("abc")}
    picture_sheet(folders, tmp_path / "at_once.png", "abc")
    grown = tmp_path / "grown.png"
    picture_sheet({"a": folders["a"], "c": folders["c"]}, grown, "ac")
    picture_sheet({"b": folders["b"]}, grown, "abc")
    at_once = np.asarray(Image.open(tmp_path / "at_once.png"))
    np.testing.assert_array_equal(np.asarray(Image.open(grown)), at_once)
    picture_sheet({"b": folders["a"]}, grown, "abc")
    assert not np.array_equal(np.asarray(Image.open(grown)), at_once)


def test_table_keeps_the_rows_of_methods_that_were_run_elsewhere():
    old = [{"method": name, "image": "1", "mae": "old"} for name in ("ours", "whole")]
    new = {n: [{"method": n, "image": "1", "mae": "new"}] for n in ("whole", "patches")}
    seen = [(row["method"], row["mae"]) for row in _with_published(new, old, METHODS)]
    assert seen == [("ours", "old"), ("patches", "new"), ("whole", "new")]


def test_a_table_takes_no_methods_that_were_trained_in_another_way(tmp_path, monkeypatch):
    places = Places(tmp_path, tmp_path, tmp_path)
    typed = ["ct-time", "--methods", "ours", "--work", "here", "--minutes", "90"]
    monkeypatch.setattr("sys.argv", ["reproduce", *typed])
    _refuse_other_settings("ct-time", places)  # nothing is published
    write_csv(places.part("ct-time") / "figures.csv", [{"method": "ours"}, {"method": "whole"}])
    command = _command("ct-time", places)
    assert command.endswith("ct-time --methods ours whole --minutes 90")
    places.sign("ct-time", command)
    _refuse_other_settings("ct-time", places)
    monkeypatch.setattr("sys.argv", ["reproduce", "ct-time", "--minutes", "9"])
    with pytest.raises(SystemExit, match="Give the same settings"):
        _refuse_other_settings("ct-time", places)


def test_figures_are_taken_again_where_they_were_taken_in_another_way(data, tmp_path, monkeypatch):
    taken = []

    def measure(data, model, image, folder):
        taken.append(image.name)
        return {"ssim": 0.5, "swd": 1.0}

    monkeypatch.setattr("benchmarks.reproduce.figures._measure", measure)
    measure_heldout(data, None, tmp_path)
    measure_heldout(data, None, tmp_path)
    assert taken == ["0.png"]
    (row,) = measured(data, tmp_path)
    write_csv(tmp_path / "figures.csv", [{**row, "measures": "2020"}])
    measure_heldout(data, None, tmp_path)
    assert taken == ["0.png", "0.png"]
    assert read_csv(tmp_path / "figures.csv") == [row]


def test_figures_of_two_measures_do_not_share_a_table(data, tmp_path):
    path = tmp_path / "figures.csv"
    _refuse_other_measures(data, path, {"ours"})  # nothing is published
    taken = measures_of(data)
    now, before = {"method": "ours", "measures": taken}, {"method": "whole", "measures": "2020"}
    write_csv(path, [now])
    _refuse_other_measures(data, path, {"patches"})
    write_csv(path, [now, before])
    assert measured(data, tmp_path) == [now]
    _refuse_other_measures(data, path, {"patches", "whole"})  # which replaces it
    with pytest.raises(SystemExit, match="figures of whole that were taken in another way"):
        _refuse_other_measures(data, path, {"patches"})
    write_csv(path, [{"method": "whole"}])  # of a time when they did not say
    with pytest.raises(SystemExit, match="figures of whole"):
        _refuse_other_measures(data, path, {"ours"})


def test_figures_with_noise_are_not_those_without(data, tmp_path):
    quiet = replace(data, config=data.config.model_copy(update={"stochastic": False}))
    path = tmp_path / "figures.csv"
    write_csv(path, [{"method": "whole", "measures": measures_of(quiet)}])
    _refuse_other_measures(quiet, path, {"ours"})
    with pytest.raises(SystemExit, match="figures of whole"):
        _refuse_other_measures(data, path, {"ours"})


def test_settings_of_bundled_models_do_not_say_for_how_long_to_train():
    for name in ("chest-xray", "thorax-ct"):
        assert {plan.steps for plan in bundled_config(name).scales} == {1}
