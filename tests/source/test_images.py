import hashlib
import itertools
import warnings
import weakref
from dataclasses import replace

import numpy as np
import pytest

from napari_msgan.durable import create_array_file
from napari_msgan.geometry import Affine, PyramidGeometry
from napari_msgan.resampling import reduce_mean
from napari_msgan.source import hash_pixels, plan_source, warn_of_unknown, write_image_pyramid
from napari_msgan.source._images import image_pyramid
from napari_msgan.volume import LazyArray, Orientation, Volume, turn


def test_hash_depends_on_pixels_shape_and_type_and_not_on_how_it_is_read():
    data = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    volume = Volume(data, Affine.of_spacing((1,) * 3), "millimeter")
    twice = turn(
        turn(volume, Orientation((1, 0, 2), (True, False, False))),
        Orientation((1, 0, 2), (False, True, False)),
    )
    assert hash_pixels(twice) == hash_pixels(volume)
    other = data.copy()
    other[0, 0, 0] += 1
    assert hash_pixels(Volume(other, volume.affine, "millimeter")) != hash_pixels(volume)
    assert hash_pixels(Volume(data.reshape(3, 2, 4), volume.affine, "millimeter")) != hash_pixels(
        volume
    )


def test_hash_reads_large_planes_one_by_one():
    shape, read = (3, 4200, 4200), []

    def compute(box):
        read.append(box.shape)
        return np.full(box.shape, box.start[0], np.uint8)

    volume = Volume(LazyArray(shape, np.uint8, compute), Affine.of_spacing((1,) * 3), "pixel")
    digest = hashlib.sha256(f"{shape} uint8".encode())
    for plane in range(3):
        digest.update(bytes([plane]) * 4200**2)
    assert hash_pixels(volume) == digest.hexdigest()
    assert read == [(1, 4200, 4200)] * 3


def test_an_error_that_is_kept_keeps_no_file_mapped(relative, tmp_path, monkeypatch):
    """As napari keeps errors: Windows would not delete the files, nor let the next job do it."""
    made, n_reads = [], itertools.count()

    def create(*arguments):
        array = create_array_file(*arguments)
        made.append(weakref.ref(array))
        return array

    def read(box):
        if next(n_reads) == 2:
            raise OSError("the disk does not answer")
        return np.zeros((64, 64), np.float32)[box.slices]

    monkeypatch.setattr("napari_msgan.source._images.create_array_file", create)
    source = Volume(LazyArray((64, 64), np.float32, read), Affine.of_spacing((1, 1)), "pixel")
    plan = plan_source(source, relative)
    with (
        pytest.raises(OSError, match="does not answer") as kept,
        image_pyramid(plan, relative.sketch, 1, tmp_path),
    ):
        pass
    assert kept.value.__traceback__ is not None
    assert made
    assert not any(array() is not None for array in made)
    assert not list(tmp_path.iterdir())


def test_stored_images_are_the_window_in_16_bits_and_block_means_rounded(relative, tmp_path):
    image = np.random.default_rng(0).uniform(-150, 350, (150, 171)).astype(np.float32)
    settings = relative.sketch.model_copy(update={"window": (-100.0, 300.0)})
    factors, affine = ((1, 2), (2, 1), (2, 3)), Affine.of_spacing((1, 1))
    geometry = PyramidGeometry(("y", "x"), image.shape, factors, affine, "pixel")
    plan = replace(plan_source(Volume(image, affine, "pixel"), relative), geometry=geometry)
    images = write_image_pyramid(plan, settings, tmp_path, 2)
    assert [i.shape for i in images] == [(38, 29), (38, 57), (75, 57), (150, 171)]
    expected = np.rint(np.clip((image + 100) / np.float32(400), 0, 1) * 65535)
    np.testing.assert_array_equal(images[-1], expected)
    for coarser, finer, factor in zip(images[:-1], images[1:], factors, strict=True):
        np.testing.assert_array_equal(coarser, np.rint(reduce_mean(finer, factor)))
    with image_pyramid(plan, settings, 1, tmp_path) as units:
        assert len(list(tmp_path.glob("napari-msgan-*/*"))) == 4
        for unit, stored in zip(units, images, strict=True):
            np.testing.assert_array_equal(unit[...], stored / np.float32(65535))
    assert not list(tmp_path.glob("napari-msgan-*"))


def test_unknown_voxels_of_an_image_are_counted_wherever_they_are():
    image = np.zeros((1100, 1000), np.float32)  # two blocks
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for known in (image, image.astype(np.uint8)):
            warn_of_unknown(Volume(known, Affine.of_spacing((1, 1)), "pixel"))
    image[-110:], image[:110], image[500, :3] = np.nan, np.inf, -np.inf
    with pytest.warns(UserWarning, match=r"^20 % of the image is NaN or infinite"):
        warn_of_unknown(Volume(image, Affine.of_spacing((1, 1)), "pixel"))


def test_share_of_nan_is_told(relative, tmp_path):
    image = np.random.default_rng(0).random((128, 128), np.float32)
    for missing, told in ((0, None), (64, "50 % of the image is NaN or infinite")):
        image[: missing // 2], image[missing // 2 : missing] = np.nan, -np.inf
        plan = plan_source(Volume(image, Affine.of_spacing((1, 1)), "pixel"), relative)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            images = write_image_pyramid(plan, relative.sketch, tmp_path, 2)
        assert [str(w.message)[:36] for w in warned] == ([told] if told else [])
        assert (images[-1][:missing] == 0).all()


@pytest.mark.parametrize(
    ("change", "is_told"),
    [
        (lambda hu: hu, False),
        (lambda hu: hu + 1024, True),
        (lambda hu: np.rint((hu + 1000) / 6).astype(np.uint8), True),
        (lambda hu: (hu + 1000) / np.float32(1600), True),
        (lambda hu: np.where(hu < 0, 40, hu), True),
        (lambda hu: np.where(np.arange(hu.size).reshape(hu.shape) == 9, -1000, hu + 1024), True),
        (lambda hu: np.maximum(hu, -230), False),
        (lambda hu: np.maximum(hu, -170), True),
    ],
    ids=[
        "HU",
        "HU + 1024",
        "uint8",
        "0 to 1",
        "no air",
        "noise",
        "fat",
        "darkest above the middle",
    ],
)
def test_values_in_another_unit_than_the_model_are_told(physical, tmp_path, change, is_told):
    spec = physical.sketch.model_copy(update={"window": (-1000.0, 600.0)})
    hu = np.full((40, 40, 40), 40, np.int16)
    hu[5:35, 5:20, 5:35], hu[5:35, 25:35, 5:35] = -850, 300
    source = Volume(change(hu), Affine.of_spacing((4, 4, 4)), "millimeter")
    plan = plan_source(source, physical)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        write_image_pyramid(plan, spec, tmp_path, 2)
    assert [("another unit" in str(w.message)) for w in warned] == [True] * is_told


def test_hash_depends_on_the_type():
    data = np.arange(24, dtype=np.int16).reshape(4, 6)
    hashes = {
        hash_pixels(Volume(d, Affine.of_spacing((1, 1)), "pixel"))
        for d in (data, data.view("uint16"))
    }
    assert len(hashes) == 2
