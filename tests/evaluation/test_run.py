"""From a model and images to tables and pictures, in 2-D and 3-D."""

import csv
import shutil

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_msgan.computing import TileContext, run_tile
from napari_msgan.errors import JobError, MsganError, VolumeError
from napari_msgan.evaluation import (
    Computing,
    check_held_out,
    check_out,
    evaluate,
    find_images,
    iter_check_pixels,
    iter_evaluate,
    iter_evaluate_image,
    overview,
    patients_of,
)
from napari_msgan.evaluation.reader_study import draw_regions
from napari_msgan.geometry import Box
from napari_msgan.model import load_folder, read_spec, save_spec
from napari_msgan.steps import run_to_end
from tests.evaluation.images import smooth
from tests.models import write_model


def finish(steps):
    """Return what a generator function returns, and all that it yields."""
    seen = []
    return run_to_end(steps, seen.append), seen


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flat")
    model = load_folder(write_model(folder / "model", n_scales=3, tile=64))
    (folder / "data").mkdir()
    for index in range(2):
        pixels = smooth((90 + index, 110), index).astype(np.uint8)
        tifffile.imwrite(folder / "data" / f"{index}.tif", pixels)
    return model, folder / "data"


@pytest.fixture(scope="module")
def evaluated(flat, tmp_path_factory):
    model, data = flat
    out = tmp_path_factory.mktemp("out")
    steps = iter_evaluate(
        model,
        find_images(data),
        out,
        computing=Computing(),
        training=find_images(data, ["1.*"]),
        reader_study=True,
    )
    return *finish(steps), out


@pytest.fixture(scope="module")
def measured(flat, tmp_path_factory):
    """The case and the rows of the first image."""
    model, data = flat
    folder = tmp_path_factory.mktemp("measured")
    return finish(iter_evaluate_image(data / "0.tif", model, folder, Computing(workers=2)))[0]


def test_tables_pictures_and_page_are_written(evaluated, flat):
    found, _, out = evaluated
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == {
        "figures.csv",
        "summary.csv",
        "report.md",
        "reader-study.html",
        "pictures/0.tif.png",
        "pictures/1.tif.png",
    }
    lines = list(csv.DictReader((out / "figures.csv").read_text().splitlines()))
    assert [(line["image"], line["scale"]) for line in lines] == [
        (f"{image}.tif", str(scale)) for image in range(2) for scale in range(3)
    ]
    assert [row.image for row in found.rows] == [line["image"] for line in lines]
    report = (out / "report.md").read_text()
    assert "## Memorisation" in report
    assert f"fp32 on cpu) with model small, sha256 {flat[0].spec.identity}." in report
    assert found.memorisation.n_images == 1


def test_every_figure_that_can_be_taken_is(evaluated):
    first, _, finest = evaluated[0].rows[:3]
    missing = {"mae_lung", "mae_soft_tissue", "mae_bone", "ms_ssim"}
    assert all(np.isfinite(v) for name, v in finest.values.items() if name not in missing)
    for name in ("mae", "ssim", "swd", "sketch_f1", "mae_from_true", "coarse_inconsistency"):
        assert np.isfinite(finest.value(name)), name
    assert finest.value("seam_max_near") <= 1e-5 * 255
    assert np.isnan(first.value("mae_from_true"))
    assert 0.05 < finest.value("edge_density") < 0.09


def test_progress_never_goes_back(evaluated):
    _, steps, _ = evaluated
    for stage in ("evaluating", "reading training images", "searching training images"):
        shares = [step.done for step in steps if step.stage == stage]
        assert shares == sorted(shares)
        assert 0 <= shares[0] <= shares[-1] <= 1
    assert any(step.note.startswith("1.tif: ") for step in steps)


def test_same_input_gives_the_same_figures_whatever_the_workers(evaluated, measured):
    assert len(measured[1]) == 3
    for row, other in zip(evaluated[0].rows, measured[1], strict=False):
        assert row.values == pytest.approx(other.values, nan_ok=True, rel=1e-6, abs=1e-9)


def test_no_scale_beyond_the_chosen_one_is_made_or_measured(flat, tmp_path):
    model, data = flat
    steps = iter_evaluate_image(data / "0.tif", model, tmp_path, Computing(), 1)
    case, rows = finish(steps)[0]
    assert [row.scale for row in rows] == [0, 1]
    assert [case.store.refined_fraction(scale) for scale in range(3)] == [1, 1, 0]
    shapes = [image.shape for image in (case.truth[-1], case.made(1))]
    assert shapes == [case.store.geometry.shape_at(1)] * 2
    overview(case)
    body = np.ones(case.truth[-1].shape, bool)
    assert draw_regions(case, body, 1)[0].made.std() > 0


def test_from_true_starts_from_the_true_scale_before(measured):
    """Checked against tiles of a store whose coarse image is the true one."""
    case, rows = measured
    store, truth = case.by_true, case.truth
    whole = Box.of_shape(truth[1].shape)
    assert np.array_equal(store.read(1, whole), truth[1])  # what scale 2 was made from
    context = TileContext(store, case.model, "cpu", "fp32")
    context.prepare([2])
    made = np.empty_like(truth[2])
    for tile in store.tiling.tiles(2, Box.of_shape(made.shape)):
        made[store.tiling.core(tile).slices] = run_tile(context, tile)
    expected = np.abs(made.astype(float) - truth[2]).mean() * 255 / 65535
    assert rows[2].value("mae_from_true") == pytest.approx(expected, rel=1e-5)
    assert rows[2].value("mae_from_true") < rows[2].value("mae")


def test_truth_is_the_source_in_the_window_of_the_model(flat, measured):
    case, _ = measured
    source = tifffile.imread(flat[1] / "0.tif").astype(float)
    low, high = np.percentile(source, (0.5, 99.5))
    expected = np.clip((source - low) / (high - low), 0, 1) * 65535
    assert case.truth[2].shape == source.shape
    assert np.abs(case.truth[2] - expected).max() < 2 * 65535 / 255
    assert case.truth[0].shape == (23, 28)


def test_overview_shows_scales_and_truth_with_or_without_difference(evaluated, measured):
    case, _ = measured
    whole = overview(case, size=100, with_difference=False)
    both = overview(case, size=100)
    assert (whole.width + 6) * 6 == (both.width + 6) * 5  # sketch, three scales, truth
    assert both.height > 1.8 * whole.height
    truth = np.asarray(whole.crop((4 * 106, 14, 4 * 106 + 100, whole.height)))
    shown = case.truth[2] / 257
    assert truth.mean() == pytest.approx(shown.mean(), abs=3)
    with Image.open(evaluated[2] / "pictures" / "0.tif.png") as saved:
        assert saved.mode == "L"


def test_volumes_have_tissues_and_spacing(tmp_path):
    folder = write_model(tmp_path / "model", ndim=3, n_scales=2, tile=32)
    spec = read_spec(folder)
    sketch = spec.sketch.model_copy(update={"window": spec.window})  # of HU as they are
    save_spec(spec.model_copy(update={"sketch": sketch}), folder)
    model = load_folder(folder)
    values = (smooth((40, 36, 44), 0) * 6 - 1000).astype(np.int16)
    image = nibabel.Nifti1Image(values.T, np.diag([1.0, 1.0, 1.0, 1.0]))
    nibabel.save(image, tmp_path / "ct.nii.gz")
    fine = evaluate(model, [tmp_path / "ct.nii.gz"], tmp_path / "out", reader_study=True).rows[1]
    assert fine.spacing_mm == (1, 1, 1)
    assert fine.shape == (40, 36, 44)
    assert np.isfinite([fine.value(f"mae_{t}") for t in ("lung", "soft_tissue", "bone")]).all()
    assert fine.value("seam_max_near") <= 1e-5 * 1600
    assert "Errors and seams in HU" in (tmp_path / "out" / "report.md").read_text()


def test_thick_slices_are_measured_at_the_scale_that_they_support(tmp_path):
    """Voxels of 2 and 1 mm; slices of 2.5 mm support the first only, unless a scale is given."""
    model = load_folder(write_model(tmp_path / "model", ndim=3, n_scales=2, tile=32))
    image, thick = (smooth((40, 36, 44), 0) * 6 - 1000).astype(np.int16), tmp_path / "thick.nii.gz"
    nibabel.save(nibabel.Nifti1Image(image[::2].T, np.diag([1.0, 1.0, 2.5, 1.0])), thick)
    found = evaluate(model, [thick], tmp_path / "out", reader_study=True)
    assert [(row.scale, row.spacing_mm) for row in found.rows] == [(0, (2, 2, 2))]
    with pytest.warns(UserWarning, match="details beyond scale 0 are invented"):
        found = evaluate(model, [thick], tmp_path / "asked", scale=1)
    assert [row.scale for row in found.rows] == [0, 1]
    with pytest.raises(VolumeError, match="no image is as large as a patch at scale 1"):
        evaluate(model, [thick], tmp_path / "searched", training=[thick])


def test_images_are_chosen_by_name_and_number(flat, tmp_path):
    _, data = flat
    assert [p.name for p in find_images(data)] == ["0.tif", "1.tif"]
    assert [p.name for p in find_images(data, ["1*", "x*"])] == ["1.tif"]
    assert [p.name for p in find_images(data, limit=1)] == ["0.tif"]
    assert find_images(data / "0.tif") == [data / "0.tif"]
    with pytest.raises(VolumeError, match=r"holds no image that matches x\*"):
        find_images(data, ["x*"])


def test_images_in_folders_below_are_found_and_hidden_ones_are_not(flat, tmp_path):
    _, data = flat
    (tmp_path / "patient").mkdir()
    shutil.copy(data / "0.tif", tmp_path / "patient" / "0.tif")
    (tmp_path / "._0.tif").write_bytes(b"what another system left")
    assert find_images(tmp_path) == [tmp_path / "patient" / "0.tif"]


def test_images_of_the_same_name_are_told_apart_by_their_folders(flat, tmp_path):
    model, data = flat
    for folder in ("one", "two"):
        (tmp_path / "data" / folder / "study").mkdir(parents=True)
        shutil.copy(data / "0.tif", tmp_path / "data" / folder / "study" / "0.tif")
    images = find_images(tmp_path / "data")
    names = ["one_study_0.tif", "two_study_0.tif"]
    patients = patients_of(images, "^[^_]+")
    assert list(patients.values()) == ["one", "two"]
    found = evaluate(model, images, tmp_path / "out", scale=0, patients=patients)
    assert [row.image for row in found.rows] == names
    pictures = sorted(path.name for path in (tmp_path / "out" / "pictures").iterdir())
    assert pictures == [f"{name}.png" for name in names]
    with pytest.raises(VolumeError, match="is there twice"):
        evaluate(model, [images[0]] * 2, tmp_path / "out")


def test_images_that_do_not_fit_are_all_named_before_anything_is_made(flat, tmp_path):
    model, data = flat
    small, solid = tmp_path / "small.tif", tmp_path / "solid.tif"
    tifffile.imwrite(small, smooth((40, 40), 0).astype(np.uint8))
    tifffile.imwrite(solid, smooth((20, 30, 40), 0).astype(np.uint8))
    with pytest.raises(JobError, match=r"2 of 4 images") as caught:
        evaluate(model, [data / "0.tif", small], tmp_path / "out", scale=2, training=[small, solid])
    assert "small.tif: scale 2 does not exist" in str(caught.value)
    assert "solid.tif: " in str(caught.value)
    with pytest.raises(JobError, match="memorisation is measured at scale 2"):
        evaluate(model, [data / "0.tif"], tmp_path / "out", scale=1, training=[data / "1.tif"])
    assert not (tmp_path / "out").exists()


def write_former(out):
    names = ("figures.csv", "summary.csv", "report.md", "reader-study.html", "pictures/x.tif.png")
    (out / "pictures").mkdir(parents=True)
    for name in names:
        (out / name).write_text("image,patient\nx.tif,former\n../holiday,former")
    return names


def test_results_of_a_former_evaluation_go_together(flat, tmp_path):
    model, data = flat
    write_former(tmp_path)
    mine = [tmp_path / "pictures" / "holiday.png", tmp_path / "holiday.png"]
    for path in mine:
        path.write_text("mine")
    evaluate(model, [data / "0.tif"], tmp_path, scale=1)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path not in mine]
    assert {path.name for path in left} == {"figures.csv", "summary.csv", "report.md", "0.tif.png"}
    assert all(b"former" not in path.read_bytes() for path in left)
    assert all(path.read_text() == "mine" for path in mine)


def write_damaged(path):
    """Write an image whose header is right, and whose pixels cannot be read."""
    pixels = smooth((90, 110), 3).astype(np.uint8)
    tifffile.imwrite(path, pixels, compression="zlib", rowsperstrip=16)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        start = file.pages[0].dataoffsets[2]
    content[start : start + 40] = bytes(40)
    path.write_bytes(content)
    return path


def test_results_of_a_former_evaluation_stay_where_no_image_can_be_evaluated(flat, tmp_path):
    names = write_former(tmp_path / "out")
    with pytest.raises(JobError, match=r"no image could be evaluated:\n  damaged.tif: "):
        evaluate(flat[0], [write_damaged(tmp_path / "damaged.tif")], tmp_path / "out")
    assert all("former" in (tmp_path / "out" / name).read_text() for name in names)


def test_images_beside_a_damaged_one_are_evaluated(flat, tmp_path):
    model, data = flat
    images = [write_damaged(tmp_path / "damaged.tif"), data / "0.tif"]
    found = evaluate(model, images, tmp_path / "out")
    assert {row.image for row in found.rows} == {"0.tif"}
    assert [problem.split(":")[0] for problem in found.problems] == ["damaged.tif"]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "**Not measured:**\n\n- damaged.tif: " in report
    assert "| 0.tif | 2 |" in report


def test_volumes_beside_a_truncated_one_are_evaluated(tmp_path):
    model = load_folder(write_model(tmp_path / "model", ndim=3, n_scales=2, tile=32))
    paths = [tmp_path / f"{seed}.nii.gz" for seed in range(2)]
    for seed, path in enumerate(paths):
        values = (smooth((20, 18, 22), seed) * 6 - 1000).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(values.T, np.eye(4)), path)
    paths[0].write_bytes(paths[0].read_bytes()[:-2000])
    found = evaluate(model, paths, tmp_path / "out")
    assert {row.image for row in found.rows} == {"1.nii.gz"}
    assert found.problems[0].startswith("0.nii.gz: ")


def test_damaged_training_image_is_named_before_anything_is_made(flat, tmp_path):
    model, data = flat
    training, out = [data / "1.tif", write_damaged(tmp_path / "damaged.tif")], tmp_path / "out"
    with pytest.raises(JobError, match=r"1 of 2 training images cannot be read:\n  damaged.tif"):
        evaluate(model, [data / "0.tif"], out, training=training)
    assert not any(out.iterdir())


def test_images_without_room_for_a_patch_are_refused_before_anything_is_made(flat, tmp_path):
    model, data = flat
    small = tmp_path / "small.tif"
    tifffile.imwrite(small, smooth((31, 100), 0).astype(np.uint8))
    for images, training, what in ((small, "1.tif", "no image"), ("0.tif", small, "no training")):
        with pytest.raises(VolumeError, match=f"{what}.* is as large as a patch"):
            evaluate(model, [data / images], tmp_path / "out", training=[data / training])
    assert not (tmp_path / "out").exists()


def test_failing_search_leaves_tables_and_page(flat, tmp_path, monkeypatch):
    def iter_search(*arguments):
        yield 0.0, "1.tif"
        raise VolumeError("it is gone")

    monkeypatch.setattr("napari_msgan.evaluation.run.iter_search_training", iter_search)
    model, data = flat
    images = find_images(data)
    found = evaluate(model, images, tmp_path, reader_study=True, training=images)
    assert found.problems == ("it is gone",)
    assert found.memorisation is None
    assert (tmp_path / "reader-study.html").exists()
    assert "- it is gone" in (tmp_path / "report.md").read_text()


def test_longest_file_names_have_pictures_of_their_own(flat, tmp_path):
    model, data = flat
    images = [tmp_path / f"{'é' * 124}{end}.tif" for end in "ab"]
    for path in images:
        shutil.copy(data / "0.tif", path)
    found = evaluate(model, images, tmp_path / "out", scale=0)
    assert [row.image for row in found.rows] == [path.name for path in images]
    names = [path.name for path in (tmp_path / "out" / "pictures").iterdir()]
    assert len(names) == 2
    assert all(name.startswith("é" * 100) and name.endswith(".png") for name in names)


def test_out_must_be_empty_unless_it_may_be_overwritten(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    check_out(out, [data], overwrite=False)
    data.mkdir()
    out.mkdir()
    check_out(out, [data], overwrite=False)
    (out / "file").write_text("")
    with pytest.raises(JobError, match="is not empty"):
        check_out(out, [data], overwrite=False)
    check_out(out, [data], overwrite=True)
    check_out(out, [out / "file"], overwrite=True)  # one image
    with pytest.raises(JobError, match="is a file"):
        check_out(out / "file", [data], overwrite=True)
    for within in (data, data / "figures", out / ".." / "data"):
        with pytest.raises(JobError, match="whose images are read"):
            check_out(within, [tmp_path / "no", data], overwrite=True)


def test_held_out_images_are_no_training_images_under_another_name(tmp_path):
    paths = [tmp_path / name for name in ("anna_1.tif", "bert_1.tif", "bert_2.tif", "other.tif")]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 4)
    anna, bert, again, other = paths
    check_held_out([anna], [bert, again, other])
    with pytest.raises(VolumeError, match=r"bert_1\.tif is in DATA and in --training"):
        check_held_out([anna, bert], [bert, other])
    check_held_out([anna], [bert, other], "^[a-z]+_")
    with pytest.raises(VolumeError, match=r"bert_2\.tif in --training is of patient bert,"):
        check_held_out([anna, bert], [other, again], "^([a-z]+)_")
    other.write_bytes(anna.read_bytes())
    with pytest.raises(VolumeError, match=r"anna_1\.tif has the content of .*other\.tif"):
        check_held_out([anna], [bert, other])


def test_error_names_the_image(flat, tmp_path):
    model, data = flat
    shutil.copy(data / "0.tif", tmp_path / "broken.tif")
    (tmp_path / "broken.tif").write_bytes(b"II*\x00")
    (tmp_path / "work").mkdir()
    with pytest.raises(MsganError) as caught:
        finish(iter_evaluate_image(tmp_path / "broken.tif", model, tmp_path / "work", Computing()))
    assert caught.value.__notes__ == [f"while evaluating {tmp_path / 'broken.tif'}"]


def test_held_out_pixels_are_found_in_training_in_any_kind_of_file(tmp_path):
    pixels = [smooth((60, 70 + i // 2), i).astype(np.uint8) for i in range(3)]
    for number, values in enumerate(pixels):
        tifffile.imwrite(tmp_path / f"{number}.tif", values)
        Image.fromarray(values).save(tmp_path / f"{number}.png")
    (tmp_path / "damaged.tif").write_bytes(b"II*\x00")
    tif, png = ([tmp_path / f"{i}{kind}" for i in range(3)] for kind in (".tif", ".png"))
    damaged = tmp_path / "damaged.tif"
    finish(iter_check_pixels([tif[0], damaged], [*png[1:], damaged]))
    with pytest.raises(JobError, match=r"1\.png has the pixels of .*1\.tif$"):
        finish(iter_check_pixels(tif[:2], png[1:]))


def test_report_of_an_evaluation_that_was_stopped_says_what_it_lacks(flat, tmp_path):
    model, data = flat
    steps = iter_evaluate(model, find_images(data), tmp_path, training=[data / "0.tif"])
    for step in steps:
        if step.stage == "evaluating" and step.done > 0.5:
            break
    steps.close()
    report = (tmp_path / "report.md").read_text()
    assert "stopped, 1 of 2 images are measured; training images were not searched" in report
    finish(iter_evaluate(model, find_images(data), tmp_path, training=[data / "0.tif"]))
    assert "stopped" not in (tmp_path / "report.md").read_text()


def test_page_counts_the_images_that_it_shows(flat, tmp_path):
    model, _ = flat
    pixels = smooth((90, 110), 3).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    tifffile.imwrite(tmp_path / "c.tif", pixels[:, ::-1])
    pixels[:, 40:70] = 0  # no body in the middle
    tifffile.imwrite(tmp_path / "b.tif", pixels)
    images = [tmp_path / f"{name}.tif" for name in "abc"]
    finish(iter_evaluate(model, images, tmp_path / "out", reader_study=True))
    assert "regions are of 2 image(s)" in (tmp_path / "out" / "reader-study.html").read_text()


def test_patterns_choose_also_where_one_image_is_given(flat):
    _, data = flat
    assert find_images(data / "0.tif", ["0*"]) == [data / "0.tif"]
    with pytest.raises(VolumeError, match=r"holds no image that matches 1\*"):
        find_images(data / "0.tif", ["1*"])


def test_names_are_taken_as_text_and_no_image_is_told(flat, tmp_path):
    model, data = flat
    found = evaluate(str(model.folder), [str(data / "0.tif")], str(tmp_path / "out"), scale=0)
    assert [row.image for row in found.rows] == ["0.tif"]
    assert (tmp_path / "out" / "figures.csv").exists()
    with pytest.raises(JobError, match="there is no image to evaluate"):
        evaluate(model, [], tmp_path / "none")
