import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_msgan.errors import GeometryError, VolumeError
from napari_msgan.geometry import Affine
from napari_msgan.volume import (
    LazyArray,
    Orientation,
    Volume,
    orient,
    read_padded,
    turn,
    with_spacing,
)

ALL = [
    Orientation(order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]


@pytest.fixture
def lps():
    data = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    return Volume(data, Affine.of_spacing((3, 2, 1), (10, 20, 30)), "millimeter")


@pytest.mark.parametrize("orientation", ALL, ids=str)
def test_any_orientation_is_brought_to_lps_with_every_voxel_in_its_place(lps, orientation):
    source = turn(lps, orientation)
    turned, found = orient(source, "LPS")
    np.testing.assert_array_equal(turned.data[(slice(0, 9),) * 3], lps.data)
    np.testing.assert_allclose(turned.affine.matrix, lps.affine.matrix)
    back = turn(turned, found.inverse)
    np.testing.assert_array_equal(back.data[(slice(0, 9),) * 3], source.data[(slice(0, 9),) * 3])
    np.testing.assert_allclose(back.affine.matrix, source.affine.matrix)


@pytest.mark.parametrize("orientation", ALL[::7], ids=str)
@pytest.mark.parametrize("given", [(5.0, 0.75, 0.9), (1.5,), 1.5, 2], ids=str)
def test_a_given_voxel_size_keeps_the_directions_and_the_first_voxel(lps, orientation, given):
    source = turn(lps, orientation)
    with pytest.warns(UserWarning, match="mm are taken, as given; the image itself says"):
        sized = with_spacing(source, given)
    assert sized.spacing == (given if np.size(given) == 3 else (float(np.squeeze(given)),) * 3)
    assert sized.affine.origin == source.affine.origin
    assert orient(sized, "LPS")[1] == orient(source, "LPS")[1]
    assert with_spacing(source, None) is source


def test_a_given_voxel_size_keeps_oblique_directions():
    oblique = Affine(np.array([[1, 0.2, 0, 3], [-0.2, 1, 0, -7], [0, 0, 0.7, 1], [0, 0, 0, 1]]))
    source = Volume(np.zeros((2, 3, 4)), oblique, "millimeter")
    with pytest.warns(UserWarning, match=r"of 3 x 2 x 1 mm .* itself says 1\.02 x 1\.02 x 0\.7 mm"):
        sized = with_spacing(source, (3, 2, 1)).affine
    np.testing.assert_allclose(sized.spacing, (3, 2, 1))
    before, after = (a.matrix[:-1, :-1] / a.spacing for a in (oblique, sized))
    np.testing.assert_allclose(after, before)


def test_a_given_voxel_size_makes_millimetres_of_pixels():
    pixels = Volume(np.zeros((4, 5)), Affine.of_spacing((1, 1)), "pixel")
    sized = with_spacing(pixels, (0.2, 0.1))
    assert (sized.unit, sized.affine) == ("millimeter", Affine.of_spacing((0.2, 0.1)))
    assert with_spacing(sized, (0.2004, 0.1)).spacing == (0.2004, 0.1)  # rounded: nothing is told
    with pytest.warns(UserWarning, match=r"voxels of 0\.203 x 0\.1 mm are taken"):
        with_spacing(sized, (0.203, 0.1))


@pytest.mark.parametrize("given", [(1.0, 1.0), (), (1.0, 0.0, 1.0), (-1.0,), (np.nan,), (np.inf,)])
def test_a_voxel_size_that_does_not_fit_is_refused(lps, given):
    with pytest.raises(VolumeError, match="give one size above 0 in mm for each axis"):
        with_spacing(lps, given)


@pytest.mark.parametrize("given", ["thick", ["a", 1, 1]], ids=str)
def test_a_voxel_size_that_is_no_number_is_refused(lps, given):
    assert with_spacing(lps, None) is lps
    with pytest.raises(VolumeError, match="is neither a number nor numbers"):
        with_spacing(lps, given)


@pytest.mark.parametrize("dtype", [complex, object, "U3"])
def test_what_is_neither_integer_nor_float_is_no_image(dtype):
    with pytest.raises(VolumeError, match="must hold integers or floats"):
        Volume(np.zeros((4, 5), dtype), Affine.of_spacing((1, 1)), "pixel")


def test_turned_volume_reads_only_the_window_it_is_asked_for(lps):
    class Counting:
        shape, dtype = lps.data.shape, lps.data.dtype
        read = 0

        def __getitem__(self, key):
            block = lps.data[key]
            self.read += block.size
            return block

    source = Counting()
    turned = turn(
        Volume(source, lps.affine, "millimeter"), Orientation((2, 0, 1), (True, False, True))
    )
    assert turned.data[0:1, 0:1, 0:2].shape == (1, 1, 2)
    assert source.read == 2


def test_ras_orientation_flips_two_axes(lps):
    turned, orientation = orient(lps, "RAS")
    assert orientation.flipped == (False, True, True)
    assert turned.affine.at((0, 0, 0)).tolist() == lps.affine.at((0, 2, 3)).tolist()


@pytest.mark.parametrize("letters", [x + y + z for x in "LR" for y in "PA" for z in "SI"])
def test_axes_grow_in_the_direction_of_their_letter(lps, letters):
    turned, orientation = orient(lps, letters)
    grows = np.diag(turned.affine.matrix)[:3] > 0  # towards S, P and L
    assert grows.tolist() == [letter in "LPS" for letter in reversed(letters)]
    assert orientation.order == (0, 1, 2)
    first = tuple(0 if up else n - 1 for up, n in zip(grows, lps.shape, strict=True))
    assert turned.data[0, 0, 0] == lps.data[first]


@pytest.mark.parametrize("letters", ["XYZ", "LP", "LPSS", "SPL"])
def test_unknown_orientation_is_refused(lps, letters):
    with pytest.raises(GeometryError, match="not like 'LPS'"):
        orient(lps, letters)


def test_orientation_of_another_number_of_axes_is_refused(lps):
    flat = Volume(np.zeros((4, 5)), Affine.of_spacing((1, 1)), "millimeter")
    for volume, letters in ((flat, "LPS"), (lps, "PS")):
        with pytest.raises(GeometryError, match="does not fit a"):
            orient(volume, letters)


@given(st.integers(-9, 12), st.integers(1, 9), st.integers(-9, 12), st.integers(1, 9))
def test_window_outside_the_array_repeats_the_border_voxel(y, h, x, w):
    array = np.arange(5 * 7).reshape(5, 7)
    window = read_padded(array, (y, x), (y + h, x + w))
    rows, columns = np.clip(np.arange(y, y + h), 0, 4), np.clip(np.arange(x, x + w), 0, 6)
    np.testing.assert_array_equal(window, array[np.ix_(rows, columns)])


@pytest.mark.parametrize("blocks", [None, (2, 3)], ids=["whole", "blocks"])
@pytest.mark.parametrize(
    "key",
    [
        *(np.s_[:], np.s_[3], np.s_[6], np.s_[-7], np.s_[-1, 2:], np.s_[2, 3], np.s_[..., 5]),
        *(np.s_[::2, 1::3], np.s_[::-1], np.s_[5:1:-3, ::-2], np.s_[-3:, ...], np.s_[..., 4:4]),
    ],
    ids=str,
)
def test_lazy_array_is_indexed_like_an_array(key, blocks):
    data = np.arange(7 * 8).reshape(7, 8)
    asked = []

    def compute(box):
        asked.append(box)
        return data[box.slices]

    lazy = LazyArray(data.shape, np.float32, compute, blocks)
    assert np.shape(lazy[key]) == np.shape(data[key])
    np.testing.assert_array_equal(lazy[key], data[key])
    assert lazy[key].dtype == np.float32
    assert all(0 < box.size <= (6 if blocks else data.size) for box in asked)


@pytest.mark.parametrize("key", [7, -8, (0, 8), (0, 0, 0), (..., 0, ...)], ids=str)
def test_lazy_array_refuses_what_an_array_refuses(key):
    data = np.arange(7 * 8).reshape(7, 8)
    with pytest.raises(IndexError):
        data[key]
    with pytest.raises(IndexError, match=r"is outside an axis of|does not fit 2 axes"):
        LazyArray(data.shape, data.dtype, lambda box: data[box.slices])[key]


@pytest.mark.parametrize(
    ("shape", "spacing", "unit", "told"),
    [
        ((4, 5), (1, 1), "inch", "is not one of millimeter, pixel"),
        ((4,), (1,), "pixel", "must have 2 or 3 axes"),
        ((2, 3, 4, 5), (1,) * 4, "pixel", "must have 2 or 3 axes"),
        ((4, 0), (1, 1), "pixel", "must have 2 or 3 axes"),
        ((4, 5), (1, 1, 1), "pixel", "a 3-D affine for an image"),
    ],
)
def test_what_does_not_fit_an_image_is_refused(shape, spacing, unit, told):
    with pytest.raises(VolumeError, match=told):
        Volume(np.zeros(shape), Affine.of_spacing(spacing), unit)
    assert Volume(np.zeros((1, 1, 1)), Affine.of_spacing((1,) * 3), "pixel").axes == ("z", "y", "x")


@pytest.mark.parametrize("data", [[[1, 2], [3, 4]], torch.zeros(3, 4), "image.png"], ids=type)
def test_what_is_no_array_is_told(data):
    with pytest.raises(VolumeError, match=r"numpy array, or like one, got .*np\.asarray"):
        Volume(data, Affine.of_spacing((1, 1)), "pixel")


def test_a_lazy_array_says_what_it_is():
    lazy = LazyArray((3, 4), "u1", lambda box: np.zeros(box.shape))
    assert repr(lazy) == "LazyArray((3, 4), uint8)"
    assert (len(lazy), lazy.size, lazy.ndim) == (3, 12, 2)
    assert np.asarray(lazy, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="without a copy"):
        np.array(lazy, copy=False)


def test_checksum_depends_on_pixels_shape_type_and_voxel_size():
    from napari_msgan.volume import checksum_of

    data = np.arange(24, dtype=np.int16).reshape(4, 6)
    volumes = [
        Volume(data, Affine.of_spacing((1, 1)), "millimeter"),
        Volume(data, Affine.of_spacing((1, 1.5)), "millimeter"),
        Volume(data.reshape(6, 4), Affine.of_spacing((1, 1)), "millimeter"),
        Volume(data.view(np.uint16), Affine.of_spacing((1, 1)), "millimeter"),
        Volume(data[::-1], Affine.of_spacing((1, 1)), "millimeter"),
    ]
    assert len({checksum_of(v) for v in volumes}) == len(volumes)
