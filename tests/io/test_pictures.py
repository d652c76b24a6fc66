from __future__ import annotations

import struct
import warnings
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from napari_msgan.errors import VolumeError
from napari_msgan.geometry import Affine
from napari_msgan.io import _arrays, read_description, read_volume, write_volume
from napari_msgan.volume import Volume

ORIENTATION = 0x0112  # EXIF tag


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_grey_png_is_read_exactly_in_pixels(rng, tmp_path, dtype):
    data = rng.integers(0, np.iinfo(dtype).max, (20, 30), dtype)
    Image.fromarray(data).save(tmp_path / "a.png")
    volume = read_volume(tmp_path / "a.png")
    assert volume.data.dtype == np.dtype(dtype)
    assert (volume.unit, volume.axes) == ("pixel", ("y", "x"))
    assert volume.affine.matrix.tolist() == np.eye(3).tolist()
    np.testing.assert_array_equal(volume.data, data)
    assert read_description(tmp_path / "a.png") is None


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG"])
def test_grey_jpeg_is_read(tmp_path, suffix):
    data = np.tile(np.arange(0, 240, 8, dtype="uint8"), (20, 1))
    Image.fromarray(data).save(tmp_path / f"a{suffix}", quality=95)
    np.testing.assert_allclose(read_volume(tmp_path / f"a{suffix}").data, data, atol=4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(rng, tmp_path, orientation):
    data = rng.integers(0, 255, (20, 30), "uint8")
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(data).save(tmp_path / "a.png", exif=exif)
    upright = {
        1: data,
        2: data[:, ::-1],
        3: data[::-1, ::-1],
        4: data[::-1],
        5: data.T,
        6: data[::-1].T,
        7: data[::-1, ::-1].T,
        8: data[:, ::-1].T,
    }
    np.testing.assert_array_equal(read_volume(tmp_path / "a.png").data, upright[orientation])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_colours_become_luminance_with_a_warning(rng, tmp_path, mode):
    data = rng.integers(0, 255, (20, 30, 3), "uint8")
    data[..., 1] = data[..., 2] = data[..., 0]  # grey: the values must be kept
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.fromarray(data).convert(mode).save(path, quality=100)
    with pytest.warns(UserWarning, match="luminance"):
        volume = read_volume(path)
    np.testing.assert_allclose(volume.data, data[..., 0], atol=40 if mode == "P" else 3)


def test_luminance_weighs_green_most(tmp_path):
    data = np.zeros((2, 3, 3), "uint8")
    data[:, [0, 1, 2], [0, 1, 2]] = 200
    Image.fromarray(data).save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match="luminance"):
        volume = read_volume(tmp_path / "a.png")
    np.testing.assert_allclose(volume.data[0], [60, 117, 23], atol=1)


def test_transparency_of_a_grey_picture_is_dropped_with_a_warning(rng, tmp_path):
    data = rng.integers(0, 255, (20, 30, 2), "uint8")
    Image.fromarray(data, mode=None).save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match="transparency"):
        np.testing.assert_array_equal(read_volume(tmp_path / "a.png").data, data[..., 0])


def test_black_and_white_sketch_is_0_and_255(tmp_path):
    data = np.eye(20, 30) > 0
    Image.fromarray(data).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.png").data, data * np.uint8(255))


def test_picture_that_declares_a_million_squared_is_refused(tmp_path):
    Image.fromarray(np.zeros((2, 2), "uint8")).save(tmp_path / "a.png")
    raw = bytearray((tmp_path / "a.png").read_bytes())
    raw[16:24] = struct.pack(">II", 10**6, 10**6)
    raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    (tmp_path / "a.png").write_bytes(raw)
    with pytest.raises(VolumeError, match=r"too large for a picture.*Save it as TIFF"):
        read_volume(tmp_path / "a.png")


def test_large_radiograph_is_read_without_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    Image.fromarray(np.zeros((20, 30), "uint8")).save(tmp_path / "a.png")
    assert read_volume(tmp_path / "a.png").shape == (20, 30)


def test_file_of_another_kind_is_refused(tmp_path):
    Image.fromarray(np.zeros((20, 30), "uint8")).save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    with pytest.raises(VolumeError, match=r"cannot be read as a picture.*misnamed"):
        read_volume(tmp_path / "a.png")


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_16_bit_colours_are_said_to_lose_bits_and_transparency_to_be_lost(
    rng, tmp_path, channels, dtype
):
    data = rng.integers(0, np.iinfo(dtype).max, (20, 30, channels), dtype)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(data))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert read_volume(tmp_path / "a.png").data.dtype == np.uint8
    said = " ".join(str(one.message) for one in told)
    assert ("its 16 bits are read as 8" in said) == (dtype == "uint16")
    assert ("transparency" in said) == (channels != 3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("unit", ["pixel", "millimeter"])
def test_written_png_is_read_back_with_its_place_and_says_what_it_is(rng, tmp_path, dtype, unit):
    data = rng.integers(0, np.iinfo(dtype).max, (37, 45), dtype)
    image = Volume(data, Affine.of_spacing((0.5, 0.25), (3, -7)), unit)
    said = {"synthetic": True, "model": "chest-xray", "note": "Größe"}
    write_volume(tmp_path / "a.png", [image], description=said)
    back = read_volume(tmp_path / "a.png")
    assert (back.affine, back.unit, back.data.dtype) == (image.affine, unit, np.dtype(dtype))
    np.testing.assert_array_equal(back.data, data)
    assert read_description(tmp_path / "a.png") == said
    with Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), data)
        assert "SYNTHETIC" in picture.info["Description"]
        cropped = picture.crop((0, 0, 20, 20))
        cropped.save(tmp_path / "b.png", pnginfo=None)
    assert read_volume(tmp_path / "b.png").unit == "pixel"
    assert read_description(tmp_path / "b.png") is None


def test_a_png_holds_the_finest_level_all_bands_of_it(rng, tmp_path, monkeypatch):
    monkeypatch.setattr(_arrays, "SLAB_BYTES", 8 * 45 * 2)  # bands of 8 rows
    data = rng.integers(0, 65535, (37, 45), np.uint16)
    levels = [Volume(values, Affine(np.eye(3)), "pixel") for values in (data, data[::2, ::2])]
    fractions: list[float] = []
    write_volume(tmp_path / "a.png", levels, description={}, progress=fractions.append)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.png").data, data)
    assert fractions == [8 / 37, 16 / 37, 24 / 37, 32 / 37, 1]


@pytest.mark.parametrize(
    ("shape", "dtype", "said"),
    [
        ((4, 20, 20), np.uint8, r"has shape \(4, 20, 20\)"),
        ((20, 20), np.int16, "of type int16: save it as"),
        ((20, 20), np.float32, "of type float32: save it as"),
        ((8193, 8192), np.uint8, "written whole, up to 67108864 pixels"),
    ],
)
def test_what_png_cannot_hold_is_refused_and_nothing_is_left(tmp_path, shape, dtype, said):
    image = Volume(np.broadcast_to(dtype(1), shape), Affine.of_spacing((1,) * len(shape)), "pixel")
    with pytest.raises(VolumeError, match=said):
        write_volume(tmp_path / "a.png", [image], description={})
    assert list(tmp_path.iterdir()) == []
