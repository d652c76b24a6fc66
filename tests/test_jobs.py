import inspect
import json
import shutil
import warnings
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import tifffile
import zarr

import napari_msgan
from napari_msgan import jobs
from napari_msgan.errors import JobError, MsganError, StoreError, VolumeError
from napari_msgan.geometry import Affine, Box
from napari_msgan.io import read_description, read_volume, write_volume
from napari_msgan.model import MODELS_VARIABLE, load_folder
from napari_msgan.pyramid import open_pyramid
from napari_msgan.sketch_settings import SketchSettings
from napari_msgan.volume import Orientation, Volume, turn
from tests.models import write_model

WHOLE = (slice(None),) * 3


def body(shape=(30, 44, 37), spacing=(1.4, 1.0, 1.0)):
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    values = np.where(grid[0] ** 2 + grid[1] ** 2 + (grid[2] - 0.3) ** 2 < 0.5, 300, -900)
    values += (200 * np.sin(6 * grid[2] + 2 * grid[0])).astype(int)
    return Volume(values.astype(np.int16), Affine.of_spacing(spacing, (11, 22, 33)), "millimeter")


def unsized():
    return replace(body(), unit="pixel")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_folder(write_model(tmp_path_factory.mktemp("m") / "solid", ndim=3))


@pytest.fixture(scope="module")
def store(model, tmp_path_factory):
    return jobs.generate(body(), tmp_path_factory.mktemp("s") / "a.ome.zarr", model, device="cpu")


@pytest.mark.parametrize(
    "orientation",
    [
        Orientation((2, 0, 1), (False,) * 3),
        Orientation((1, 2, 0), (False,) * 3),
        Orientation((0, 1, 2), (True, False, True)),
    ],
    ids=["sagittal", "coronal", "flipped"],
)
def test_turned_copies_give_the_same_anatomy_in_the_same_place(model, store, orientation, tmp_path):
    copy = tmp_path / "turned.nii.gz"
    write_volume(copy, [turn(body(), orientation)], description={})
    other = jobs.generate(copy, tmp_path / "b.ome.zarr", model, device="cpu")
    assert np.allclose(other.geometry.affine.matrix, store.geometry.affine.matrix)
    for scale in range(store.n_scales):
        np.testing.assert_array_equal(
            np.asarray(other.array(scale)[...]), np.asarray(store.array(scale)[...])
        )


def test_copy_whose_header_lies_about_its_orientation_gives_another_anatomy(model, store, tmp_path):
    flipped = Volume(body().data[:, :, ::-1], body().affine, "millimeter")
    other = jobs.generate(flipped, tmp_path / "c.ome.zarr", model, device="cpu")
    assert not np.array_equal(np.asarray(other.array(0)[...]), np.asarray(store.array(0)[...]))


@pytest.mark.parametrize(
    "orientation",
    [Orientation((0, 1, 2), (False,) * 3), Orientation((2, 0, 1), (True, False, True))],
    ids=["lps", "turned"],
)
def test_export_on_the_source_grid_has_the_shape_and_affine_of_the_source(
    model, orientation, tmp_path
):
    source = tmp_path / "source.nii.gz"
    write_volume(source, [turn(body(), orientation)], description={})
    store = jobs.generate(source, tmp_path / "s.ome.zarr", model, device="cpu")
    out = jobs.export(store, tmp_path / "out.nii.gz", grid="source")
    made, given = nib.load(out), nib.load(source)
    assert made.shape == given.shape
    np.testing.assert_allclose(made.affine, given.affine, atol=1e-5)
    ours = turn(read_volume(out), orientation.inverse).data
    finest = np.asarray(store.array(store.n_scales - 1)[...]).astype(float)
    spacing = store.geometry.affine.spacing
    for index in [(7, 20, 18), (15, 9, 30)]:
        world = body().affine.at(index)
        place = (world - store.geometry.affine.origin) / spacing
        near = finest[tuple(slice(int(np.floor(p)), int(np.floor(p)) + 2) for p in place)]
        value = float(np.asarray(ours[tuple(slice(i, i + 1) for i in index)]).item())
        assert near.min() - 40 <= value <= near.max() + 40


def test_exported_region_has_its_place_and_the_voxels_of_the_store(store, tmp_path):
    region = Box((3, 8, 5), (21, 40, 30))
    out = jobs.export(store, tmp_path / "part.nii.gz", region=region)
    image = nib.load(out)
    np.testing.assert_array_equal(
        np.asanyarray(image.dataobj).T, store.read(store.n_scales - 1, region)
    )
    volume = read_volume(out)
    np.testing.assert_allclose(
        volume.affine.origin, store.geometry.affine.at(region.start), atol=1e-4
    )
    assert image.get_data_dtype() == np.int16
    assert image.dataobj.slope in (1, None)


def test_exported_files_say_that_they_are_synthetic_and_where_from(store, model, tmp_path):
    for name in ("a.ome.tif", "a.nii.gz", "a.ome.zarr"):
        out = jobs.export(store, tmp_path / name, scale=1)
        said = read_description(out)
        text = json.dumps(said)
        assert '"synthetic": true' in text
        assert model.spec.identity in text
        assert "not for diagnosis" in text


def test_refined_fraction_in_the_file_is_that_of_the_region(model, tmp_path):
    store = jobs.generate(body(), tmp_path / "h.ome.zarr", model, device="cpu", scale=0)
    corner = Box((0, 0, 0), (16, 16, 16))
    jobs.refine(store, region=corner, model=model, device="cpu")
    for region, low, high in [
        (corner, 1, 1),
        (Box((34, 0, 0), (50, 16, 16)), 0, 0),
        (None, 0.01, 0.99),
    ]:
        out = jobs.export(store, tmp_path / "f.tif", region=region, overwrite=True)
        text = json.dumps(read_description(out))
        fraction = float(text.split('"refined_fraction": ')[1].split(",")[0].rstrip("}"))
        assert low <= fraction <= high


def test_tiff_keeps_voxel_size_and_type(store, tmp_path):
    out = jobs.export(store, tmp_path / "v.ome.tif")
    with tifffile.TiffFile(out) as file:
        assert file.series[0].axes == "ZYX"
        assert file.series[0].dtype == np.int16
        assert 'PhysicalSizeZ="1.0"' in file.ome_metadata
        np.testing.assert_array_equal(
            file.asarray(), np.asarray(store.array(store.n_scales - 1)[...])
        )


def test_sketch_of_a_file_can_be_given_back(tmp_path):
    model = load_folder(write_model(tmp_path / "flat"))
    rng = np.random.default_rng(0)
    image = Volume(
        rng.integers(0, 255, (90, 70)).astype(np.uint8), Affine.of_spacing((1, 1)), "pixel"
    )
    sketch = jobs.make_sketch(image, tmp_path / "sketch.tif", settings=model.spec.sketch)
    said = read_description(sketch)
    assert "that patient's data" in said["notice"]
    assert "synthetic" not in said
    given = jobs.generate(
        sketch, tmp_path / "g.ome.zarr", model, input_is_sketch=True, device="cpu"
    )
    seen = jobs.generate(image, tmp_path / "i.ome.zarr", model, device="cpu")
    finest = given.n_scales - 1
    agree = np.asarray(given.sketch_array(finest)[...]) == np.asarray(
        seen.sketch_array(finest)[...]
    )
    assert agree.mean() > 0.97
    assert given.info.source.is_sketch
    assert said["source_sha256"] == seen.info.source.sha256


def test_sketch_is_made_with_the_settings_that_are_given(tmp_path):
    image = Volume(np.asarray(body().data[15]), Affine.of_spacing((1, 1)), "pixel")
    settings = SketchSettings(low_density=0.02, high_density=0.01, dilations=3)
    sketches = [
        jobs.make_sketch(image, tmp_path / f"{n}.tif", settings=given)
        for n, given in enumerate((None, SketchSettings(), settings))
    ]
    usual, same, few = (read_volume(sketch).data[WHOLE[:2]] for sketch in sketches)
    np.testing.assert_array_equal(usual, same)
    assert 0 < np.count_nonzero(few) < np.count_nonzero(usual)
    assert read_description(sketches[2])["settings"] == settings.model_dump(mode="json")


def test_sketch_tells_of_nan(tmp_path):
    pixels = np.random.default_rng(0).random((64, 64), np.float32)
    pixels[:16] = np.nan
    image = Volume(pixels, Affine.of_spacing((1, 1)), "pixel")
    with pytest.warns(UserWarning, match="25 % of the image is NaN or infinite"):
        jobs.make_sketch(image, tmp_path / "a.tif")
    whole = Volume(pixels[16:], image.affine, "pixel")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jobs.make_sketch(whole, tmp_path / "b.tif")


def test_borders_of_a_label_map_are_its_sketch(model, tmp_path):
    labels = np.zeros((30, 44, 37), np.int16)
    labels[6:24, 8:36, 7:30] = 4
    volume = Volume(labels, body().affine, "millimeter")
    with pytest.warns(UserWarning, match="label map: the borders between its labels"):
        store = jobs.generate(
            volume, tmp_path / "a.ome.zarr", model, input_is_sketch=True, device="cpu", scale=0
        )
    finest = np.asarray(store.sketch_array(store.geometry.finest_scale)[...])
    middle = tuple(n // 2 for n in finest.shape)
    assert finest.max() == 255
    assert not finest[tuple(slice(m - 2, m + 2) for m in middle)].any()
    mask = Volume((labels > 0).astype(np.float32), body().affine, "millimeter")
    with pytest.warns(UserWarning, match="fills regions, where edges are lines"):
        jobs.generate(mask, tmp_path / "b.ome.zarr", model, input_is_sketch=True, scale=0)


def test_export_on_the_source_grid_stays_inside_the_source(model, tmp_path):
    thin = body((10, 44, 37), (1 / 4.9, 1.0, 1.0))  # 2.04 mm: in part of a third voxel of 1 mm
    store = jobs.generate(thin, tmp_path / "a.ome.zarr", model, device="cpu")
    depth, height, width = store.geometry.shape
    region = f"{depth - 1}:{depth},0:{height},0:{width}"
    out = jobs.export(store, tmp_path / "out.nii.gz", grid="source", region=region)
    part = read_volume(out)
    ends = thin.affine.spacing[0] * thin.shape[0]
    assert part.affine.origin[0] - thin.affine.origin[0] < ends - 0.5 / 4.9


def test_name_of_the_source_is_kept_only_when_asked_for(model, store, tmp_path):
    assert store.info.source.name is None
    named = jobs.generate(
        body(), tmp_path / "n.ome.zarr", model, device="cpu", scale=0, name="scan 7"
    )
    assert named.info.source.name == "scan 7"


def test_failed_generate_leaves_nothing_behind(model, tmp_path):
    with pytest.raises(MsganError):
        jobs.generate(
            body(), tmp_path / "x.ome.zarr", model, device="cpu", region="900:901,0:1,0:1"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("is_sketch", "said"), [(False, "no edges"), (True, "sketch is empty")])
def test_an_image_without_edges_is_made_and_told(model, is_sketch, said, tmp_path):
    flat = Volume(np.zeros((30, 44, 37), np.uint8), body().affine, "millimeter")
    with pytest.warns(UserWarning, match=said):
        jobs.generate(flat, tmp_path / "a.ome.zarr", model, scale=0, input_is_sketch=is_sketch)


def test_generate_that_is_closed_while_threads_make_the_sketch_leaves_nothing(model, tmp_path):
    large = Volume(np.tile(body().data, (2, 3, 3)), body().affine, "millimeter")
    for number in range(8):
        out = tmp_path / "x.ome.zarr"
        steps = jobs.iter_generate(large, out, model, device="cpu", workers=2)
        sketch = [next(steps) for _ in range(3 + number)]
        assert {step.stage for step in sketch} == {"sketch"}
        steps.close()
        assert list(tmp_path.iterdir()) == []


def test_job_that_is_stopped_by_an_error_frees_the_store_though_the_error_is_kept(model, tmp_path):
    def stop(progress):
        if progress.stage == "tiles" and progress.done == 2:
            raise ArithmeticError

    out = tmp_path / "a.ome.zarr"
    with pytest.raises(ArithmeticError) as kept:  # with its frames, as a notebook keeps it
        jobs.generate(body(), out, model, device="cpu", workers=1, progress=stop)
    assert kept.value.__traceback__ is not None
    assert jobs.refine(out, model=model, device="cpu").refined_fraction(1) == 1


def test_nothing_is_written_over_a_store_or_over_the_source(store, model, tmp_path):
    own = shutil.copytree(store.path, tmp_path / "own.ome.zarr")
    other = shutil.copytree(store.path, tmp_path / "other.ome.zarr")
    damaged = shutil.copytree(store.path, tmp_path / "damaged.ome.zarr")
    (damaged / "1" / "zarr.json").write_text("{")
    study = tmp_path / "study.ome.zarr"
    zarr.create_group(study)
    shutil.copytree(store.path, study / "a.ome.zarr")
    images = tmp_path / "images.ome.zarr"
    zarr.create_group(images)
    zarr.create_group(images / "c")
    shutil.copytree(store.path, images / "c" / "b.ome.zarr")
    for source, out, said in (
        (own, own, "which is read"),
        (own, other, "is a store, with its sketch and what was refined"),
        (own, damaged, "is a store, with its sketch and what was refined"),
        (own, study, "holds the store .*, with its sketch"),
        (own, images, "holds the store .*b.ome.zarr, with its sketch"),
        (study / "a.ome.zarr", study, "which is read"),
    ):
        with pytest.raises(JobError, match=said):
            jobs.export(source, out, overwrite=True)
    with pytest.raises(JobError, match="lies inside"):
        jobs.export(own, own / "image.nii.gz")
    for kept in (own, other, study / "a.ome.zarr"):
        assert jobs.verify(kept, model=model).is_sound
    with pytest.raises(JobError, match="is a store"):
        jobs.make_sketch(body(), own, overwrite=True)
    image = jobs.export(own, tmp_path / "image.ome.zarr")
    with pytest.raises(JobError, match=r"is, or holds, .* which is read"):
        jobs.make_sketch(image, image, overwrite=True)
    with pytest.raises(JobError, match="which is read"):
        jobs.make_sketch(image / "0", image, overwrite=True)
    zarr.create_group(tmp_path / "empty.ome.zarr")
    with pytest.raises(VolumeError, match="not one Zarr image"):
        jobs.export(own, tmp_path / "empty.ome.zarr", overwrite=True)
    before = read_volume(image).data[WHOLE]
    jobs.export(own, image, scale=0, overwrite=True)  # an image may be replaced
    assert read_volume(image).shape != before.shape


@pytest.mark.parametrize("name", ["a.tif", "a.nii.gz", "a.ome.zarr"])
@pytest.mark.parametrize("grid", ["store", "source"])
def test_export_of_a_store_that_is_gone_writes_no_empty_image(store, tmp_path, name, grid):
    copy = open_pyramid(shutil.copytree(store.path, tmp_path / "copy.ome.zarr"))
    shutil.rmtree(copy.path)
    with pytest.raises(StoreError, match=r"copy\.ome\.zarr/.* is missing"):
        jobs.export(copy, tmp_path / name, grid=grid)
    assert list(tmp_path.iterdir()) == []


def test_sketch_of_a_store_lies_where_its_image_lies_and_says_what_it_is(model, tmp_path):
    turn_by = np.array([[0.9, 0.1, 0, 5], [-0.1, 0.9, 0, 6], [0, 0, 1.2, 7], [0, 0, 0, 1]])
    oblique = Volume(body().data, Affine(turn_by), "millimeter")
    made = jobs.generate(oblique, tmp_path / "a.ome.zarr", model, scale=0, device="cpu")
    edges = read_volume(made.path / "sketch")
    assert not made.geometry.affine.is_upright
    np.testing.assert_allclose(edges.affine.matrix, made.geometry.affine.matrix)
    np.testing.assert_array_equal(edges.data[WHOLE], made.sketch_array(made.n_scales - 1)[...])
    with pytest.raises(JobError, match="says that it is a sketch"):
        jobs.generate(made.path / "sketch", tmp_path / "b.ome.zarr", model)
    assert not (tmp_path / "b.ome.zarr").exists()
    again = jobs.generate(
        made.path / "sketch", tmp_path / "b.ome.zarr", model, scale=0, input_is_sketch=True
    )
    np.testing.assert_allclose(again.geometry.affine.matrix, made.geometry.affine.matrix)


def test_cancelled_export_leaves_nothing_behind(store, tmp_path):
    class Stop(Exception):
        pass

    def cancel(progress):
        raise Stop

    with pytest.raises(Stop):
        jobs.export(store, tmp_path / "x.nii.gz", progress=cancel)
    assert list(tmp_path.iterdir()) == []


def test_gpu_that_is_not_there_is_refused():
    import torch

    with pytest.raises(JobError, match="'tpu' is not one of auto, cpu, cuda"):
        jobs.resolve_device("tpu")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert jobs.resolve_device("auto") == "cpu"
    with pytest.raises(JobError, match="torch sees no GPU"):
        jobs.resolve_device("cuda")


def test_gpu_that_torch_cannot_compute_on_is_left_to_others(monkeypatch):
    """A build of torch has no kernels for GPUs that are too old or too new for it."""
    import torch

    def no_kernel(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available\nCompile with ...")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", no_kernel)
    with pytest.warns(UserWarning, match=r"no kernel image is available\): the CPU computes"):
        assert jobs.resolve_device("auto") == "cpu"
    with pytest.raises(JobError, match="but torch cannot compute on the GPU"):
        jobs.resolve_device("cuda")
    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.zeros(1))
    assert jobs.resolve_device("auto") == "cuda"


def test_public_names_are_importable():
    for name in napari_msgan.__all__:
        assert getattr(napari_msgan, name) is not None


@pytest.mark.filterwarnings("ignore:scale 1 .* is finer than the source")
@pytest.mark.filterwarnings("ignore:the image is .* mm long, model")
def test_what_python_gets_wrong_is_told_before_anything_is_written(model, store, tmp_path):
    out = tmp_path / "b.ome.zarr"
    for source, options, said in (
        (np.zeros((8, 8, 8)), {}, r"not as ndarray: an array becomes one with Volume\("),
        (body(), {"precision": "fp16"}, "precision 'fp16' is not one of fp32, bf16"),
        (body(), {"scale": 0.5}, "scale 0.5 is not a whole number of 0 or more"),
        (body(), {"scale": -1}, "scale -1 is not a whole number of 0 or more"),
        (body(), {"finest": -1}, "scale -1 is not a whole number of 0 or more"),
        (body(), {"workers": -1}, "workers -1 is not a whole number of 1 or more"),
        (body(), {"region": Box((0, 0), (4, 4))}, "has 2 axes, the image has 3"),
        (unsized(), {"spacing": 100}, r"too large for a store: .* is its voxel size in mm"),
        (unsized(), {"spacing": 1000}, r"too large for a store: .* is its voxel size in mm"),
        (unsized(), {"spacing": 0.001}, "less than a voxel of scale 2"),
    ):
        steps = []
        with pytest.raises(MsganError, match=said):
            jobs.generate(source, out, model, device="cpu", progress=steps.append, **options)
        assert not [step for step in steps if step.done]
        assert not out.exists()
    with pytest.raises(MsganError, match="grid 'Source' is not one of store, source"):
        jobs.export(store, tmp_path / "a.nii.gz", grid="Source")
    with pytest.raises(MsganError, match="unit 'mm' is not one of millimeter, pixel"):
        Volume(np.zeros((8, 8, 8)), Affine.of_spacing((1, 1, 1)), "mm")
    assert not (tmp_path / "a.nii.gz").exists()
    for save in (jobs.export, jobs.make_sketch):
        with pytest.raises(MsganError, match=r"memory://b/a\.ome\.zarr is a URL, and only stores"):
            save(store if save is jobs.export else body(), "memory://b/a.ome.zarr")
    with pytest.raises(MsganError, match="s3:// names no place"):
        jobs.generate(body(), "s3://", model, device="cpu")
    with pytest.raises(MsganError, match="has 2 axes, the image has 3"):
        jobs.refine(store.path, focus=Box((0, 0), (4, 4)), device="cpu")


def test_sketch_file_is_not_taken_for_an_image(model, tmp_path):
    sketch = jobs.make_sketch(body(), tmp_path / "sketch.nii.gz")
    out = tmp_path / "a.ome.zarr"
    steps = []
    with pytest.raises(JobError, match="says that it is a sketch: add --input-is-sketch"):
        jobs.generate(sketch, out, model, device="cpu", progress=steps.append)
    assert "unpacking" not in {step.stage for step in steps}
    assert not out.exists()
    options = {"input_is_sketch": True, "scale": 0, "progress": steps.append}
    jobs.generate(sketch, out, model, device="cpu", **options)
    assert "unpacking" in {step.stage for step in steps}


def test_a_store_names_no_folder_of_a_model_of_the_catalogue(tmp_path, monkeypatch):
    folder = write_model(tmp_path / "models" / "m")
    source = Volume(np.indices((60, 70)).sum(0) % 19, Affine.of_spacing((1, 1)), "pixel")

    def generated(name):
        return jobs.generate(source, tmp_path / name, folder, scale=0, device="cpu")

    made = [generated("away.ome.zarr")]
    monkeypatch.setenv(MODELS_VARIABLE, str(folder.parent))
    made.append(generated("known.ome.zarr"))
    assert [store.info.model_path for store in made] == [str(folder), None]
    assert jobs.refine(made[1].path, scale=1, device="cpu").refined_fraction(1) == 1


def test_a_store_that_is_not_all_made_is_no_image(model, tmp_path):
    """What nobody has made reads as air."""
    part = jobs.generate(body(), tmp_path / "a.ome.zarr", model, scale=0, device="cpu")
    for read in (read_volume, lambda path: jobs.make_sketch(path, tmp_path / "s.tif")):
        with pytest.raises(VolumeError, match=r"0 of [0-9]+ chunks of its finest scale made"):
            read(part.path)
    jobs.refine(part.path, device="cpu")
    assert read_volume(part.path).shape == part.geometry.shape


def test_empty_sketch_is_told(tmp_path):
    flat = Volume(np.full((40, 50), 7, np.uint8), Affine.of_spacing((1, 1)), "pixel")
    with pytest.warns(UserWarning, match="is empty: is the image constant"):
        jobs.make_sketch(flat, tmp_path / "s.tif")


def test_rounded_voxel_sizes_make_no_voxel_more(model, tmp_path):
    shapes = []
    for mm in (1.0, 1.0000001):
        image = body((30, 44, 36), (mm, mm, mm))
        made = jobs.generate(image, tmp_path / f"{mm}.ome.zarr", model, scale=0, device="cpu")
        shapes.append(made.geometry.shape)
    assert shapes[0] == shapes[1]


def test_a_store_that_is_gone_is_not_made_again_by_its_lock(model, tmp_path):
    store = jobs.generate(body(), tmp_path / "a.ome.zarr", model, scale=0, device="cpu")
    store.path.rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="is gone: put the folder back"):
        jobs.refine(store, device="cpu")
    assert not store.path.exists()


def test_help_shows_the_options():
    for function, steps in (
        (napari_msgan.generate, napari_msgan.iter_generate),
        (napari_msgan.refine, napari_msgan.iter_refine),
    ):
        shown = inspect.signature(function).parameters
        assert [*inspect.signature(steps).parameters.keys() - shown.keys()] == []
        assert "progress" in shown
        assert shown["region"].default is None


def test_numbers_of_numpy_and_what_is_open_are_taken(store, tmp_path):
    jobs.export(store, tmp_path / "a.tif", scale=np.int64(1))
    assert read_description(tmp_path / "a.tif")["scale"] == 1
    found = napari_msgan.verify(store, sample=np.int64(1))
    assert found.is_sound
    assert found.compared == 1


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (lambda s, to: jobs.export(s, to, scale="1"), "scale '1' is not a whole number"),
        (lambda s, to: jobs.export(s, to, scale=1.0), r"scale 1\.0 is not a whole number"),
        (
            lambda s, to: jobs.export(s, to, region=(slice(0, 4),) * 3),
            r"neither a Box nor text like z0:z1,y0:y1,x0:x1",
        ),
        (lambda s, to: napari_msgan.verify(s, sample="some"), "sample 'some' is neither"),
        (lambda s, to: napari_msgan.verify(s, sample=1.5), r"sample 1\.5 is neither"),
    ],
)
def test_what_is_no_scale_region_or_sample_is_told(store, tmp_path, job, message):
    with pytest.raises(MsganError, match=message):
        job(store, tmp_path / "a.tif")
    assert list(tmp_path.iterdir()) == []
