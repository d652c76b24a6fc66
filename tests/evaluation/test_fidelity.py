import numpy as np
import pytest

from napari_msgan.evaluation import coarse_inconsistency, compare_sketches, edges_of
from napari_msgan.sketch import lazy_unit, sketch_of
from napari_msgan.sketch_settings import SketchSettings
from tests.evaluation.images import smooth


def lines(*columns, size=40):
    edges = np.zeros((size, size), bool)
    edges[:, list(columns)] = True
    return edges


def test_f1_forgives_one_voxel_and_not_two():
    assert compare_sketches(lines(10), lines(10)).f1 == 1
    assert compare_sketches(lines(11), lines(10)).f1 == 1
    assert compare_sketches(lines(12), lines(10)).f1 == 0
    assert compare_sketches(lines(), lines(10)).f1 == 0
    assert np.isnan(compare_sketches(lines(10), lines()).f1)  # nothing to be faithful to


def test_f1_by_hand():
    # precision 1/2 (the line at 30 is not in the sketch), recall 1
    assert compare_sketches(lines(10, 30), lines(10)).f1 == pytest.approx(2 / 3)
    # dilated to 6 and 3 of 40 columns
    assert compare_sketches(lines(10, 30), lines(10)).chance == pytest.approx(
        2 * (3 / 40) * (6 / 40) / (9 / 40)
    )


def test_chance_is_what_independent_edges_reach(rng):
    a, b = rng.random((2, 30, 30, 30)) < 0.1
    fidelity = compare_sketches(a, b)
    assert fidelity.f1 == pytest.approx(fidelity.chance, abs=0.02)
    assert fidelity.f1 > 0.9


def test_edges_in_blocks_are_those_of_the_whole():
    image = smooth((90, 110), 0)
    settings = SketchSettings(dilations=4)
    unit = lazy_unit(image, 0, 255)
    expected = sketch_of(image / np.float32(255), settings) > 0
    assert np.array_equal(edges_of(unit, settings, 0, (32, 32)), expected)
    assert 0.05 < expected.mean() < 0.09


def test_edges_are_those_in_the_window_of_the_scale():
    unit = smooth((90, 110), 0) / np.float32(255)
    settings = SketchSettings(dilations=4, window=(0, 1), coarse_windows=((0.4, 0.7),))
    narrow = sketch_of(np.clip((unit - 0.4) / 0.3, 0, 1).astype(np.float32), settings) > 0
    assert (edges_of(unit, settings, 0, (32, 32)) == narrow).mean() > 0.999
    whole = edges_of(unit, settings, 1, (32, 32))
    assert np.array_equal(whole, sketch_of(unit, settings) > 0)
    assert (whole == narrow).mean() < 0.99


def test_coarse_inconsistency_is_the_difference_of_block_means():
    coarse = smooth((10, 12), 0)
    fine = np.kron(coarse, np.ones((2, 2), np.float32))
    assert coarse_inconsistency(fine, coarse, (2, 2)) == pytest.approx(0, abs=1e-4)
    assert coarse_inconsistency(fine[:-1], coarse, (2, 2)) == pytest.approx(0, abs=1e-4)
    assert coarse_inconsistency(fine + 3, coarse, (2, 2)) == pytest.approx(3, abs=1e-3)
    assert coarse_inconsistency(fine - 3, coarse, (2, 2)) == pytest.approx(3, abs=1e-3)
    within = np.indices(fine.shape).sum(0) % 2 * 200 - 100  # is averaged away
    assert coarse_inconsistency(fine + within, coarse, (2, 2)) == pytest.approx(0, abs=1e-3)
