from __future__ import annotations

import math
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from napari_msgan.errors import GeometryError, JobError, ModelError, VolumeError
from napari_msgan.estimating import (
    Calibration,
    _calibration,
    _measuring,
    calibrate,
    calibration_file,
    estimate,
    needed_cells,
    read_calibration,
    written_box,
)
from napari_msgan.estimating._estimate import Estimate, Space, tiles_seconds
from napari_msgan.estimating._measuring import _measure_first
from napari_msgan.geometry import Affine, Box, PyramidGeometry
from napari_msgan.io import read_geometry, write_volume
from napari_msgan.jobs import generate
from napari_msgan.model import load_model
from napari_msgan.scheduling import plan_tiles
from napari_msgan.tiling import Tiling
from napari_msgan.volume import LazyArray, Volume
from tests.models import write_model

pytestmark = pytest.mark.filterwarnings("ignore:the image is larger than model")

KNOWN = Calibration(
    start_s=2.0,
    warm_up_s=0.5,
    sketch_s=1e-6,
    threshold_s=1e-7,
    first_s=1e-4,
    tile_s=0.5,
    sample_first_s=0.0,
    sample_tiles_s=0.0,
    sample_first=0,
    sample_tiles=(1, 6),
    scale=1,
    base_bytes=200_000_000,
    sketch_bytes=50_000_000,
    first_bytes=100.0,
    tile_bytes=150_000_000,
    stored_image=1.5,
    stored_sketch=0.2,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(write_model(tmp_path_factory.mktemp("m") / "small", n_scales=3))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep the measurements of whoever runs the tests out of them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *a, **k: tmp_path / "cache")


@pytest.fixture
def known(model):
    """Costs that were measured before, for two workers."""
    file = calibration_file(model, "cpu", "fp32", 2)
    file.parent.mkdir(parents=True)
    file.write_text(KNOWN.model_dump_json())
    return KNOWN


def picture(shape):
    return Volume(np.zeros(shape, np.uint8), Affine.of_spacing((1, 1)), "pixel")


def huge(shape):
    """Return an image of a declared size that fails when anything of it is read."""

    def refuse(box):
        raise AssertionError(f"{box} was read")

    return Volume(LazyArray(shape, np.uint16, refuse), Affine.of_spacing((1,) * 2), "pixel")


def run(volume, model, **options):
    return estimate(volume, model, device="cpu", workers=2, **options)


@pytest.mark.parametrize(
    ("shape", "region", "halo"),
    [
        ((300, 410), "0:300,0:410", 3),
        ((300, 410), "33:34,100:180", 3),
        ((300, 410), "250:300,400:410", 7),
        ((97, 33), "10:97,0:2", 0),
    ],
)
def test_counted_tiles_are_those_of_the_plan(shape, region, halo):
    geometry = PyramidGeometry(
        ("y", "x"), shape, ((2, 2),) * 3, Affine.of_spacing((1.0, 1.0)), "pixel"
    )
    tiling = Tiling(geometry, (32, 32), ((0, 0), *((halo, halo),) * 3))
    box = Box.parse(region, ("y", "x"))
    for scale in range(4):
        plan = plan_tiles(tiling, [box], scale, lambda tile: False)
        counted = {s: cells.size for s, cells in needed_cells(tiling, box, scale).items()}
        assert counted == {s: sum(t.scale == s for t in plan) for s in range(scale + 1)}
        voxels = {s: sum(tiling.core(t).size for t in plan if t.scale == s) for s in counted}
        cells = needed_cells(tiling, box, scale)
        assert voxels == {s: written_box(tiling, s, cells[s]).size for s in cells}


def test_a_huge_image_is_neither_read_nor_allocated(known, tmp_path):
    model, side = load_model(write_model(tmp_path / "model", tile=128, chunk=128)), 6 * 10**5
    tracemalloc.start()
    found = run(huge((side, side)), model)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22
    assert found.tiles[max(found.tiles)] == math.ceil(side / 128) ** 2
    assert found.store_bytes > 0.5e12
    assert any("GB are needed" in warning for warning in found.warnings)


def test_twice_the_tiles_take_twice_the_time(model, known):
    one, two = (
        run(picture((512, 512)), model, region="0:256,0:512"),
        run(picture((512, 512)), model),
    )
    finest = max(two.tiles)
    assert two.tiles[finest] == 2 * one.tiles[finest] == 256
    assert two.seconds - one.seconds >= KNOWN.tile_s * 128
    assert two.first_s == one.first_s


def test_fewer_tiles_than_workers_take_as_long_as_one_each(model, known):
    tile = run(picture((128, 128)), model, region="0:32,0:32", scale=1)
    assert tile.tiles == {0: 1, 1: 1}
    assert tile.seconds - tile.first_s == pytest.approx(2 * KNOWN.tile_s)


def test_a_last_round_takes_as_long_as_a_full_one_where_there_are_few(model):
    assert tiles_seconds(model, KNOWN, (1, 3), 2) == pytest.approx(4 * KNOWN.tile_s)
    assert tiles_seconds(model, KNOWN, (1, 5), 2) == pytest.approx(5 * KNOWN.tile_s)


def test_first_tiles_of_a_process_cost_as_much_for_any_image(model, known):
    image = picture((96, 96))
    plain = estimate(image, model, device="cpu", workers=2)
    warming = known.model_copy(
        update={"sample_first_s": 3.0, "sample_first": 10_000, "sample_tiles_s": 3.0 + 0.75}
    )
    calibration_file(model, "cpu", "fp32", 2).write_text(warming.model_dump_json())
    slower = estimate(image, model, device="cpu", workers=2)
    assert slower.first_s - plain.first_s == pytest.approx(2.0)  # a second is for the voxels
    assert slower.seconds - plain.seconds == pytest.approx(2.0 + 0.75)  # six tiles take 3 s
    low = estimate(image, model, device="cpu", workers=2, scale=0)
    assert low.seconds == pytest.approx(low.first_s)


def test_first_picture_is_the_time_without_tiles(model, known):
    found = run(picture((128, 128)), model, scale=0)
    assert found.tiles == {0: 1}
    assert found.seconds == found.first_s
    pixels = 128 * 128 + 64 * 64 + 32 * 32
    expected = 2.5 + 128 * 128 * 1e-6 + pixels * 1e-7 / 2 + 32 * 32 * 1e-4
    assert found.first_s == pytest.approx(expected)


def test_disk_counts_the_sketch_of_all_and_the_image_of_the_region(model, known):
    found = run(picture((512, 512)), model, region="0:32,0:32", scale=1)
    everything = sum((512 >> level) ** 2 for level in range(5))
    assert found.tiles == {0: 1, 1: 1}
    image = 1.5 * (32 * 32 + 32 * 32)
    assert found.store_bytes == pytest.approx(0.2 * everything + image, abs=1)
    assert found.store.needed == pytest.approx(2.2 * everything, abs=1)  # while the sketch is made
    noisy = known.model_copy(update={"stored_image": 3.0})
    calibration_file(model, "cpu", "fp32", 2).write_text(noisy.model_dump_json())
    whole = run(picture((512, 512)), model)
    assert whole.store.needed == whole.store_bytes == pytest.approx(3.2 * everything, abs=1)


def test_compressed_sources_need_a_temporary_file_and_are_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_msgan.io._dispatch.IN_MEMORY_BYTES", 0)
    data = np.ones((4, 30, 50), np.int16)
    volume = Volume(data, Affine.of_spacing((1, 1, 1)), "millimeter")
    sizes = {}
    for suffix in (".nii", ".nii.gz", ".ome.tif", ".ome.zarr"):
        write_volume(tmp_path / f"a{suffix}", [volume], description={})
        declared, sizes[suffix] = read_geometry(tmp_path / f"a{suffix}")
        assert declared.shape == (4, 30, 50)
        assert declared.affine.spacing == (1, 1, 1)
        assert declared.data.dtype == np.int16
        assert np.asarray(declared.data[:, :, :]).max() == (0 if sizes[suffix] else 1)
    assert sizes == {".nii": 0, ".nii.gz": data.nbytes, ".ome.tif": data.nbytes, ".ome.zarr": 0}


def test_a_source_takes_time_to_unpack_and_to_sketch_at_its_own_size(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_msgan.io._dispatch.IN_MEMORY_BYTES", 0)
    model = load_model(write_model(tmp_path / "m", ndim=3, n_scales=2, tile=16, chunk=8))
    file = calibration_file(model, "cpu", "fp32", 2)
    file.parent.mkdir(parents=True)
    file.write_text(KNOWN.model_dump_json())
    data = np.ones((40, 40, 40), np.int16)
    volume = Volume(data, Affine.of_spacing((0.5,) * 3), "millimeter")  # the finest scale: 1 mm
    found = {}
    for suffix in (".nii", ".nii.gz"):
        write_volume(tmp_path / f"a{suffix}", [volume], description={})
        found[suffix] = run(tmp_path / f"a{suffix}", model)
    plain, packed = found.values()
    assert plain.shape == (20, 20, 20)
    expected = 2.5 + 40**3 * 1e-6 + (20**3 + 10**3) * 1e-7 / 2 + 10**3 * 1e-4
    assert plain.first_s == pytest.approx(expected, rel=1e-9)
    assert (plain.temporary.needed, packed.temporary.needed) == (0, data.nbytes)
    assert packed.first_s - plain.first_s == pytest.approx(data.nbytes / 120e6)


def test_each_model_is_measured(model, tmp_path):
    other = load_model(write_model(tmp_path / "small", n_scales=3, seed=1))
    files = [calibration_file(each, "cpu", "fp32", 2) for each in (model, other)]
    assert files[0] != files[1]


def test_what_is_known_is_not_measured_again(model, known, monkeypatch):
    def refuse(*a, **k):
        raise AssertionError("measured")

    monkeypatch.setattr(_calibration.subprocess, "run", refuse)
    assert calibrate(model, "cpu", "fp32", 2) == KNOWN
    with pytest.raises(AssertionError, match="measured"):
        calibrate(model, "cpu", "fp32", 2, again=True)
    with pytest.raises(AssertionError, match="measured"):
        calibrate(model, "cpu", "fp32", 3)
    with pytest.raises(AssertionError, match="measured"):
        calibrate(model, "cpu", "bf16", 2)


def test_scales_in_float32_are_not_measured_in_bfloat16(model, known, monkeypatch):
    def refuse(*a, **k):
        raise AssertionError("measured")

    monkeypatch.setattr(_calibration.subprocess, "run", refuse)
    image = picture((96, 96))
    found = run(image, model, scale=2, precision="bf16")
    assert found.seconds == run(image, model, scale=2).seconds


def test_a_file_that_does_not_fit_is_measured_again(tmp_path):
    file = tmp_path / "known.json"
    assert read_calibration(file) is None
    file.write_text('{"start_s": 1}')
    assert read_calibration(file) is None


def test_the_machine_is_measured_and_kept(model, tmp_path):
    found = calibrate(model, "cpu", "fp32", 2)
    assert found.tile_s > 0
    assert found.base_bytes > 2**26  # torch is there
    assert 0.1 < found.stored_image < 2.2
    assert 0.01 < found.stored_sketch < 1
    assert read_calibration(calibration_file(model, "cpu", "fp32", 2)) == found
    store = generate(
        Volume(_measuring.sample_volume(model.spec, 2).data, Affine.of_spacing((1, 1)), "pixel"),
        tmp_path / "a.ome.zarr",
        model,
        device="cpu",
        workers=2,
    )
    told = run(picture(store.geometry.shape), model)
    stored = sum(f.stat().st_size for f in store.path.rglob("*") if "c" in f.parts and f.is_file())
    assert told.store_bytes == pytest.approx(stored, rel=0.25)


def test_a_measurement_that_fails_says_why(model, monkeypatch):
    monkeypatch.setattr(_calibration.sys, "executable", "/bin/false")
    with pytest.raises(JobError, match="could not be measured; the process said: nothing"):
        calibrate(model, "cpu", "fp32", 2)


def test_errors_are_those_of_generate(model, known, tmp_path):
    with pytest.raises(VolumeError, match="does not exist"):
        run(tmp_path / "a.tif", model)
    with pytest.raises(ModelError, match="there is no model"):
        run(picture((128, 128)), "no-such-model")
    with pytest.raises(GeometryError, match="scale 9 does not exist"):
        run(picture((128, 128)), model, scale=9)
    with pytest.raises(GeometryError, match="lies outside the image"):
        run(picture((128, 128)), model, region="200:500,0:500")
    with pytest.raises(GeometryError, match="too large for a store"):
        run(huge((2**24, 2**24)), model)
    whole = run(picture((128, 128)), model)
    assert run(picture((128, 128)), model, region="0:500,0:500").tiles == whole.tiles


def test_memory_counts_the_workers_that_have_something_to_do(model, known):
    one = run(picture((512, 512)), model, region="0:32,0:32", scale=1)
    many = run(picture((512, 512)), model, scale=1)
    assert one.tiles[1] == 1
    assert many.tiles[1] > 2
    assert 0 <= one.memory_bytes - (200_000_000 + 150_000_000) < 2**21  # decoded chunks
    assert 0 <= many.memory_bytes - (200_000_000 + 2 * 150_000_000) < 2**21
    very_many = run(picture((512, 512)), model)
    assert 0 <= very_many.memory_bytes - (200_000_000 + 2 * 150_000_000) < 2**21


def test_time_of_a_tile_leaves_out_how_workers_get_ready():
    on_cpu = [2.0, 2.1, 3.0, 3.1, 4.0, 4.1]  # of two workers, half a second a tile
    assert _measuring._seconds_between(on_cpu, "cpu", 2) == pytest.approx(0.5)
    one_records = [3.0, 3.01, 3.02, 3.03, 6.0, 6.01]  # as long as 300 tiles take
    assert _measuring._seconds_between(one_records, "cuda", 2) == pytest.approx(0.01)
    together = [3.0, 3.001, 4.0, 4.001, 5.0, 5.001]
    assert _measuring._seconds_between(together, "cuda", 2) == pytest.approx(0.5)
    assert _measuring._seconds_between(one_records, "cpu", 2) > 0.5


def poison(folder, name):
    """Put a module into a folder that leaves a file there when it is run."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(
        f"import pathlib\npathlib.Path({str(folder / 'sprung')!r}).touch()\n"
    )
    return folder


def test_what_takes_milliseconds_is_measured_also_where_a_clock_goes_in_steps(model, monkeypatch):
    """That is Windows before Python 3.13: `time.monotonic` goes on every 16 ms there."""
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    seconds, _ = _measure_first(model, "cpu")
    assert seconds > 0


def test_nothing_in_the_current_folder_is_run(model, tmp_path, monkeypatch):
    folder = poison(tmp_path / "images", "psutil")
    monkeypatch.chdir(folder)
    subprocess.run([sys.executable, "-m", "psutil"], check=True)
    (folder / "sprung").unlink()  # the trap works
    calibrate(model, "cpu", "fp32", 2)
    assert not (folder / "sprung").exists()


def test_what_cannot_be_kept_is_measured_all_the_same(model, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "k.json"
    monkeypatch.setattr(_calibration, "calibration_file", lambda *_: place)
    assert calibrate(model, "cpu", "fp32", 2).tile_s > 0


@pytest.mark.parametrize(("store", "temporary", "fits"), [(60, 60, False), (60, 30, True)])
def test_what_lies_on_the_same_disk_is_added_up(tmp_path, store, temporary, fits):
    spaces = [Space(tmp_path, needed, 100) for needed in (store, temporary)]
    found = Estimate((4, 4), {0: 1}, 1.0, 1.0, 1, 2, store, *spaces)
    assert (found.warnings == ()) == fits
