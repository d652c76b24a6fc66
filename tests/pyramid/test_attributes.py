from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from napari_msgan.errors import StoreError
from napari_msgan.geometry import Affine, Box, PyramidGeometry, level_of_scale
from napari_msgan.pyramid.attributes import (
    info_from_attributes,
    level_place,
    multiscale_of,
    root_attributes,
    sketch_attributes,
)
from napari_msgan.pyramid.metadata import SketchInfo
from napari_msgan.sketch_settings import SketchSettings

XRAY = PyramidGeometry(
    ("y", "x"),
    (1701, 2048),
    ((2, 2),) * 4,
    Affine.of_spacing((0.2, 0.1), (7.0, -3.0)),
    "millimeter",
)


def block_mean(image: npt.NDArray[Any], factor: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Average blocks; the last one is filled up with the border voxel."""
    pads = [(0, -n % f) for n, f in zip(image.shape, factor, strict=True)]
    padded = np.pad(image, pads, mode="edge")
    split = [v for n, f in zip(padded.shape, factor, strict=True) for v in (n // f, f)]
    return padded.reshape(split).mean(axis=tuple(range(1, 2 * image.ndim, 2)))


def ramp_at(y: npt.NDArray[Any], x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return 3.0 * y[:, None] + 5.0 * x[None, :]


def error_in_voxels(ome: dict[str, Any], *, shifted: bool) -> float:
    """Return how far a ramp moves between the levels, in finest voxels, going by OME-Zarr alone."""
    datasets = ome["multiscales"][0]["datasets"]
    image, error = None, 0.0
    for scale in range(XRAY.finest_scale, -1, -1):
        transforms = datasets[level_of_scale(scale, XRAY.n_scales)]["coordinateTransformations"]
        spacing, origin = transforms[0]["scale"], transforms[1]["translation"]
        if not shifted:
            origin = XRAY.affine.origin
        y, x = (
            o + v * np.arange(n)
            for o, v, n in zip(origin, spacing, XRAY.shape_at(scale), strict=True)
        )
        image = ramp_at(y, x) if image is None else block_mean(image, (2, 2))
        inside = (image - ramp_at(y, x))[:-1, :-1]  # the last block is partly border
        error = max(error, float(np.abs(inside).max()) / (3.0 * 0.2 + 5.0 * 0.1))
    return error


def test_image_does_not_jump_between_levels():
    ome = multiscale_of(XRAY, "x", "m")
    assert error_in_voxels(ome, shifted=True) < 1e-6


def test_without_the_translation_it_would_jump():
    ome = multiscale_of(XRAY, "x", "m")
    assert error_in_voxels(ome, shifted=False) > 7  # (16 - 1) / 2


@pytest.mark.parametrize("scale", range(5))
def test_upright_levels_lie_where_the_affine_says(scale):
    spacing, origin = level_place(XRAY, scale)
    index = np.array([11.0, 5.0])
    np.testing.assert_allclose(np.array(origin) + index * spacing, XRAY.affine_at(scale).at(index))


@pytest.mark.parametrize(
    "matrix",
    [
        [[1, 0.2, 0, 3], [-0.2, 1, 0, -7], [0, 0, 0.7, 1], [0, 0, 0, 1]],
        [[-1, 0, 0, 3], [0, 1, 0, -7], [0, 0, 0.7, 1], [0, 0, 0, 1]],
        [[0, 1, 0, 3], [1, 0, 0, -7], [0, 0, 0.7, 1], [0, 0, 0, 1]],
    ],
    ids=["oblique", "backwards", "permuted"],
)
def test_other_affines_are_written_along_the_axes_of_the_image(make_info, matrix):
    affine = Affine(np.array(matrix, float))
    info = make_info((8, 30, 30), ((2, 2, 2), (1, 3, 3)), affine=affine, tile_shape=(24,) * 3)
    geometry = info.to_geometry()
    step, shift = level_place(geometry, 0)
    np.testing.assert_allclose(step, np.array(affine.spacing) * (2, 6, 6))
    np.testing.assert_allclose(shift, np.array(affine.spacing) * (0.5, 2.5, 2.5))
    assert level_place(geometry, 2)[1] == (0, 0, 0)
    stored = json.loads(json.dumps(root_attributes(info)))
    unfinished = stored["napari_msgan"]["sketch"]
    unfinished["sha256"] = "c" * 64
    assert info_from_attributes(stored).to_geometry().affine == affine


def test_pixels_are_no_unit_of_the_format():
    pixels = PyramidGeometry(("y", "x"), (8, 8), ((2, 2),), Affine.of_spacing((1, 1)), "pixel")
    axes = multiscale_of(pixels, "x", "m")["multiscales"][0]["axes"]
    assert axes == [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]


@pytest.mark.parametrize(
    ("given", "how", "words"),
    [
        (False, "thinned", "edges found at each scale"),
        (True, "thinned", "block maximum, thinned"),
        (True, "interpolated", "interpolated from the finest scale"),
    ],
)
def test_a_sketch_says_how_its_scales_were_made(make_info, given, how, words):
    sketch = SketchInfo(settings=SketchSettings(given=how), given=given)
    ome = sketch_attributes(make_info(sketch=sketch))["ome"]
    assert ome["multiscales"][0]["type"] == words


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda a: a.pop("napari_msgan"), "not a store of napari-msgan"),
        (lambda a: a.pop("ome"), "not a store of napari-msgan"),
        (lambda a: a.update(napari_msgan=[]), "not a store of napari-msgan"),
        (lambda a: a["ome"].update(version="0.4"), "OME-Zarr '0.4'.*Use the version"),
        (lambda a: a["napari_msgan"].update(schema_version=2), "format 2 .*Use the version"),
        (lambda a: a["napari_msgan"].pop("seed"), "seed: Field required"),
        (lambda a: a["napari_msgan"]["geometry"].update(shape=[75]), "geometry.*does not fit"),
        (lambda a: a["napari_msgan"]["geometry"].update(shape=[-75, 90]), "geometry.shape.0"),
        (lambda a: a["napari_msgan"]["geometry"].update(shape=[2**30, 2**30]), "scale 0|chunks"),
        (lambda a: a["napari_msgan"]["geometry"]["affine"].pop(), "square"),
        (lambda a: a["napari_msgan"]["sketch"].update(sha256=None), "never finished"),
    ],
)
def test_damaged_attributes_are_refused_with_what_was_seen(make_info, damage, message):
    attributes = json.loads(json.dumps(root_attributes(make_info())))
    attributes["napari_msgan"]["sketch"]["sha256"] = "c" * 64
    assert info_from_attributes(attributes).to_geometry().shape == Box.of_shape((75, 90)).shape
    damage(attributes)
    with pytest.raises(StoreError, match=message):
        info_from_attributes(attributes)
