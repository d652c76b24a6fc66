import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_msgan.errors import GeometryError
from napari_msgan.geometry import Affine, Box, PyramidGeometry, level_of_scale

boxes = st.tuples(
    st.integers(-20, 20), st.integers(-20, 20), st.integers(0, 15), st.integers(0, 15)
).map(lambda v: Box((v[0], v[1]), (v[0] + v[2], v[1] + v[3])))


def mask(box: Box) -> np.ndarray:
    canvas = np.zeros((80, 80), bool)
    canvas[box.shift((40, 40)).slices] = True
    return canvas


@given(boxes, boxes)
def test_intersection_covers_exactly_the_common_voxels(a, b):
    np.testing.assert_array_equal(mask(a.intersect(b)), mask(a) & mask(b))


@given(boxes, st.integers(1, 5), st.integers(1, 5))
def test_blocks_cover_every_voxel_once_and_lie_on_the_grid(box, h, w):
    count = np.zeros((80, 80), int)
    for block in box.blocks((h, w)):
        count[block.shift((40, 40)).slices] += 1
        assert block.start[0] // h == (block.stop[0] - 1) // h
    np.testing.assert_array_equal(count, mask(box))


def test_region_text_is_read_and_written_alike():
    box = Box.parse("1:20, 0:5,7:9", ("z", "y", "x"))
    assert box == Box((1, 0, 7), (20, 5, 9))
    assert Box.parse(str(box), ("z", "y", "x")) == box


@pytest.mark.parametrize(("start", "stop"), [((0, 5), (3, 4)), ((2, 0), (1, 9))])
def test_a_box_that_stops_before_it_starts_on_any_axis_is_refused(start, stop):
    with pytest.raises(GeometryError, match="stop before it starts"):
        Box(start, stop)
    assert Box((3, 4), (3, 4)).size == 0


@pytest.mark.parametrize(("start", "stop"), [((0,), (3, 4)), ((0, 0), (3,))])
def test_a_box_with_other_starts_than_stops_is_refused(start, stop):
    with pytest.raises(GeometryError, match="as many starts as stops"):
        Box(start, stop)


@pytest.mark.parametrize(
    "text", ["", "1:2", "1:2,3:4,5:6", "a:b,1:2", "2:2,0:5", "5:2,0:5", "-1:2,0:5", "1:2:3,0:5"]
)
def test_malformed_region_is_refused_with_its_text(text):
    with pytest.raises(GeometryError, match=r"region"):
        Box.parse(text, ("y", "x"))


def pyramid(shape=(41, 30), factors=((2, 2), (1, 2)), spacing=(1.0, 0.5)):
    return PyramidGeometry(("y", "x"), shape, factors, Affine.of_spacing(spacing, (7, 3)), "pixel")


def test_shapes_are_rounded_up_step_by_step():
    geometry = pyramid()
    assert [geometry.shape_at(s) for s in range(3)] == [(21, 8), (41, 15), (41, 30)]
    assert geometry.total_factor(0) == (2, 4)
    assert [geometry.factor(s) for s in (1, 2)] == [(2, 2), (1, 2)]
    assert [geometry.spacing_at(s) for s in range(3)] == [(2, 2), (1, 1), (1, 0.5)]
    assert [level_of_scale(s, 3) for s in range(3)] == [2, 1, 0]


def test_centre_of_a_coarse_voxel_is_the_mean_of_the_centres_it_averages():
    geometry = pyramid()
    finest = geometry.affine_at(2)
    members = [finest.at((y, x)) for y in range(4, 6) for x in range(8, 12)]
    np.testing.assert_allclose(geometry.affine_at(0).at((2, 2)), np.mean(members, axis=0))
    unshifted = finest.rescaled((2, 4), (0, 0))
    assert not np.allclose(unshifted.at((2, 2)), np.mean(members, axis=0))


@given(st.integers(0, 40), st.integers(1, 20), st.integers(0, 29), st.integers(1, 20))
def test_region_at_a_scale_covers_all_voxels_that_touch_it(y, h, x, w):
    geometry = pyramid()
    region = Box((y, x), (y + h, x + w))
    box = geometry.box_at(0, region)
    for row, column in [(y, x), (min(y + h, 41) - 1, min(x + w, 30) - 1)]:
        assert box.start[0] <= row // 2 < box.stop[0]
        assert box.start[1] <= column // 4 < box.stop[1]


def test_region_outside_the_image_is_refused():
    with pytest.raises(GeometryError, match="outside the image, which is 0:41,0:30"):
        pyramid().box_at(0, Box((50, 0), (60, 10)))


def test_affine_tells_axis_order_and_direction():
    matrix = np.zeros((4, 4))
    matrix[0, 2], matrix[1, 0], matrix[2, 1], matrix[3, 3] = -2, 3, 4, 1
    affine = Affine(matrix)
    assert affine.axis_order() == ((2, 0, 1), (True, False, False))
    assert affine.spacing == (3, 4, 2)
    assert not affine.is_oblique


def test_oblique_affine_is_recognised():
    c, s = np.cos(0.2), np.sin(0.2)
    assert Affine(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])).is_oblique


def test_closest_axes_are_told_apart_whatever_the_voxel_sizes():
    c, s = np.cos(0.5), np.sin(0.5)
    turned = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])
    for spacing in ((1, 1, 1), (9, 0.1, 2)):
        affine = Affine(turned @ np.diag([*spacing, 1.0]))
        assert affine.axis_order() == ((0, 1, 2), (False, False, True))
        swapped = Affine(affine.matrix[:, [2, 0, 1, 3]])  # index axes are turned in a ring
        assert swapped.axis_order() == ((1, 2, 0), (False, False, True))


def test_the_closest_axis_is_found_by_direction_alone():
    """Of two axes that are not at right angles, the one with larger voxels is not closer."""
    c, s = np.cos([0.4, 0.7]), np.sin([0.4, 0.7])
    for size in (0.1, 1, 10):
        matrix = np.array([[c[0], c[1] * size, 0], [s[0], s[1] * size, 0], [0, 0, 1]])
        assert Affine(matrix).axis_order() == ((0, 1), (False, False))


def test_voxels_may_be_tiny_but_not_flat():
    for size in (1e-6, 1, 1e6):
        assert Affine.of_spacing((size,) * 3).spacing == (size,) * 3
        with pytest.raises(GeometryError, match="invertible"):
            Affine(np.array([[size, size, 0], [size, size * (1 + 1e-10), 0], [0, 0, 1]]))


def test_an_affine_does_not_change_with_the_array_that_it_was_made_of():
    matrix = np.diag([3, 2, 1])
    affine = Affine(matrix)
    matrix[0, 0] = 9
    assert affine == Affine.of_spacing((3, 2))
    assert affine.matrix.dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        affine.matrix[0, 0] = 9


def test_only_axes_in_order_that_grow_with_the_world_are_upright():
    upright = Affine.of_spacing((3, 2, 1), (5, 6, 7))
    assert upright.is_upright
    assert not Affine(upright.matrix[:, [1, 0, 2, 3]]).is_upright
    assert not upright.rescaled((1, 1, -1), (0, 0, 9)).is_upright
    shear = np.eye(4)
    for angle, is_upright in ((5e-4, True), (2e-3, False)):
        shear[0, 1] = angle
        assert Affine(shear).is_upright == is_upright


@pytest.mark.parametrize(
    ("axes", "shape", "factors", "spacing"),
    [
        ("yx", (9, 9, 9), ((2, 2),), (1, 1)),
        ("yx", (9, 0), ((2, 2),), (1, 1)),
        ("yx", (9, 9), ((2, 2), (2, 2, 2)), (1, 1)),
        ("yx", (9, 9), ((2, 2), (2, 0)), (1, 1)),
        ("yx", (9, 9), ((2, 2),), (1, 1, 1)),
    ],
)
def test_a_pyramid_whose_parts_do_not_fit_its_axes_is_refused(axes, shape, factors, spacing):
    with pytest.raises(GeometryError, match="not fit the axes"):
        PyramidGeometry(tuple(axes), shape, factors, Affine.of_spacing(spacing), "pixel")


@pytest.mark.parametrize("scale", [-1, 3])
def test_scales_that_a_pyramid_does_not_have_are_refused(scale):
    for there in range(3):
        pyramid().check_scale(there)
    with pytest.raises(GeometryError, match=f"scale {scale} does not exist: the scales are 0 to 2"):
        pyramid().check_scale(scale)


def test_singular_affine_is_refused():
    with pytest.raises(GeometryError, match="invertible"):
        Affine(np.zeros((3, 3)))


def test_region_of_more_digits_than_python_reads_is_refused():
    with pytest.raises(GeometryError, match="is not of the form"):
        Box.parse(f"0:{'9' * 5000},0:5", ("y", "x"))


def test_a_transposed_affine_is_refused():
    upright = Affine.of_spacing((3, 2, 1), (5, 6, 7))
    with pytest.raises(GeometryError, match="is the matrix transposed"):
        Affine(upright.matrix.T)


@pytest.mark.parametrize(
    ("spacing", "origin"), [(1.0, None), ((1, 1), (0, 0, 0)), ("ab", None), ((1, 1), "xy")]
)
def test_spacings_and_origins_that_do_not_fit_are_told(spacing, origin):
    with pytest.raises(GeometryError, match="not one number for each axis"):
        Affine.of_spacing(spacing, origin)


def test_region_of_a_coarse_voxel_at_the_border_ends_with_the_image():
    geometry = PyramidGeometry(
        ("y", "x"), (41, 30), ((2, 2), (1, 2)), Affine.of_spacing((1, 1)), "pixel"
    )
    assert geometry.region_of(0, Box((20, 7), (21, 8))) == Box((40, 28), (41, 30))
