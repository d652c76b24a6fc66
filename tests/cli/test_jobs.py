"""sketch, generate, refine and export, as typed."""

import errno
import io
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import tifffile

from napari_msgan.cli import main
from napari_msgan.cli._telling import drop_output, tell
from napari_msgan.io import read_description, read_volume
from napari_msgan.pyramid import open_pyramid
from tests.cli.helpers import command, listing, names_in, picture, pixels
from tests.io.dicom import write_series
from tests.training.made import config_of


def assert_same_pixels(one, other):
    for a, b in zip(pixels(one), pixels(other), strict=True):
        np.testing.assert_array_equal(a, b)


def refined(store):
    opened = open_pyramid(store)
    return [int(opened.refined_chunks(scale).sum()) for scale in range(opened.n_scales)]


def test_generate_makes_everything_and_says_what_comes_next(cli, image, model, tmp_path):
    out = tmp_path / "a.ome.zarr"
    ended = cli("generate", image, out, "--model", model)
    assert ended.code == 0
    assert refined(out) == [4, 12, 42]
    assert "Tiles made: 1 of scale 0, 4 of scale 1, 12 of scale 2." in ended.out
    assert "First tile of scale 2 after " in ended.out
    assert f"  napari-msgan export {out} a-synthetic.ome.tif" in ended.out
    assert "refine" not in ended.out  # nothing is left to refine
    assert "tiles: 17 of 17 (100 %)" in ended.err
    assert names_in(tmp_path) == ["a.ome.zarr"]


def test_advised_name_keeps_dots_that_tell_images_apart(cli, image, model, tmp_path):
    out = tmp_path / "ct_1.5mm_a.ome.zarr"
    ended = cli("generate", image, out, "--model", model, "--scale", "0")
    assert f"  napari-msgan export {out} ct_1.5mm_a-synthetic.ome.tif" in ended.out
    ended = cli("generate", image, tmp_path / "ct_1.5mm.nii.gz", "--model", model)
    assert "e.g. ct_1.5mm.ome.zarr" in ended.err
    ended = cli("generate", image, tmp_path / "ct_1.5mm", "--model", model)
    assert "e.g. ct_1.5mm.ome.zarr" in ended.err


def test_region_computes_only_its_tiles_and_refine_the_rest(cli, image, model, finished, tmp_path):
    out = tmp_path / "a.ome.zarr"
    ended = cli("generate", image, out, "--model", model, "--region", "0:8,0:8", "--scale", "1")
    assert "Tiles made: 1 of scale 0, 1 of scale 1." in ended.out
    assert refined(out) == [4, 4, 0]
    assert f"  napari-msgan refine {out} --region 32:64,32:64\n" in ended.out  # in the middle
    ended = cli("refine", out, "--region", "0:8,0:8")
    assert "Tiles made: 1 of scale 2." in ended.out
    assert refined(out) == [4, 4, 4]
    advised = ended.out.split("--region ")[1].split()[0]
    ended = cli("refine", out, "--region", advised, "--model", model)
    assert "of scale 2." in ended.out
    ended = cli("refine", out, "--region", "0:90,0:110", "-q")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert_same_pixels(out, finished)


def test_same_command_again_makes_nothing_new(cli, image, model, store):
    before = listing(store)
    ended = cli("generate", image, store, "--model", model)
    assert ended.code == 0
    assert "Everything that you asked for was there already: no tile was made." in ended.out
    assert listing(store) == before


def test_model_can_be_named_and_is_found_by_its_hash(cli, image, model, own_models, tmp_path):
    (own_models / "mine").symlink_to(model)
    out = tmp_path / "a.ome.zarr"
    assert cli("generate", image, out, "--model", "small", "--region", "0:8,0:8", "-q").code == 0
    assert cli("refine", out, "--region", "8:16,40:50").code == 0


def test_number_of_workers_does_not_change_the_pixels(cli, image, model, finished, tmp_path):
    out = tmp_path / "a.ome.zarr"
    assert cli("generate", image, out, "--model", model, "--workers", "5").code == 0
    assert_same_pixels(out, finished)


def test_sketch_of_an_image_is_a_source(cli, image, model, finished, tmp_path):
    drawn, out = tmp_path / "drawn.tif", tmp_path / "a.ome.zarr"
    ended = cli("sketch", image, drawn)
    assert ended.code == 0
    assert f"napari-msgan generate {drawn} NAME.ome.zarr" in ended.out
    values = tifffile.imread(drawn)
    assert values.dtype == np.uint8
    assert 0.03 < (values > 0).mean() < 0.15
    cli("sketch", image, drawn).check_refused("exists already")
    assert cli("sketch", image, drawn, "--overwrite").code == 0
    assert cli("generate", drawn, out, "--model", model, "--input-is-sketch").code == 0
    np.testing.assert_array_equal(np.asarray(open_pyramid(out).sketch_array(2)[...]), values)
    assert not np.array_equal(pixels(out)[2], pixels(finished)[2])


def test_sketch_of_a_store_is_drawn_on_and_used_as_advised(
    cli, originals, own_models, finished, tmp_path
):
    shutil.copytree(originals / "small", own_models / "small")
    drawn, out = tmp_path / "drawn.tif", tmp_path / "a.ome.zarr"
    advised = cli("sketch", finished / "sketch", drawn).out.splitlines()[-1]
    assert advised == (
        f"  napari-msgan generate {drawn} NAME.ome.zarr --model small --edited-from {finished}"
    )
    values = tifffile.imread(drawn)
    values[40:44, 30:60] = 255
    tifffile.imwrite(drawn, values)
    _, *arguments = advised.replace("NAME.ome.zarr", str(out)).split()
    assert cli(*arguments, "--region", "32:64,32:64", "-q").code == 0
    assert "no voxel size, its sketch drawn on" in cli("info", out).out
    assert "drawn on" not in cli("info", finished).out


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".nii.gz", ".ome.zarr", ".png"])
def test_export_holds_the_pixels_of_the_store(cli, finished, tmp_path, suffix):
    out = tmp_path / f"a{suffix}"
    ended = cli("export", finished, out)
    assert ended.code == 0
    assert f"{out}: scale 2 (0 to 2), region 0:90,0:110, 100.0 % refined\n" in ended.out
    volume = read_volume(out)
    values = np.asarray(volume.data[tuple(slice(0, n) for n in volume.shape)])
    np.testing.assert_array_equal(values.squeeze(), pixels(finished)[2])
    assert read_description(out)["synthetic"] is True


def test_export_of_a_region_at_a_scale_says_how_much_is_refined(cli, image, model, tmp_path):
    store, out = tmp_path / "a.ome.zarr", tmp_path / "a.tif"
    assert cli("generate", image, store, "--model", model, "--region", "0:32,0:32", "-q").code == 0
    ended = cli("export", store, out, "--region", "16:48,0:32")
    assert "50.0 % refined, the rest from coarser scales" in ended.out
    assert tifffile.imread(out).shape == (32, 32)
    assert cli("export", store, out, "--scale", "1", "--overwrite").code == 0
    assert tifffile.imread(out).shape == (45, 55)


def test_volume_goes_from_nifti_to_nifti_on_the_grid_of_its_source(cli, originals, tmp_path):
    import nibabel as nib

    source, store, out = tmp_path / "s.nii.gz", tmp_path / "a.ome.zarr", tmp_path / "o.nii.gz"
    affine = np.diag([-1.5, 1.0, 1.0, 1.0])
    nib.save(nib.Nifti1Image(picture((16, 24, 20), seed=2).astype(np.int16), affine), source)
    ended = cli("generate", source, store, "--model", originals / "solid")
    assert f"  napari-msgan export {store} a-synthetic.nii.gz\n" in ended.out
    ended = cli("export", store, out, "--grid", "source")
    assert ended.code == 0
    made = nib.load(out)
    assert made.shape == (16, 24, 20)
    np.testing.assert_allclose(made.affine, affine)
    assert "source" in read_description(out)["grid"]


# What is wrong is said in one line, and nothing is written or changed.

BAD_SOURCES = {
    "missing": ("no.png", None, "no.png does not exist"),
    "not a PNG": ("a.png", b"hello", "cannot be read as a picture"),
    "empty TIFF": ("a.tif", b"", "cannot be read as TIFF"),
    "not gzip": ("a.nii.gz", b"hello", "cannot be read as NIfTI"),
    "unknown type": ("a.docx", b"hello", "unknown file type"),
}


@pytest.mark.parametrize(("name", "content", "advice"), BAD_SOURCES.values(), ids=BAD_SOURCES)
def test_bad_source_is_refused(cli, model, tmp_path, name, content, advice):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    before = listing(tmp_path)
    out = tmp_path / "out.ome.zarr"
    cli("generate", tmp_path / name, out, "--model", model).check_refused(advice)
    cli("sketch", tmp_path / name, tmp_path / "out.tif").check_refused(advice)
    assert listing(tmp_path) == before


def test_half_a_file_is_refused_by_a_process_in_one_line(process, image, tmp_path):
    half = tmp_path / "half.tif"
    half.write_bytes(image.read_bytes()[:3000])
    process("sketch", half, tmp_path / "out.tif").check_refused("cannot be read as TIFF")
    assert names_in(tmp_path) == ["half.tif"]


BAD_GENERATE = {
    "unknown model": (("--model", "nope"), "there is no model 'nope'"),
    "folder that is no model": (("--model", "{tmp}"), "is not a model folder"),
    "region without colon": (("--region", "10"), "is not of the form y0:y1,x0:x1"),
    "region with three axes": (("--region", "0:1,0:1,0:1"), "is not of the form y0:y1,x0:x1"),
    "empty region": (("--region", "5:5,0:9"), "y goes from 5 to 5"),
    "region outside": (("--region", "90:99,0:9"), "lies outside the image, which is 0:90,0:110"),
    "scale too high": (("--scale", "3"), "has the scales 0 to 2"),
    "model for volumes": (("--model", "{solid}"), "is for 3-D images (z, y, x)"),
}


def test_only_stores_lie_at_a_url(cli, image, model, finished):
    url = "s3://bucket/a.ome.zarr"
    for asked in (
        ("export", finished, url),
        ("sketch", image, url),
        ("sketch", url, "a.tif"),
        ("generate", url, "a.ome.zarr", "--model", model),
        ("estimate", url, "--model", model),
        ("evaluate", model, url),
        ("train", url, "model"),
        ("demo", "--output", url),
    ):
        ended = cli(*asked)
        ended.check_refused("s3://bucket/a.ome.zarr is a URL, and only stores can be at a URL")


@pytest.mark.parametrize(("extra", "advice"), BAD_GENERATE.values(), ids=BAD_GENERATE)
def test_bad_request_is_refused(cli, image, originals, tmp_path, extra, advice):
    filled = [a.format(tmp=tmp_path, solid=originals / "solid") for a in extra]
    out = tmp_path / "out.ome.zarr"
    ended = cli("generate", image, out, "--model", originals / "small", *filled)
    ended.check_refused(advice)
    assert names_in(tmp_path) == []


def test_volume_for_a_flat_model_and_one_without_voxel_size_are_refused(cli, originals, tmp_path):
    source, out = tmp_path / "v.tif", tmp_path / "out.ome.zarr"
    tifffile.imwrite(source, picture((8, 20, 24), seed=0))
    flat = cli("generate", source, out, "--model", originals / "small")
    flat.check_refused("is for 2-D images (y, x)")
    solid = cli("generate", source, out, "--model", originals / "solid")
    solid.check_refused("no voxel size in mm")
    assert "generate and estimate also take one with --spacing" in solid.err
    assert names_in(tmp_path) == ["v.tif"]


def test_a_dicom_series_is_generated_from_and_estimated(cli, originals, tmp_path):
    series, out = tmp_path / "ct", tmp_path / "a.ome.zarr"
    write_series(series, picture((12, 30, 32), seed=0).astype(np.uint16) * 8, spacing=(2, 1, 1))
    solid = ("--model", originals / "solid")
    cli("estimate", series, *solid, "--scale", "9").check_refused("scale 9 does not exist")
    assert cli("generate", series, out, *solid, "--scale", "0").code == 0
    said = open_pyramid(out).info.source
    assert (said.shape, said.to_affine().spacing, said.name) == ((12, 30, 32), (2, 1, 1), None)
    assert cli("generate", series, out, *solid, "--scale", "0").code == 0  # it goes on


def test_voxel_size_that_a_file_lacks_is_given(cli, originals, tmp_path):
    source, sketch, out = tmp_path / "v.tif", tmp_path / "s.nii.gz", tmp_path / "a.ome.zarr"
    tifffile.imwrite(source, picture((8, 20, 24), seed=0))
    solid = ("--model", originals / "solid", "--spacing")
    cli("estimate", source, *solid, "2,1,1", "--scale", "9").check_refused("scale 9 does not")
    assert cli("generate", source, out, *solid, "2,1,1", "--scale", "0").code == 0
    said = open_pyramid(out).info.source
    assert (said.to_affine().spacing, said.unit) == ((2, 1, 1), "millimeter")
    for other in ("3", "2,1,2"):
        again = cli("generate", source, out, *solid, other)
        again.check_refused("it was made with another voxel size (give --spacing as before)")
    without = cli("generate", source, out, "--model", originals / "solid")
    without.check_refused("with another voxel size")
    assert cli("generate", source, out, *solid, "2,1,1", "--scale", "0").code == 0
    assert cli("sketch", source, sketch, "--spacing", "2,1,1").code == 0
    assert read_volume(sketch).spacing == (2, 1, 1)
    for given, advice in (("2,1", "for each axis"), ("0", "above 0"), ("a", "is not a voxel size")):
        other = cli("generate", source, tmp_path / "b.ome.zarr", *solid, given)
        other.check_refused(advice)


def test_sketch_beyond_1_is_refused(cli, model, tmp_path):
    source = tmp_path / "s.tif"
    tifffile.imwrite(source, 255 * picture((90, 110), seed=0).astype(np.float32))
    arguments = ("generate", source, tmp_path / "out.ome.zarr", "--model", model)
    cli(*arguments, "--input-is-sketch").check_refused("must lie in [0, 1]")
    assert names_in(tmp_path) == ["s.tif"]
    assert cli(*arguments).code == 0


@pytest.mark.parametrize("name", ["out.png", "out", "out.nii.gz"])
def test_name_that_is_no_store_is_refused(cli, image, model, tmp_path, name):
    ended = cli("generate", image, tmp_path / name, "--model", model)
    ended.check_refused("must end in .ome.zarr, e.g. out.ome.zarr")
    assert names_in(tmp_path) == []


def test_taken_name_missing_folder_and_foreign_folder_are_refused(cli, image, model, tmp_path):
    (tmp_path / "file.ome.zarr").write_text("mine")
    (tmp_path / "folder.ome.zarr").mkdir()
    before = listing(tmp_path)
    for name, advice in {
        "file.ome.zarr": "exists already",
        "folder.ome.zarr": "is not an OME-Zarr 0.5 group",
        "no/out.ome.zarr": "does not exist",
    }.items():
        cli("generate", image, tmp_path / name, "--model", model).check_refused(advice)
    cli("sketch", image, tmp_path / "no/out.tif").check_refused("does not exist")
    assert listing(tmp_path) == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_folder_where_nobody_may_write_is_refused(cli, image, model, finished):
    cli("generate", image, "/proc/a.ome.zarr", "--model", model).check_refused("/proc/a.ome.zarr")
    cli("export", finished, "/proc/a.tif").check_refused("/proc/a.tif")
    cli("sketch", image, "/proc/a.tif").check_refused("/proc/a.tif")


OTHER_JOBS = {
    "model": (("--model", "{originals}/other"), "it was made with another model"),
    "sketch instead of image": (("--input-is-sketch",), "it was made from an image"),
    "precision": (("--precision", "bf16"), "was generated with precision fp32"),
    "finer scale": (("--scale", "3"), "scale 3 does not exist"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("extra", "advice"), OTHER_JOBS.values(), ids=OTHER_JOBS)
def test_store_of_another_job_is_refused_and_stays(cli, image, originals, store, extra, advice):
    (store / "0" / "c" / "0" / "0").unlink()  # so that there is something to do
    before = listing(store)
    filled = [a.format(originals=originals) for a in extra]
    ended = cli("generate", image, store, "--model", originals / "small", *filled)
    assert ended.code == 2
    assert len(ended.errors) == 1
    assert advice in ended.errors[0]
    assert "Traceback" not in ended.err
    assert listing(store) == before
    same = cli("generate", image, store, "--model", originals / "small")
    assert "Tiles made: 1 of scale 2." in same.out


def test_store_of_another_image_is_refused(cli, originals, store):
    ended = cli("generate", originals / "another.tif", store, "--model", originals / "small")
    ended.check_refused("it was made from a source with other pixels")


def test_refine_refuses_another_model_precision_and_what_is_outside(cli, originals, store):
    other = cli("refine", store, "--region", "0:8,0:8", "--precision", "bf16")
    other.check_refused("was generated with precision fp32, now it would be bf16")
    before = listing(store)
    refine = ("refine", store, "--region")
    cli(*refine, "0:8,0:8", "--model", originals / "other").check_refused(
        "was made by model 'small'"
    )
    cli(*refine, "200:300,0:8").check_refused("lies outside the image")
    cli(*refine, "0:8,0:8", "--scale", "3").check_refused("has the scales 0 to 2")
    cli("refine", originals / "no.ome.zarr", "--region", "0:8,0:8").check_refused("no store at")
    assert listing(store) == before


def test_refine_without_its_model_says_how_to_name_it(cli, store, own_models):
    path = store / "zarr.json"
    path.write_text(path.read_text().replace("originals0/small", "elsewhere"))
    ended = cli("refine", store, "--region", "0:8,0:8")
    ended.check_refused("--model (in Python model=) names one that lies elsewhere.")


def test_export_refuses_what_it_cannot_write(cli, finished, tmp_path):
    (tmp_path / "taken.tif").write_text("mine")
    before = listing(tmp_path)
    export = ("export", finished)
    cli(*export, tmp_path / "a.jpg").check_refused("the name must end in")
    cli(*export, tmp_path / "taken.tif").check_refused("exists already")
    cli(*export, tmp_path / "a.tif", "--region", "0:1").check_refused("is not of the form")
    cli(*export, tmp_path / "a.tif", "--scale", "3").check_refused("scale 3 does not exist")
    cli("export", tmp_path / "no.ome.zarr", tmp_path / "a.tif").check_refused("no store at")
    cli(*export, tmp_path / "no" / "a.tif").check_refused("no does not exist. Make it first.")
    assert listing(tmp_path) == before
    assert cli(*export, tmp_path / "taken.tif", "--overwrite").code == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of files there")
def test_full_disk_is_one_line_and_the_same_command_goes_on(cli, image, model, finished, tmp_path):
    out = tmp_path / "a.ome.zarr"
    generate = ("generate", image, out, "--model", model)
    assert cli(*generate, "--scale", "0", "-q").code == 0
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        ended = cli(*generate)
        exported = cli("export", out, tmp_path / "a.tif")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    ended.check_refused("a file cannot be that large there")
    exported.check_refused("a file cannot be that large there")
    assert names_in(tmp_path) == ["a.ome.zarr"]
    assert cli(*generate).code == 0
    assert_same_pixels(out, finished)


# Interruptions.


@pytest.fixture(scope="module")
def large(originals, tmp_path_factory):
    """An image of some hundred tiles, so that a run can be interrupted."""
    path = tmp_path_factory.mktemp("large") / "large.tif"
    tifffile.imwrite(path, picture((250, 270), seed=3))
    return path


@pytest.fixture(scope="module")
def whole(large, originals, tmp_path_factory):
    """What a run makes of it that nobody interrupts."""
    out = tmp_path_factory.mktemp("whole") / "whole.ome.zarr"
    assert main(["generate", str(large), str(out), "--model", str(originals / "small"), "-q"]) == 0
    return out


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for other processes there")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL], ids=lambda kind: kind.name)
def test_interrupted_run_goes_on_and_ends_with_the_same_pixels(
    cli, large, whole, model, tmp_path, kind
):
    out = tmp_path / "a.ome.zarr"
    arguments = ("generate", large, out, "--model", model, "--workers", "1")
    for _ in range(10):
        with subprocess.Popen(
            command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            while process.poll() is None and not chunks(out, "0"):
                time.sleep(0.005)
            process.send_signal(kind)
            _, err = process.communicate(timeout=60)
        if process.returncode:
            break
        shutil.rmtree(out)  # on a busy machine, the run may end before the signal is sent
    assert "Traceback" not in err
    if kind == signal.SIGINT:
        assert process.returncode == 130
        assert "stopped. What is finished stays; the same command continues from there." in err
    kept = {path: path.stat().st_mtime_ns for path in chunks(out)}
    assert 0 < len(kept) < 200
    ended = cli(*arguments)
    assert ended.code == 0
    twice = [path for path, written in kept.items() if path.stat().st_mtime_ns != written]
    # A tile is four chunks: one that was killed in between is made again.
    assert len(twice) <= (0 if kind == signal.SIGINT else 3)
    assert_same_pixels(out, whole)
    assert not list(out.rglob("*.partial"))


def chunks(store, scale="[0-9]"):
    """Return the chunks of the image, without what a killed process had begun to write."""
    return [path for path in store.glob(f"{scale}/c/*/*") if path.name.isdigit()]


def test_stopping_while_the_sketch_is_made_leaves_nothing(cli, image, model, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    out = tmp_path / "a.ome.zarr"
    monkeypatch.setattr("napari_msgan.cli._progress.Lines.__call__", stop)
    assert cli("generate", image, out, "--model", model).code == 130
    assert cli("sketch", image, tmp_path / "a.tif").code == 130
    assert names_in(tmp_path) == []
    monkeypatch.undo()
    assert cli("generate", image, out, "--model", model).code == 0


def test_stopped_export_leaves_nothing(cli, finished, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_msgan.cli._progress.Lines.__call__", stop)
    ended = cli("export", finished, tmp_path / "a.tif")
    assert (ended.code, ended.err) == (130, "\nstopped. Nothing was written.\n")
    assert names_in(tmp_path) == []


def test_work_goes_on_when_nobody_reads_what_it_says(image, model, tmp_path):
    """As in `napari-msgan generate ... 2>&1 | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)

    def run(*arguments):
        both = {"stdout": writing, "stderr": writing, "check": False}
        return subprocess.run(command(*arguments), **both).returncode

    made, data = tmp_path / "made.ome.zarr", tmp_path / "data"
    assert run("generate", image, made, "--model", model) == 0
    store = open_pyramid(made)
    assert store.refined_fraction(store.geometry.finest_scale) == 1
    assert run("generate", image, tmp_path / "made.txt", "--model", model) == 2
    next(path for path in made.rglob("c/*/*") if path.is_file()).write_bytes(b"torn")
    assert run("verify", "-q", made) == 2
    data.mkdir()
    shutil.copy(image, data)
    settings = config_of(2).model_dump_json()
    (tmp_path / "settings.json").write_text(settings)
    trained = tmp_path / "trained"
    assert run("train", data, trained, "--config", tmp_path / "settings.json") == 0
    assert (trained / "model.json").is_file()
    os.close(writing)


def test_work_needs_no_standard_error(image, model, tmp_path):
    out = tmp_path / "made.ome.zarr"
    line = f"{shlex.join(command('generate', image, out, '--model', model, '--scale', '0'))} 2>&-"
    subprocess.run(line, shell=True, check=True, stdout=subprocess.PIPE)
    assert open_pyramid(out).refined_fraction(0) == 1


def test_text_that_cannot_be_written_costs_nothing_else(capsys, tmp_path):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left")

    class Unread(Full):
        def write(self, text):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    for stream in (Full(), Unread()):  # neither has a descriptor
        tell("lost", stream)
    with (tmp_path / "log").open("w") as log:
        n_open = psutil.Process().num_fds()
        for _ in range(3):
            drop_output(log)
        assert psutil.Process().num_fds() == n_open
        print("lost", file=log)
    assert (tmp_path / "log").read_text() == ""
    tell("seen")
    assert capsys.readouterr() == ("", "seen\n")
