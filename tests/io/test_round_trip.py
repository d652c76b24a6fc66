from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_msgan.geometry import Affine
from napari_msgan.io import WRITABLE, read_description, read_volume, write_volume
from napari_msgan.volume import Volume, orient
from tests.io.helpers import AFFINES, SHAPE, difference, make_volume

if TYPE_CHECKING:
    from pathlib import Path

DESCRIPTION = {"model": "thorax-ct", "seed": 3, "note": 'Größe < "5" & {x} µm', "list": [1, 0.1]}


def round_trip(volume: Volume, path: Path) -> Volume:
    write_volume(path, [volume], description={})
    return read_volume(path)


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_written_image_reads_back_equal(rng, tmp_path, suffix, ndim, dtype):
    volume = make_volume(rng, ndim, dtype)
    assert difference(round_trip(volume, tmp_path / f"a{suffix}"), volume) == ""


@pytest.mark.parametrize("suffix", [".ome.tif", ".nii", ".nii.gz", ".ome.zarr"])
@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_oblique_and_flipped_affines_survive_exactly(rng, tmp_path, suffix, affine):
    volume = make_volume(rng, 3, affine=affine)
    back = round_trip(volume, tmp_path / f"a{suffix}")
    assert difference(back, volume) == ""
    assert back.affine == affine


@pytest.mark.parametrize("change", ["spacing", "origin", "flip", "unit", "voxel"])
def test_the_comparison_finds_what_is_lost_on_save(rng, change):
    volume = make_volume(rng, 3)
    matrix, data, unit = volume.affine.matrix.copy(), volume.data.copy(), volume.unit
    if change == "spacing":
        matrix[2, 2] *= 1.0001
    elif change == "origin":
        matrix[0, 3] += 0.01
    elif change == "flip":
        matrix[1, :] *= -1
    elif change == "unit":
        unit = "pixel"
    else:
        data[3, 4, 5] += 1
    assert difference(Volume(data, Affine(matrix), unit), volume) != ""


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("ndim", [2, 3])
def test_image_in_pixels_stays_in_pixels(rng, tmp_path, suffix, ndim):
    level = Affine.of_spacing((4.0,) * ndim, (1.5,) * ndim)  # a coarse level of a radiograph
    volume = Volume(make_volume(rng, ndim).data, level, "pixel")
    assert difference(round_trip(volume, tmp_path / f"a{suffix}"), volume) == ""


@pytest.mark.parametrize("suffix", WRITABLE)
def test_volume_of_one_slice_stays_a_volume(rng, tmp_path, suffix):
    whole = make_volume(rng, 3, affine=AFFINES["oblique"])
    volume = Volume(np.asarray(whole.data)[4:5], whole.affine, "millimeter")
    assert difference(round_trip(volume, tmp_path / f"a{suffix}"), volume) == ""


@pytest.mark.parametrize("suffix", WRITABLE)
def test_microscopic_and_large_voxels_survive(rng, tmp_path, suffix):
    for spacing in ((2e-4, 6.5e-5, 6.5e-5), (10.0, 400.0, 400.0)):
        volume = make_volume(rng, 3, affine=Affine.of_spacing(spacing))
        path = tmp_path / f"{spacing[0]}{suffix}"
        write_volume(path, [volume], description={})
        np.testing.assert_allclose(read_volume(path).spacing, spacing, rtol=1e-6)


@pytest.mark.parametrize("suffix", [".ome.tif", ".nii", ".nii.gz", ".ome.zarr"])
def test_turned_lazy_volume_is_written_as_it_reads(rng, tmp_path, suffix):
    turned, _ = orient(make_volume(rng, 3, affine=AFFINES["sagittal"]), "LPS")
    whole = turned.data[tuple(slice(0, n) for n in turned.shape)]
    write_volume(tmp_path / f"a{suffix}", [turned], description={})
    back = read_volume(tmp_path / f"a{suffix}")
    assert difference(back, Volume(whole, turned.affine, "millimeter")) == ""


@pytest.mark.parametrize("suffix", WRITABLE)
def test_description_reads_back(rng, tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_volume(path, [make_volume(rng, 2)], description=DESCRIPTION)
    assert read_description(path) == DESCRIPTION


@pytest.mark.parametrize("suffix", [".ome.tif", ".nii", ".ome.zarr"])
def test_big_endian_data_is_written(rng, tmp_path, suffix):
    volume = make_volume(rng, 3)
    swapped = Volume(volume.data.astype(">i2"), volume.affine, volume.unit)
    assert difference(round_trip(swapped, tmp_path / f"a{suffix}"), volume) == ""


@pytest.mark.parametrize("suffix", [".ome.tif", ".nii", ".nii.gz", ".ome.zarr"])
def test_slices_of_a_read_image_equal_slices_of_the_whole(rng, tmp_path, suffix):
    volume = make_volume(rng, 3)
    back = round_trip(volume, tmp_path / f"a{suffix}")
    key = (slice(2, 9), slice(30, 37), slice(0, 1))
    np.testing.assert_array_equal(np.asarray(back.data[key]), volume.data[key])
    assert back.shape == SHAPE[3]
