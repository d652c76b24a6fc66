"""DICOM files with many frames: the volume that they are, or why they are none."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import SimpleITK
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from napari_msgan.errors import VolumeError
from napari_msgan.io import images_in, read_geometry, read_volume
from napari_msgan.io._dicom_pixels import dcmread
from tests.io.dicom import AXIAL, SAGITTAL, of_frames, places_of, write, write_series
from tests.io.test_dicom import FRAMES, OBLIQUE, SHAPE, check_is_as_in_itk

SHARED = {"PixelSpacing": [0.8, 0.6], "SliceThickness": 2.5}
HOUNSFIELD = {"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"}


@pytest.fixture
def stored():
    return np.random.default_rng(0).integers(0, 4096, SHAPE).astype(np.uint16)


def enhanced(stored, places=None, directions=AXIAL, **elements):
    places = places_of(len(stored), directions) if places is None else places
    shared = SHARED | HOUNSFIELD | {"ImageOrientationPatient": list(directions)} | elements
    return of_frames(stored, places, **shared)


@pytest.mark.parametrize("directions", [AXIAL, SAGITTAL, OBLIQUE], ids=str)
def test_frames_have_the_voxels_and_places_that_another_reader_finds(directions, stored, tmp_path):
    file = write(tmp_path / "a.dcm", enhanced(stored, directions=directions))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is complete: nothing is to be told
        volume = read_volume(file)
    check_is_as_in_itk(volume, SimpleITK.ReadImage(file))


def test_frames_in_any_order_are_the_volume_of_a_series(stored, tmp_path):
    write_series(tmp_path / "ct", stored)
    series = read_volume(tmp_path / "ct")
    order = [3, 0, 4, 1, 2]
    places = [places_of(len(stored))[number] for number in order]
    volume = read_volume(write(tmp_path / "a.dcm", enhanced(stored[order], places)))
    np.testing.assert_array_equal(volume.data, series.data)
    assert (volume.affine, volume.unit) == (series.affine, "millimeter")
    empty, _ = read_geometry(tmp_path / "a.dcm")
    assert (empty.shape, empty.affine, empty.data.dtype) == (SHAPE, series.affine, np.int16)


def test_a_folder_of_one_such_file_is_its_volume(stored, tmp_path):
    write(tmp_path / "ct" / "a.dcm", enhanced(stored))
    assert read_volume(tmp_path / "ct").data.shape == SHAPE


def test_each_of_several_such_files_is_an_image_of_its_own(stored, tmp_path):
    files = [write(tmp_path / name, enhanced(stored)) for name in ("a.dcm", "b.dcm")]
    assert images_in(tmp_path) == files
    write_series(tmp_path / "ct", stored)
    assert images_in(tmp_path) == [*files, tmp_path / "ct"]


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, RLELossless], ids=str)
def test_compressed_frames_are_unpacked_and_a_lost_one_is_found(syntax, stored, tmp_path):
    frames = [bytes(FRAMES[syntax](image)) for image in stored]
    file = write(tmp_path / "a.dcm", enhanced(stored), syntax, frames)
    np.testing.assert_array_equal(read_volume(file).data, stored.astype(int) - 1024)
    file = write(tmp_path / "b.dcm", enhanced(stored), syntax, frames[:-1])
    with pytest.raises(VolumeError, match=r"b\.dcm"):
        read_volume(file)


def test_each_frame_may_have_its_own_slope(stored, tmp_path):
    places = [
        place | {"RescaleSlope": 1 + number, "RescaleIntercept": -number}
        for number, place in enumerate(places_of(len(stored)))
    ]
    volume = read_volume(write(tmp_path / "a.dcm", enhanced(stored, places)))
    numbers = np.arange(len(stored))[:, None, None]
    np.testing.assert_array_equal(volume.data, stored.astype(int) * (1 + numbers) - numbers)


def test_pixels_of_many_frames_are_read_once(stored, tmp_path, monkeypatch):
    file, reads = write(tmp_path / "a.dcm", enhanced(stored)), []

    def counting(*arguments, **settings):
        reads.append(settings)
        return dcmread(*arguments, **settings)

    monkeypatch.setattr("napari_msgan.io._dicom_pixels.dcmread", counting)
    read_volume(file)
    assert len(reads) == 1


def test_one_frame_is_one_image_and_told_to_be_a_part(stored, tmp_path):
    file = write(tmp_path / "a.dcm", enhanced(stored[:1]))
    with pytest.warns(UserWarning, match="one image of a CT; give the folder"):
        volume = read_volume(file)
    np.testing.assert_array_equal(volume.data, stored[0].astype(int) - 1024)
    assert volume.spacing == pytest.approx((0.8, 0.6))


BAD = {
    "two times": (
        {"places": [*places_of(3), *places_of(2)]},
        "several images in one place.*To split the file, convert it to NIfTI",
    ),
    "two directions": (
        {
            "places": [
                place | ({"ImageOrientationPatient": list(SAGITTAL)} if number == 3 else {})
                for number, place in enumerate(places_of(5))
            ]
        },
        r"frame 4, has another size, voxel size or direction than .*frame 1,.*To split the file",
    ),
    "a frame without a place": ({"places": [*places_of(4), {}]}, "do not all say where they lie"),
    "a lost frame": ({"places": [*places_of(3), *places_of(6)[4:]]}, "some are missing"),
}


@pytest.mark.parametrize(("elements", "text"), BAD.values(), ids=BAD)
def test_frames_that_are_no_volume_are_refused(elements, text, stored, tmp_path):
    file = write(tmp_path / "a.dcm", enhanced(stored, **elements))
    with pytest.raises(VolumeError, match=text) as refusal:
        read_volume(file)
    assert "a.dcm" in str(refusal.value)


def test_a_ct_of_frames_without_hounsfield_units_is_told(stored, tmp_path):
    made = of_frames(stored, places_of(5), ImageOrientationPatient=list(AXIAL), **SHARED)
    with pytest.warns(UserWarning, match="Hounsfield units"):
        read_volume(write(tmp_path / "a.dcm", made))
