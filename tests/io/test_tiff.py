from __future__ import annotations

import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_msgan.errors import VolumeError
from napari_msgan.geometry import Affine
from napari_msgan.io import read_description, read_volume, write_volume
from napari_msgan.volume import Volume
from tests.io.helpers import AFFINES, make_volume, rotation


@pytest.fixture
def stack(rng) -> np.ndarray:
    return rng.integers(0, 4000, (5, 40, 50), "uint16")


def ome_pixels(path) -> dict:
    with tifffile.TiffFile(path) as tif:
        return tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]


@pytest.mark.parametrize("suffix", [".tif", ".ome.tiff"])
def test_written_file_is_ome_tiff_with_voxel_sizes_in_millimetres(rng, tmp_path, suffix):
    volume = make_volume(rng, 3)
    write_volume(tmp_path / f"a{suffix}", [volume], description={})
    pixels = ome_pixels(tmp_path / f"a{suffix}")
    assert tuple(pixels[f"PhysicalSize{axis}"] for axis in "ZYX") == volume.spacing
    assert {pixels[f"PhysicalSize{axis}Unit"] for axis in "ZYX"} == {"mm"}
    assert [pixels[f"Size{axis}"] for axis in "TCZYX"] == [1, 1, 11, 37, 45]
    with tifffile.TiffFile(tmp_path / f"a{suffix}") as tif:
        assert tif.series[0].axes == "ZYX"
        assert tif.pages[0].is_tiled
        assert tif.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert tif.pages[0].get_resolution("MILLIMETER") == pytest.approx((1 / 0.6, 1 / 0.7))
        assert not tif.is_bigtiff
        np.testing.assert_array_equal(tif.asarray(), volume.data)


def test_image_of_more_than_4_gib_becomes_bigtiff(rng, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_msgan.io.tiff._CLASSIC_LIMIT", 1000)
    volume = make_volume(rng, 3)
    write_volume(tmp_path / "a.tif", [volume], description={})
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff
        np.testing.assert_array_equal(tif.asarray(), volume.data)


def test_image_of_several_tiles_reads_back(rng, tmp_path):
    volume = make_volume(rng, 2)
    big = type(volume)(rng.integers(0, 9, (300, 530), "uint8"), volume.affine, volume.unit)
    write_volume(tmp_path / "a.tif", [big], description={})
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), big.data)


def test_computer_that_wrote_a_file_is_not_told(rng, tmp_path):
    volume = make_volume(rng, 2)
    for name in "ab":
        write_volume(tmp_path / f"{name}.tif", [volume], description={})
    with tifffile.TiffFile(tmp_path / "a.tif") as a, tifffile.TiffFile(tmp_path / "b.tif") as b:
        nodes = [tifffile.xml2dict(t.ome_metadata)["OME"]["UUID"][-12:] for t in (a, b)]
    assert nodes[0] != nodes[1]  # uuid1, tifffile's own, ends in the network address


def test_rescaled_file_with_our_note_has_the_voxel_size_of_its_header(rng, tmp_path):
    write_volume(tmp_path / "a.tif", [make_volume(rng, 3)], description={})
    xml = tifffile.tiffcomment(tmp_path / "a.tif")
    changed = xml.replace('PhysicalSizeX="0.6"', 'PhysicalSizeX="1.2"')
    assert changed != xml
    tifffile.tiffcomment(tmp_path / "a.tif", changed)
    assert (
        read_volume(tmp_path / "a.tif").affine.matrix.tolist()
        == np.diag([2.5, 0.7, 1.2, 1]).tolist()
    )


@pytest.mark.parametrize(
    ("unit", "mm"), [("mm", 1), ("µm", 1e-3), (None, 1e-3), ("cm", 10), ("nm", 1e-6), ("m", 1e3)]
)
def test_ome_voxel_size_becomes_millimetres(tmp_path, stack, unit, mm):
    sizes = {"X": 0.5, "Y": 0.25, "Z": 2.0}
    metadata = {"axes": "ZYX"} | {f"PhysicalSize{a}": v for a, v in sizes.items()}
    if unit:
        metadata |= {f"PhysicalSize{a}Unit": unit for a in sizes}
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, metadata=metadata)
    volume = read_volume(tmp_path / "a.ome.tif")
    assert volume.unit == "millimeter"
    np.testing.assert_allclose(volume.spacing, np.array([2.0, 0.25, 0.5]) * mm, rtol=1e-12)
    np.testing.assert_array_equal(volume.data, stack)
    assert read_description(tmp_path / "a.ome.tif") is None


@pytest.mark.parametrize("unit", ["pixel", "reference frame"])
def test_ome_size_without_length_is_pixels(tmp_path, stack, unit):
    metadata = {"axes": "ZYX"}
    for axis in "XYZ":
        metadata |= {f"PhysicalSize{axis}": 3.0, f"PhysicalSize{axis}Unit": unit}
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, metadata=metadata)
    volume = read_volume(tmp_path / "a.ome.tif")
    assert (volume.unit, volume.spacing) == ("pixel", (1, 1, 1))


def test_missing_depth_warns_and_counts_voxels(tmp_path, stack):
    metadata = {"axes": "ZYX", "PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0}
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, metadata=metadata)
    with pytest.warns(UserWarning, match="lacks Z"):
        assert read_volume(tmp_path / "a.ome.tif").unit == "pixel"


@pytest.mark.parametrize("axes", ["TYX", "CYX", "TZYX", "ZCYX"])
def test_time_series_and_channels_are_refused_with_advice(tmp_path, stack, axes):
    data = (
        stack
        if len(axes) == 3
        else np.stack([stack, stack], axis=axes.index("T" if "T" in axes else "C"))
    )
    tifffile.imwrite(tmp_path / "a.ome.tif", data, metadata={"axes": axes})
    with pytest.raises(VolumeError, match=r"more than one 2-D or 3-D image.*Save one"):
        read_volume(tmp_path / "a.ome.tif")


@pytest.mark.parametrize(
    ("unit", "mm"), [("micron", 1e-3), ("um", 1e-3), ("\\u00B5m", 1e-3), ("mm", 1), ("inch", 25.4)]
)
def test_imagej_calibration_becomes_millimetres(tmp_path, stack, unit, mm):
    tifffile.imwrite(
        tmp_path / "a.tif",
        stack,
        imagej=True,
        resolution=(2.0, 4.0),
        metadata={"axes": "ZYX", "unit": unit, "spacing": 3.0},
    )
    volume = read_volume(tmp_path / "a.tif")
    assert volume.unit == "millimeter"
    np.testing.assert_allclose(volume.spacing, np.array([3, 0.25, 0.5]) * mm, rtol=1e-6)


def test_imagej_stack_without_calibration_is_pixels(tmp_path, stack):
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    assert read_volume(tmp_path / "a.tif").unit == "pixel"


def test_imagej_time_series_is_refused_with_the_way_to_swap_axes(tmp_path, stack):
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(VolumeError, match=r"5 along T.*Image > Properties"):
        read_volume(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("unit", "spacing"),
    [("CENTIMETER", (0.05, 0.1)), ("INCH", (0.127, 0.254)), ("NONE", (1, 1))],
)
def test_resolution_tags_of_a_plain_tiff_count_where_they_have_a_unit(
    tmp_path, stack, unit, spacing
):
    tifffile.imwrite(tmp_path / "a.tif", stack[0], resolution=(100, 200), resolutionunit=unit)
    volume = read_volume(tmp_path / "a.tif")
    np.testing.assert_allclose(volume.spacing, spacing, rtol=1e-6)
    assert volume.unit == ("pixel" if unit == "NONE" else "millimeter")


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_uncompressed_stack_stays_in_the_file(tmp_path, stack, byteorder):
    data = stack.astype(f"{byteorder}u2")
    tifffile.imwrite(tmp_path / "a.tif", data, byteorder=byteorder)
    volume = read_volume(tmp_path / "a.tif")
    assert volume.data.dtype.isnative
    np.testing.assert_array_equal(volume.data[1:3, 4:9, 5:6], stack[1:3, 4:9, 5:6])
    with (tmp_path / "a.tif").open("r+b") as file, tifffile.TiffFile(tmp_path / "a.tif") as tif:
        file.seek(tif.pages[0].dataoffsets[0])
        file.write(b"\x07\x07")
    assert volume.data[0:1, 0:1, 0:1].item() == 0x0707


@pytest.mark.parametrize("compression", ["zlib", "lzw", "zstd"])
def test_compressed_stack_reads_equal(tmp_path, stack, compression):
    tifffile.imwrite(tmp_path / "a.tif", stack, compression=compression)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").data, stack)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("depth", [0, 4])
def test_colours_become_luminance_with_a_warning(rng, tmp_path, planar, depth):
    shape = (*((depth,) if depth else ()), *((40, 50, 3) if planar == "contig" else (3, 40, 50)))
    data = rng.integers(0, 255, shape, "uint8")
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb", planarconfig=planar)
    with pytest.warns(UserWarning, match="luminance"):
        volume = read_volume(tmp_path / "a.tif")
    rgb = data if planar == "contig" else np.moveaxis(data, -3, -1)
    expected = np.rint(rgb @ [0.299, 0.587, 0.114])
    assert volume.data.dtype == np.uint8
    assert len(volume.shape) == (3 if depth else 2)
    np.testing.assert_allclose(np.asarray(volume.data), expected, atol=1)


def test_transparency_beside_colours_or_grey_is_ignored(rng, tmp_path):
    for n_channels, photometric in ((4, "rgb"), (2, "minisblack")):
        data = rng.integers(0, 255, (40, 50, n_channels), "uint8")
        options = {"photometric": photometric, "extrasamples": ["unassalpha"]}
        tifffile.imwrite(tmp_path / "a.tif", data, planarconfig="contig", **options)
        if photometric == "rgb":
            expected = np.rint(data[..., :3] @ [0.299, 0.587, 0.114])
            with pytest.warns(UserWarning, match="luminance"):
                volume = read_volume(tmp_path / "a.tif")
        else:
            expected, volume = data[..., 0], read_volume(tmp_path / "a.tif")
        np.testing.assert_allclose(np.asarray(volume.data), expected, atol=1)


def test_grey_picture_stored_in_colours_keeps_its_values(stack, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([stack[0]] * 3, -1), photometric="rgb")
    with pytest.warns(UserWarning, match="luminance"):
        np.testing.assert_array_equal(np.asarray(read_volume(tmp_path / "a.tif").data), stack[0])


def test_transparency_is_dropped_and_many_samples_are_refused(tmp_path, stack):
    two = np.stack([stack[0], stack[1]], -1)
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "a.tif", two, extrasamples=["unassalpha"], **options)
    np.testing.assert_array_equal(np.asarray(read_volume(tmp_path / "a.tif").data), stack[0])
    tifffile.imwrite(tmp_path / "b.tif", two, extrasamples=["unspecified"], **options)
    with pytest.raises(VolumeError, match="2 channels a pixel"):
        read_volume(tmp_path / "b.tif")


def test_inverted_radiograph_is_turned_the_right_way(tmp_path, stack):
    tifffile.imwrite(tmp_path / "a.tif", stack[0], photometric="miniswhite")
    with pytest.warns(UserWarning, match="MinIsWhite"):
        volume = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(np.asarray(volume.data), 65535 - stack[0])


def test_colour_table_is_ignored_with_a_warning(tmp_path):
    data = np.arange(200, dtype="uint8").reshape(10, 20)
    table = np.zeros((3, 256), "uint16")
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="palette", colormap=table)
    with pytest.warns(UserWarning, match="colour table"):
        np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").data, data)


def test_first_of_several_images_is_read_with_a_warning(tmp_path, stack):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(stack)
        tif.write(stack[0, :7, :8])
    with pytest.warns(UserWarning, match="first of 2"):
        np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").data, stack)


@pytest.mark.parametrize("dtype", ["bool", "complex64"])
def test_masks_and_complex_images_are_refused(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((8, 9), dtype))
    with pytest.raises(VolumeError, match=f"voxels of type {dtype}"):
        read_volume(tmp_path / "a.tif")


def test_header_that_declares_too_much_is_refused_before_it_is_read(tmp_path, stack):
    tifffile.imwrite(tmp_path / "a.tif", stack[0], compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tif:
        tif.pages[0].tags["ImageWidth"].overwrite(10**6)
        tif.pages[0].tags["ImageLength"].overwrite(10**6)
    with pytest.raises(VolumeError, match=r"declares 1862\.6 GiB"):
        read_volume(tmp_path / "a.tif")


def test_file_whose_voxel_size_was_cut_off_warns(rng, tmp_path):
    path = tmp_path / "a.tif"
    write_volume(path, [make_volume(rng, 2)], description={})
    path.write_bytes(path.read_bytes()[:-100])
    with (
        pytest.warns(UserWarning, match="may be incomplete or damaged: .*invalid value offset"),
        pytest.warns(UserWarning, match="entries of the header cannot be read"),
    ):
        assert read_volume(path).axes == ("y", "x")


def test_type_that_ome_lacks_is_refused(rng, tmp_path):
    with pytest.raises(VolumeError, match="OME-TIFF cannot store voxels of type int64"):
        write_volume(tmp_path / "a.tif", [make_volume(rng, 3, "int64")], description={})


def test_oblique_volume_has_its_spacing_in_the_ome_header(rng, tmp_path):
    write_volume(
        tmp_path / "a.tif", [make_volume(rng, 3, affine=AFFINES["oblique"])], description={}
    )
    pixels = ome_pixels(tmp_path / "a.tif")
    sizes = [pixels[f"PhysicalSize{axis}"] for axis in "ZYX"]
    np.testing.assert_allclose(sizes, (2.5, 0.7, 0.6))
    assert not np.allclose(np.diag(rotation(15, 0)), 1)


def test_pages_in_a_circle_end(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((2, 5, 6), np.uint8), metadata=None)
    with tifffile.TiffFile(path) as tif:
        (first, second), count = (page.offset for page in tif.pages), len(tif.pages[1].tags)
    content = bytearray(path.read_bytes())
    place = second + 2 + 12 * count
    content[place : place + 4] = first.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="invalid circular reference"):
        assert read_volume(path).shape == (2, 5, 6)


def test_more_pages_than_fit_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((3, 5, 6), np.uint8), photometric="minisblack", metadata=None)
    monkeypatch.setattr("napari_msgan.io.tiff._LEAST_PAGE_BYTES", 10_000)
    with pytest.raises(VolumeError, match="3 pages, more than fit"):
        read_volume(path)


def test_more_tiles_than_fit_are_refused_at_once(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((32, 32), np.uint8), tile=(16, 16), compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as tif:
        for name in ("ImageWidth", "ImageLength"):
            tif.pages[0].tags[name].overwrite(16_000)
    with pytest.raises(VolumeError, match="1000000 strips or tiles, more than fit"):
        read_volume(path)


@pytest.mark.parametrize("shape", [(4, 1), (5, 4, 1), (1, 1), (4, 2), (1, 7)], ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_images_of_one_column_are_written_as_they_are(rng, tmp_path, shape, dtype):
    values = rng.integers(0, 100, shape).astype(dtype)
    volume = Volume(values, Affine(np.eye(len(shape) + 1)), "pixel")
    write_volume(tmp_path / "a.ome.tif", [volume], description={})
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.ome.tif").reshape(shape), values)
    if len(shape) == 2 and dtype == "uint8":  # what Pillow reads
        np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.ome.tif")), values)


def write_imagej(path, data, **calibration):
    tifffile.imwrite(path, data, imagej=True, metadata={"axes": "YX", **calibration})


def test_signed_integers_of_imagej_have_the_values_that_it_shows(rng, tmp_path):
    """It stores a CT of Hounsfield units as uint16, 32768 larger."""
    hounsfield = rng.integers(-1000, 1000, (20, 30)).astype(np.int16)
    stored = (hounsfield.astype(np.int32) + 32768).astype(np.uint16)
    write_imagej(tmp_path / "a.tif", stored, cf=0, c0=-32768.0, c1=1.0, vunit="gray value")
    volume = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(np.asarray(volume.data), hounsfield)
    assert volume.data.dtype == np.int16
    write_imagej(tmp_path / "b.tif", stored, cf=0, c0=-3.5, c1=0.25)
    np.testing.assert_array_equal(
        np.asarray(read_volume(tmp_path / "b.tif").data), stored * np.float32(0.25) - 3.5
    )


def test_grey_values_that_imagej_does_not_calibrate_are_as_stored(rng, tmp_path):
    stored = rng.integers(0, 1000, (20, 30)).astype(np.uint16)
    write_imagej(tmp_path / "none.tif", stored, cf=20, c0=5.0, c1=2.0)
    np.testing.assert_array_equal(read_volume(tmp_path / "none.tif").data, stored)
    for name, calibration in {
        "curve": {"cf": 1, "c0": 1.0, "c1": 2.0},
        "half": {"cf": 0},
        "slope": {"cf": 0, "c1": 2.0},
        "endless": {"cf": 0, "c0": float("inf"), "c1": 2.0},
        "level": {"cf": 0, "c0": 1.0, "c1": 0.0},
    }.items():
        write_imagej(tmp_path / f"{name}.tif", stored, **calibration)
        with pytest.warns(UserWarning, match="calibration of them is not linear"):
            volume = read_volume(tmp_path / f"{name}.tif")
        np.testing.assert_array_equal(volume.data, stored)


#: How Pillow turns a picture whose tag is 2, 3 and so on.
EXIF_TURNS = (
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_picture_is_upright_as_its_tag_says(tmp_path, orientation, kind):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 255, (20, 30, 3)[: 2 + (kind == "colour")], np.uint8)
    tag = (274, "H", 1, orientation, True)
    path = tmp_path / "a.tif"
    options = {"photometric": "rgb" if kind == "colour" else "minisblack"}
    tifffile.imwrite(
        path, values, extratags=[tag], resolution=(10, 20), resolutionunit=3, **options
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of colours
        volume = read_volume(path)
    upright = Image.fromarray(values)
    if orientation > 1:
        upright = upright.transpose(EXIF_TURNS[orientation - 2])
    wanted = np.asarray(upright.convert("L"), int)
    assert volume.shape == wanted.shape
    np.testing.assert_allclose(np.asarray(volume.data[:, :], int), wanted, atol=1)
    assert volume.spacing == pytest.approx((1.0, 0.5) if orientation > 4 else (0.5, 1.0))


def test_missing_pages_are_told_and_incomplete_files_warn(tmp_path):
    values = np.arange(6 * 40 * 50, dtype=np.uint16).reshape(6, 40, 50)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, values, metadata={"axes": "ZYX"})
    path.write_bytes(path.read_bytes().replace(b'SizeZ="6"', b'SizeZ="8"'))
    with pytest.raises(VolumeError, match="lacks 2 of the 8 pages"):
        read_volume(path)
    tifffile.imwrite(tmp_path / "b.tif", values, imagej=True)
    (tmp_path / "b.tif").write_bytes((tmp_path / "b.tif").read_bytes()[:-9000])
    with pytest.warns(UserWarning, match="it may be incomplete or damaged"):
        read_volume(tmp_path / "b.tif")


@pytest.mark.parametrize("shape", [(1, 5, 40, 56), (1, 5, 1, 40, 56)])
def test_axes_of_length_one_are_dropped_wherever_they_stand(tmp_path, shape):
    values = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    tifffile.imwrite(tmp_path / "a.tif", values)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").data[:, :, :], values.squeeze())


def test_small_values_bright_are_inverted_beside_transparency_and_told_where_signed(tmp_path):
    values = np.arange(60, dtype=np.uint8).reshape(5, 6, 2)
    options = {
        "photometric": "miniswhite",
        "planarconfig": "contig",
        "extrasamples": ["unassalpha"],
    }
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    with pytest.warns(UserWarning, match="values were inverted"):
        np.testing.assert_array_equal(
            read_volume(tmp_path / "a.tif").data[:, :], 255 - values[..., 0]
        )
    tifffile.imwrite(tmp_path / "b.tif", values[..., 0].astype(np.int16), photometric="miniswhite")
    with pytest.warns(UserWarning, match="signed, they were not inverted"):
        read_volume(tmp_path / "b.tif")
