from __future__ import annotations

import numpy as np
import pytest

from napari_msgan import generate, refine
from napari_msgan._napari.choices import (
    TIMES,
    check_source,
    model_text,
    pixels_text,
    scale_choices,
)
from napari_msgan._napari.orientation import UprightView
from napari_msgan._napari.refined import ShownBox, refined_boxes
from napari_msgan._napari.regions import (
    count_tiles,
    current_index,
    drawn_boxes,
    size_text,
    sliced_axis,
    view_box,
)
from napari_msgan._napari.scene import Scene
from napari_msgan._napari.state import Opened
from napari_msgan._napari.to_layer import Placement, result_layer
from napari_msgan.errors import GeometryError
from napari_msgan.geometry import Affine, Box
from napari_msgan.jobs import iter_refine
from napari_msgan.model import read_spec
from napari_msgan.pyramid import open_pyramid
from napari_msgan.volume import Volume
from tests._napari.conftest import ball


@pytest.fixture
def shown(viewer, ct_store):
    """Scene, result layer and store of a volume."""
    store = open_pyramid(ct_store.path, writable=True)
    scene = Scene(viewer)
    placement = Placement.of_affine(store.geometry.affine, "millimeter")
    return scene, scene.show(Opened(store, placement), "CT"), store


def look_at(viewer, box, layer, per_unit=1):
    """Point the camera at a box of voxels of the displayed axes.

    per_unit : units of the viewer in a unit of the layer.
    """
    ends = np.array([layer.data_to_world(np.array(end) - 0.5) for end in (box.start, box.stop)])
    ends *= per_unit
    rows, columns = viewer.dims.displayed
    size = np.abs(np.subtract(*ends))
    viewer.canvas.size = (600, 600)
    viewer.scene.camera.center = (0, *(np.mean(ends, axis=0)[[rows, columns]]))
    viewer.scene.camera.zoom = 600 / max(size[rows], size[columns])


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)], ids=str)
def test_view_is_the_visible_part_of_the_slice(viewer, shown, order):
    _, layer, store = shown
    viewer.dims.order = order
    axis = order[0]
    viewer.dims.set_point(axis, layer.data_to_world((5, 5, 5))[axis])
    look_at(viewer, Box((4, 4, 4), (10, 10, 10)), layer)
    start, stop = [4, 4, 4], [10, 10, 10]
    start[axis], stop[axis] = 5, 6
    assert view_box(viewer, layer, store.geometry) == Box(tuple(start), tuple(stop))
    assert sliced_axis(viewer, layer) == axis
    assert current_index(viewer, layer, axis) == 5


@pytest.fixture(params=["chosen", "of another layer"])
def micrometres(request, viewer, shown):
    """A viewer that counts in um, and how many are in a mm, the unit of the result."""
    if request.param == "chosen":
        viewer.layers.units = ("um",) * 3
    else:
        viewer.add_image(np.zeros((2, 2, 2)), scale=(1e4,) * 3, units=("um",) * 3)
    return 1000


def test_view_counts_in_the_units_of_the_viewer(viewer, shown, micrometres):
    _, layer, store = shown
    viewer.dims.set_point(0, layer.data_to_world((5, 5, 5))[0] * micrometres)
    assert current_index(viewer, layer, 0) == 5
    look_at(viewer, Box((4, 4, 4), (10, 10, 10)), layer, micrometres)
    assert view_box(viewer, layer, store.geometry) == Box((5, 4, 4), (6, 10, 10))


def test_view_in_3d_is_everything(viewer, shown):
    _, layer, store = shown
    viewer.dims.ndisplay = 3
    assert view_box(viewer, layer, store.geometry) == Box.of_shape(store.geometry.shape)


def test_view_in_a_grid_is_what_one_cell_shows(viewer, shown):
    _, layer, store = shown
    viewer.dims.set_point(0, layer.data_to_world((5, 5, 5))[0])
    viewer.canvas.grid.enabled = True
    viewer.canvas.grid.shape = (2, 2)
    look_at(viewer, Box((4, 4, 4), (16, 16, 16)), layer)
    assert view_box(viewer, layer, store.geometry) == Box((5, 7, 7), (6, 13, 13))


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)], ids=str)
def test_view_of_a_picture_is_what_is_seen_of_it_whichever_slices_of_a_volume_are_beside_it(
    viewer, xray_store, order
):
    placement = Placement.of_affine(xray_store.geometry.affine, "pixel")
    layer = Scene(viewer).add(result_layer(xray_store, placement, "X-ray"))
    viewer.add_image(np.zeros((20, 120, 150), np.uint8))
    viewer.dims.order = order
    viewer.canvas.size = (100, 60)
    viewer.scene.camera.zoom = 2
    rows, columns = layer._slice_input.displayed  # as napari draws it
    centre, size = np.array([39.5, 69.5]), np.zeros(2)
    size[[rows, columns]] = (50, 30)
    viewer.scene.camera.center = (0, *centre[[rows, columns]])
    seen = Box(
        tuple(int(v) for v in centre - size / 2 + 0.5),
        tuple(int(v) for v in centre + size / 2 + 0.5),
    )
    assert view_box(viewer, layer, xray_store.geometry) == seen


def test_view_beside_the_image_is_refused(viewer, shown):
    _, layer, store = shown
    look_at(viewer, Box((4, 400, 400), (10, 410, 410)), layer)
    with pytest.raises(GeometryError, match="does not show the image"):
        view_box(viewer, layer, store.geometry)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rectangle_becomes_a_box_with_the_depth(viewer, shown, axis):
    _, layer, store = shown
    box = Box((4, 5, 6), (9, 10, 11))
    low, high = np.subtract(box.start, 0.4), np.subtract(box.stop, 0.6)
    low[axis] = high[axis] = 7
    low, high = np.array(layer.data_to_world(low)), np.array(layer.data_to_world(high))
    shapes = viewer.add_shapes(ndim=3)
    a, b = (i for i in range(3) if i != axis)
    points = np.tile(low, (4, 1))
    points[1, b], points[2, a], points[2, b], points[3, a] = high[b], high[a], high[b], high[a]
    shapes.add_rectangles([points])
    (found,) = drawn_boxes(viewer, shapes, layer, store.geometry, {axis: (3, 12)})
    start, stop = list(box.start), list(box.stop)
    start[axis], stop[axis] = 3, 12
    assert found == Box(tuple(start), tuple(stop))


def rectangle(layer, axis, index):
    """Corners of a rectangle on a slice of a volume, in its world."""
    low, high = np.full(3, 4.0), np.full(3, 8.0)
    low[axis] = high[axis] = index
    first, second = (i for i in range(3) if i != axis)
    corners = np.tile(low, (4, 1))
    corners[1:3, first], corners[2:, second] = high[first], high[second]
    return [layer.data_to_world(corner) for corner in corners]


@pytest.mark.parametrize("axes", [2, 3])
def test_rectangle_may_have_other_units_than_the_image(viewer, shown, axes):
    _, layer, store = shown
    corners = 1000 * np.array(rectangle(layer, 0, 5))[:, -axes:]
    shapes = viewer.add_shapes([corners], shape_type="rectangle", scale=(1e-3,) * axes)
    wanted = [Box((3, 4, 4), (12, 9, 9))]  # pixels are no mm: the numbers count
    assert drawn_boxes(viewer, shapes, layer, store.geometry, {0: (3, 12)}) == wanted
    shapes.units, shapes.scale = ("um",) * axes, (1,) * axes
    assert drawn_boxes(viewer, shapes, layer, store.geometry, {0: (3, 12)}) == wanted


def test_rectangle_keeps_its_slice_where_those_of_the_panel_are_elsewhere(viewer, shown):
    _, layer, store = shown
    shapes = viewer.add_shapes(ndim=3)
    shapes.add_rectangles([rectangle(layer, 0, 3), rectangle(layer, 0, 20)])
    half = 8  # voxels of 2 mm in half of DEPTH_MM
    first, second = drawn_boxes(viewer, shapes, layer, store.geometry, {0: (18, 24)})
    assert (first.start[0], first.stop[0]) == (0, 3 + half + 1)
    assert (second.start[0], second.stop[0]) == (18, 24)


def test_last_slice_before_the_first_is_told(viewer, shown):
    _, layer, store = shown
    shapes = viewer.add_shapes(ndim=3)
    shapes.add_rectangles([rectangle(layer, 0, 3)])
    with pytest.raises(GeometryError, match="first slice, 12, comes after the last, 4"):
        drawn_boxes(viewer, shapes, layer, store.geometry, {0: (12, 5)})
    drawn_boxes(viewer, shapes, layer, store.geometry, {1: (12, 5)})  # of no rectangle


def test_flat_rectangles_are_refused_where_other_axes_are_shown(viewer, shown):
    _, layer, store = shown
    low, high = (layer.data_to_world((0, i, i))[1:] for i in (4, 9))
    shapes = viewer.add_shapes([np.array([low, high])], shape_type="rectangle")
    assert drawn_boxes(viewer, shapes, layer, store.geometry, {})
    viewer.dims.order = (1, 0, 2)
    with pytest.raises(GeometryError, match="has 2 axes, the image 3"):
        drawn_boxes(viewer, shapes, layer, store.geometry, {})


def test_regions_are_drawn_on_a_layer_with_the_axes_of_the_image(viewer, shown):
    scene, layer, _ = shown
    flat = scene.regions_layer(viewer.add_image(np.zeros((9, 9))))
    deep = scene.regions_layer(layer)
    assert (flat.ndim, deep.ndim) == (2, 3)
    assert viewer.layers.selection.active is deep
    viewer.layers.selection.active = None
    assert scene.regions_layer(layer) is deep
    assert scene.regions_of(layer) is deep


def test_regions_that_were_hidden_are_seen_when_one_draws_again(viewer, shown):
    scene, layer, _ = shown
    shapes = scene.regions_layer(layer)
    shapes.visible = False
    viewer.layers.selection.active = layer
    scene.regions_layer(layer)
    assert (shapes.visible, shapes.mode) == (True, "add_rectangle")


def test_flat_shapes_layer_counts_on_every_slice(viewer, shown):
    _, layer, store = shown
    low = layer.data_to_world((0, 4, 6))[1:]
    high = layer.data_to_world((0, 9, 11))[1:]
    shapes = viewer.add_shapes([np.array([low, high])], shape_type="rectangle")
    assert shapes.ndim == 2
    (found,) = drawn_boxes(viewer, shapes, layer, store.geometry, {0: (3, 12)})
    assert found == Box((3, 4, 6), (12, 10, 12))
    (found,) = drawn_boxes(viewer, shapes, layer, store.geometry, {1: (3, 12)})
    assert found == Box((0, 4, 6), (store.geometry.shape[0], 10, 12))


def test_only_selected_rectangles_count(viewer, shown):
    _, layer, store = shown
    places = [layer.data_to_world((0, i, i))[1:] for i in (2, 4, 8, 10)]
    shapes = viewer.add_shapes([np.array(places[:2]), np.array(places[2:])])
    assert len(drawn_boxes(viewer, shapes, layer, store.geometry, {0: (3, 12)})) == 2
    shapes.selected_data = {1}
    (found,) = drawn_boxes(viewer, shapes, layer, store.geometry, {0: (3, 12)})
    assert found.start == (3, 8, 8)


def test_rectangles_that_miss_the_image_are_refused(viewer, shown):
    _, layer, store = shown
    shapes = viewer.add_shapes(ndim=3)
    with pytest.raises(GeometryError, match="no rectangle yet"):
        drawn_boxes(viewer, shapes, layer, store.geometry, {0: (0, 5)})
    shapes.add_rectangles([[[0, 1e4, 1e4], [0, 2e4, 1e4], [0, 2e4, 2e4], [0, 1e4, 2e4]]])
    with pytest.raises(GeometryError, match="outside the image"):
        drawn_boxes(viewer, shapes, layer, store.geometry, {0: (0, 5)})


def test_tiles_are_counted_once_and_only_the_missing_ones(shown):
    _, _, store = shown
    box = Box((0, 0, 0), (3, 3, 3))
    assert count_tiles(store, [box, box], 1) == 1
    refine(store, region=box, scale=1)
    assert count_tiles(store, [box], 1) == 0
    assert size_text(store.geometry, box) == TIMES.join(("6", "6", "6 mm"))


def test_refined_boxes_appear_in_3d_only(viewer, shown):
    scene, layer, store = shown
    scene.remember_box(store, ShownBox(1, Box((0, 0, 0), (4, 4, 4))))
    assert not scene.layers_of(store, "box")
    opened = scene.open_layer(layer)
    viewer.dims.ndisplay = 3
    scene.show_for_display(opened, 3, alone=False)
    (box,) = scene.layers_of(store, "box")
    assert box.visible
    assert box.bounding_box.visible
    scene.show_for_display(opened, 2, alone=False)
    assert not box.visible
    scene.show_for_display(opened, 3, alone=False)
    assert len(scene.layers_of(store, "box")) == 1
    scene.forget_boxes(store)
    assert not scene.layers_of(store, "box")


@pytest.fixture
def long_store(models, tmp_path):
    """A volume that is long in x, at 1 mm: tiles of 16 voxels at scales 1 and 2."""
    data = ball((32, 32, 160), (16, 16, 80), 12)
    volume = Volume(data, Affine.of_spacing((1, 1, 1)), "millimeter")
    return generate(volume, tmp_path / "long.ome.zarr", models / "small-ct", scale=0)


def test_what_is_refined_is_found_in_the_store(long_store):
    assert refined_boxes(long_store) == []
    refine(long_store, region=Box((2, 2, 3), (12, 14, 15)), scale=2)
    refine(long_store, region=Box((0, 0, 140), (5, 5, 150)), scale=1)
    found = refined_boxes(open_pyramid(long_store.path))
    assert long_store.refined_fraction(1) > 16**3 / (16 * 16 * 80)  # also what scale 2 reads
    finer = ShownBox(2, Box((0, 0, 0), (16, 16, 16)))
    coarser = ShownBox(1, Box((0, 0, 128), (32, 32, 160)))
    assert found == [finer, coarser]


def test_drawn_box_keeps_its_frame_and_the_rest_is_found(long_store):
    drawn = ShownBox(2, Box((2, 2, 3), (12, 14, 15)))
    refine(long_store, region=drawn.region, scale=2)
    assert refined_boxes(long_store, [drawn]) == [drawn]
    refine(long_store, region=Box((0, 0, 100), (5, 5, 105)), scale=2)
    other = ShownBox(2, Box((0, 0, 96), (16, 16, 112)))
    assert refined_boxes(long_store, [drawn]) == [drawn, other]


def test_drawn_box_stands_for_all_that_is_refined_around_it(long_store):
    drawn = ShownBox(2, Box((2, 2, 3), (12, 14, 15)))
    refine(long_store, scale=2)
    assert refined_boxes(long_store, [drawn]) == [drawn]
    assert refined_boxes(long_store) != []


def test_whole_image_is_a_box_only_if_all_of_it_is_refined(long_store):
    whole = Box.of_shape(long_store.geometry.shape)
    for line in ((32, 1, 1), (1, 32, 1), (1, 1, 160)):  # what surrounds them is the whole
        refine(long_store, region=Box((0, 0, 0), line), scale=2)
    assert ShownBox(2, whole) not in refined_boxes(long_store)
    refine(long_store, scale=2)
    assert refined_boxes(long_store) == [ShownBox(2, whole)]


def test_reopened_store_shows_its_boxes_in_3d(viewer, long_store):
    refine(long_store, region=Box((2, 2, 3), (12, 14, 15)), scale=2)
    store = open_pyramid(long_store.path, writable=True)
    scene = Scene(viewer)
    opened = Opened(store, Placement.of_affine(store.geometry.affine, "millimeter"))
    scene.show(opened, "CT")
    viewer.dims.ndisplay = 3
    scene.show_for_display(opened, 3, alone=False)
    (layer,) = scene.layers_of(store, "box")
    np.testing.assert_array_equal(layer.data, store.array(2)[0:16, 0:16, 0:16])
    refine(store, region=Box((2, 2, 20), (12, 14, 25)), scale=2)  # it grows
    scene.show_for_display(opened, 3, alone=False)
    (layer,) = scene.layers_of(store, "box")
    assert layer.data.shape == (16, 16, 32)
    with store.writing():
        store.clear(2, Box((0, 0, 0), (16, 16, 16)))
    scene.forget_boxes(store)
    (layer,) = (
        x for x in scene.layers_of(store, "box") if x.metadata["napari_msgan"]["scale"] == 2
    )
    assert layer.translate == pytest.approx((0, 0, 16))


def test_box_shows_tiles_that_came_while_it_was_hidden(viewer, long_store):
    scene = Scene(viewer)
    opened = Opened(long_store, Placement.of_affine(long_store.geometry.affine, "millimeter"))
    scene.show(opened, "CT")
    scene.remember_box(long_store, ShownBox(2, Box((0, 0, 0), (16, 16, 32))))
    scene.show_for_display(opened, 3, alone=False)
    (layer,) = scene.layers_of(long_store, "box")
    scene.show_for_display(opened, 2, alone=False)
    before = layer.data.copy()
    for step in iter_refine(long_store, region=Box((0, 0, 16), (16, 16, 32)), scale=2):
        scene.tile_arrived(long_store, step.report)
    made = long_store.array(2)[0:16, 0:16, 16:32]
    assert not np.array_equal(before[:, :, 16:], made)
    np.testing.assert_array_equal(layer.data[:, :, 16:], made)


@pytest.mark.parametrize(
    ("order", "letters", "vertical"),
    [
        ((0, 1, 2), "APRL", "down"),
        ((1, 0, 2), "SIRL", "up"),
        ((2, 0, 1), "SIAP", "up"),
    ],
    ids=["axial", "coronal", "sagittal"],
)
def test_letters_follow_the_displayed_axes(viewer, shown, order, letters, vertical):
    orientation = UprightView(viewer)
    viewer.dims.order = order
    assert "".join(orientation.letters().values()) == letters
    assert viewer.scene.camera.orientation[1] == vertical
    viewer.dims.ndisplay = 3
    assert orientation.letters() == {}
    orientation.close()


def test_images_without_a_patient_get_no_letters(viewer):
    orientation = UprightView(viewer)
    viewer.add_image(np.zeros((4, 5, 6)))
    viewer.dims.order = (1, 0, 2)
    assert orientation.letters() == {}
    assert viewer.scene.camera.orientation[1] == "down"
    orientation.close()
    assert not [key for key in viewer.canvas.overlays if "msgan" in key]


def test_finest_choices_say_what_is_invented(viewer, models):
    spec = read_spec(models / "small-ct")
    layer = viewer.add_image(np.zeros((9, 9, 9)), scale=(2.5, 1, 1), units=("mm",) * 3)
    texts = [choice.text for choice in check_source(layer, spec).finest]
    assert texts == ["2 mm, as fine as the source", "1 mm, detail beyond the source is invented"]


def test_an_experimental_scale_is_said_to_be_one(viewer, models):
    spec = read_spec(models / "small-ct")
    scales = list(spec.scales)
    scales[2] = scales[2].model_copy(update={"experimental": "few cases"})
    spec = spec.model_copy(update={"scales": tuple(scales)})
    layer = viewer.add_image(np.zeros((9, 9, 9)), scale=(2, 2, 2), units=("mm",) * 3)
    check = check_source(layer, spec)
    assert ["experimental" in choice.text for choice in check.finest] == [False, True]
    assert "experimental" not in check.text
    layer.scale = (1, 1, 1)
    check = check_source(layer, spec)
    assert check.finest[0].text == "1 mm, as fine as the source, experimental"
    assert "1 mm is experimental" in check.text  # a narrow list cuts off the end of its text


def test_a_model_is_described_by_its_kind_and_reach(models):
    texts = [model_text(read_spec(models / name)) for name in ("small-xr", "small-ct")]
    assert texts == ["2-D X-ray, 3 scales, 32 to 128 px", "3-D CT, 3 scales, 4 to 1 mm"]


@pytest.mark.parametrize(("shape", "said"), [((5, 4), "fewer than"), ((900, 700), "is larger")])
def test_an_image_that_the_model_was_not_trained_for_is_told_before(viewer, models, shape, said):
    spec = read_spec(models / "small-xr")
    check = check_source(viewer.add_image(np.zeros(shape, np.uint8)), spec)
    assert said in check.text
    assert check.problem is None
    usual = check_source(viewer.add_image(np.zeros((90, 80), np.uint8)), spec)
    assert said not in usual.text


def test_scales_beyond_the_source_say_so(models, tmp_path):
    volume = Volume(ball((9, 40, 40), (4, 20, 20), 6), Affine.of_spacing((2.5, 1, 1)), "millimeter")
    with pytest.warns(UserWarning, match="finer than the source"):
        steps = generate(volume, tmp_path / "a.ome.zarr", models / "small-ct", scale=0, finest=2)
    texts = [choice.text for choice in scale_choices(steps, 1)]
    assert texts == ["1 — 2 mm", "2 — 1 mm, beyond this source (honest to 2 mm)"]
    assert steps.refined_fraction(1) == 0


def test_pixels_are_width_by_height():
    assert pixels_text((1701, 2048)) == TIMES.join(("2048", "1701")) + " px"


def test_result_layers_of_two_stores_do_not_mix(viewer, shown, xray_store):
    scene, layer, store = shown
    placement = Placement.of_affine(xray_store.geometry.affine, "pixel")
    other = scene.add(result_layer(xray_store, placement, "other"))
    assert scene.results() == [layer, other]
    assert scene.layers_of(store, "result") == [layer]
