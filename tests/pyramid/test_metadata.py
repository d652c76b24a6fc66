from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from napari_msgan.geometry import Affine, Box, PyramidGeometry
from napari_msgan.pyramid import Fingerprint, SketchInfo, StoreInfo, check_sizes
from napari_msgan.sketch_settings import SketchSettings, SketchThresholds

OBLIQUE = Affine(
    np.array([[1.0, 0.1, 0, 3], [-0.1, 1 / 3, 0, -7], [0, 0, 0.7, 1e-3], [0, 0, 0, 1]])
)


def test_metadata_survive_json_bit_for_bit(make_info):
    info = make_info((9, 33, 40), ((1, 2, 2), (2, 2, 2)), affine=OBLIQUE)
    thresholds = SketchThresholds(low=0.1, high=1 / 3, normaliser=7.0, density=0.08)
    sketch = SketchInfo(settings=SketchSettings(), given=False, thresholds=(thresholds,) * 3)
    fingerprint = Fingerprint(device="cpu", precision="fp32", torch="2.13", tile_shape=(16,) * 3)
    info = info.model_copy(update={"sketch": sketch, "fingerprint": fingerprint})
    again = StoreInfo.model_validate_json(info.model_dump_json())
    assert again == info
    assert again.to_geometry().affine == OBLIQUE
    assert again.to_geometry().shape_at(0) == (5, 9, 10)
    assert again.to_tiling().tiles(2, Box((0, 16, 0), (1, 17, 1)))[0].index == (0, 1, 0)


def test_a_store_is_always_marked_as_synthetic(make_info):
    assert make_info().model_dump(mode="json")["synthetic"] is True
    with pytest.raises(ValidationError, match="synthetic"):
        make_info(synthetic=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tile_shape": (12, 12)}, "not whole chunks"),
        ({"tile_shape": (15, 15), "chunk_shape": (5, 5)}, "multiple of"),
        ({"chunk_shape": (8, 8, 8)}, "need 2 numbers"),
        ({"chunk_shape": (0, 8)}, "greater than or equal to 1"),
        ({"halos": ((0, 0), (3, 3))}, "one per scale"),
        ({"halos": ((1, 1), (3, 3), (3, 3))}, "zeros at scale 0"),
        ({"window": (5, 5)}, "from low to high"),
        ({"window": (-1024.5, 0)}, "does not fit int16"),
        ({"window": (0, 65535)}, "does not fit int16"),
        ({"window": (float("nan"), 0)}, "finite"),
        ({"extra_scales": 3}, "extra_scales 3 of 3 scales"),
        ({"schema_version": 2}, "schema_version"),
        ({"unknown": 1}, "unknown"),
    ],
    ids=str,
)
def test_metadata_that_do_not_fit_together_are_refused(
    make_info, changes: dict[str, Any], message: str
):
    with pytest.raises(ValidationError, match=message):
        make_info(**changes)


@pytest.mark.parametrize(
    ("shape", "factors", "message"),
    [
        ((2**30, 2**30), ((2, 2),) * 2, "chunks of"),
        ((2**16, 2**16), ((1, 1),), "scale 0 has more than"),
    ],
    ids=str,
)
def test_sizes_beyond_belief_are_refused(make_info, shape, factors, message):
    with pytest.raises(ValidationError, match=message):
        make_info(shape, factors, tile_shape=(64, 64), chunk_shape=(64, 64))


@pytest.mark.parametrize(
    ("most", "more"),
    [
        # 2 x 2**24 chunks
        (((4096, 4096), (1, 1), (1, 1), (0, 0)), ((4096, 4097), (1, 1), (1, 1), (0, 0))),
        # 2**28 voxels at scale 0
        (((2**14, 2**14), (1, 1), (64, 64), (0, 0)), ((2**14, 16385), (1, 1), (64, 64), (0, 0))),
        # 2**27 voxels in a tile, and as many that it reads
        (
            ((9, 9, 9), (2, 4, 1), (512, 512, 512), (128, 192, 0)),
            ((9, 9, 9), (2, 4, 1), (512, 512, 512), (128, 192, 1)),
        ),
    ],
    ids=["chunks", "scale 0", "tile"],
)
def test_the_largest_sizes_are_taken_and_no_more(most, more):
    def check(shape, factor, block, halo):
        n = len(shape)
        affine = Affine.of_spacing((1.0,) * n)
        geometry = PyramidGeometry(("z", "y", "x")[-n:], shape, (factor,), affine, "pixel")
        check_sizes(geometry, block, block, [(0,) * n, halo])

    check(*most)
    with pytest.raises(ValueError, match="more than"):
        check(*more)


def test_a_store_has_two_scales_at_least(make_info):
    with pytest.raises(ValidationError, match="at least 1 item"):
        make_info((64, 64), ())


def test_sketch_needs_thresholds_for_every_scale_or_none(make_info):
    thresholds = SketchThresholds(low=0.1, high=0.2, normaliser=1.0, density=0.08)
    sketch = SketchInfo(settings=SketchSettings(), given=False, thresholds=(thresholds,))
    with pytest.raises(ValidationError, match="1 thresholds for 3 scales"):
        make_info(sketch=sketch)


def test_source_remembers_how_it_was_turned(make_info):
    source = make_info((6, 7, 8), ((2, 2, 2),)).source
    turned = source.model_validate(
        dict(source) | {"order": (2, 0, 1), "flipped": (True, False, True)}
    )
    array = np.arange(6 * 7 * 8).reshape(6, 7, 8)
    there = turned.orientation.apply(array)
    assert there.shape == (8, 6, 7)
    np.testing.assert_array_equal(turned.orientation.inverse.apply(there), array)
    with pytest.raises(ValidationError, match="not an order of 3 axes"):
        source.model_validate(dict(source) | {"order": (0, 0, 1)})
    for flat in ({"affine": ((1, 0, 0), (0, 1, 0), (0, 0, 1))}, {"flipped": (True, False)}):
        with pytest.raises(ValidationError, match="do not fit the shape"):
            source.model_validate(dict(source) | flat)
