import numpy as np
import pytest

from napari_msgan.geometry import Affine
from napari_msgan.model import read_spec
from napari_msgan.source import n_scales_magnified, plan_magnified
from napari_msgan.volume import Orientation, Volume, turn
from tests.models import write_model


def solid(shape, spacing):
    data = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    return Volume(data, Affine.of_spacing(spacing, (5, 6, 7)), "millimeter")


def test_pixels_and_zoom_decide_how_many_scales_an_image_has_on_relative_grids(relative):
    scales = [n_scales_magnified((60, 250), None, relative, zoom) for zoom in (0.25, 0.5, 1, 2, 9)]
    assert scales == [2, 3, 4, 4, 4]  # 62, 125 and 250 pixels; more than 256 are reduced to these
    assert n_scales_magnified((250, 60), (9.0, 9.0), relative, 1, slice_mm=9) == 4


@pytest.mark.parametrize(
    ("spacing", "slice_mm", "n_scales"),
    [
        ((1.0, 1.0, 1.0), 0.0, 4),
        ((1.0, 1.0, 2.0), 0.0, 3),
        ((1.0, 1.0, 1.0), 5.0, 2),  # interpolated: the slices are thicker than their distance
        ((1.0, 9.0, 1.0), 5.0, 1),
        ((1.0, 20.0, 1.0), 0.0, 0),
    ],
)
def test_the_thickest_axis_decides_how_many_scales_an_image_has_on_physical_grids(
    physical, spacing, slice_mm, n_scales
):
    for zoom in (0.5, 1, 2):
        assert n_scales_magnified((9, 9, 9), spacing, physical, zoom, slice_mm) == n_scales
    plan = plan_magnified(solid((9, 9, 9), spacing), physical, 1, slice_mm)
    if n_scales < 2:
        assert plan is None
    else:
        assert (plan.geometry.n_scales, plan.honest_scale) == (n_scales, n_scales - 1)


def test_a_magnified_image_has_more_voxels_which_count_as_those_of_its_scale(physical):
    source = solid((20, 30, 40), (2.0, 1.0, 1.0))
    turned = turn(source, Orientation((2, 0, 1), (True, False, False)))
    for volume in (source, turned):
        plan = plan_magnified(volume, physical, 1.25)
        np.testing.assert_allclose(plan.step, (0.8, 1.6, 1.6))  # 1.6 mm count as 2 mm
        np.testing.assert_allclose(plan.first, (-0.1, 0.3, 0.3))  # the outer corners stay
        assert plan.geometry.shape == (25, 19, 25)
        assert plan.geometry.factors == ((2, 2, 2),) * 2
        assert (plan.extra_scales, plan.block_shape) == (0, physical.tile_shape)
        np.testing.assert_array_equal(plan.volume.data[...], source.data)


def test_an_image_with_more_pixels_than_the_finest_scale_is_reduced_to_it(relative):
    image = Volume(np.zeros((900, 1000), np.uint8), Affine.of_spacing((0.5, 0.5)), "pixel")
    plan = plan_magnified(image, relative, 1)
    assert (plan.step, plan.first) == ((4, 4), (1.5, 1.5))
    assert (plan.geometry.shape, plan.geometry.n_scales) == ((225, 250), 4)
    flat = Volume(np.zeros((1, 250), np.uint8), Affine.of_spacing((1, 1)), "pixel")
    assert plan_magnified(flat, relative, 0.5).geometry.shape == (1, 125)
    small = plan_magnified(image, relative, 0.05)
    assert (small.geometry.shape, small.geometry.n_scales) == ((45, 50), 2)


def test_an_image_is_reduced_only_along_axes_that_scales_make_finer(tmp_path):
    slices = read_spec(write_model(tmp_path / "m", factor=(1, 2)))
    image = Volume(np.zeros((30, 1000), np.uint8), Affine.of_spacing((3, 0.5)), "pixel")
    plan = plan_magnified(image, slices, 1)
    assert plan.step == (1, 8)
    assert (plan.geometry.shape, plan.geometry.factors) == ((30, 125), ((1, 2),) * 2)
