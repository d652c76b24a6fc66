from __future__ import annotations

import json

import numpy as np
import pytest
import yaozarrs
import zarr

from napari_msgan.errors import VolumeError
from napari_msgan.geometry import Affine
from napari_msgan.io import read_description, read_volume, write_volume
from napari_msgan.volume import Volume
from tests.io.helpers import AFFINES, make_volume


def levels_of(volume: Volume) -> list[Volume]:
    """Return three levels, each the block average of the one before, as our pyramids have."""
    levels = [volume]
    for _ in range(2):
        last = levels[-1]
        ndim = len(last.shape)
        data = np.asarray(last.data)[(slice(None, None, 2),) * ndim]
        affine = last.affine.rescaled((2,) * ndim, (0.5,) * ndim)
        levels.append(Volume(data, affine, volume.unit))
    return levels


def make_store(path, data, axes, *, version="0.4", scale=None, translation=None, outer=()):
    """Write an image as other programs do."""
    group = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3)
    array = group.create_array("s0", shape=data.shape, dtype=data.dtype)
    array[...] = data
    steps = [{"type": "scale", "scale": scale or [1.0] * data.ndim}]
    if translation:
        steps.append({"type": "translation", "translation": translation})
    image = {"axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": steps}]}
    if outer:
        image["coordinateTransformations"] = list(outer)
    if version == "0.4":
        group.attrs["multiscales"] = [{**image, "version": "0.4"}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [image]}
    return path


def space(names, unit="millimeter"):
    return [{"name": n, "type": "space"} | ({"unit": unit} if unit else {}) for n in names]


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("unit", ["millimeter", "pixel"])
def test_written_store_is_valid_ome_zarr(rng, tmp_path, ndim, unit):
    volume = make_volume(rng, ndim)
    levels = levels_of(Volume(volume.data, volume.affine, unit))
    write_volume(tmp_path / "a.ome.zarr", levels, description={"seed": 1})
    yaozarrs.validate_zarr_store(str(tmp_path / "a.ome.zarr"))


def test_validation_notices_a_missing_level(rng, tmp_path):
    write_volume(tmp_path / "a.ome.zarr", levels_of(make_volume(rng, 2)), description={})
    (tmp_path / "a.ome.zarr" / "1" / "zarr.json").unlink()
    with pytest.raises(Exception, match=r"StorageValidationError|path '1'|not found"):
        yaozarrs.validate_zarr_store(str(tmp_path / "a.ome.zarr"))


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_transforms_place_every_level_like_its_affine(rng, tmp_path, affine):
    levels = levels_of(make_volume(rng, 3, affine=affine))
    write_volume(tmp_path / "a.ome.zarr", levels, description={})
    group = zarr.open_group(tmp_path / "a.ome.zarr", mode="r")
    image = group.attrs["ome"]["multiscales"][0]
    assert [axis["unit"] for axis in image["axes"]] == ["millimeter"] * 3
    along = affine.matrix[:3, :3] / affine.spacing  # directions of the image's own axes
    for level, dataset in zip(levels, image["datasets"], strict=True):
        steps = {s["type"]: np.array(s[s["type"]]) for s in dataset["coordinateTransformations"]}
        np.testing.assert_allclose(steps["scale"], level.spacing)
        for index in [(0, 0, 0), (2, 4, 5)]:
            position = steps["scale"] * index + steps["translation"]
            if affine != AFFINES["straight"]:  # relative to voxel 0 of the finest level
                position = along @ position + affine.origin
            np.testing.assert_allclose(position, level.affine.at(index), atol=1e-9)
        np.testing.assert_array_equal(group[dataset["path"]][:], level.data)


def test_first_centre_of_a_level_lies_inside_by_half_the_difference(rng, tmp_path):
    levels = levels_of(make_volume(rng, 3))
    write_volume(tmp_path / "a.ome.zarr", levels, description={})
    datasets = zarr.open_group(tmp_path / "a.ome.zarr").attrs["ome"]["multiscales"][0]["datasets"]
    shifts = [np.array(d["coordinateTransformations"][1]["translation"]) for d in datasets]
    spacing = np.array(levels[0].spacing)
    np.testing.assert_allclose(shifts[1] - shifts[0], 0.5 * spacing)
    np.testing.assert_allclose(shifts[2] - shifts[0], 1.5 * spacing)


def test_chunks_that_equal_the_fill_value_are_stored(tmp_path):
    data = np.zeros((70, 130, 65), "int16")  # air
    volume = Volume(data, Affine(np.eye(4)), "millimeter")
    write_volume(tmp_path / "a.ome.zarr", [volume], description={})
    array = zarr.open_array(tmp_path / "a.ome.zarr" / "0", mode="r")
    assert array.chunks == (64, 64, 64)
    assert array.metadata.zarr_format == 3
    assert array.nchunks_initialized == array.nchunks == 2 * 3 * 2


def test_chunks_that_another_program_leaves_out_of_an_export_hold_the_fill_value(tmp_path):
    """Only of a store, whose finest scale is made tile by tile, does a missing chunk say more."""
    data = np.zeros((300, 300), "int16")
    data[260:, 260:] = 7
    volume = Volume(data, Affine(np.eye(3)), "millimeter")
    write_volume(tmp_path / "a.ome.zarr", [volume], description={"model_sha256": "a" * 64})
    for index in ("0/0", "0/1", "1/0"):
        (tmp_path / "a.ome.zarr/0/c" / index).unlink()
    np.testing.assert_array_equal(read_volume(tmp_path / "a.ome.zarr").data, data)


def test_exact_affine_of_our_stores_is_preferred(rng, tmp_path):
    volume = make_volume(rng, 3, affine=AFFINES["oblique"])
    write_volume(tmp_path / "a.ome.zarr", [volume], description={})
    assert read_volume(tmp_path / "a.ome.zarr").affine == volume.affine
    attributes = tmp_path / "a.ome.zarr" / "zarr.json"
    content = json.loads(attributes.read_text())
    del content["attributes"]["napari_msgan"]
    attributes.write_text(json.dumps(content))
    without = read_volume(tmp_path / "a.ome.zarr")
    np.testing.assert_allclose(without.affine.matrix, np.diag([2.5, 0.7, 0.6, 1]), atol=1e-12)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(("unit", "mm"), [("micrometer", 1e-3), ("millimeter", 1), ("meter", 1e3)])
def test_scale_and_translation_of_others_become_millimetres(rng, tmp_path, version, unit, mm):
    data = rng.integers(0, 99, (4, 5, 6), "uint16")
    make_store(
        tmp_path / "a.zarr",
        data,
        space("zyx", unit),
        version=version,
        scale=[3.0, 0.5, 0.25],
        translation=[10.0, -20.0, 30.0],
    )
    volume = read_volume(tmp_path / "a.zarr")
    assert volume.unit == "millimeter"
    np.testing.assert_allclose(volume.spacing, np.array([3.0, 0.5, 0.25]) * mm)
    np.testing.assert_allclose(volume.affine.origin, np.array([10.0, -20.0, 30.0]) * mm)
    np.testing.assert_array_equal(np.asarray(volume.data), data)
    assert read_description(tmp_path / "a.zarr") is None


def test_transformation_of_the_whole_image_is_applied_after_that_of_the_level(tmp_path):
    outer = [
        {"type": "scale", "scale": [2.0, 10.0]},
        {"type": "translation", "translation": [1.0, 2.0]},
    ]
    data = np.ones((5, 6))
    make_store(
        tmp_path / "a.zarr",
        data,
        space("yx"),
        scale=[3.0, 0.5],
        translation=[4.0, 5.0],
        outer=outer,
    )
    affine = read_volume(tmp_path / "a.zarr").affine
    np.testing.assert_allclose(affine.at((0, 0)), [9.0, 52.0])
    np.testing.assert_allclose(affine.at((1, 1)), [15.0, 57.0])


def test_time_and_channel_axes_of_length_one_are_dropped(rng, tmp_path):
    data = rng.integers(0, 99, (1, 1, 4, 5, 6), "uint16")
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}, *space("zyx")]
    make_store(tmp_path / "a.zarr", data, axes, scale=[1.0, 1.0, 3.0, 0.5, 0.25])
    volume = read_volume(tmp_path / "a.zarr")
    assert (volume.shape, volume.spacing) == ((4, 5, 6), (3.0, 0.5, 0.25))
    key = (slice(1, 3), slice(2, 5), slice(0, 6))
    np.testing.assert_array_equal(volume.data[key], data[0, 0][key])


@pytest.mark.parametrize("count", [2, 3])
def test_channels_are_refused_with_advice(tmp_path, count):
    axes = [{"name": "c", "type": "channel"}, *space("zyx")]
    make_store(tmp_path / "a.zarr", np.ones((count, 4, 5, 6)), axes)
    with pytest.raises(VolumeError, match=rf"{count} along c.*Save one"):
        read_volume(tmp_path / "a.zarr")


def test_names_of_axes_may_be_capitals(tmp_path):
    data = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    make_store(tmp_path / "a.zarr", data, space("ZYX"))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.zarr").data, data)


@pytest.mark.parametrize("axes", ["xyz", "zy"])
def test_other_orders_of_axes_are_refused(tmp_path, axes):
    make_store(tmp_path / "a.zarr", np.ones((4, 5, 6)[: len(axes)]), space(axes))
    with pytest.raises(VolumeError, match="readable are z, y, x and y, x"):
        read_volume(tmp_path / "a.zarr")


def test_scale_without_a_unit_stays_in_pixels_with_a_warning(tmp_path):
    make_store(tmp_path / "a.zarr", np.ones((5, 6)), space("yx", None), scale=[0.65, 0.65])
    with pytest.warns(UserWarning, match="no unit of length"):
        volume = read_volume(tmp_path / "a.zarr")
    assert (volume.unit, volume.spacing) == ("pixel", (0.65, 0.65))


def test_impossible_scale_counts_voxels_with_a_warning(tmp_path):
    make_store(tmp_path / "a.zarr", np.ones((5, 6)), space("yx"), scale=[0.0, 1.0])
    with pytest.warns(UserWarning, match="is wrong"):
        assert read_volume(tmp_path / "a.zarr").unit == "pixel"


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    "shape", [(5, 6), (4, 5, 6), (4, 1, 6), (1, 5, 6), (1, 1, 4, 5, 6)], ids=str
)
def test_plain_arrays_are_read_in_pixels(rng, tmp_path, zarr_format, shape):
    data = rng.integers(0, 99, shape, "uint16")
    array = zarr.create_array(tmp_path / "a.zarr", data=data, zarr_format=zarr_format)
    assert array.shape == shape
    volume = read_volume(tmp_path / "a.zarr")
    assert volume.unit == "pixel"
    expected = data.reshape(shape[-3:])
    one_slice = len(expected) == 1  # which is 2-D, as in other formats
    np.testing.assert_array_equal(np.asarray(volume.data), expected[0] if one_slice else expected)


def test_array_inside_a_store_is_found_without_a_suffix(rng, tmp_path):
    volume = make_volume(rng, 2)
    write_volume(tmp_path / "a.ome.zarr", levels_of(volume), description={})
    coarse = read_volume(tmp_path / "a.ome.zarr" / "1")
    np.testing.assert_array_equal(np.asarray(coarse.data), volume.data[::2, ::2])


def test_group_without_an_image_names_what_is_inside(tmp_path):
    group = zarr.create_group(tmp_path / "plate.zarr")
    make_store(tmp_path / "plate.zarr" / "well", np.ones((5, 6)), space("yx"), version="0.5")
    assert "well" in group
    with pytest.raises(VolumeError, match=r"contains well.*plate.zarr/well"):
        read_volume(tmp_path / "plate.zarr")
    assert read_volume(tmp_path / "plate.zarr" / "well").shape == (5, 6)


def test_unknown_version_is_refused(tmp_path):
    make_store(tmp_path / "a.zarr", np.ones((5, 6)), space("yx"), version="0.9")
    with pytest.raises(VolumeError, match=r"OME-Zarr 0.9; readable are 0.4 and 0.5"):
        read_volume(tmp_path / "a.zarr")


def test_damaged_chunk_is_told_when_it_is_read(rng, tmp_path):
    write_volume(tmp_path / "a.ome.zarr", [make_volume(rng, 2)], description={})
    (tmp_path / "a.ome.zarr" / "0" / "c" / "0" / "0").write_bytes(b"nothing")
    volume = read_volume(tmp_path / "a.ome.zarr")
    with pytest.raises(VolumeError, match="A chunk may be damaged"):
        np.asarray(volume.data)


@pytest.mark.parametrize("dtype", ["bool", "complex64"])
def test_masks_and_complex_arrays_are_refused(tmp_path, dtype):
    zarr.create_array(tmp_path / "a.zarr", data=np.ones((5, 6), dtype))
    with pytest.raises(VolumeError, match=f"voxels of type {dtype}"):
        read_volume(tmp_path / "a.zarr")


def test_huge_empty_array_of_nan_is_refused_in_little_time_and_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_msgan.io._arrays.SLAB_BYTES", 2**16)
    zarr.create_array(
        tmp_path / "a.zarr",
        shape=(10**5, 10**3, 10**3),
        chunks=(64, 64, 64),
        dtype="float32",
        fill_value=np.nan,
    )
    with pytest.raises(VolumeError, match="every voxel is NaN"):
        read_volume(tmp_path / "a.zarr")


def test_chunk_larger_than_the_memory_is_refused(tmp_path):
    shape = (10**5, 10**5, 10**5)
    zarr.create_array(tmp_path / "a.zarr", shape=shape, chunks=shape, dtype="uint8")
    with pytest.raises(VolumeError, match=r"declares 931322.6 GiB"):
        read_volume(tmp_path / "a.zarr")


def test_empty_array_is_refused_by_name(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(0, 6), chunks=(5, 6), dtype="uint8")
    with pytest.raises(VolumeError, match=r"a\.zarr: an image must have 2 or 3 axes, got shape"):
        read_volume(tmp_path / "a.zarr")


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
@pytest.mark.parametrize("changed", [None, "scale", "translation", "shape"])
def test_what_another_program_changed_counts_and_not_our_note(rng, tmp_path, affine, changed):
    volume = make_volume(rng, 3, affine=affine)
    path = tmp_path / "a.ome.zarr"
    write_volume(path, [volume], description={})
    group = zarr.open_group(path, mode="r+")
    ome = group.attrs["ome"]
    steps = {
        s["type"]: s for s in ome["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    }
    if changed == "shape":
        group["0"].resize((2, 3, 4))
    elif changed:
        steps[changed][changed] = [v + 1 for v in steps[changed][changed]]
        group.attrs["ome"] = ome
    read = read_volume(path)
    if changed is None:
        np.testing.assert_array_equal(read.affine.matrix, volume.affine.matrix)
    else:
        np.testing.assert_allclose(read.spacing, steps["scale"]["scale"])
        np.testing.assert_allclose(read.affine.origin, steps["translation"]["translation"])


def test_one_slice_of_another_program_is_a_2d_image(rng, tmp_path):
    data = rng.random((1, 1, 1, 5, 6))
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}, *space("zyx")]
    make_store(tmp_path / "a.zarr", data, axes, scale=[1.0, 1.0, 9.0, 3.0, 2.0])
    volume = read_volume(tmp_path / "a.zarr")
    np.testing.assert_array_equal(np.asarray(volume.data), data[0, 0, 0])
    np.testing.assert_allclose(volume.spacing, (3, 2))


def test_one_slice_that_we_wrote_stays_a_volume(rng, tmp_path):
    volume = make_volume(rng, 3)
    slice_ = Volume(np.asarray(volume.data)[:1], volume.affine, "millimeter")
    write_volume(tmp_path / "a.ome.zarr", [slice_], description={})
    assert read_volume(tmp_path / "a.ome.zarr").shape == slice_.shape


@pytest.mark.parametrize(
    "steps",
    [
        [{"type": "scale", "scale": [2, 2]}, {"type": "affine", "affine": [[1, 0, 0], [0, 1, 0]]}],
        [{"type": "scale", "scale": [2, 2]}, {"type": "scale", "scale": [3, 3]}],
        [{"type": "translation", "translation": [2, 2]}, {"type": "scale", "scale": [3, 3]}],
    ],
)
def test_transformations_beyond_the_specification_are_refused(tmp_path, steps):
    group = zarr.create_group(tmp_path / "a.ome.zarr")
    group.create_array("0", data=np.ones((8, 8), np.uint8))
    axes = [{"name": n, "type": "space"} for n in "yx"]
    datasets = [{"path": "0", "coordinateTransformations": steps}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    with pytest.raises(VolumeError, match="known are scale, then translation"):
        read_volume(tmp_path / "a.ome.zarr")
    datasets[0]["coordinateTransformations"] = steps[:1]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    assert read_volume(tmp_path / "a.ome.zarr").shape == (8, 8)


def test_a_name_that_looks_like_a_chain_of_urls_is_a_name(tmp_path):
    volume = Volume(np.ones((8, 9), np.uint8), Affine.of_spacing((1, 1)), "pixel")
    write_volume(tmp_path / "a b::c#%.ome.zarr", [volume], description={})
    assert read_volume(tmp_path / "a b::c#%.ome.zarr").shape == (8, 9)
