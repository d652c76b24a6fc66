"""DICOM files with many frames: the volume that they are, or why they are none."""

from __future__ import annotations

import contextlib
import tracemalloc
import warnings

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from napari_msgan.errors import VolumeError
from napari_msgan.io import images_in, read_geometry, read_volume
from napari_msgan.io._dicom_elements import read_elements, read_sequence_item
from tests.io.dicom import AXIAL, SAGITTAL, dataset, of_frames, places_of, write, write_series
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


@pytest.mark.parametrize("kind", ["signed", "implicit", "undefined lengths"])
def test_files_may_be_written_in_many_ways(kind, stored, tmp_path):
    if kind == "signed":
        stored = stored.astype(np.int16) - 2000
    made = enhanced(stored)
    if kind == "undefined lengths":
        made["PerFrameFunctionalGroupsSequence"].is_undefined_length = True
    syntax = ImplicitVRLittleEndian if kind == "implicit" else ExplicitVRLittleEndian
    file = write(tmp_path / "a.dcm", made, syntax)
    check_is_as_in_itk(read_volume(file), SimpleITK.ReadImage(file))


def test_a_group_of_its_own_comes_before_that_of_all(stored, tmp_path):
    places = [place | {"PixelSpacing": [0.4, 0.3]} for place in places_of(5)]
    volume = read_volume(write(tmp_path / "a.dcm", enhanced(stored, places)))
    assert volume.spacing == pytest.approx((2.5, 0.4, 0.3))


def test_groups_say_nothing_of_how_pixels_are_stored(stored, tmp_path):
    made = enhanced(stored)
    made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].BitsAllocated = 8
    made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].Modality = "DX"
    volume = read_volume(write(tmp_path / "a.dcm", made))
    np.testing.assert_array_equal(volume.data, stored.astype(int) - 1024)


def _parts(stored, folder, total=2):
    """Write frames that lie between each other into two files."""
    for number, chosen in enumerate((slice(0, None, 2), slice(1, None, 2))):
        made = enhanced(stored[chosen], places_of(len(stored))[chosen])
        made.ConcatenationUID, made.InConcatenationTotalNumber = "1.2.9", total
        write(folder / f"{number}.dcm", made)


def test_a_volume_may_lie_in_several_files(stored, tmp_path, monkeypatch):
    _parts(stored, tmp_path / "ct")
    reads = []

    def counting(*arguments, **settings):
        reads.append(arguments)
        return read_elements(*arguments, **settings)

    monkeypatch.setattr("napari_msgan.io._dicom_pixels.read_elements", counting)
    assert images_in(tmp_path) == [tmp_path / "ct"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        volume = read_volume(tmp_path / "ct")
    np.testing.assert_array_equal(volume.data, stored.astype(int) - 1024)
    assert len(reads) == 2
    with pytest.warns(UserWarning, match="part of a volume in several files"):
        read_volume(tmp_path / "ct" / "0.dcm")
    _parts(stored, tmp_path / "lost", total=3)
    with pytest.warns(UserWarning, match="2 of the 3 files of a volume are there"):
        read_volume(tmp_path / "lost")


def test_a_slice_beside_volumes_does_not_make_a_series_of_them(stored, tmp_path):
    files = [write(tmp_path / f"{name}.dcm", enhanced(stored)) for name in "abc"]
    shown = write(tmp_path / "z.dcm", dataset(stored[0]))
    assert images_in(tmp_path) == [*files, shown]
    write(tmp_path / "one" / "a.dcm", enhanced(stored))
    localiser = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": "1.2.3"}
    write(tmp_path / "one" / "z.dcm", dataset(stored[0], **localiser))
    assert tmp_path / "one" in images_in(tmp_path)
    with pytest.warns(UserWarning, match="z.dcm is a localiser"):
        assert read_volume(tmp_path / "one").data.shape == SHAPE


@pytest.mark.parametrize("count", [3, 60_000])
def test_a_film_beside_slices_is_left_out_whatever_its_size(count, stored, tmp_path):
    write_series(tmp_path, stored)
    write(tmp_path / "z.dcm", dataset(stored[0], NumberOfFrames=count, Modality="XA"))
    with pytest.warns(UserWarning, match="1 file.* left out.*as those of a film"):
        assert read_volume(tmp_path).data.shape == SHAPE


def test_one_image_may_count_no_frames(stored, tmp_path):
    file = write(tmp_path / "a.dcm", dataset(stored[0], NumberOfFrames=0, Modality="CR"))
    np.testing.assert_array_equal(read_volume(file).data, stored[0])


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
        return read_elements(*arguments, **settings)

    monkeypatch.setattr("napari_msgan.io._dicom_pixels.read_elements", counting)
    read_volume(file)
    assert len(reads) == 1


def test_one_frame_is_one_image_and_told_to_be_a_part(stored, tmp_path):
    file = write(tmp_path / "a.dcm", enhanced(stored[:1]))
    with pytest.warns(UserWarning, match="one image of a CT; give the folder"):
        volume = read_volume(file)
    np.testing.assert_array_equal(volume.data, stored[0].astype(int) - 1024)
    assert volume.spacing == pytest.approx((0.8, 0.6))


def test_a_ct_of_another_unit_is_told(stored, tmp_path):
    file = write(tmp_path / "a.dcm", enhanced(stored, RescaleType="Z_EFF"))
    with pytest.warns(UserWarning, match="Hounsfield units .*RescaleType is another"):
        read_volume(file)


def test_no_more_frames_are_parsed_than_there_are(stored, tmp_path, monkeypatch):
    """A million empty items take 8 MB of a file, and more than a GB of memory."""
    made = enhanced(stored[:1])
    made.add_new(0x52009230, "UN", b"\xfe\xff\x00\xe0\x00\x00\x00\x00" * 1_000_000)
    file = write(tmp_path / "a.dcm", made, ImplicitVRLittleEndian)
    parsed = []

    def counting(*arguments):
        parsed.append(arguments)
        return read_sequence_item(*arguments)

    monkeypatch.setattr("napari_msgan.io._dicom_elements.read_sequence_item", counting)
    with pytest.raises(VolumeError, match="1 frames, but describes more"):
        read_volume(file)
    assert len(parsed) < 5


def test_a_header_without_end_is_refused(stored, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_msgan.io._dicom_elements._MOST_READS", 1000)
    made = enhanced(stored)
    made.PerFrameFunctionalGroupsSequence = [Dataset()] * 1000
    made["PerFrameFunctionalGroupsSequence"].is_undefined_length = True
    with pytest.raises(VolumeError, match="too many elements"):
        read_volume(write(tmp_path / "a.dcm", made))
    read_volume(write(tmp_path / "b.dcm", enhanced(stored)))


@pytest.mark.parametrize(
    "tag", [b"\xe0\x7f\x10\x00", b"\x00\x52\x30\x92"], ids=["pixels", "groups"]
)
def test_no_room_is_made_for_what_a_length_declares(tag, stored, tmp_path):
    """Lengths have 32 bits, and pydicom asks for as many bytes."""
    file = write(tmp_path / "a.dcm", enhanced(stored), ImplicitVRLittleEndian)
    content = bytearray(file.read_bytes())
    at = content.find(tag)
    content[at + 4 : at + 8] = b"\xfe\xff\xff\xff"
    file.write_bytes(content)
    tracemalloc.start()
    with contextlib.suppress(VolumeError):  # all pixels are there, whatever their length
        read_volume(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24


def test_frames_that_an_archive_did_not_know_are_found(stored, tmp_path):
    """It wrote their groups as unknown (UN)."""
    many = np.repeat(stored, 300, axis=0)
    inner = write(tmp_path / "a.dcm", enhanced(many), ImplicitVRLittleEndian)
    groups = pydicom.dcmread(inner).get_item("PerFrameFunctionalGroupsSequence").value
    assert len(groups) > 2**16
    made = enhanced(many)
    made.add_new(0x52009230, "UN", groups)
    file = write(tmp_path / "b.dcm", made)
    np.testing.assert_array_equal(read_volume(file).data, many.astype(int) - 1024)


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
