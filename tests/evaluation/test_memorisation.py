import numpy as np
import pytest

from napari_msgan.errors import VolumeError
from napari_msgan.evaluation import PatchPair, TrainingSearch, draw_patches
from napari_msgan.evaluation.memorisation import PATCH_SIZE, _best_matches, high_pass, unit_patch
from tests.evaluation.images import textured

SHAPES = [(100, 120), (40, 44, 36)]


def measured(made, true, *training, count=6):
    search = TrainingSearch(draw_patches(made, true, np.ones(made.shape, bool), count))
    for number, image in enumerate(training):
        search.search(image, number)
    return search.result()


@pytest.mark.parametrize("shape", SHAPES)
def test_copied_training_image_is_found_also_mirrored_and_with_other_contrast(shape):
    true, training, other = (textured(shape, seed) for seed in (0, 1, 2))
    mirrored = [np.flip(training, -1)]
    if len(shape) == 3:  # as training mirrors volumes
        mirrored += [np.flip(training, 1), np.flip(training, (1, 2))]
    for copy in (training, *(m.copy() for m in mirrored), 20 + 0.5 * training):
        found = measured(copy, true, other, training)
        assert found.median < 0.02
        assert found.percentile_1 < 0.02
        assert found.reference > 0.5
        assert (found.n_patches, found.n_images) == (6, 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_new_image_is_no_nearer_than_the_truth(shape, rng):
    true, training = textured(shape, 0), textured(shape, 1)
    made = true + rng.normal(0, 2, shape).astype(np.float32)
    found = measured(made, true, training)
    assert found.median == pytest.approx(1, abs=0.1)
    assert found.median == pytest.approx(found.reference, abs=0.1)
    assert found.percentile_1 > 0.8


def test_nearest_patch_is_that_of_all_windows_and_the_figures_are_those_of_its_distances():
    made, true = textured((50, 48), 0), textured((50, 48), 2)
    training = [textured((38, 40), 1), textured((40, 36), 3)]
    pairs = draw_patches(made, true, np.ones(made.shape, bool), 5)
    windows = []
    for image in training:
        for view in (high_pass(image), high_pass(image)[:, ::-1]):
            all_windows = np.lib.stride_tricks.sliding_window_view(view, (32, 32))
            windows += [unit_patch(w) for w in all_windows.reshape(-1, 32, 32)]

    def ratio(patch, other):
        nearest = min(windows, key=lambda window: np.linalg.norm(window - patch))
        return np.linalg.norm(nearest - patch) / np.linalg.norm(nearest - other)

    ratios = [ratio(pair.made, pair.true) for pair in pairs]
    exchanged = [ratio(pair.true, pair.made) for pair in pairs]
    found = measured(made, true, *training, count=5)
    assert found.median == pytest.approx(np.median(ratios), rel=1e-4)
    assert found.percentile_1 == pytest.approx(np.percentile(ratios, 1), rel=1e-4)
    assert found.reference == pytest.approx(np.median(exchanged), rel=1e-4)


@pytest.mark.parametrize(("shape", "size"), [((39, 41), 32), ((18, 19, 20), 16)], ids=str)
def test_best_match_is_the_window_of_the_highest_correlation(shape, size):
    """Means of windows do not count; a flat window correlates with nothing."""
    image = 1e-2 * textured(shape, 0)
    image += 2 * np.arange(shape[-1], dtype=np.float32) / shape[-1] + 1
    patches = [unit_patch(textured((size,) * len(shape), seed)) for seed in (1, 2, 3)]
    windows = np.lib.stride_tricks.sliding_window_view(image, (size,) * len(shape))
    scores, starts = _best_matches(image, np.stack(patches))
    for patch, score, start in zip(patches, scores, starts, strict=True):
        found = {
            place: np.corrcoef(windows[place].ravel(), patch.ravel())[0, 1]
            for place in np.ndindex(windows.shape[: len(shape)])
        }
        assert found[tuple(start)] == pytest.approx(max(found.values()), abs=1e-4)
        assert score == pytest.approx(max(found.values()), abs=1e-3)
    scores, _ = _best_matches(np.full(shape, 7, np.float32), np.stack(patches))
    assert (scores == 0).all()


def test_one_copied_patch_among_many_shows_in_the_percentile():
    true, training = textured((100, 120), 0), textured((100, 120), 1)
    pairs = draw_patches(true, true, np.ones(true.shape, bool), 9)
    copied = unit_patch(high_pass(training)[30:62, 50:82])
    search = TrainingSearch([*pairs, PatchPair(copied, pairs[0].true)])
    search.search(training, "training")
    found = search.result()
    assert found.median == pytest.approx(1, abs=1e-6)
    assert found.percentile_1 < 0.2


def test_truth_that_was_trained_on_counts_as_itself():
    true = textured((100, 120), 0)
    assert measured(true, true, true).median == 1


def test_patches_lie_in_the_body_and_are_the_same_each_time():
    true = textured((100, 120), 0)
    body = np.zeros(true.shape, bool)
    body[40:60, 40:60] = True
    a, b = (draw_patches(true, true, body, 5, seed=3) for _ in range(2))
    assert len(a) == 5
    assert all(np.array_equal(x.made, y.made) for x, y in zip(a, b, strict=True))
    assert a[0].made.shape == (PATCH_SIZE[2],) * 2
    assert draw_patches(true, true, ~body & body, 5) == []
    assert draw_patches(true[:20], true[:20], body[:20], 5) == []


def test_patches_reach_every_border_and_are_centred_on_the_body():
    made, true = textured((32, 33), 0), textured((32, 33), 1)
    expected = [unit_patch(high_pass(made)[:, a : a + 32]) for a in (0, 1)]
    found = draw_patches(made, true, np.ones(made.shape, bool), 9)
    assert len(found) == 2
    assert {pair.made.tobytes() for pair in found} == {patch.tobytes() for patch in expected}
    body = np.zeros(made.shape, bool)
    body[16, 17] = True
    (pair,) = draw_patches(made, true, body, 9)
    assert np.array_equal(pair.made, expected[1])
    assert np.array_equal(pair.true, unit_patch(high_pass(true)[:, 1:]))
    assert draw_patches(made[:31], true[:31], body[:31], 9) == []


def test_places_where_either_image_is_flat_are_not_drawn():
    image, partly = textured((100, 160), 0), textured((100, 160), 1)
    partly[:, :100] = 7
    left = np.zeros(image.shape, bool)
    left[:, :50] = True
    assert draw_patches(image, partly, left, 3) == draw_patches(partly, image, left, 3) == []
    assert len(draw_patches(image, image, left, 3)) == 3


@pytest.mark.parametrize("side", [4, 32])
def test_patch_is_flat_if_it_deviates_by_less_than_a_thousandth(side):
    board = (np.indices((side, side)).sum(0) % 2 * 2 - 1).astype(np.float32)
    assert not unit_patch(0.0009 * board).any()
    assert np.linalg.norm(unit_patch(0.0011 * board)) == pytest.approx(1)


@pytest.mark.parametrize("shape", SHAPES)
def test_upside_down_is_not_mirrored_as_training_never_does(shape):
    true, training = textured(shape, 0), textured(shape, 1)
    assert measured(np.flip(training, 0).copy(), true, training).median > 0.5


def test_flat_patch_and_nothing_to_compare_are_refused():
    assert not unit_patch(np.full((4, 4), 7, np.float32)).any()
    with pytest.raises(VolumeError, match="no image is as large as a patch"):
        TrainingSearch([])
    true = textured((100, 120), 0)
    with pytest.raises(VolumeError, match="no training image is large enough"):
        measured(true, true, true[:20])
