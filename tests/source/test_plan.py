import numpy as np
import pytest

from napari_msgan.errors import GeometryError, VolumeError
from napari_msgan.geometry import Affine, Box
from napari_msgan.model import read_spec
from napari_msgan.source import honest_scale, n_scales_of, plan_source
from napari_msgan.volume import Orientation, Volume, turn
from tests.models import write_model


def flat(shape):
    return Volume(np.zeros(shape, np.uint8), Affine.of_spacing((1, 1)), "pixel")


def solid(shape, spacing):
    return Volume(np.zeros(shape, np.int16), Affine.of_spacing(spacing, (5, 6, 7)), "millimeter")


@pytest.mark.parametrize(
    ("longest", "n_scales"),
    [
        (128, 2),
        (180, 2),
        (256, 2),
        (363, 3),
        (512, 3),
        (1448, 4),
        (1449, 5),
        (2048, 5),
        (2896, 5),
        (2897, 6),
    ],
)
def test_scale_zero_is_closest_to_the_base_size(longest, n_scales):
    assert n_scales_of(longest, 128, 2) == n_scales


def test_relative_model_keeps_the_pixels_of_the_source(relative):
    plan = plan_source(flat((200, 250)), relative)
    assert plan.geometry.shape == (200, 250)
    assert plan.geometry.n_scales == 4
    assert plan.extra_scales == 0
    assert plan.honest_scale == 3
    assert (plan.step, plan.first) == ((1, 1), (0, 0))
    for scale in range(4):  # they have all scales, whichever is wanted
        assert plan_source(flat((200, 250)), relative, scale).geometry == plan.geometry
    assert plan_source(flat((250, 40)), relative).geometry.n_scales == 4


def test_larger_image_applies_the_last_generator_again_and_says_so(relative):
    with pytest.warns(UserWarning, match="applied 2 more time"):
        plan = plan_source(flat((900, 1000)), relative)
    assert (plan.geometry.n_scales, plan.extra_scales) == (6, 2)


def test_image_that_is_too_small_for_the_model_says_so(relative):
    plan_source(flat((30, 46)), relative)  # scale 0 has 23 pixels, as of an image of 91
    with pytest.warns(UserWarning, match=r"has 5 pixels .* fewer than .* trained for \(46\)"):
        plan = plan_source(flat((5, 4)), relative)
    assert plan.geometry.n_scales == 2


def test_the_number_of_scales_depends_on_the_factor_along_the_last_axis(tmp_path):
    slices = read_spec(write_model(tmp_path / "m", factor=(1, 2)))
    with pytest.warns(UserWarning, match="applied 1 more time"):
        plan = plan_source(flat((30, 250)), slices)
    assert (plan.geometry.n_scales, plan.extra_scales) == (4, 1)
    assert plan.geometry.factors == ((1, 2),) * 3
    assert plan.geometry.shape_at(0) == (30, 32)
    with pytest.warns(UserWarning, match=r"fewer than .* trained for \(46\)"):
        plan_source(flat((30, 40)), slices)


def test_physical_model_stops_at_the_resolution_of_the_source(physical):
    plan = plan_source(solid((20, 40, 41), (3.0, 1.0, 1.0)), physical)
    assert plan.honest_scale == 1  # 4 mm; 2 mm would be less than 0.7 * 3 mm
    assert plan.geometry.affine.spacing == (4, 4, 4)
    assert plan.geometry.shape == (15, 10, 11)
    assert plan.geometry.factors == ((2, 2, 2),)
    assert plan.extra_scales == 0


def test_rule_of_honest_scales(physical):
    thickest = [1.0, 1.43, 1.42, 2.9, 20.0]
    for axis in range(3):  # whichever axis is the thickest
        spacings = [[mm if a == axis else 0.5 for a in range(3)] for mm in thickest]
        assert [honest_scale(physical.scales, mm) for mm in spacings] == [3, 2, 3, 1, -1]
    rounded_up = float(np.nextafter(np.float32(1 / 0.7), np.float32(2)))
    assert honest_scale(physical.scales, (rounded_up,) * 3) == 3


def test_axes_that_stay_thick_in_the_model_may_be_thick_in_the_source(physical):
    fine = physical.scales[-1].model_copy(update={"spacing_mm": (4.0, 1.0, 1.0)})
    scales = (*physical.scales[:-1], fine)
    assert honest_scale(scales, (5.0, 1.0, 1.0)) == 3
    assert honest_scale(scales, (1.0, 5.0, 1.0)) < 3


def test_finer_scale_than_the_source_is_allowed_and_warned_about(physical):
    with pytest.warns(UserWarning, match="details beyond scale 1 are invented"):
        plan = plan_source(solid((20, 40, 40), (3.0, 1.0, 1.0)), physical, 3)
    assert plan.geometry.affine.spacing == (1, 1, 1)
    assert plan.honest_scale == 1


def test_two_scales_are_made_even_of_a_source_that_is_coarser_than_all(physical):
    with pytest.warns(UserWarning, match="details beyond scale 0 are invented"):
        plan = plan_source(solid((20, 20, 20), (20.0, 1.0, 1.0)), physical)
    assert (plan.honest_scale, plan.geometry.n_scales) == (0, 2)
    for wanted in (0, 1):
        with pytest.warns(UserWarning, match="details beyond scale 0 are invented"):
            assert plan_source(plan.volume, physical, wanted).geometry == plan.geometry


def test_an_image_of_less_than_a_voxel_is_refused_and_one_of_a_voxel_is_not(physical):
    tiny = solid((10, 20, 30), (0.001, 0.001, 0.002))  # metres, as if they were mm
    with pytest.raises(GeometryError, match=r"is 0\.06 mm long, less than a voxel of scale 3"):
        with pytest.warns(UserWarning, match="was trained on images of about"):
            plan_source(tiny, physical)
    for shape in ((1, 1, 1), (1, 1, 20)):
        with pytest.warns(UserWarning, match="was trained on images of about") as told:
            plan = plan_source(solid(shape, (1.0, 0.5, 1.0)), physical)
        assert plan.geometry.shape == shape
        assert len(told) == 1


def test_outer_corners_of_source_and_result_agree(physical):
    source = solid((20, 40, 40), (3.0, 1.1, 0.9))
    plan = plan_source(source, physical)
    corner = plan.geometry.affine.at((-0.5,) * 3)
    np.testing.assert_allclose(corner, source.affine.at((-0.5,) * 3))
    assert not np.allclose(plan.geometry.affine.origin, source.affine.origin)
    far = plan.geometry.affine.at(np.array(plan.geometry.shape) - 0.5)
    true_far = source.affine.at(np.array(source.shape) - 0.5)
    assert (far >= true_far - 1e-9).all()
    assert (far - true_far < plan.geometry.affine.spacing).all()


def test_missing_voxel_size_is_refused_with_advice(physical):
    volume = Volume(np.zeros((9, 9, 9), np.uint8), Affine.of_spacing((1,) * 3), "pixel")
    with pytest.raises(VolumeError, match="no voxel size in mm"):
        plan_source(volume, physical)


def test_other_number_of_axes_is_refused(relative, physical):
    with pytest.raises(VolumeError, match="is for 2-D images"):
        plan_source(solid((9, 9, 9), (1, 1, 1)), relative)
    with pytest.raises(VolumeError, match="is for 3-D images"):
        plan_source(flat((9, 9)), physical)


def test_scale_that_does_not_exist_is_refused(relative, physical):
    for scale in (-1, 4):
        with pytest.raises(GeometryError, match="has the scales 0 to 3"):
            plan_source(flat((200, 250)), relative, scale)
    with pytest.raises(GeometryError, match="has the scales 0 to 3"):
        plan_source(solid((20, 40, 40), (3.0, 1.0, 1.0)), physical, 4)


def test_flipped_and_permuted_copies_give_the_same_plan(physical):
    rng = np.random.default_rng(0)
    data = rng.integers(0, 100, (20, 30, 25)).astype(np.int16)
    source = Volume(data, Affine.of_spacing((2.0, 1.5, 1.5), (5, 6, 7)), "millimeter")
    plan = plan_source(source, physical)
    for orientation in (
        Orientation((2, 0, 1), (True, False, True)),
        Orientation((1, 2, 0), (False, True, False)),
    ):
        other = plan_source(turn(source, orientation), physical)
        assert other.geometry == plan.geometry
        whole = (slice(0, 99),) * 3
        np.testing.assert_array_equal(other.volume.data[whole], plan.volume.data[whole])
    assert Box.of_shape(plan.geometry.shape).size > 1


def test_a_part_of_what_a_physical_model_was_trained_on_is_told(physical):
    trained_mm = physical.base_size * min(physical.scales[0].spacing_mm)
    enough = int(trained_mm / 2)
    plan_source(solid((8, enough, 8), (1, 1, 1)), physical)
    with pytest.warns(UserWarning, match=f"{enough - 1} mm long, model .* about {trained_mm:.0f}"):
        plan_source(solid((8, enough - 1, 8), (1, 1, 1)), physical)
