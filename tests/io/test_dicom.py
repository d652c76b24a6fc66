"""DICOM: the voxels and places that another reader finds, and what is refused."""

from __future__ import annotations

import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom import Dataset
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from napari_msgan.errors import VolumeError
from napari_msgan.geometry import Affine
from napari_msgan.io import READABLE, format_of, read_geometry, read_volume, readable_text
from napari_msgan.io._dicom_files import dicom_files
from tests.io.dicom import AXIAL, SAGITTAL, dataset, write, write_series

SHAPE = (5, 12, 9)
OBLIQUE = (0.8, 0.6, 0, 0, 0, -1)


@pytest.fixture
def stored():
    return np.random.default_rng(0).integers(0, 4096, SHAPE).astype(np.uint16)


def voxels(path):
    return np.asarray(read_volume(path).data)


def read_by_itk(folder):
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def check_is_as_in_itk(volume, image):
    """Compare voxels and where they lie with those of another reader."""
    np.testing.assert_array_equal(volume.data, SimpleITK.GetArrayFromImage(image))
    for index in ((0, 0, 0), (4, 0, 0), (0, 11, 0), (0, 0, 8), (2, 3, 4)):
        theirs = image.TransformIndexToPhysicalPoint(index[::-1])
        np.testing.assert_allclose(volume.affine.at(index), theirs[::-1], atol=1e-6)


@pytest.mark.parametrize("directions", [AXIAL, SAGITTAL, OBLIQUE], ids=str)
def test_a_series_has_the_voxels_and_places_that_another_reader_finds(directions, stored, tmp_path):
    write_series(tmp_path / "ct", stored, directions=directions)
    volume, image = read_volume(tmp_path / "ct"), read_by_itk(tmp_path / "ct")
    assert volume.data.dtype == np.int16
    check_is_as_in_itk(volume, image)
    np.testing.assert_array_equal(volume.data, stored.astype(int) - 1024)
    assert volume.unit == "millimeter"


def test_geometry_is_read_without_pixels(stored, tmp_path):
    write_series(tmp_path / "ct", stored)
    whole = read_volume(tmp_path / "ct")
    empty, n_bytes = read_geometry(tmp_path / "ct")
    assert (empty.shape, empty.affine, empty.data.dtype) == (SHAPE, whole.affine, np.int16)
    assert n_bytes == 0  # what fits into memory needs no temporary file


@pytest.mark.parametrize("name", ["a.dcm", "IM0001"])
def test_a_file_is_one_image_whatever_its_name(name, stored, tmp_path):
    file = write(tmp_path / name, dataset(stored[0], Modality="DX", ImagerPixelSpacing=[0.2, 0.1]))
    volume = read_volume(file)
    assert (volume.affine, volume.unit) == (Affine.of_spacing((0.2, 0.1)), "millimeter")
    np.testing.assert_array_equal(volume.data, stored[0])
    plain = read_volume(write(tmp_path / "b.dcm", dataset(stored[1], Modality="CR")))
    assert (plain.affine, plain.unit) == (Affine(np.eye(3)), "pixel")


def test_of_a_series_one_file_is_told_to_be_a_part(stored, tmp_path):
    write_series(tmp_path, stored)
    with pytest.warns(UserWarning, match="one image of a CT; give the folder"):
        assert voxels(tmp_path / "0.dcm").shape == SHAPE[1:]


FRAMES = {
    JPEGLSLossless: imagecodecs.jpegls_encode,
    JPEG2000Lossless: lambda image: imagecodecs.jpeg2k_encode(image, level=0, codecformat="j2k"),
    JPEGLosslessSV1: lambda image: imagecodecs.ljpeg_encode(image, bitspersample=16),
    RLELossless: lambda image: RLELosslessEncoder.encode(
        image,
        rows=image.shape[0],
        columns=image.shape[1],
        samples_per_pixel=1,
        bits_allocated=16,
        bits_stored=12,
        pixel_representation=0,
        photometric_interpretation="MONOCHROME2",
        number_of_frames=1,
    ),
}


@pytest.mark.parametrize("syntax", FRAMES, ids=str)
def test_compressed_images_are_unpacked_and_damage_is_found(syntax, stored, tmp_path):
    frame = bytes(FRAMES[syntax](stored[0]))
    file = write(tmp_path / "a.dcm", dataset(stored[0], Modality="CR"), syntax, frame)
    np.testing.assert_array_equal(voxels(file), stored[0])
    file = write(tmp_path / "b.dcm", dataset(stored[0], Modality="CR"), syntax, frame[:60])
    with pytest.raises(VolumeError, match=r"b\.dcm"):
        read_volume(file)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1], ids=str)
def test_a_compressed_image_of_another_size_is_refused_before_it_is_unpacked(
    syntax, stored, tmp_path, monkeypatch
):
    frame = bytes(FRAMES[syntax](np.zeros((400, 300), np.uint16)))
    file = write(tmp_path / "a.dcm", dataset(stored[0], Modality="CR"), syntax, frame)
    for name in ("jpeg_decode", "jpegls_decode", "jpeg2k_decode"):
        monkeypatch.setattr(imagecodecs, name, None)
    with pytest.raises(VolumeError, match=r"\(400, 300\) of 1 colour.*header says \(12, 9\)"):
        read_volume(file)


def test_bits_above_those_that_count_are_no_part_of_a_number(stored, tmp_path):
    dirty = stored[0] | np.uint16(0xA000)
    np.testing.assert_array_equal(
        voxels(write(tmp_path / "a.dcm", dataset(dirty, Modality="CR"))), stored[0]
    )
    signed = (stored[0].astype(np.int16) << 4) >> 4  # of 12 bits
    assert signed.min() < -1000
    written = dataset((signed & 0x0FFF).astype(np.uint16), Modality="MG", PixelRepresentation=1)
    np.testing.assert_array_equal(voxels(write(tmp_path / "b.dcm", written)), signed)


def test_large_numbers_that_are_dark_are_turned_round(stored, tmp_path):
    dark = dataset(stored[0], Modality="DX", PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(voxels(write(tmp_path / "a.dcm", dark)), 4095 - stored[0])


def test_slices_keep_their_values_however_they_are_to_be_shown(stored, tmp_path):
    write_series(tmp_path, stored, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(voxels(tmp_path), stored.astype(int) - 1024)


def test_where_there_is_no_image_it_is_dark(stored, tmp_path):
    padded = stored.copy()
    padded[:, 0] = 63536  # of 12 bits it would be 2096
    write_series(tmp_path, padded, PixelPaddingValue=63536)
    values = voxels(tmp_path)
    assert (values[:, 0] == -1024).all()
    np.testing.assert_array_equal(values[:, 1:], stored[:, 1:].astype(int) - 1024)


def test_slopes_of_their_own_give_real_numbers(stored, tmp_path):
    slopes = [0.5, 0.25, 2, 1.5, 0.125]
    write_series(tmp_path, stored, Modality="PT", RescaleSlope=slopes, RescaleIntercept=0)
    values = voxels(tmp_path)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, stored * np.reshape(slopes, (-1, 1, 1)), rtol=1e-6)


@pytest.mark.parametrize(
    ("allocated", "bits", "is_signed", "slope", "intercept", "dtype"),
    [
        (8, 8, False, 1, 0, "uint8"),
        (8, 8, True, 1, 0, "int8"),
        (16, 8, False, -1, 0, "int16"),  # -255 to 0
        (16, 12, False, 1, -1024, "int16"),
        (16, 16, False, 1, 0, "uint16"),
        (16, 16, True, 1, 0, "int16"),
        (16, 16, True, 1, 1, "int32"),  # up to 32768
        (16, 16, False, 1, -1024, "int32"),
        (16, 16, True, 2, 0, "int32"),
        (32, 32, True, 1, 0, "int32"),
        (32, 32, False, 1, 0, "float32"),
        (16, 12, False, 0.5, 0, "float32"),
        (16, 12, False, 1, 0.5, "float32"),
    ],
    ids=str,
)
def test_voxels_have_the_smallest_type_for_what_the_header_allows(
    allocated, bits, is_signed, slope, intercept, dtype, tmp_path
):
    pixels = np.arange(12, dtype=f"{'i' if is_signed else 'u'}{allocated // 8}").reshape(3, 4)
    made = dataset(pixels, Modality="CR", BitsStored=bits, HighBit=bits - 1)
    made.RescaleSlope, made.RescaleIntercept = slope, intercept
    volume = read_volume(write(tmp_path / "a.dcm", made))
    assert volume.data.dtype == dtype
    np.testing.assert_array_equal(volume.data, slope * pixels.astype(float) + intercept)


def test_an_image_may_be_one_voxel_wide(stored, tmp_path):
    for name, pixels in (("row.dcm", stored[0, :1]), ("column.dcm", stored[0, :, :1])):
        made = dataset(pixels, Modality="CR")
        np.testing.assert_array_equal(voxels(write(tmp_path / name, made)), pixels)


@pytest.mark.parametrize("name", ["Rows", "Columns"])
def test_a_slice_without_its_size_does_not_go_unnoticed(name, stored, tmp_path):
    write_series(tmp_path, stored)
    file = write(tmp_path / "6.dcm", dataset(stored[0]))
    made = pydicom.dcmread(file)
    delattr(made, name)
    made.save_as(file)
    with pytest.raises(VolumeError, match="holds no image"):
        read_volume(file)
    with pytest.warns(UserWarning, match="6.dcm"):
        assert read_volume(tmp_path).shape == SHAPE


def test_tilted_slices_lie_where_they_were_and_are_told(stored, tmp_path):
    shifted = [[0, -3.0 * n, 2.5 * n] for n in range(SHAPE[0])]
    write_series(tmp_path, stored, ImagePositionPatient=shifted)
    with pytest.warns(UserWarning, match="tilted by 50.2 degrees"):
        volume = read_volume(tmp_path)
    np.testing.assert_allclose(volume.affine.at((4, 0, 0)), (10, -12, 0))


@pytest.mark.parametrize("content", [b"", b"what is left of a copy", None, 400])
def test_a_slice_that_is_lost_at_the_end_is_told(content, stored, tmp_path):
    write_series(tmp_path, stored)
    positions = {p: pydicom.dcmread(p).ImagePositionPatient[2] for p in tmp_path.iterdir()}
    last = max(positions, key=positions.get)
    if content is None:
        last.unlink()
        last.symlink_to("/no/where")
    else:
        last.write_bytes(last.read_bytes()[:content] if content == 400 else content)
    told = "holds no image" if content == 400 else f"such as {last.name}: empty, unreadable"
    with pytest.warns(UserWarning, match=told):
        assert read_volume(tmp_path).shape == (4, *SHAPE[1:])


def test_positions_may_be_rounded_to_a_tenth(stored, tmp_path):
    rounded = [[0, 0, round(1.25 * n + 1e-9, 1)] for n in range(SHAPE[0])]
    write_series(tmp_path, stored, ImagePositionPatient=rounded)
    assert read_volume(tmp_path).spacing[0] == pytest.approx(1.25, abs=0.02)


def test_what_else_lies_beside_slices_is_left_out_and_told(stored, tmp_path):
    write_series(tmp_path, stored)
    dose = dataset(stored[0], Modality="RTDOSE", NumberOfFrames=5, SeriesInstanceUID="9.1")
    sheet = dataset(stored[0], Modality="OT", PhotometricInterpretation="RGB", SamplesPerPixel=3)
    scout = dataset(stored[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    for name, other in {"dose.dcm": dose, "sheet.dcm": sheet, "scout.dcm": scout}.items():
        write(tmp_path / name, other)
    copy = (tmp_path / "0.dcm").read_bytes()
    (tmp_path / "0 (1).dcm").write_bytes(copy)
    with pytest.warns(UserWarning, match=r"3 file\(s\) are left out, such as this: .*dose.dcm"):
        assert read_volume(tmp_path).shape == SHAPE


def test_what_may_have_been_a_slice_is_told_from_what_never_was(stored, tmp_path):
    write_series(tmp_path, stored)
    contents = {"5": b"", "6.DCM": b"torn", "7": b"other", "8.txt": b"", "DICOMDIR": b""}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "9.dcm").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    found, doubtful = dicom_files(tmp_path)
    assert [path.name for path in found] == [f"{n}.dcm" for n in range(SHAPE[0])]
    assert [path.name for path in doubtful] == ["5", "6.DCM", "link"]


def test_slices_may_share_an_identifier(stored, tmp_path):
    write_series(tmp_path, stored, SOPInstanceUID="1.2.3.4")
    np.testing.assert_array_equal(read_volume(tmp_path).data, stored.astype(int) - 1024)


def test_a_ct_without_hounsfield_units_is_told(stored, tmp_path):
    write_series(tmp_path, stored, RescaleIntercept=None)
    with pytest.warns(UserWarning, match="Hounsfield"):
        np.testing.assert_array_equal(read_volume(tmp_path).data, stored)


BAD_SERIES = {
    "a slice is missing": (
        {"ImagePositionPatient": [[0, 0, z] for z in (0, 1, 2, 4, 5)]},
        "1 to 2",
    ),
    "one lies beside the others": (
        {"ImagePositionPatient": [[x, 0, z] for z, x in enumerate((0, 0, 30, 0, 0))]},
        "do not lie evenly on one line",
    ),
    "some lie elsewhere": (
        {"ImagePositionPatient": [[x, 0, z] for z, x in enumerate((0, 0, 0, 40, 40))]},
        "do not lie evenly on one line",
    ),
    "two in one place": (
        {"ImagePositionPatient": [[0, 0, z] for z in (0, 1, 1, 2, 3)]},
        "several images in one place",
    ),
    "two series": ({"SeriesInstanceUID": ["1.2", "1.2", "1.2", "1.3", "1.3"]}, "holds 2 series"),
    "another direction": (
        {"ImageOrientationPatient": [list(d) for d in (AXIAL, AXIAL, SAGITTAL, AXIAL, AXIAL)]},
        "not slices of one volume",
    ),
    "no direction": ({"ImageOrientationPatient": [[1, 0, 0, 1, 0, 0]] * 5}, "no right angle"),
    "no places": ({"ImagePositionPatient": [None] * 5}, "do not all say where they lie"),
}


@pytest.mark.parametrize(("elements", "text"), BAD_SERIES.values(), ids=BAD_SERIES)
def test_what_is_no_volume_is_refused(elements, text, stored, tmp_path):
    write_series(tmp_path, stored, **elements)
    with pytest.raises(VolumeError, match=text):
        read_volume(tmp_path)


BAD_FILES = {
    "a film": ({"NumberOfFrames": 3}, "holds 3 frames .* as those of a film"),
    "frames that are not described": (
        {"PerFrameFunctionalGroupsSequence": [Dataset(), Dataset()]},
        "has 1 frames, but describes more",
    ),
    "fewer frames than described": (
        {"PerFrameFunctionalGroupsSequence": [Dataset()], "NumberOfFrames": 3}
        | {"PixelData": bytes(3 * 12 * 9 * 2)},
        "has 3 frames, but describes only 1",
    ),
    "a number of frames that is none": ({"NumberOfFrames": "1e300"}, "NumberOfFrames is '1e300'"),
    "frames without places": (
        {"PerFrameFunctionalGroupsSequence": [Dataset()] * 3, "NumberOfFrames": 3}
        | {"PixelData": bytes(3 * 12 * 9 * 2)},
        "do not all say where they lie",
    ),
    "frames that are cut off": (
        {"PerFrameFunctionalGroupsSequence": [Dataset()] * 99, "NumberOfFrames": 99},
        "fewer than the 21384 of its pixels: cut off",
    ),
    "colours": ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "has colours"),
    "odd bits": ({"HighBit": 15}, "12 of 16 bits, up to bit 15"),
    "too few pixels": ({"PixelData": b"12"}, "cannot be read as DICOM"),
    "no pixels": ({"PixelData": None}, "no pixels"),
    "absurd size": ({"Rows": 60000, "Columns": 60000}, "cut off"),
    "a table of grey values": (
        {"ModalityLUTSequence": [Dataset()]},
        "ModalityLUTSequence, which is not read",
    ),
    "a dose": ({"Modality": "RTDOSE"}, "no image of a patient"),
    "a slope that is no number": ({"RescaleSlope": "inf"}, "RescaleSlope"),
}


@pytest.mark.parametrize(("elements", "text"), BAD_FILES.values(), ids=BAD_FILES)
def test_what_is_no_grey_image_is_refused(elements, text, stored, tmp_path):
    file = write(tmp_path / "a.dcm", dataset(stored[0], **{"Modality": "CR"} | elements))
    with pytest.raises(VolumeError, match=text) as refusal:
        read_volume(file)
    assert "a.dcm" in str(refusal.value)


def test_pixels_that_are_stored_in_an_unknown_way_are_refused(stored, tmp_path):
    encapsulated = "1.2.840.10008.1.2.1.98", stored[0].tobytes()
    file = write(tmp_path / "a.dcm", dataset(stored[0], Modality="CR"), *encapsulated)
    with pytest.raises(VolumeError, match=r"a\.dcm: its pixels are stored in an unknown way"):
        read_volume(file)


def test_no_room_is_made_for_more_than_a_file_can_hold(stored, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("room was made")

    monkeypatch.setattr("napari_msgan.io.dicom.empty_image", refuse)
    absurd = dataset(stored[0], Modality="CR", Rows=65000, Columns=65000)
    for syntax in (JPEG2000Lossless, "1.2.840.10008.1.2.1"):
        file = write(tmp_path / "a.dcm", absurd, syntax, b"12" if "4" in syntax[15:] else b"")
        with pytest.raises(VolumeError, match=r"cut off|damaged or incomplete"):
            read_volume(file)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless], ids=str)
def test_a_compressed_image_of_many_colours_is_refused_before_it_is_unpacked(
    syntax, stored, tmp_path, monkeypatch
):
    encode = {
        JPEGLSLossless: imagecodecs.jpegls_encode,
        JPEG2000Lossless: lambda image: imagecodecs.jpeg2k_encode(image, codecformat="j2k"),
    }[syntax]
    frame = bytes(encode(np.zeros((*SHAPE[1:], 3), np.uint8)))
    monkeypatch.setattr(imagecodecs, "jpegls_decode", None)
    monkeypatch.setattr(imagecodecs, "jpeg2k_decode", None)
    file = write(tmp_path / "a.dcm", dataset(stored[0], Modality="CR"), syntax, frame)
    with pytest.raises(VolumeError, match=r"of 3 colour\(s\)"):
        read_volume(file)


@pytest.mark.parametrize("end", [b"\xff", b"\0", b"\0\0"])
def test_a_jpeg_may_be_filled_up_behind_its_end(end, stored, tmp_path):
    frame = bytes(FRAMES[JPEGLosslessSV1](stored[0])) + end
    file = write(tmp_path / "a.dcm", dataset(stored[0], Modality="CR"), JPEGLosslessSV1, frame)
    np.testing.assert_array_equal(voxels(file), stored[0])


def test_reading_changes_no_setting_that_others_share(stored, tmp_path):
    write_series(tmp_path, stored)
    before = warnings.filters[:], pydicom.config.settings.reading_validation_mode

    def read(_):
        for _ in range(10):
            read_volume(tmp_path)

    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(read, range(4)))
    finally:
        sys.setswitchinterval(switching)
    assert (warnings.filters, pydicom.config.settings.reading_validation_mode) == before


def test_a_header_that_may_unpack_to_any_size_is_refused(stored, tmp_path):
    file = write(tmp_path / "a.dcm", dataset(stored[0]), "1.2.840.10008.1.2.1.99")
    with pytest.raises(VolumeError, match="deflated"):
        read_volume(file)


def test_folders_hold_other_files_too(stored, tmp_path):
    series = tmp_path / "patient" / "ct"
    write_series(series, stored)
    (series / "notes.txt").write_text("not an image")
    write(series / "DICOMDIR", dataset(stored[0]))
    report = dataset(stored[0], SeriesInstanceUID=generate_uid(), Modality="SR")
    del report.Rows, report.Columns, report.PixelData
    write(series / "report.dcm", report)
    assert read_volume(series).shape == SHAPE
    with pytest.raises(VolumeError, match="no image"):
        read_volume(series / "report.dcm")
    with pytest.raises(VolumeError, match=f"folders inside: give one series, such as {series}"):
        read_volume(tmp_path / "patient")


def test_a_link_that_leaves_the_folder_is_not_read(stored, tmp_path):
    write_series(tmp_path / "ct", stored)
    write(tmp_path / "secret.dcm", dataset(stored[0]))
    (tmp_path / "ct" / "link.dcm").symlink_to(tmp_path / "secret.dcm")
    with pytest.warns(UserWarning, match=r"1 file\(s\) are left out, such as link.dcm"):
        assert read_volume(tmp_path / "ct").shape == SHAPE


def test_a_large_series_is_unpacked_to_a_temporary_file(stored, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_msgan.io._unpacked.IN_MEMORY_BYTES", 100)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    write_series(tmp_path / "ct", stored)
    volume = read_volume(tmp_path / "ct")
    assert isinstance(volume.data, np.memmap)
    np.testing.assert_array_equal(volume.data, stored.astype(int) - 1024)
    assert [path.name for path in tmp_path.iterdir()] == ["ct"]


def test_nothing_is_said_of_a_plain_series(stored, tmp_path):
    write_series(tmp_path, stored)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_volume(tmp_path)
    assert format_of(tmp_path) == "dicom"
    assert ".dcm" in READABLE
    assert "DICOM series" in readable_text(tmp_path / "no.xyz")


def test_slices_of_another_voxel_size_are_no_volume(stored, tmp_path):
    sizes = [[0.8, 0.6], [0.8, 0.6], [0.9, 0.6], [0.8, 0.6], [0.8, 0.6]]
    write_series(tmp_path, stored, PixelSpacing=sizes)
    with pytest.raises(VolumeError, match="another size, voxel size or direction"):
        read_volume(tmp_path)


def test_voxel_size_in_the_patient_comes_before_that_on_the_detector(stored, tmp_path):
    made = dataset(
        stored[0], Modality="DX", ImagerPixelSpacing=[0.2, 0.1], PixelSpacing=[0.16, 0.08]
    )
    assert read_volume(write(tmp_path / "a.dcm", made)).affine == Affine.of_spacing((0.16, 0.08))


def test_signed_padding_is_the_darkest_number(stored, tmp_path):
    signed = stored.astype(np.int16) - 1024
    signed[:, 0] = -2000
    bits = {"PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15, "RescaleIntercept": 0}
    made = signed.view(np.uint16)
    write_series(tmp_path, made, PixelPaddingValue=-2000, **bits)
    values = np.asarray(read_volume(tmp_path).data)
    assert (values[:, 0] == -(2**15)).all()
    np.testing.assert_array_equal(values[:, 1:], signed[:, 1:])


@pytest.mark.parametrize(("slope", "darkest"), [(2, 0), (-2, -2 * 4095)])
def test_padding_is_dark_whatever_the_sign_of_the_slope(stored, tmp_path, slope, darkest):
    made = stored.astype(np.uint16) % 4000
    made[:, 0] = 4001
    write_series(tmp_path, made, PixelPaddingValue=4001, RescaleSlope=slope, RescaleIntercept=0)
    values = np.asarray(read_volume(tmp_path).data)
    assert (values[:, 0] == darkest).all()
    np.testing.assert_array_equal(values[:, 1:], slope * made[:, 1:].astype(int))


def test_signed_numbers_that_are_dark_are_turned_round(stored, tmp_path):
    signed = (stored[0].astype(np.int16) - 2048).view(np.uint16) & 0x0FFF
    made = dataset(
        signed, Modality="DX", PhotometricInterpretation="MONOCHROME1", PixelRepresentation=1
    )
    values = np.asarray(read_volume(write(tmp_path / "a.dcm", made)).data)
    np.testing.assert_array_equal(values, 2047 - stored[0].astype(int))


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"), [(20, 0, "uint32"), (1, -40000, "int32"), (-2, 5, "int16")]
)
def test_a_type_holds_the_values_of_a_slice_with_another_rescaling(
    slope, intercept, dtype, stored, tmp_path
):
    slopes, intercepts = [1, slope, 1, 1, 1], [0, intercept, 0, 0, 0]
    write_series(tmp_path, stored, Modality="MR", RescaleSlope=slopes, RescaleIntercept=intercepts)
    values = voxels(tmp_path)
    assert values.dtype == dtype
    expected = stored.astype(int)
    expected[1] = slope * expected[1] + intercept
    np.testing.assert_array_equal(values, expected)


def test_an_x_ray_beside_slices_is_left_out_and_told(stored, tmp_path):
    write_series(tmp_path, stored)
    write(tmp_path / "chest.dcm", dataset(stored[0], Modality="DX"))
    with pytest.warns(UserWarning, match=r"1 file\(s\) are left out.*chest\.dcm is not a slice"):
        assert read_volume(tmp_path).shape == SHAPE


@pytest.mark.parametrize("shift", [0.05, 0.1])
def test_thin_slices_lie_on_a_line_but_for_what_rounding_moves_them(shift, stored, tmp_path):
    places = [[shift * (number == 2), 0, number] for number in range(SHAPE[0])]
    write_series(tmp_path, stored, ImagePositionPatient=places)
    if shift < 0.06:
        assert read_volume(tmp_path).shape == SHAPE
    else:
        with pytest.raises(VolumeError, match="do not lie evenly on one line"):
            read_volume(tmp_path)
