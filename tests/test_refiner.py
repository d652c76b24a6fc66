"""Order, workers and interruptions do not change a single bit."""

import dataclasses
import itertools
import re
import shutil
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from napari_msgan import jobs, refiner
from napari_msgan.computing import TileContext, run_tile
from napari_msgan.errors import GeometryError, JobError, StoreError
from napari_msgan.geometry import Affine, Box
from napari_msgan.model import load_folder
from napari_msgan.pyramid import ChunkCache, open_pyramid
from napari_msgan.scheduling import plan_tiles
from napari_msgan.tiling import Tile
from napari_msgan.volume import Volume
from tests.models import write_model

SHAPES = {2: (101, 83), 3: (37, 50, 41)}


def picture(ndim, seed=0):
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPES[ndim]), indexing="ij")
    rings = np.sin(9 * np.sqrt(sum((g - 0.1) ** 2 for g in grid))) + 0.05 * rng.standard_normal(
        SHAPES[ndim]
    )
    unit = "millimeter" if ndim == 3 else "pixel"
    return Volume((rings * 300).astype(np.float32), Affine.of_spacing((1.0,) * ndim), unit)


@pytest.fixture(scope="module", params=[2, 3], ids=["2d", "3d"])
def job(request, tmp_path_factory):
    """A model, its source, and a store where everything is refined by one worker."""
    folder = tmp_path_factory.mktemp("job")
    model = load_folder(write_model(folder / "model", ndim=request.param))
    source = picture(request.param)
    store = jobs.generate(source, folder / "whole.ome.zarr", model, device="cpu", workers=1)
    start = jobs.generate(source, folder / "start.ome.zarr", model, device="cpu", scale=0)
    return model, source, store, start


@pytest.fixture
def fresh(job, tmp_path):
    """A store of the same job in which only scale 0 is there."""
    copy = tmp_path / "copy.ome.zarr"
    shutil.copytree(job[3].path, copy)
    return copy


def test_a_job_changes_nothing_of_a_model_that_others_may_use_meanwhile(job, tmp_path):
    model = load_folder(job[0].folder)
    tensors = [t for g in model.generators for t in (*g.parameters(), *g.buffers())]
    before = [(t.data_ptr(), t._version, t.clone()) for t in tensors]
    jobs.generate(job[1], tmp_path / "a.ome.zarr", model, device="cpu", workers=1)
    after = [t for g in model.generators for t in (*g.parameters(), *g.buffers())]
    assert len(after) == len(before) > 0
    for tensor, (pointer, version, values) in zip(after, before, strict=True):
        assert (tensor.data_ptr(), tensor._version) == (pointer, version)
        assert torch.equal(tensor, values)


def contents(store):
    store = open_pyramid(store.address)
    return [np.asarray(store.array(s)[...]) for s in range(store.n_scales)]


def assert_equal_stores(a, b):
    for scale, (left, right) in enumerate(zip(contents(a), contents(b), strict=True)):
        np.testing.assert_array_equal(left, right, err_msg=f"scale {scale}")


def halves(shape):
    cut = shape[-1] // 2 + 3
    left, right = list(Box.of_shape(shape).stop), [0] * len(shape)
    left[-1], right[-1] = cut, cut - 7
    return Box((0,) * len(shape), tuple(left)), Box(tuple(right), tuple(shape))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["A-B", "B-A"])
def test_regions_in_any_order_give_the_whole_bit_for_bit(job, fresh, order, workers):
    model, _, whole, _ = job
    regions = halves(whole.geometry.shape)
    for index in order:
        store = jobs.refine(
            fresh, region=regions[index], model=model, device="cpu", workers=workers
        )
    assert all(store.refined_fraction(s) == 1 for s in range(store.n_scales))
    assert_equal_stores(store, whole)


def test_comparison_notices_a_single_other_voxel(job, fresh):
    model, _, whole, _ = job
    store = jobs.refine(fresh, model=model, device="cpu")
    tile = store.tiling.tiles(store.geometry.finest_scale, Box.of_shape(store.geometry.shape))[-1]
    core = store.tiling.core(tile)
    with store.writing():
        values = store.read(tile.scale, core)
        values[(0,) * values.ndim] += 1
        store.write(tile.scale, core, values)
    with pytest.raises(AssertionError):
        assert_equal_stores(store, whole)


def test_result_is_not_flat_and_scales_differ(job):
    finest = contents(job[2])[-1].astype(float)
    window = job[0].spec.window
    assert finest.std() > 0.01 * (window[1] - window[0])
    upsampled = np.kron(contents(job[2])[-2].astype(float), np.ones((2,) * finest.ndim))
    inside = upsampled[tuple(slice(n) for n in finest.shape)]
    assert np.abs(finest - inside).max() > 0.005 * (window[1] - window[0])


@pytest.mark.parametrize("tiles_before", [1, 2, 4])  # up to four more are begun by then
def test_interrupted_job_continues_and_ends_bit_identical(job, fresh, tiles_before):
    model, _, whole, _ = job
    steps = jobs.iter_refine(fresh, model=model, device="cpu", workers=2)
    list(itertools.islice(steps, tiles_before))
    steps.close()
    half = open_pyramid(fresh)
    assert half.refined_fraction(half.geometry.finest_scale) < 1
    store = jobs.refine(fresh, model=model, device="cpu", workers=2)
    assert_equal_stores(store, whole)


def test_when_a_job_has_been_stopped_no_tile_is_in_progress(job, fresh, monkeypatch):
    make, begun, ended = refiner.make_tile, [], []

    def slowly(context, tile):
        begun.append(tile)
        time.sleep(0.1)
        make(context, tile)
        ended.append(tile)

    monkeypatch.setattr(refiner, "make_tile", slowly)
    steps = jobs.iter_refine(fresh, model=job[0], device="cpu", workers=2)
    next(steps)
    steps.close()
    assert set(begun) == set(ended)
    assert len(begun) < 6


@pytest.mark.parametrize("error", [StoreError, RuntimeError])
def test_an_error_says_which_tile_could_not_be_made(job, fresh, monkeypatch, error):
    def fail(context, tile):
        raise error("no such thing")

    monkeypatch.setattr(refiner, "run_tile", fail)
    with pytest.raises((StoreError, JobError), match="no such thing") as told:
        jobs.refine(fresh, model=job[0], device="cpu")
    (note,) = told.value.__notes__
    assert re.fullmatch(
        rf"while generating tile [0-9:,]+ of scale 1 of {re.escape(str(fresh))}", note
    )


def test_region_computes_only_its_tiles_and_reports_each_once(job, fresh):
    model, _, whole, _ = job
    shape = whole.geometry.shape
    region = Box(tuple(n - 4 for n in shape), shape)
    reports = [p.report for p in jobs.iter_refine(fresh, region=region, model=model, device="cpu")]
    store = open_pyramid(fresh)
    finest = store.geometry.finest_scale
    assert [r.done for r in reports] == list(range(1, len(reports) + 1))
    assert reports[-1].tile.scale == finest
    assert store.is_refined(finest, region)
    assert 0 < store.refined_fraction(finest) < 0.7
    again = list(jobs.iter_refine(fresh, region=region, model=model, device="cpu"))
    assert again == []


def test_the_rest_of_a_job_is_expected_to_take_as_long_per_tile():
    report = refiner.TileReport(Tile(1, (0, 0)), Box((0, 0), (8, 8)), 3, 12, elapsed_s=6.0)
    assert report.remaining_s == 18
    assert dataclasses.replace(report, done=12).remaining_s == 0


def test_while_no_tile_is_finished_the_consumer_hears_how_far_the_job_is(job, fresh):
    @contextmanager
    def hesitant(context, plan):
        with refiner.in_threads(1)(context, plan) as driver:
            finished, asked = driver.finished, itertools.count()
            driver.finished = lambda: finished() if next(asked) % 2 else []
            yield driver

    store = open_pyramid(fresh, writable=True)
    context, whole = TileContext(store, job[0], "cpu", "fp32"), Box.of_shape(store.geometry.shape)
    reports = list(refiner.iter_refine_tiles(context, [whole], 2, drive=hesitant))
    finished = [r for r in reports if isinstance(r, refiner.TileReport)]
    total, done = len(finished), 0
    assert len(store.tiling.tiles(2, whole)) < total
    for report in reports:
        if isinstance(report, refiner.TileReport):
            done += 1
        assert (report.done, report.total) == (done, total)
    assert reports[0] == refiner.Waiting(0, total)
    times = [report.elapsed_s for report in finished]
    assert 0 < times[0] <= times[-1] < 60
    assert times == sorted(times)


def test_region_outside_the_image_is_refused(job, fresh):
    ndim = job[2].geometry.ndim
    with pytest.raises(GeometryError, match="outside the image"):
        jobs.refine(fresh, region=Box((500,) * ndim, (600,) * ndim), model=job[0])


def test_scale_that_the_store_does_not_have_is_refused(job, fresh):
    with pytest.raises(GeometryError, match="scales 0 to 2"):
        jobs.refine(fresh, scale=3, model=job[0])


def test_other_precision_is_refused(job, fresh):
    with pytest.raises(StoreError, match="precision"):
        jobs.refine(fresh, model=job[0], precision="bf16", device="cpu")


def test_other_model_is_refused(job, fresh, tmp_path):
    other = write_model(tmp_path / "other", ndim=job[2].geometry.ndim, seed=1)
    with pytest.raises(StoreError, match="was made by model"):
        jobs.refine(fresh, model=other)


@pytest.mark.parametrize("change", ["source", "spacing", "kind"])
def test_going_on_with_another_job_is_refused(job, fresh, change):
    model, source, _, _ = job
    options = {}
    if change == "source":
        source = picture(len(source.shape), seed=1)
    elif change == "spacing":
        source = Volume(source.data, Affine.of_spacing((1.01,) * len(source.shape)), source.unit)
    else:
        options["input_is_sketch"] = True
    with pytest.raises(StoreError, match="belongs to another job"):
        jobs.generate(source, fresh, model, device="cpu", **options)


def test_a_seed_that_changes_nothing_is_told_and_not_kept(job, tmp_path):
    model, source, _, _ = job
    out = tmp_path / "seeded.ome.zarr"
    with pytest.warns(UserWarning, match="seed 5 changes nothing"):
        store = jobs.generate(source, out, model, device="cpu", scale=0, seed=5)
    assert store.info.seed == 0
    jobs.generate(source, out, model, device="cpu", scale=0)


@pytest.mark.parametrize("seed", [1.5, "5"])
def test_what_is_no_whole_number_is_no_seed(job, tmp_path, seed):
    model, source, _, _ = job
    with pytest.raises(JobError, match="is not a whole number"):
        jobs.generate(source, tmp_path / "a.ome.zarr", model, device="cpu", scale=0, seed=seed)


def test_going_on_with_the_same_job_is_allowed(job, fresh):
    model, source, whole, _ = job
    assert_equal_stores(jobs.generate(source, fresh, model, device="cpu"), whole)


def _reads(store, model, capacity_bytes):
    """Return how many coarse chunks were read per chunk that there is, for the finest scale."""
    context = TileContext(store, model, "cpu", "fp32")
    object.__setattr__(context, "coarse_cache", ChunkCache(capacity_bytes))
    context.prepare([store.geometry.finest_scale])
    finest, whole = store.geometry.finest_scale, Box.of_shape(store.geometry.shape)
    for tile in plan_tiles(store.tiling, [whole], finest, lambda tile: tile.scale < finest):
        run_tile(context, tile)
    return context.coarse_cache.n_reads / store.refined_chunks(finest - 1).size


def test_each_coarse_chunk_is_read_once(job):
    model, _, store, _ = job
    assert _reads(store, model, 1 << 20) == 1


def test_without_a_cache_coarse_chunks_are_read_several_times(job):
    model, _, store, _ = job
    assert _reads(store, model, 0) > 2


def test_tiles_without_a_focus_come_slice_by_slice_along_the_longest_axis(job):
    tiling = job[2].tiling
    scale, whole = tiling.geometry.finest_scale, Box.of_shape(tiling.geometry.shape)
    plan = plan_tiles(tiling, [whole], scale, lambda tile: False)
    slices = [tile.index[int(np.argmax(whole.shape))] for tile in plan if tile.scale == scale]
    assert slices == sorted(slices)
    assert slices[0] < slices[-1]


@pytest.mark.parametrize("ndim", [2, 3])
def test_in_bfloat16_scales_0_to_2_are_those_of_float32_and_the_finer_are_near(ndim, tmp_path):
    base = {2: 16, 3: 8}[ndim]
    model = load_folder(write_model(tmp_path / "m", ndim=ndim, n_scales=4, base_size=base))
    source = picture(ndim)
    exact, rounded = (
        jobs.generate(source, tmp_path / f"{kind}.ome.zarr", model, device="cpu", precision=kind)
        for kind in ("fp32", "bf16")
    )
    *coarse, finest = zip(contents(rounded), contents(exact), strict=True)
    assert len(coarse) == 3
    for got, expected in coarse:
        np.testing.assert_array_equal(got, expected)
    low, high = model.spec.window
    got, expected = finest
    difference = np.abs(got.astype(float) - expected) / (high - low)
    assert 0 < difference.max() < 0.02


def test_no_thread_is_begun_for_which_there_is_no_tile(fresh, job, monkeypatch):
    begun, pool = [], refiner.ThreadPoolExecutor

    def count(workers, *arguments):
        begun.append(workers)
        return pool(workers, *arguments)

    monkeypatch.setattr(refiner, "ThreadPoolExecutor", count)
    store, ndim = open_pyramid(fresh, writable=True), len(job[0].spec.axes)
    corner = Box((0,) * ndim, (1,) * ndim)
    jobs.refine(store, model=job[0], region=corner, scale=1, device="cpu", workers=3)
    jobs.refine(store, model=job[0], device="cpu", workers=3)
    assert begun == [1, 3]


def test_fingerprint_has_the_gpu_that_computes(job):
    store, model = job[2], job[0]
    assert TileContext(store, model, "cuda:1", "fp32", "A").fingerprint.gpu == "A"
    assert TileContext(store, model, "cpu", "fp32").fingerprint.gpu is None


def test_store_keeps_to_no_device_that_was_not_ready(job, tmp_path, monkeypatch):
    model, source, _, _ = job
    prepare = TileContext._prepare

    def fail(context, scales):
        raise torch.OutOfMemoryError("out of memory.")

    monkeypatch.setattr(TileContext, "_prepare", fail)
    told = r"could not be prepared: out of memory\. Let other programs"
    with pytest.raises(JobError, match=told):
        jobs.generate(source, tmp_path / "a.ome.zarr", model, device="cpu")
    assert open_pyramid(tmp_path / "a.ome.zarr").info.fingerprint is None
    monkeypatch.setattr(TileContext, "_prepare", prepare)
    made = jobs.generate(source, tmp_path / "a.ome.zarr", model, device="cpu")
    assert made.info.fingerprint is not None


def test_tiles_that_cannot_be_recorded_are_made_nevertheless(job, fresh):
    class Spoilt:
        def of(self, scale, network, shapes, device):
            asked.append(scale)

    asked, (model, _, whole, _) = [], job
    made = open_pyramid(fresh, writable=True)
    context = TileContext(made, model, "cpu", "fp32")
    context._recordings = Spoilt()
    whole_image = [Box.of_shape(made.geometry.shape)]
    for _ in refiner.iter_refine_tiles(context, whole_image, 2, drive=refiner.in_threads(1)):
        pass
    assert set(asked) == {1, 2}
    np.testing.assert_array_equal(made.array(2)[...], whole.array(2)[...])


@pytest.mark.gpu
def test_on_a_gpu_workers_change_no_bit_and_voxels_are_near_those_of_the_cpu(job, tmp_path):
    model, source, whole, _ = job
    stores = [
        jobs.generate(source, tmp_path / f"{n}.ome.zarr", model, device="cuda", workers=n)
        for n in (1, 3)
    ]
    assert_equal_stores(*stores)
    for _ in range(20):  # more streams than torch has
        store = jobs.generate(source, tmp_path / "again.ome.zarr", model, device="cuda", workers=2)
        assert_equal_stores(store, stores[0])
        shutil.rmtree(store.path)
    grey = (model.spec.window[1] - model.spec.window[0]) / 255
    for made, expected in zip(contents(stores[0]), contents(whole), strict=True):
        assert np.abs(made.astype(float) - expected).max() < grey


@pytest.mark.parametrize("level", ["2", "sketch/1"])
def test_chunk_that_was_deleted_is_an_error_not_the_fill_value(job, fresh, level):
    """As of half of a copied store."""
    store, model = open_pyramid(fresh), job[0]
    context = TileContext(store, model, "cpu", "fp32")
    context.prepare([1])
    shutil.rmtree(fresh / level / "c")
    with pytest.raises(StoreError, match=f"{level}/c/.* is missing: .*files of the store were"):
        run_tile(context, Tile(1, (0,) * store.geometry.ndim))
    if level == "sketch/1":
        with pytest.raises(StoreError, match="is missing"):
            jobs.refine(fresh, model=model, device="cpu")
