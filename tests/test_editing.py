"""A store from the sketch of another one, on which somebody drew or erased."""

import shutil
import warnings

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from napari_msgan import jobs
from napari_msgan.cli import main
from napari_msgan.errors import GeometryError, StoreError
from napari_msgan.geometry import Affine
from napari_msgan.io import read_description, read_volume
from napari_msgan.model import load_folder
from napari_msgan.pyramid import open_pyramid
from napari_msgan.volume import Volume
from tests.models import write_model


def smooth(shape, seed=0):
    """Return an image with edges at every scale."""
    rng = np.random.default_rng(seed)
    image = np.zeros(shape, np.float32)
    for side in (3, 9, 27):
        coarse = rng.normal(size=[-(-n // side) for n in shape])
        image += np.kron(coarse, np.ones([side] * len(shape)))[tuple(slice(n) for n in shape)]
    return np.interp(image, (image.min(), image.max()), (-1000, 600)).astype(np.int16)


@pytest.fixture(scope="module", params=[2, 3], ids=["2-D", "3-D"])
def original(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    ndim = request.param
    shape, unit = ((150, 131), "pixel") if ndim == 2 else ((40, 44, 37), "millimeter")
    model = load_folder(write_model(folder / "model", ndim=ndim, n_scales=3))
    source = Volume(smooth(shape), Affine.of_spacing((1.0,) * ndim, (5.0,) * ndim), unit)
    return jobs.generate(source, folder / "a.ome.zarr", model, device="cpu"), model, source


def finest_sketch(store):
    return np.asarray(store.sketch_array(store.geometry.finest_scale)[...])


def as_volume(store, pixels):
    return Volume(pixels, store.geometry.affine, store.geometry.unit)


def generate(original, pixels, out, **options):
    store, model, _ = original
    options = {"device": "cpu", "edited_from": store} | options
    return jobs.generate(as_volume(store, pixels), out, model, **options)


def same_scales(store, other):
    """Return, for sketch and image of every scale, whether two stores hold the same."""
    return [
        (
            np.array_equal(store.sketch_array(scale)[...], other.sketch_array(scale)[...]),
            np.array_equal(store.array(scale)[...], other.array(scale)[...]),
        )
        for scale in range(store.n_scales)
    ]


def test_untouched_sketch_gives_the_image_of_the_original_and_a_given_one_does_not(
    original, tmp_path
):
    store, _, _ = original
    untouched = finest_sketch(store)
    again = generate(original, untouched, tmp_path / "b.ome.zarr")
    assert all(both == (True, True) for both in same_scales(store, again))
    given = generate(
        original, untouched, tmp_path / "c.ome.zarr", edited_from=None, input_is_sketch=True
    )
    *coarser, finest = same_scales(store, given)
    assert all(both == (False, False) for both in coarser)
    assert finest == (True, False)


def test_textures_are_those_of_the_original_unless_another_seed_is_given(tmp_path, capsys):
    model = load_folder(write_model(tmp_path / "model", n_scales=2, noise=0.5))
    source = Volume(smooth((70, 61)), Affine.of_spacing((1.0, 1.0)), "pixel")
    store = jobs.generate(source, tmp_path / "a.ome.zarr", model, device="cpu", seed=7)
    made = store, model, source
    again = generate(made, finest_sketch(store), tmp_path / "b.ome.zarr")
    assert all(both == (True, True) for both in same_scales(store, again))
    other = generate(made, finest_sketch(store), tmp_path / "c.ome.zarr", seed=8)
    assert same_scales(store, other)[-1] == (True, False)
    command = ["generate", f"{store.path}/sketch", str(tmp_path / "d.ome.zarr"), "-q"]
    command += ["--model", str(model.folder), "--edited-from", str(store.path)]
    assert main(command) == 0
    assert open_pyramid(tmp_path / "d.ome.zarr").info.seed == 7


def test_what_is_drawn_is_seen_at_every_scale_and_nothing_else_changes(original, tmp_path):
    store, _, _ = original
    drawn = finest_sketch(store).copy()
    place = tuple(slice(16, 24) for _ in drawn.shape)
    drawn[place] = 0
    drawn[(slice(16, 24), 20, *[20] * (drawn.ndim - 2))] = 255
    edited = generate(original, drawn, tmp_path / "b.ome.zarr")
    np.testing.assert_array_equal(finest_sketch(edited), drawn)
    for scale in range(store.n_scales):
        before, now = (np.asarray(s.sketch_array(scale)[...]) for s in (store, edited))
        total = store.geometry.total_factor(scale)[0]
        start, stop = 16 // total, 24 // total
        assert now[(slice(start, stop), *[20 // total] * (now.ndim - 1))].max() == 255
        around = 3 if scale < store.geometry.finest_scale else 0
        away = np.ones(now.shape, bool)
        away[(slice(max(0, start - around), stop + around),) * now.ndim] = False
        assert np.array_equal(before[away], now[away])
        assert away.mean() > 0.1


def test_what_is_erased_is_gone_at_every_scale(original, tmp_path):
    store, _, _ = original
    erased = finest_sketch(store).copy()
    half = tuple([slice(0, erased.shape[0] // 2)] + [slice(None)] * (erased.ndim - 1))
    erased[half] = 0
    edited = generate(original, erased, tmp_path / "b.ome.zarr", scale=0)
    for scale in range(store.n_scales):
        before, now = (np.asarray(s.sketch_array(scale)[...]) for s in (store, edited))
        middle = now.shape[0] // 2
        assert np.count_nonzero(now[: middle - 2]) < 0.1 * np.count_nonzero(before[: middle - 2])
        np.testing.assert_array_equal(now[middle + 2 :], before[middle + 2 :])


def test_edges_of_coarse_scales_alone_go_with_the_edges_around_them(original, tmp_path):
    store, _, _ = original
    empty = np.zeros_like(finest_sketch(store))
    with pytest.warns(UserWarning, match="100% of the edges|sketch is empty"):
        edited = generate(original, empty, tmp_path / "b.ome.zarr", scale=0)
    assert not any(np.any(edited.sketch_array(scale)[...]) for scale in range(store.n_scales))


def test_store_says_what_it_was_made_from(original, tmp_path, capsys):
    store, _, source = original
    drawn = finest_sketch(store).copy()
    drawn[3:9] = 255
    edited = generate(original, drawn, tmp_path / "b.ome.zarr", scale=0)
    known = edited.info
    assert known.source == store.info.source
    assert known.geometry == store.info.geometry
    assert (store.info.sketch.edited, known.sketch.given) == (None, False)
    densities = [known.sketch.thresholds[-1].density, store.info.sketch.thresholds[-1].density]
    np.testing.assert_allclose(
        densities, [np.count_nonzero(x) / x.size for x in (drawn, finest_sketch(store))]
    )
    out = jobs.export(edited, tmp_path / "out.ome.tif", grid="source")
    assert read_volume(out).shape == source.shape
    assert read_description(out)["sketch_edited"] is True
    assert main(["info", str(edited.path)]) == 0
    assert "its sketch drawn on" in " ".join(capsys.readouterr().out.split())
    assert main(["info", str(store.path)]) == 0
    assert "drawn on" not in capsys.readouterr().out


def test_the_same_job_goes_on_and_another_is_refused(original, tmp_path):
    store, model, source = original
    drawn = finest_sketch(store).copy()
    drawn[3:9] = 255
    out = tmp_path / "b.ome.zarr"
    assert generate(original, drawn, out, scale=0).refined_fraction(1) == 0
    assert generate(original, drawn, out, scale=1).refined_fraction(1) == 1
    with pytest.raises(StoreError, match="with other edits"):
        generate(original, finest_sketch(store), out)
    with pytest.raises(StoreError, match="it was made from an edited sketch"):
        jobs.generate(source, out, model, device="cpu")
    with pytest.raises(StoreError, match="from a sketch that was not edited"):
        generate(original, drawn, store.path)
    other = Volume(source.data[::-1], source.affine, source.unit)
    mirrored = jobs.generate(other, tmp_path / "m.ome.zarr", model, device="cpu", scale=0)
    with pytest.raises(StoreError, match="from the sketch of another image"):
        generate(original, drawn, out, edited_from=mirrored)
    twice = jobs.generate(
        as_volume(store, finest_sketch(store)),
        tmp_path / "t.ome.zarr",
        model,
        edited_from=out,
        device="cpu",
    )
    np.testing.assert_array_equal(finest_sketch(twice), finest_sketch(store))
    with pytest.raises(StoreError, match="or of another store"):  # coarser scales differ
        generate(original, finest_sketch(store), twice.path)


def test_precision_is_that_of_the_original_unless_another_is_asked_for(original, tmp_path):
    _, model, source = original
    lower = jobs.generate(source, tmp_path / "a.ome.zarr", model, device="cpu", precision="bf16")
    same = generate(original, finest_sketch(lower), tmp_path / "b.ome.zarr", edited_from=lower)
    assert same.info.fingerprint.precision == "bf16"
    assert all(both == (True, True) for both in same_scales(lower, same))
    options = {"edited_from": lower, "precision": "fp32", "scale": 0}
    other = generate(original, finest_sketch(lower), tmp_path / "c.ome.zarr", **options)
    assert other.info.fingerprint.precision == "fp32"
    with pytest.raises(StoreError, match="was generated with precision bf16, now it would be fp32"):
        jobs.generate(source, lower.path, model, device="cpu")  # no edit: as ever


def test_name_of_the_source_is_kept_only_when_asked_for(original, tmp_path):
    _, model, source = original
    options = {"device": "cpu", "scale": 0}
    named = jobs.generate(source, tmp_path / "a.ome.zarr", model, name="scan 7", **options)
    out, pixels = tmp_path / "b.ome.zarr", finest_sketch(named)
    for name in (None, "scan 8"):  # given again, it goes on
        made = generate(original, pixels, out, edited_from=named, scale=0, name=name)
        assert made.info.source.name is None


def test_what_does_not_fit_is_told_and_leaves_nothing(original, tmp_path):
    store, _, _ = original
    pixels, out = finest_sketch(store), tmp_path / "b.ome.zarr"
    with pytest.raises(GeometryError, match="save it with all its voxels"):
        generate(original, pixels[1:], out)
    with pytest.raises(GeometryError, match="scale 3 does not exist"):
        generate(original, pixels, out, scale=3)
    (tmp_path / "models").mkdir()
    stranger = write_model(tmp_path / "models" / "x", ndim=pixels.ndim, n_scales=3, seed=7)
    with pytest.raises(StoreError, match="was made by model"):
        jobs.generate(as_volume(store, pixels), out, stranger, edited_from=store, device="cpu")
    if pixels.ndim == 3:
        shifted = Volume(pixels, Affine.of_spacing((1.0,) * 3, (5.0, 5.0, 5.1)), "millimeter")
        with pytest.raises(GeometryError, match=r"does not lie where .* \(0.1 mm apart"):
            jobs.generate(shifted, out, store.info.model_path, edited_from=store, device="cpu")
    assert not out.exists()
    assert not list(tmp_path.glob("*partial*"))


@pytest.mark.parametrize("kind", ["the image itself", "16 bits, drawn on with 65535", "a JPEG"])
def test_what_is_no_copy_of_the_sketch_is_told(original, tmp_path, kind):
    store, _, _ = original
    copy = finest_sketch(store)
    if kind == "the image itself":
        pixels = np.linspace(1, 200, copy.size).reshape(copy.shape).astype(np.uint8)
    elif kind == "a JPEG":
        noise = np.random.default_rng(0).integers(-9, 10, copy.shape)
        pixels = np.clip(copy + noise, 0, 255).astype(np.uint8)
    else:
        pixels = copy.astype(np.uint16)
        pixels[3:5] = 65535
    with pytest.warns(UserWarning, match="it is not a copy of that sketch"):
        generate(original, pixels, tmp_path / "b.ome.zarr", scale=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(original, copy.astype(np.uint16) * 257, tmp_path / "c.ome.zarr", scale=0)


def test_original_that_is_gone_or_torn_is_refused(original, tmp_path):
    store, _, _ = original
    torn = shutil.copytree(store.path, tmp_path / "torn.ome.zarr")
    shutil.rmtree(torn / "sketch" / "1" / "c")
    out = tmp_path / "b.ome.zarr"
    with pytest.raises(StoreError, match="is missing"):
        generate(original, finest_sketch(store), out, edited_from=torn)
    opened = open_pyramid(torn)
    shutil.rmtree(torn)
    for gone in (torn, opened):
        with pytest.raises(StoreError):
            generate(original, finest_sketch(store), out, edited_from=gone)
    assert not out.exists()
    assert not list(tmp_path.glob("*partial*"))


def test_file_that_knows_its_voxel_size_only_lies_where_the_sketch_lies(original, tmp_path):
    store, model, _ = original
    bare = Affine.of_spacing(store.geometry.affine.spacing)
    assert bare != store.geometry.affine
    volume = Volume(finest_sketch(store), bare, "millimeter")  # as Fiji saves a stack
    out = tmp_path / "b.ome.zarr"
    again = jobs.generate(volume, out, model, edited_from=store, device="cpu")
    assert all(both == (True, True) for both in same_scales(store, again))


def test_terminal_writes_the_sketch_of_a_store_and_takes_it_back(original, tmp_path, capsys):
    store, model, _ = original
    is_flat = store.geometry.ndim == 2
    file = tmp_path / ("sketch.png" if is_flat else "sketch.nii.gz")
    assert main(["sketch", f"{store.path}/sketch", str(file)]) == 0
    advice = " ".join(capsys.readouterr().out.split())
    assert advice.endswith(f"--model small --edited-from {store.path}")
    np.testing.assert_array_equal(np.asarray(read_volume(file).data[...]), finest_sketch(store))
    if is_flat:
        pixels = np.asarray(Image.open(file)).copy()
        pixels[3:9] = 255
        Image.fromarray(pixels).save(file)  # as a paint program does: what the file said is gone
    else:
        image = nib.load(file)
        pixels = np.asanyarray(image.dataobj).copy()
        pixels[..., 3:9] = 255
        turned = nib.as_closest_canonical(nib.Nifti1Image(pixels, image.affine))
        assert not np.array_equal(turned.affine, image.affine)
        nib.save(turned, file)
    drawn = finest_sketch(store).copy()
    drawn[3:9] = 255
    out = tmp_path / "b.ome.zarr"
    command = ["generate", str(file), str(out), "--model", str(model.folder), "--device", "cpu"]
    assert main([*command, "--edited-from", str(store.path)]) == 0
    here = generate(original, drawn, tmp_path / "c.ome.zarr")
    assert all(both == (True, True) for both in same_scales(open_pyramid(out), here))
    assert main([*command, "--edited-from", str(tmp_path / "none.ome.zarr")]) == 2
    assert "none.ome.zarr" in capsys.readouterr().err
