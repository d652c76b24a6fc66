"""Which parts of coarser sketches follow an edit of the finest."""

import warnings

import numpy as np
import pytest

from napari_msgan.geometry import Affine, Box, PyramidGeometry
from napari_msgan.pyramid import SketchInfo
from napari_msgan.sketch_settings import SketchSettings, SketchThresholds
from napari_msgan.source import SourcePlan, iter_sketch_edited
from napari_msgan.source._edited import _touched
from napari_msgan.source._sketches import coarser_sketch, sketch_levels
from napari_msgan.steps import run_to_end
from napari_msgan.volume import Orientation, Volume

FACTORS = ((1, 2), (2, 1), (2, 3))


def lines(shape, columns):
    drawn = np.zeros(shape, np.uint8)
    drawn[:, columns] = 1  # the weakest edges count, too
    return drawn


def touched_columns(old, new):
    """Return the coarse columns of 20 that are made anew, which must be the same in each row."""
    touched = _touched(lines((8, 40), old), lines((8, 40), new), (2, 2))
    assert touched.shape == (4, 20)
    assert (touched == touched[0]).all()
    return np.flatnonzero(touched[0]).tolist()


def test_only_what_lies_beside_a_drawn_edge_is_made_anew():
    drawn = np.zeros((30, 40), np.uint8)
    drawn[13, 21] = 5
    touched = _touched(np.zeros_like(drawn), drawn, (2, 2))
    assert np.argwhere(touched).tolist() == [[y, x] for y in (5, 6, 7) for x in (9, 10, 11)]
    assert touched_columns([30], [30, 10]) == [4, 5, 6]


def test_what_is_nearer_to_an_erased_edge_than_to_a_kept_one_is_made_anew():
    assert touched_columns([10], []) == list(range(5 + 8 + 1))
    assert touched_columns([10, 30], [30]) == list(range(10))  # the tenth is as near to both
    assert touched_columns([10, 14], [14]) == list(range(7))  # beside the change, if never nearer
    assert touched_columns([10, 30], [10, 30]) == []
    assert touched_columns([], []) == []


def edited(drawn, before, geometry):
    """Return the sketches of all scales after an edit."""
    plan = SourcePlan(
        Volume(drawn, geometry.affine, "pixel"),
        Orientation.identity(2),
        geometry,
        (1, 1),
        (0, 0),
        honest_scale=3,
        extra_scales=0,
        block_shape=(16, 18),
    )
    found = SketchThresholds(low=0.1, high=0.2, normaliser=0.3, density=0.1)
    original = SketchInfo(settings=SketchSettings(), given=False, thresholds=(found,) * 4)
    levels = [np.full(geometry.shape_at(s), 99, np.uint8) for s in range(4)]

    def write(scale, box, block):
        levels[scale][box.slices] = block

    reports = []
    steps = iter_sketch_edited(plan, original, before, lambda s, b: levels[s][b.slices], write)
    assert run_to_end(steps, reports.append) == [found] * 4
    n_blocks = sum(len(plan.blocks(s)) for s in range(4))
    assert reports == [(done, n_blocks) for done in range(1, n_blocks + 1)]
    return levels


@pytest.fixture
def geometry():
    return PyramidGeometry(("y", "x"), (70, 95), FACTORS, Affine.of_spacing((1, 1)), "pixel")


@pytest.fixture
def before(geometry, rng):
    """Sketches with edges of their own at every scale."""
    shapes = [geometry.shape_at(s) for s in range(4)]
    return [(rng.integers(1, 256, n) * (rng.random(n) < 0.1)).astype(np.uint8) for n in shapes]


def test_without_an_edit_all_scales_are_those_of_the_original(geometry, before):
    for level, expected in zip(edited(before[-1], before, geometry), before, strict=True):
        np.testing.assert_array_equal(level, expected)


def test_coarser_scales_change_where_the_next_finer_was_touched_and_nowhere_else(geometry, before):
    drawn = before[-1].copy()
    drawn[20, 30:60], drawn[50:60, 70:90] = 255, 0
    levels = edited(drawn, before, geometry)
    np.testing.assert_array_equal(levels[-1], drawn)
    now = sketch_levels(geometry, lambda s, box: levels[s][box.slices])
    for scale in (2, 1, 0):
        factor, shape = geometry.factor(scale + 1), geometry.shape_at(scale)
        pads = [
            (8 * f, 8 * f + -n % f) for f, n in zip(factor, levels[scale + 1].shape, strict=True)
        ]
        old, new = (np.pad(x[scale + 1], pads, mode="edge") for x in (before, levels))
        touched = _touched(old, new, factor)[8:-8, 8:-8]
        assert touched.shape == shape
        assert 0.01 < touched.mean() < 0.5
        made = coarser_sketch(now, geometry, SketchSettings(), scale, Box.of_shape(shape))
        np.testing.assert_array_equal(levels[scale], np.where(touched, made, before[scale]))


@pytest.mark.parametrize(("share", "is_told"), [(0.7, False), (0.8, True)])
@pytest.mark.parametrize("change", ["erased", "weaker"])
def test_a_sketch_of_which_most_edges_changed_is_asked_about(
    geometry, before, rng, share, is_told, change
):
    drawn, there = before[-1].copy(), np.argwhere(before[-1])
    for place in rng.permutation(there)[: int(share * len(there))]:
        drawn[tuple(place)] = 0 if change == "erased" else drawn[tuple(place)] - 1
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        edited(drawn, before, geometry)
    assert ["is not a copy of that sketch" in str(w.message) for w in told] == [True] * is_told
