from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from napari_msgan.errors import VolumeError
from napari_msgan.geometry import Affine
from napari_msgan.io import read_volume, write_volume
from napari_msgan.volume import Volume
from tests.io.helpers import AFFINES, make_volume, rotation

if TYPE_CHECKING:
    from pathlib import Path

INDICES = [(0, 0, 0), (10, 36, 44), (3, 5, 7)]
RAS = np.diag([0.5, 0.6, 2.0, 1.0])


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = RAS, **header) -> Path:
    image = nib.Nifti1Image(data, affine)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path


def edit_header(path: Path, **fields) -> Path:
    """Overwrite fields of a header where nibabel would not let us."""
    header = nib.load(path).header.copy()
    for key, value in fields.items():
        header[key] = value
    raw = bytearray(path.read_bytes())
    header["vox_offset"] = 352
    raw[:348] = header.binaryblock[:348]
    path.write_bytes(raw)
    return path


def assert_same_world(ours: Volume, theirs: sitk.Image, *, atol: float = 1e-4) -> None:
    """Compare positions: SimpleITK's world is (L, P, S), ours (S, P, L)."""
    for index in INDICES:
        expected = theirs.TransformIndexToPhysicalPoint(index[::-1])
        np.testing.assert_allclose(ours.affine.at(index)[::-1], expected, rtol=0, atol=atol)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_simpleitk_finds_our_voxels_at_the_same_place(rng, tmp_path, suffix, affine):
    volume, path = make_volume(rng, 3, affine=affine), tmp_path / f"a{suffix}"
    write_volume(path, [volume], description={})
    image = sitk.ReadImage(path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), volume.data)
    np.testing.assert_allclose(image.GetSpacing()[::-1], volume.spacing, rtol=1e-6)
    assert_same_world(volume, image)


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_volume_that_simpleitk_wrote_lies_at_the_same_place(rng, tmp_path, affine):
    data = rng.integers(0, 99, (11, 37, 45), "int16")
    image = sitk.GetImageFromArray(data)
    image.SetSpacing(affine.spacing[::-1])
    image.SetOrigin(affine.origin[::-1])
    direction = affine.matrix[:3, :3] / affine.spacing
    image.SetDirection(direction[::-1, ::-1].ravel().tolist())
    sitk.WriteImage(image, tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(volume.data, data)
    np.testing.assert_allclose(volume.affine.matrix, affine.matrix, rtol=0, atol=1e-4)
    assert_same_world(volume, image)


def test_comparison_with_simpleitk_finds_a_wrong_spacing_and_a_flip(rng, tmp_path):
    volume = make_volume(rng, 3, affine=AFFINES["oblique"])
    write_volume(tmp_path / "a.nii", [volume], description={})
    image = sitk.ReadImage(tmp_path / "a.nii")
    for wrong in (np.diag([1.001, 1, 1, 1]), np.diag([1, 1, -1, 1])):
        moved = Volume(volume.data, Affine(volume.affine.matrix @ wrong), "millimeter")
        with pytest.raises(AssertionError):
            assert_same_world(moved, image)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_nibabel_reads_what_we_wrote(rng, tmp_path, suffix, affine):
    volume, path = make_volume(rng, 3, affine=affine), tmp_path / f"a{suffix}"
    write_volume(path, [volume], description={"synthetic": True})
    image = nib.load(path)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), np.transpose(volume.data))
    assert image.get_data_dtype() == np.int16
    for index in INDICES:
        s, p, left = volume.affine.at(index)
        ras = nib.affines.apply_affine(image.affine, index[::-1])
        np.testing.assert_allclose(ras, [-left, -p, s], rtol=0, atol=1e-4)
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), rtol=0, atol=1e-3)
    header = image.header
    assert header.get_xyzt_units()[0] == "mm"
    assert (header["sform_code"], header["qform_code"]) == (1, 1)
    assert header["descrip"].item() == b"SYNTHETIC, made by napari-msgan, not for diagnosis"
    assert header.extensions.get_codes() == [6]  # a comment


@pytest.mark.parametrize("directions", AFFINES)
@pytest.mark.parametrize("tilt", [0.4, 0.01])
def test_sheared_affine_is_kept_in_the_sform_alone(rng, tmp_path, directions, tilt):
    shear = np.eye(4)
    shear[0, 1] = tilt  # of the gantry
    matrix = AFFINES[directions].matrix @ shear
    volume = make_volume(rng, 3, affine=Affine(matrix))
    write_volume(tmp_path / "a.nii", [volume], description={})
    header = nib.load(tmp_path / "a.nii").header
    assert (header["sform_code"], header["qform_code"]) == (1, 0)
    assert read_volume(tmp_path / "a.nii").affine == volume.affine


def test_equal_images_make_equal_compressed_files(rng, tmp_path):
    volume = make_volume(rng, 3)
    for name in ("a.nii.gz", "b.nii.gz"):
        write_volume(tmp_path / name, [volume], description={})
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert (tmp_path / "a.nii.gz").read_bytes()[3:8] == bytes(5)  # no name, no time


@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_large_image_is_packed_piece_by_piece(tmp_path, monkeypatch, dtype):
    written, write = [], gzip.GzipFile.write

    def note(self, content):
        written.append(memoryview(content).nbytes)
        return write(self, content)

    monkeypatch.setattr(gzip.GzipFile, "write", note)
    image = Volume(np.zeros((40, 500, 500), dtype), Affine(np.eye(4)), "millimeter")
    write_volume(tmp_path / "a.nii.gz", [image], description={})
    assert sum(written[-3:]) > 8 << 20  # more than a piece
    assert max(written) <= 8 << 20


def test_header_changed_by_another_program_wins_over_our_note(rng, tmp_path):
    write_volume(tmp_path / "a.nii", [make_volume(rng, 3)], description={"seed": 1})
    image = nib.load(tmp_path / "a.nii")
    moved = image.affine.copy()
    moved[:3, 3] += 5
    image.set_sform(moved, 1)
    nib.save(image, tmp_path / "b.nii")
    assert len(nib.load(tmp_path / "b.nii").header.extensions) == 1
    origin = np.array(read_volume(tmp_path / "a.nii").affine.origin)
    np.testing.assert_allclose(
        read_volume(tmp_path / "b.nii").affine.origin, origin + np.array([5, -5, -5]), atol=1e-4
    )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("slope", "inter", "dtype"),
    [(1, 0, "int16"), (1, -1024, "int32"), (2, 0, "int32"), (1600 / 255, -7.5, "float32")],
    ids=str,
)
def test_scaled_values_equal_those_of_nibabel(rng, tmp_path, order, suffix, slope, inter, dtype):
    stored = rng.integers(-2000, 2000, (6, 5, 4)).astype(f"{order}i2")
    path = tmp_path / f"a{suffix}"
    image = nib.Nifti1Image(stored, RAS, nib.Nifti1Header(endianness=order))
    image.header.set_data_dtype(stored.dtype)
    image.header.set_slope_inter(slope, inter)
    # The stored numbers as they are: nibabel would divide by the slope.
    with (gzip.open if suffix == ".nii.gz" else open)(path, "wb") as file:
        image.header["vox_offset"] = 352
        image.header.write_to(file)
        file.write(stored.tobytes(order="F"))
    volume = read_volume(path)
    assert volume.data.dtype == np.dtype(dtype)
    assert volume.data.dtype.isnative
    expected = np.asanyarray(nib.load(path).dataobj).T
    np.testing.assert_allclose(np.asarray(volume.data), expected, rtol=2e-6)
    key = (slice(1, 3), slice(0, 5), slice(2, 3))
    np.testing.assert_allclose(np.asarray(volume.data[key]), expected[key], rtol=2e-6)


@pytest.mark.parametrize(
    ("stored", "slope", "inter", "dtype"),
    [
        ("uint8", 1, -128, "int8"),
        ("uint8", -1, 255, "uint8"),
        ("uint16", 1, -1024, "int32"),
        ("uint32", 2, -5, "int64"),
        ("int32", 0.5, 0, "float64"),
        ("float32", 2, 1, "float32"),
    ],
)
def test_scaled_type_holds_every_value(tmp_path, stored, slope, inter, dtype):
    limits = np.iinfo(stored) if stored[0] != "f" else np.finfo("f2")
    data = np.array([limits.min, limits.max, 1, 2], stored).reshape(4, 1, 1)
    path = edit_header(save(tmp_path / "a.nii", data), scl_slope=slope, scl_inter=inter)
    values = np.asarray(read_volume(path).data)
    assert values.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(values.ravel(), data.ravel().astype("f8") * slope + inter)


def test_uncompressed_image_stays_in_the_file(tmp_path):
    volume = read_volume(save(tmp_path / "a.nii", np.ones((6, 5, 4), "int16")))
    assert isinstance(volume.data, np.memmap)
    assert volume.shape == (4, 5, 6)
    np.testing.assert_allclose(volume.spacing, (2.0, 0.6, 0.5), rtol=1e-6)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 1, 1)], ids=str)
def test_single_axial_slice_is_a_2d_image(rng, tmp_path, shape):
    data = rng.integers(0, 99, shape, "int16")
    volume = read_volume(save(tmp_path / "a.nii", data))
    assert volume.axes == ("y", "x")
    np.testing.assert_array_equal(volume.data, data.reshape(6, 5).T)
    np.testing.assert_allclose(volume.affine.matrix, np.diag([-0.6, -0.5, 1]), rtol=1e-6)


def test_single_axial_slice_may_be_turned_in_its_plane(tmp_path):
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]]
    volume = read_volume(save(tmp_path / "a.nii", np.ones((6, 5, 1), "int16"), turned @ RAS))
    np.testing.assert_allclose(volume.spacing, (0.6, 0.5), rtol=1e-6)
    # row 0, column 1 lies 0.5 mm from the first pixel, to the right and to the front
    np.testing.assert_allclose(
        volume.affine.at((0, 1)), (-0.5 * np.sin(0.4), -0.5 * np.cos(0.4)), rtol=1e-6
    )


def test_single_slice_that_is_not_axial_keeps_its_pixel_size_and_warns(tmp_path):
    coronal = RAS[[0, 2, 1, 3]]
    path = save(tmp_path / "a.nii", np.ones((6, 5, 1), "int16"), coronal)
    with pytest.warns(UserWarning, match="not axial"):
        volume = read_volume(path)
    np.testing.assert_allclose(volume.affine.matrix, np.diag([0.6, 0.5, 1]), rtol=1e-6)


def test_time_axis_of_length_one_is_dropped(tmp_path):
    assert read_volume(save(tmp_path / "a.nii", np.ones((6, 5, 4, 1)))).shape == (4, 5, 6)


def test_time_series_is_refused_with_advice(tmp_path):
    path = save(tmp_path / "a.nii.gz", np.ones((6, 5, 4, 3), "int16"))
    with pytest.raises(VolumeError, match=r"holds 3 volumes.*slicer\[\.\.\., 0\]"):
        read_volume(path)


def test_missing_orientation_warns_and_keeps_the_voxel_size(tmp_path):
    path = save(tmp_path / "a.nii", np.ones((6, 5, 4), "int16"))
    edit_header(path, sform_code=0, qform_code=0)
    with pytest.warns(UserWarning, match="no orientation is stored"):
        volume = read_volume(path)
    np.testing.assert_allclose(volume.spacing, (2.0, 0.6, 0.5), rtol=1e-6)
    assert volume.unit == "millimeter"


def test_missing_orientation_and_voxel_size_warns_and_counts_voxels(tmp_path):
    path = save(tmp_path / "a.nii", np.ones((6, 5, 4), "int16"))
    edit_header(path, sform_code=0, qform_code=0, pixdim=[1, 0.5, np.nan, 2, 0, 0, 0, 0])
    with pytest.warns(UserWarning, match="no orientation is stored, and no voxel size"):
        volume = read_volume(path)
    assert (volume.unit, volume.spacing) == ("pixel", (1, 1, 1))


def test_missing_voxel_size_does_no_harm_where_the_orientation_has_it(tmp_path):
    path = save(tmp_path / "a.nii", np.ones((6, 5, 4), "int16"))
    edit_header(path, pixdim=[1, 0.5, np.nan, 2, 0, 0, 0, 0])
    np.testing.assert_allclose(read_volume(path).spacing, (2.0, 0.6, 0.5), rtol=1e-6)


@pytest.mark.parametrize("qform", [True, False])
def test_singular_sform_gives_way_to_the_qform_or_the_voxel_size(tmp_path, qform):
    image = nib.Nifti1Image(np.ones((6, 5, 4), "int16"), RAS)
    image.set_qform(RAS, 1 if qform else 0)
    nib.save(image, tmp_path / "a.nii")
    path = edit_header(tmp_path / "a.nii", srow_x=[0, 0, 0, 0])
    if qform:
        volume = read_volume(path)
    else:
        with pytest.warns(UserWarning, match="the orientation is wrong"):
            volume = read_volume(path)
    np.testing.assert_allclose(volume.spacing, (2.0, 0.6, 0.5), rtol=1e-6)


@pytest.mark.parametrize(("unit", "mm"), [(1, 1000), (2, 1), (3, 0.001), (0, 1)])
def test_units_become_millimetres(tmp_path, unit, mm):
    path = save(tmp_path / "a.nii", np.ones((6, 5, 4), "int16"), xyzt_units=unit)
    np.testing.assert_allclose(read_volume(path).spacing, np.array([2.0, 0.6, 0.5]) * mm, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["complex64", [("R", "u1"), ("G", "u1"), ("B", "u1")]], ids=str)
def test_complex_and_colour_voxels_are_refused(tmp_path, dtype):
    path = save(tmp_path / "a.nii", np.zeros((6, 5, 4), dtype))
    with pytest.raises(VolumeError, match="voxels of type"):
        read_volume(path)


def test_image_of_nan_alone_is_refused_but_some_nan_is_not(tmp_path):
    data = np.full((6, 5, 4), np.nan, "float32")
    with pytest.raises(VolumeError, match="every voxel is NaN"):
        read_volume(save(tmp_path / "a.nii", data))
    data[5, 4, 3] = 1
    assert read_volume(save(tmp_path / "b.nii", data)).shape == (4, 5, 6)


def test_header_that_declares_too_much_is_refused_before_it_is_read(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_dtype("float64")
    header.set_data_shape((32767, 32767, 32767))
    header["vox_offset"] = 352
    with gzip.open(tmp_path / "a.nii.gz", "wb") as file:
        header.write_to(file)
    with pytest.raises(VolumeError, match=r"declares 262120.* GiB"):
        read_volume(tmp_path / "a.nii.gz")


def test_type_that_nifti_lacks_is_refused(rng, tmp_path):
    with pytest.raises(VolumeError, match="NIfTI cannot store voxels of type float16"):
        write_volume(tmp_path / "a.nii", [make_volume(rng, 3, "float16")], description={})


def test_rotation_used_in_these_tests_is_a_rotation():
    turn = rotation(15, 0) @ rotation(-33, 2)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)


def test_only_what_is_synthetic_is_called_so(rng, tmp_path):
    said = {}
    for content in ("sketch", "image"):
        path = tmp_path / f"{content}.nii"
        write_volume(path, [make_volume(rng, 3)], description={"content": content})
        said[content] = nib.load(path).header["descrip"].item().decode()
    assert (
        said["sketch"]
        == "Edges by napari-msgan: those of a patient's image are that patient's data"
    )
    assert said["image"] == "Written by napari-msgan"


def test_sform_comes_before_the_qform(tmp_path):
    image = nib.Nifti1Image(np.ones((6, 5, 4), "int16"), np.diag([0.5, 0.6, 2.0, 1.0]))
    image.set_qform(np.diag([1.0, 1.0, 1.0, 1.0]), 1)
    image.set_sform(np.diag([0.5, 0.6, 2.0, 1.0]), 1)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii").spacing, (2.0, 0.6, 0.5), rtol=1e-6)
