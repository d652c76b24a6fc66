"""Reader, writers, sample data."""

from __future__ import annotations

import gc
import shutil

import numpy as np
import pytest
from napari.layers import Image, Labels, Layer

from napari_msgan import export, read_volume, refine
from napari_msgan._napari import writer
from napari_msgan._napari.compare import Comparison
from napari_msgan._napari.from_layer import holds_edges, store_link, to_volume
from napari_msgan._napari.reader import get_reader
from napari_msgan._napari.stores import free_path, shared_store
from napari_msgan._napari.to_layer import Placement, box_layer, result_layer, sketch_layer
from napari_msgan.errors import MsganError, StoreError
from napari_msgan.geometry import Box
from napari_msgan.io import read_description, write_volume
from napari_msgan.labels import is_label_map
from napari_msgan.pyramid import view_volume
from napari_msgan.volume import orient
from tests.io.dicom import write_series


def save(layer, path):
    data, attributes, kind = layer.as_layer_data_tuple()
    assert kind == "image"
    return writer.write_layer(str(path), data, attributes)


def test_layers_that_only_have_the_metadata_of_a_store_do_not_show_it(ct_store, tmp_path):
    """napari copies metadata when it converts a layer, or takes one level of it."""
    read = get_reader(str(ct_store.path))(str(ct_store.path))
    result, sketch = (Layer.create(*layer) for layer in read)
    level = Image(np.asarray(result.data[1]), metadata=result.metadata, scale=result.scale * 2)
    labels = Labels(np.asarray(sketch.data[0]).astype(int), metadata=sketch.metadata)
    assert store_link(result) is not None
    assert store_link(level) is store_link(labels) is None
    np.testing.assert_array_equal(np.asarray(to_volume(level).data[...]), level.data)
    path = tmp_path / "level.nii.gz"
    save(level, path)
    assert read_volume(path).shape == level.data.shape
    assert read_description(path)["synthetic"] is True
    edges = Image(np.asarray(sketch.data[1]), metadata=sketch.metadata)
    assert holds_edges(edges)
    assert not holds_edges(level)
    save(edges, tmp_path / "edges.nii.gz")
    assert read_description(tmp_path / "edges.nii.gz")["content"] == "sketch"


@pytest.mark.parametrize("ending", [".nii.gz", ".ome.tif", ".ome.zarr"])
@pytest.mark.parametrize(
    ("values", "content"), [("lines", "sketch"), ("regions", "labels"), ("mask", "labels")]
)
def test_labels_are_saved_with_their_place_in_the_smallest_type(tmp_path, ending, values, content):
    data = np.zeros((9, 20, 22), np.int32)
    if values == "lines":
        data[4, 3:15, 5], data[4, 3, 5:18] = 255, 90
    else:
        top = 300 if values == "regions" else 255
        data[2:7, 3:15, 5:12], data[2:7, 3:15, 12:20] = 3, top
    layer = Labels(data, name="a", scale=(2.5, 1, 0.5), translate=(-100, 20, 7), units=("mm",) * 3)
    path = tmp_path / f"a{ending}"
    raw, attributes, kind = layer.as_layer_data_tuple()
    assert kind == "labels"
    assert writer.write_labels(str(path), raw, attributes) == [str(path)]
    volume = orient(read_volume(path), "LPS")[0]
    assert volume.data.dtype == (np.uint8 if values == "lines" else np.uint16)
    np.testing.assert_array_equal(np.asarray(volume.data[...]), data)
    np.testing.assert_allclose(volume.affine.spacing, (2.5, 1, 0.5))
    np.testing.assert_allclose(volume.affine.origin, (-100, 20, 7))
    assert read_description(path)["content"] == content
    # what is generated from the file is what is generated from the layer
    assert is_label_map(volume.data) == is_label_map(to_volume(layer).data) == (values != "lines")


def test_labels_that_have_no_place_name_the_way_out(tmp_path):
    layer = Labels(np.zeros((3, 4, 5, 6), int))
    raw, attributes, _ = layer.as_layer_data_tuple()
    with pytest.raises(
        MsganError, match=r"has 4 axes(.|\n)*ends in \.tif, which does not keep its position"
    ):
        writer.write_labels(str(tmp_path / "a.ome.tif"), raw, attributes)


def test_store_is_read_as_result_and_sketch(ct_store):
    read = get_reader(str(ct_store.path))
    result, sketch = (Layer.create(*layer) for layer in read(str(ct_store.path)))
    assert (store_link(result).role, store_link(sketch).role) == ("result", "sketch")
    assert result.scale == pytest.approx(ct_store.geometry.affine.spacing)
    assert result.translate == pytest.approx(ct_store.geometry.affine.origin)
    whole = view_volume(ct_store, 1)
    inside = tuple(slice(0, n) for n in whole.shape)
    np.testing.assert_array_equal(np.asarray(result.data[0])[inside], whole.data[inside])


def test_panel_and_reader_share_one_store(ct_store):
    layers = get_reader(str(ct_store.path))(str(ct_store.path))
    store = shared_store(ct_store.path)
    refine(store, scale=1)
    shown = np.asarray(layers[0][0][0])[tuple(slice(0, n) for n in store.geometry.shape)]
    whole = store.array(store.geometry.finest_scale)[...]
    np.testing.assert_array_equal(shown, whole)


@pytest.mark.parametrize("name", ["nothing.ome.zarr", "folder", "picture.png"])
def test_what_is_not_ours_is_left_to_others(tmp_path, name):
    path = tmp_path / name
    if name != "nothing.ome.zarr":
        path.mkdir()
    assert get_reader(str(path)) is None
    assert get_reader([str(path)]) is None


def test_a_dicom_series_stands_upright_in_mm(tmp_path):
    write_series(tmp_path / "ct", np.arange(60, dtype=np.uint16).reshape(3, 4, 5))
    (layer,) = (
        Layer.create(*item) for item in get_reader(str(tmp_path / "ct"))(str(tmp_path / "ct"))
    )
    assert (layer.name, layer.data.shape) == ("ct", (3, 4, 5))
    np.testing.assert_allclose(layer.scale, (2.5, 0.8, 0.6))
    assert {str(unit) for unit in layer.units} == {"millimeter"}
    assert get_reader(str(tmp_path / "ct" / "0.dcm")) is not None


def test_foreign_zarr_is_left_to_others(tmp_path):
    import zarr

    zarr.create_array(str(tmp_path / "a.zarr"), shape=(4, 4), dtype="uint8")
    assert get_reader(str(tmp_path / "a.zarr")) is None


def test_damaged_store_is_ours_and_says_what_is_wrong(ct_store):
    metadata = ct_store.path / "zarr.json"
    path = str(ct_store.path)
    text = metadata.read_text().replace('"schema_version": 1', '"schema_version": 99')
    metadata.write_text(text)
    with pytest.raises(StoreError, match="99"):
        get_reader(path)(path)


@pytest.mark.parametrize("suffix", [".ome.tif", ".nii.gz", ".ome.zarr"])
def test_result_is_saved_as_synthetic_with_its_place(ct_store, tmp_path, suffix):
    placement = Placement.of_affine(ct_store.geometry.affine, "millimeter")
    layer = Layer.create(*result_layer(ct_store, placement, "result"))
    path = tmp_path / f"out{suffix}"
    assert save(layer, path) == [str(path)]
    volume, wanted = read_volume(path), view_volume(ct_store, 1)
    inside = tuple(slice(0, n) for n in wanted.shape)
    np.testing.assert_array_equal(np.asarray(volume.data[inside]), wanted.data[inside])
    np.testing.assert_allclose(volume.affine.matrix, wanted.affine.matrix, atol=1e-4)
    assert read_description(path)["synthetic"] is True
    assert get_reader(str(path)) is not None
    (again,) = (Layer.create(*item) for item in get_reader(str(path))(str(path)))
    assert again.scale == pytest.approx(layer.scale, abs=1e-5)
    assert again.translate == pytest.approx(layer.translate, abs=1e-4)


def test_box_is_saved_as_it_is_shown(ct_store, tmp_path):
    placement = Placement.of_affine(ct_store.geometry.affine, "millimeter")
    region = Box((4, 2, 6), (12, 10, 16))
    layer = Layer.create(*box_layer(ct_store, placement, 1, region, (-160, 240)))
    path = tmp_path / "box.nii.gz"
    save(layer, path)
    volume, wanted = read_volume(path), view_volume(ct_store, 1, region)
    assert volume.shape == layer.data.shape
    np.testing.assert_array_equal(volume.data[:, :, :], layer.data)
    np.testing.assert_allclose(volume.affine.matrix, wanted.affine.matrix, atol=1e-4)
    assert read_description(path)["synthetic"] is True
    np.testing.assert_array_equal(to_volume(layer).data[:, :, :], layer.data)


def test_plain_layer_is_saved_without_claiming_synthetic(tmp_path):
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    layer = Image(data, scale=(3, 2, 1), translate=(5, 6, 7), units=("mm",) * 3)
    save(layer, tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(np.asarray(volume.data[:, :, :]), data)
    np.testing.assert_allclose(volume.affine.matrix, to_volume(layer).affine.matrix, atol=1e-5)
    assert "synthetic" not in read_description(tmp_path / "a.nii.gz")


def test_synthetic_image_stays_synthetic_when_it_is_opened_and_saved_again(xray_store, tmp_path):
    export(xray_store, tmp_path / "first.ome.tif")
    reader = get_reader(str(tmp_path / "first.ome.tif"))
    (opened,) = reader(str(tmp_path / "first.ome.tif"))
    save(Layer.create(*opened), tmp_path / "second.nii.gz")
    assert read_description(tmp_path / "second.nii.gz")["synthetic"] is True


def test_slice_of_a_result_is_an_image_of_its_own(ct_store):
    placement = Placement.of_affine(ct_store.geometry.affine, "millimeter")
    _, options, _ = result_layer(ct_store, placement, "result")
    part = Image(np.zeros((8, 9)), metadata=options["metadata"])
    assert store_link(part) is None
    assert to_volume(part).shape == (8, 9)


def test_slice_of_a_result_is_saved_as_synthetic_and_one_of_a_sketch_is_not(ct_store, tmp_path):
    placement = Placement.of_affine(ct_store.geometry.affine, "millimeter")
    for make, is_synthetic in ((result_layer, True), (sketch_layer, False)):
        _, options, _ = make(ct_store, placement, "whole")
        path = tmp_path / f"{is_synthetic}.ome.tif"
        save(Image(np.zeros((8, 9), np.uint8), metadata=options["metadata"]), path)
        assert read_description(path).get("synthetic", False) is is_synthetic


def test_comparison_is_refused_as_it_is_synthetic_in_part(xray_store, tmp_path):
    placement = Placement.of_affine(xray_store.geometry.affine, "pixel")
    result = Layer.create(*result_layer(xray_store, placement, "result"))
    source = Image(np.zeros((117, 150), np.uint8))
    comparison = Layer.create(*Comparison(xray_store, result, source).layer())
    with pytest.raises(MsganError, match="Save the result"):
        save(comparison, tmp_path / "wipe.ome.tif")
    assert not list(tmp_path.glob("wipe*"))


def test_what_cannot_be_saved_is_no_value_error_which_napari_swallows(tmp_path):
    with pytest.raises(MsganError, match="is rotated") as error:
        save(Image(np.zeros((8, 9)), rotate=10), tmp_path / "a.ome.tif")
    assert not isinstance(error.value, ValueError)


def test_sketch_layer_is_saved_as_it_is_stored(xray_store, tmp_path):
    placement = Placement.of_affine(xray_store.geometry.affine, "pixel")
    layer = Layer.create(*sketch_layer(xray_store, placement, "sketch"))
    save(layer, tmp_path / "s.ome.tif")
    stored = xray_store.sketch_array(2)[...]
    np.testing.assert_array_equal(np.asarray(read_volume(tmp_path / "s.ome.tif").data), stored)


def test_saving_onto_the_store_itself_is_refused(ct_store):
    placement = Placement.of_affine(ct_store.geometry.affine, "millimeter")
    layer = Layer.create(*result_layer(ct_store, placement, "result"))
    with pytest.raises(MsganError, match="the store itself"):
        save(layer, ct_store.path)
    assert ct_store.path.is_dir()


def test_nifti_opens_upright(tmp_path, ct_store):
    write_volume(tmp_path / "a.nii.gz", [view_volume(ct_store, 1)], description={})
    ((data, options, kind),) = get_reader(str(tmp_path / "a.nii.gz"))(str(tmp_path / "a.nii.gz"))
    assert kind == "image"
    assert data.shape == ct_store.geometry.shape
    assert options["scale"] == pytest.approx((2, 2, 2))


def test_new_stores_are_not_named_after_the_source(tmp_path):
    first = free_path("thorax-ct")
    assert first.parent == tmp_path / "stores"
    first.mkdir(parents=True)
    assert free_path("thorax-ct") != first


def test_name_of_a_deleted_store_is_not_proposed_while_a_layer_shows_it(ct_store):
    taken = free_path("thorax-ct")
    taken.parent.mkdir(exist_ok=True)
    ct_store.path.rename(taken)
    placement = Placement.of_affine(ct_store.geometry.affine, "millimeter")
    layer = Layer.create(*result_layer(shared_store(taken), placement, "result"))
    shutil.rmtree(taken)
    assert free_path("thorax-ct") != taken
    assert store_link(layer).path == taken
    del layer
    gc.collect()
    assert free_path("thorax-ct") == taken
