from __future__ import annotations

from unittest.mock import Mock

import dask.array
import numpy as np
import pytest
import tifffile
from napari.layers import Image, Labels, Layer

from napari_msgan import generate
from napari_msgan._napari.from_layer import layer_matrix, to_volume
from napari_msgan._napari.to_layer import (
    Placement,
    box_layer,
    result_layer,
    sketch_layer,
    volume_layer,
)
from napari_msgan.errors import VolumeError
from napari_msgan.geometry import Affine, Box
from napari_msgan.io import read_volume
from napari_msgan.volume import Orientation, Volume, turn
from tests._napari.conftest import ball


def corners(layer, shape):
    """Outer corners of the image of a layer, in its world."""
    matrix = layer_matrix(layer)
    ends = np.array([[-0.5] * len(shape), [n - 0.5 for n in shape]])
    return np.sort(ends * np.diag(matrix)[:-1] + matrix[:-1, -1], axis=0)


SOURCES = {
    "isotropic": {"scale": (2, 2, 2)},
    "thick slices, moved": {"scale": (2.5, 1, 1), "translate": (-100, 20, 7)},
    "flipped": {"scale": (-2.5, 1, -1), "translate": (40, 3, 9)},
    "other unit": {"scale": (0.25, 0.1, 0.1), "translate": (1, 2, 3), "units": ("cm",) * 3},
    "affine": {"affine": np.diag([2.5, 1.0, 1.0, 1.0])},
}


@pytest.mark.parametrize("options", SOURCES.values(), ids=SOURCES)
def test_result_covers_the_source_from_corner_to_corner(options, models, tmp_path):
    shape = (21, 45, 39)
    data = ball(shape, (20, 20, 18), 12, (1, 1, 1))
    source = Image(data, **{"units": ("mm",) * 3, **options})
    volume = to_volume(source)
    store = generate(volume, tmp_path / "a.ome.zarr", models / "small-ct", scale=0)
    placement = Placement.of_layer(source, volume.affine)
    result = Layer.create(*result_layer(store, placement, "result"))
    found, wanted = corners(result, store.geometry.shape), corners(source, shape)
    spacing = np.abs(result.scale)
    # they begin at the same corner; the other end is filled up to whole voxels
    np.testing.assert_allclose(found[0], wanted[0], atol=1e-6 * spacing.max())
    assert (found[1] >= wanted[1] - 1e-6).all()
    assert (np.abs(found - wanted).max(axis=0) < spacing).all()
    assert result.units == source.units
    if "unit" not in str(options):
        np.testing.assert_allclose(spacing, volume_spacing(store))


def volume_spacing(store):
    return store.geometry.affine.spacing


@pytest.mark.parametrize("options", SOURCES.values(), ids=SOURCES)
def test_sketch_lies_on_the_edges_of_the_source(options, models, tmp_path):
    """The centre of mass of edges of a ball is its centre, in the world of the layers."""
    shape = (21, 45, 39)
    step = np.abs(options.get("scale", (2.5, 1, 1)))
    step = (np.array(step) / step[-1]).tolist()
    data = ball(shape, (24 if step[0] > 1 else 10, 20, 18), 9, step)
    source = Image(data, **{"units": ("mm",) * 3, **options})
    volume = to_volume(source)
    store = generate(volume, tmp_path / "a.ome.zarr", models / "small-ct", scale=0)
    sketch = Layer.create(*sketch_layer(store, Placement.of_layer(source, volume.affine), "sketch"))
    edges = np.asarray(sketch.data[0]) > 0

    def centre(layer, mass):
        index = np.array([np.average(axis, weights=mass[mass > 0]) for axis in np.nonzero(mass)])
        matrix = layer_matrix(layer)
        return index * np.diag(matrix)[:-1] + matrix[:-1, -1]

    distance = np.abs(centre(sketch, edges.astype(float)) - centre(source, data.astype(float)))
    # half a voxel of the result; a forgotten (F - 1) / 2 or flip would be more
    assert (distance < 0.5 * np.abs(sketch.scale) + 1e-9).all(), distance / np.abs(sketch.scale)


def test_volume_of_a_file_is_shown_upright_and_keeps_its_affine():
    ras = Affine(np.array([[0, 0, 2.0, 5], [0, -1, 0, 9], [-1, 0, 0, 3], [0, 0, 0, 1]]))
    data = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    volume = Volume(data, ras, "millimeter")
    layer = Layer.create(*volume_layer(volume, "turned"))
    assert tuple(layer.scale) == (2, 1, 1)
    index = (1, 2, 3)
    world = ras.at(index)
    at = np.rint(np.asarray(layer.world_to_data(world))).astype(int)
    assert layer.data[tuple(at)] == data[index]
    assert to_volume(layer).affine.at(at) == pytest.approx(world)


def test_oblique_file_is_straightened_but_keeps_its_affine():
    angle = np.deg2rad(15)
    turn = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn @ np.diag([3, 1, 1]), (7, 8, 9)
    layer = Layer.create(
        *volume_layer(Volume(np.zeros((4, 5, 6)), Affine(matrix), "millimeter"), "oblique")
    )
    assert tuple(layer.scale) == pytest.approx((3, 1, 1))
    np.testing.assert_allclose(to_volume(layer).affine.matrix, matrix, atol=1e-12)
    layer.translate = (0, 0, 0)  # somebody moved it: the file does not say where it is any more
    assert not to_volume(layer).affine.is_oblique


@pytest.mark.parametrize(("unit", "spacing"), [("mm", 2), ("cm", 20)])
def test_units_given_to_the_image_of_a_file_count(unit, spacing):
    volume = Volume(np.zeros((4, 5, 6)), Affine.of_spacing((2, 2, 2)), "pixel")
    layer = Layer.create(*volume_layer(volume, "no unit"))
    assert to_volume(layer).unit == "pixel"
    layer.units = (unit,) * 3
    assert to_volume(layer).unit == "millimeter"
    assert to_volume(layer).spacing == pytest.approx((spacing,) * 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": np.zeros((5, 5)), "rotate": 10}, "rotated"),
        ({"data": np.zeros((5, 5)), "shear": [0.2]}, "rotated, sheared"),
        ({"data": np.zeros((2, 3, 4, 5))}, "Split Stack"),
    ],
    ids=["rotated", "sheared", "4-D"],
)
def test_unfit_layer_is_refused_with_advice(options, message):
    with pytest.raises(VolumeError, match=message):
        to_volume(Image(**options))


@pytest.mark.parametrize("samples", [3, 4])
@pytest.mark.parametrize("wrap", [np.asarray, dask.array.from_array])
def test_colours_count_as_the_same_file_read_by_us(rng, tmp_path, wrap, samples):
    colours = rng.integers(0, 255, (7, 9, samples), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb")
    with pytest.warns(UserWarning, match="luminance"):
        expected = np.asarray(read_volume(tmp_path / "a.tif").data)
    volume = to_volume(Image(wrap(colours), rgb=True))
    assert volume.shape == (7, 9)
    np.testing.assert_array_equal(np.asarray(volume.data), expected)
    np.testing.assert_array_equal(volume.data[2:4, 1:5], expected[2:4, 1:5])


def test_colours_between_0_and_1_stay_there(rng):
    colours = rng.random((2, 7, 9, 3), np.float32)
    volume = to_volume(Image(colours, rgb=True))
    assert volume.data.dtype == np.float32
    expected = colours @ np.array([0.299, 0.587, 0.114], np.float32)
    np.testing.assert_allclose(np.asarray(volume.data), expected, atol=1e-6)


def test_layer_of_dask_or_bool_is_read_as_arrays():
    data = np.arange(30.0).reshape(5, 6)
    volume = to_volume(Image(dask.array.from_array(data, chunks=2)))
    block = volume.data[slice(1, 3), slice(0, 6)]
    assert isinstance(block, np.ndarray)
    np.testing.assert_array_equal(block, data[1:3])
    assert to_volume(Image(data > 3)).data.dtype == np.uint8


def given_sketch(volume, models, path):
    """The finest sketch of a store that is made from a given one."""
    store = generate(volume, path, models / "small-xr", scale=0, input_is_sketch=True)
    return np.asarray(store.sketch_array(store.n_scales - 1)[...])


def test_labels_are_a_sketch_whose_largest_label_is_the_strongest_edge(models, tmp_path):
    painted = np.zeros((60, 64), np.int32)
    painted[10, 5:50], painted[30, 5:50] = 1, 2
    found = given_sketch(to_volume(Labels(painted)), models, tmp_path / "a.ome.zarr")
    np.testing.assert_array_equal(found, np.rint(painted * 127.5))
    strengths = np.zeros((60, 64), np.uint8)
    strengths[10:50:10] = np.arange(256).reshape(4, 64)
    found = given_sketch(to_volume(Labels(strengths)), models, tmp_path / "b.ome.zarr")
    np.testing.assert_array_equal(found, strengths)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64], ids=str)
def test_labels_that_fill_regions_are_a_label_map(dtype, models, tmp_path):
    regions = np.zeros((60, 64), dtype)
    regions[10:30, 10:30], regions[10:30, 30:50], regions[40:50, 20:40] = 1, 2, 3
    volume = Volume(regions, Affine(np.eye(3)), "pixel")
    with pytest.warns(UserWarning, match="is a label map"):
        wanted = given_sketch(volume, models, tmp_path / "library.ome.zarr")
    lazy = dask.array.from_array(regions, chunks=16)
    for name, data in (("plain", regions), ("lazy", lazy)):
        with pytest.warns(UserWarning, match="is a label map"):
            found = given_sketch(to_volume(Labels(data)), models, tmp_path / f"{name}.ome.zarr")
        np.testing.assert_array_equal(found, wanted)
    assert 0 < (wanted > 0).mean() < 0.1


def test_labels_are_not_read_before_they_are_needed():
    read = []

    def block(block_info):
        read.append(block_info[None]["chunk-location"])
        return np.ones((8, 8), np.int32)

    lazy = dask.array.map_blocks(block, chunks=((8,), (8,)), dtype=np.int32, meta=np.empty(0, "i4"))
    layer = Labels(lazy, scale=(-1, 1))
    read.clear()  # the thumbnail
    turned = turn(to_volume(layer), Orientation((0, 1), (True, False)))
    assert not read
    assert turned.data[slice(0, 1), slice(0, 1)].dtype == turned.data.dtype
    assert read


def test_multiscale_layer_is_read_at_its_finest_level():
    data = np.arange(64.0).reshape(8, 8)
    assert to_volume(Image([data, data[::2, ::2]], multiscale=True)).shape == (8, 8)


def test_result_layer_as_source_has_no_padding(ct_store):
    placement = Placement.of_affine(ct_store.geometry.affine, "millimeter")
    layer = Layer.create(*result_layer(ct_store, placement, "result"))
    assert layer.data[0].shape != ct_store.geometry.shape
    volume = to_volume(layer)
    assert volume.shape == ct_store.geometry.shape
    assert volume.affine == ct_store.geometry.affine


@pytest.mark.parametrize("scale", [0, 1])
def test_box_lies_where_its_voxels_are(ct_store, scale):
    region = Box((4, 6, 8), (20, 20, 20))
    placement = Placement.of_affine(ct_store.geometry.affine, "millimeter")
    box = Layer.create(*box_layer(ct_store, placement, scale, region, (0, 1)))
    factor = np.array(ct_store.geometry.total_factor(scale))
    first = np.array(region.start) // factor
    # start * F + (F - 1) / 2 finest voxels
    finest = first * factor + (factor - 1) / 2
    assert box.translate == pytest.approx(ct_store.geometry.affine.at(finest))
    assert box.scale == pytest.approx(ct_store.geometry.spacing_at(scale))
    assert box.data.shape == ct_store.geometry.box_at(scale, region).shape


def test_box_that_no_card_draws_is_shown_coarser(ct_store, monkeypatch):
    monkeypatch.setattr("napari_msgan._napari.to_layer.MAX_BOX_SIDE", 12)
    placement = Placement.of_affine(ct_store.geometry.affine, "millimeter")
    region = Box((0, 0, 0), (20, 20, 20))
    box = Layer.create(*box_layer(ct_store, placement, 1, region, (0, 1)))
    assert box.data.shape == (10, 10, 10)


def test_place_of_a_layer_in_another_unit_becomes_millimetres():
    layer = Image(
        np.zeros((3, 4, 5)), scale=(0.3, 0.1, 0.1), translate=(1, 2, 3), units=("cm",) * 3
    )
    affine = to_volume(layer).affine
    np.testing.assert_allclose(affine.spacing, (3, 1, 1))
    np.testing.assert_allclose(affine.origin, (10, 20, 30))


@pytest.mark.parametrize("is_kept", [True, False])
def test_what_is_painted_while_a_job_reads_is_not_read(is_kept):
    layer = Labels(np.zeros((8, 9), np.uint8))
    layer.data[2, 1:5] = 3
    taken = to_volume(layer, is_kept=is_kept)
    before = np.array(taken.data[:, :])
    layer.data[6, 1:5] = 3  # without a copy it is seen
    assert (np.array(taken.data[:, :]) == before).all() == is_kept
    assert before.any()


def test_name_of_a_box_says_a_spacing_once(ct_store):
    matrix = ct_store.geometry.affine.matrix.copy()
    matrix[2, 2] *= 1 + 1e-12  # as rounding leaves it
    geometry = ct_store.info.geometry.model_copy(update={"affine": matrix.tolist()})
    store = Mock(wraps=ct_store)
    store.geometry = geometry.to_geometry()
    store.info, store.path = ct_store.info, ct_store.path
    placement = Placement.of_affine(store.geometry.affine, "millimeter")
    _, options, _ = box_layer(store, placement, 1, Box((0, 0, 0), (4, 4, 4)), (0, 1))
    assert len(set(store.geometry.spacing_at(1))) > 1
    assert options["name"] == "box at 2 mm"
