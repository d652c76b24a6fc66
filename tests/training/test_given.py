from contextlib import nullcontext

import numpy as np
import pytest

from napari_msgan.errors import MsganError, TrainingError
from napari_msgan.geometry import Affine
from napari_msgan.training.given import check_values, sketch_on, turned
from napari_msgan.training.sources import prepare
from napari_msgan.training.survey import survey
from napari_msgan.volume import Volume
from tests.training.made import blobs, config_of, write_image

SHAPE = (6, 8, 10)
MM = (2.0, 2.0, 2.0)


def volume(values, *, flipped=False, shift=0.0, spacing=MM, unit="millimeter"):
    matrix = np.diag([*spacing, 1.0])
    matrix[:3, 3] = shift
    if flipped:  # the last axis grows the other way
        matrix[2, 2] *= -1
        matrix[2, 3] += spacing[2] * (values.shape[2] - 1)
    return Volume(values, Affine(matrix), unit)


def all_of(image):
    return np.asarray(image.data[(slice(None),) * 3])


def lines():
    values = np.zeros(SHAPE, np.uint8)
    values[1, 2, 3:7] = 255
    return values


@pytest.mark.parametrize("image_is_flipped", [False, True])
def test_a_sketch_is_turned_by_its_own_affine(image_is_flipped):
    image = volume(blobs(SHAPE, 0), flipped=image_is_flipped)
    expected = all_of(turned(volume(lines())))
    assert expected.any()
    for sketch in (volume(lines()), volume(lines()[:, :, ::-1], flipped=True)):
        found = sketch_on(image, sketch)
        np.testing.assert_array_equal(all_of(found), expected)
        assert found.affine == turned(image).affine


def test_a_sketch_without_a_voxel_size_is_taken_voxel_by_voxel():
    image = volume(lines(), flipped=True)
    found = sketch_on(image, Volume(lines(), Affine.of_spacing((1, 1, 1)), "pixel"))
    np.testing.assert_array_equal(all_of(found), all_of(turned(image)))
    with pytest.raises(TrainingError, match="its sketch has"):
        sketch_on(image, Volume(lines()[1:], Affine.of_spacing((1, 1, 1)), "pixel"))


@pytest.mark.parametrize(
    ("change", "is_refused"),
    [({"spacing": (1.0, 1.0, 1.0)}, True), ({"shift": 1.5}, True), ({"shift": 0.4}, False)],
    ids=str,
)
def test_a_sketch_that_lies_elsewhere_is_refused(change, is_refused):
    image, sketch = volume(blobs(SHAPE, 0)), volume(lines(), **change)
    if is_refused:
        with pytest.raises(TrainingError, match="its sketch lies up to"):
            sketch_on(image, sketch)
    else:
        assert sketch_on(image, sketch).affine == turned(image).affine


def test_a_sketch_is_off_by_at_most_half_of_the_smallest_voxel():
    image = volume(blobs(SHAPE, 0), spacing=(4.0, 1.0, 1.0))
    for shift, is_refused in ((0.2, False), (0.4, True)):  # along each of three axes
        sketch = volume(lines(), spacing=(4.0, 1.0, 1.0), shift=shift)
        with pytest.raises(TrainingError, match="lies up to") if is_refused else nullcontext():
            sketch_on(image, sketch)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (lines(), None),
        (lines() / 255, None),
        (lines().astype(np.int16) // 100, "nearly empty: its largest value is 2"),
        (lines() // 255, None),
        (np.zeros(SHAPE, np.uint8), "nearly empty"),
        (lines() > 0, None),
        (np.zeros(SHAPE, np.bool_), "nearly empty"),
        (lines() / 100, "of floats must lie in"),
        (np.where(np.indices(SHAPE)[0] == 3, np.nan, lines() / 255), "has NaN"),
    ],
    ids=[
        "uint8",
        "float",
        "int16 labels",
        "uint8 labels",
        "empty",
        "bool",
        "empty bool",
        "too large",
        "nan",
    ],
)
def test_a_sketch_of_which_nothing_would_be_seen_is_refused(values, problem):
    if problem is None:
        check_values(volume(values))
    else:
        with pytest.raises(MsganError, match=problem):
            check_values(volume(values))


def test_a_given_sketch_is_prepared_where_its_image_lies(tmp_path):
    images, config = tmp_path / "images", config_of(3, zoom=(1.0, 1.0))
    values = np.zeros((32, 40, 48), np.uint8)
    values[8:10, 10:30, 20:44] = 255
    images.mkdir()
    write_image(images / "a.ome.tif", blobs(values.shape, 0), (1.0, 1.0, 1.0))
    found = {}
    for name, spacing in (("placed", (1.0, 1.0, 1.0)), ("placeless", None)):
        folder = tmp_path / name
        folder.mkdir()
        write_image(folder / "a.tif", values, spacing)
        files = survey(images, config, folder)
        ((_, _, pyramid),) = prepare(files, tmp_path / f"cache-{name}", config)
        found[name] = pyramid.sketch(2)
    np.testing.assert_array_equal(found["placed"], found["placeless"])
    places = np.argwhere(found["placed"] > 0)
    np.testing.assert_allclose(places.min(0), (8, 10, 20), atol=1)
    np.testing.assert_allclose(places.max(0), (9, 29, 43), atol=1)
    config = config.model_copy(update={"orientation": "RAS"})
    ((_, _, pyramid),) = prepare(files, tmp_path / "cache-RAS", config)
    np.testing.assert_array_equal(pyramid.sketch(2), found["placed"][:, ::-1, ::-1])
