import numpy as np
import pytest

from napari_msgan.errors import TrainingError
from napari_msgan.training.survey import survey
from tests.training.made import blobs, config_of, write_image

MM = (1.0, 1.0, 1.0)


def refusal(*arguments, **options):
    with pytest.raises(TrainingError) as caught:
        survey(*arguments, **options)
    return str(caught.value)


def test_good_files_are_found_in_the_order_of_their_names(tmp_path):
    (tmp_path / "sub").mkdir()
    write_image(tmp_path / "b.ome.tif", blobs((20, 30, 40), 0), (3.0, 1.0, 2.0))
    write_image(tmp_path / "sub" / "a.ome.tif", blobs((20, 30, 40), 1), MM)
    (tmp_path / "notes.txt").write_text("not an image")
    files = survey(tmp_path)
    assert [f.name for f in files] == ["b.ome.tif", "sub/a.ome.tif"]
    assert files[0].spacing == pytest.approx((3, 1, 2))
    assert 0 < files[0].low < 500 < files[0].high < 1000


def test_zarr_folders_are_images_and_what_is_in_them_is_not(tmp_path):
    write_image(tmp_path / "a.ome.zarr", blobs((20, 30, 40), 0), MM)
    assert [f.name for f in survey(tmp_path)] == ["a.ome.zarr"]


def test_everything_that_is_wrong_is_said_at_once(tmp_path):
    for index in range(3):
        write_image(tmp_path / f"good {index}.ome.tif", blobs((16, 16, 16), index), MM)
    (tmp_path / "broken.nii.gz").write_bytes(b"hello")
    write_image(tmp_path / "flat.ome.tif", np.full((16, 16, 16), 7, np.uint16), MM)
    write_image(tmp_path / "holes.ome.tif", np.full((16, 16, 16), np.nan, np.float32), MM)
    write_image(tmp_path / "picture.ome.tif", blobs((40, 40), 0))
    write_image(tmp_path / "thin.ome.tif", blobs((2, 40, 40), 0), MM)
    write_image(tmp_path / "unknown size.ome.tif", blobs((16, 16, 16), 0))
    text = refusal(tmp_path)
    assert text.startswith("6 of the files")
    for part in (
        "broken.nii.gz: ",
        "flat.ome.tif: all its values are 7",
        "holes.ome.tif: ",
        "picture.ome.tif: has shape (40, 40), most others are 3-D",
        "thin.ome.tif: has shape (2, 40, 40), needs at least 8",
        "unknown size.ome.tif: has no voxel size in mm",
    ):
        assert part in text
    assert "good" not in text


def test_files_must_fit_given_settings(tmp_path):
    write_image(tmp_path / "solid.ome.tif", blobs((20, 20, 20), 0))
    assert "solid.ome.tif: has shape (20, 20, 20), the model is 2-D" in refusal(
        tmp_path, config_of(2)
    )
    assert "solid.ome.tif: has no voxel size in mm" in refusal(tmp_path, config_of(3))
    assert len(survey(tmp_path)) == 1


def test_pictures_need_no_voxel_size_though_others_have_one(tmp_path):
    write_image(tmp_path / "a.ome.tif", blobs((20, 20), 0), (0.1, 0.1))
    write_image(tmp_path / "b.ome.tif", blobs((20, 20), 1))
    assert [f.spacing is None for f in survey(tmp_path)] == [False, True]


def test_only_what_the_settings_include_is_looked_at(tmp_path):
    write_image(tmp_path / "a.ome.tif", blobs((40, 40), 0))
    (tmp_path / "b.tif").write_bytes(b"hello")
    assert [f.name for f in survey(tmp_path, config_of(2, include=("a*",)))] == ["a.ome.tif"]
    config = config_of(2, include=("c*",))
    assert "matches c*" in refusal(tmp_path, config)
    assert [f.name for f in survey(tmp_path, config, include=("a*",))] == ["a.ome.tif"]


def test_sketches_of_images_that_are_left_out_do_no_harm(tmp_path):
    images, sketches = tmp_path / "images", tmp_path / "sketches"
    images.mkdir()
    sketches.mkdir()
    write_image(images / "a.ome.tif", blobs((32, 40), 0))
    (images / "b.tif").write_bytes(b"hello")
    for name in "ab":
        write_image(sketches / f"{name}.tif", 255 * np.eye(32, 40, dtype=np.uint8))
    assert [f.name for f in survey(images, sketches=sketches, include=("a*",))] == ["a.ome.tif"]


def test_empty_folder_is_refused(tmp_path):
    assert "holds no image" in refusal(tmp_path)


def test_every_image_needs_its_sketch_and_every_sketch_its_image(tmp_path):
    images, sketches = tmp_path / "images", tmp_path / "sketches"
    images.mkdir()
    sketches.mkdir()
    for name in ("a", "b", "c", "e"):
        write_image(images / f"{name}.ome.tif", blobs((32, 40), 0))
    write_image(sketches / "a.tif", 255 * np.eye(32, 40, dtype=np.uint8))  # any ending
    write_image(sketches / "b.ome.tif", 255 * np.eye(30, 40, dtype=np.uint8))
    for name in ("d.ome.tif", "e.png", "e.tif"):
        write_image(sketches / name, 255 * np.eye(32, 40, dtype=np.uint8))
    text = refusal(images, sketches=sketches)
    assert "b.ome.tif: has shape (32, 40), its sketch has (30, 40)" in text
    assert "c.ome.tif: has no sketch of the same name" in text
    assert "d.ome.tif: a sketch without an image" in text
    assert "e.ome.tif: has several sketches: e.png, e.tif" in text
    assert "a.ome.tif" not in text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda mask: mask * np.float32(1), "fills regions, where edges are lines"),
        (lambda mask: mask * np.uint8(255), "fills regions, where edges are lines"),
        (
            lambda mask: mask * np.int16(-3),
            "must have no values below 0, this one has -3",
        ),
    ],
)
def test_masks_that_are_no_labels_are_refused_as_sketches(tmp_path, change, text):
    images, sketches = tmp_path / "images", tmp_path / "sketches"
    images.mkdir()
    sketches.mkdir()
    mask = np.zeros((32, 40), bool)
    mask[8:24, 10:30] = True
    write_image(images / "a.ome.tif", blobs((32, 40), 0))
    write_image(sketches / "a.ome.tif", change(mask))
    assert text in refusal(images, sketches=sketches)
    (sketches / "a.ome.tif").unlink()
    write_image(sketches / "a.ome.tif", mask * np.uint8(7))
    assert survey(images, sketches=sketches)
