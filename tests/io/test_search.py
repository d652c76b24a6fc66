from __future__ import annotations

import os
import shutil
import zlib

import numpy as np
import pytest

from napari_msgan.errors import VolumeError
from napari_msgan.evaluation.places import check_held_out, find_images
from napari_msgan.io import _dicom_files, _search, images_in, is_series
from tests.io.dicom import dataset, write, write_series


def test_what_is_hidden_is_no_image_of_a_folder(tmp_path):
    seen = ["a.png", "patient.1/b.png"]
    hidden = [".c.png", ".ipynb_checkpoints/a-checkpoint.png", "patient.1/.thumbs/x/b.png"]
    for name in seen + hidden:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert images_in(tmp_path) == [tmp_path / name for name in seen]
    inside = tmp_path / ".data"  # its own name does not count
    shutil.copytree(tmp_path / "patient.1", inside)
    assert images_in(inside) == [inside / "b.png"]


def test_a_folder_of_slices_is_one_image_and_x_rays_are_one_each(tmp_path):
    slices = np.zeros((3, 4, 5), np.uint16)
    write_series(tmp_path / "b" / "study" / "ct", slices)
    write_series(tmp_path / "c", slices, Modality="MR")
    for number in range(3):
        write(tmp_path / "films" / f"{number}.dcm", dataset(slices[0], Modality="DX"))
    write(tmp_path / "alone" / "scout.dcm", dataset(slices[0], Modality="CT"))
    names = ["alone/scout.dcm", "b/study/ct", "c", *(f"films/{n}.dcm" for n in range(3))]
    assert images_in(tmp_path) == [tmp_path / name for name in names]
    assert images_in(tmp_path, ("b/**/*",)) == [tmp_path / "b/study/ct"]
    assert find_images(tmp_path / "c") == [tmp_path / "c"]


def test_what_else_lies_in_a_folder_of_slices_makes_no_images_of_them(tmp_path):
    series = tmp_path / "patient" / "ct"
    write_series(series, np.zeros((3, 4, 5), np.uint16))
    report = dataset(np.zeros((4, 5), np.uint16), Modality="SR")
    del report.Rows, report.Columns, report.PixelData
    write(series / "!report.dcm", report)
    for number in range(120):
        (series / f"!{number}.png").touch()
    assert [path for path in images_in(tmp_path) if path.suffix != ".png"] == [series]
    elsewhere = tmp_path / "b"
    elsewhere.mkdir()
    (elsewhere / "link").symlink_to(series)
    for path in series.glob("*.dcm"):
        (elsewhere / path.name).symlink_to(path)
    assert images_in(elsewhere) == []


def test_films_need_no_suffix(tmp_path):
    film = write(tmp_path / "IM0001", dataset(np.zeros((4, 5), np.uint16), Modality="DX"))
    (tmp_path / "LICENSE").write_text("of the data")
    assert images_in(tmp_path) == [film]


def test_chunks_are_not_looked_through_for_dicom(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(_search, "is_dicom", lambda _, path: opened.append(path))
    monkeypatch.setattr(_dicom_files, "is_dicom", lambda _, path: opened.append(path))
    for chunk in ("0", "1"):
        (tmp_path / "a.ome.zarr" / "0" / "c" / chunk).mkdir(parents=True)
        (tmp_path / "a.ome.zarr" / "0" / "c" / chunk / "0").touch()
    assert images_in(tmp_path) == [tmp_path / "a.ome.zarr"]
    assert opened == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="everything can be read here")
def test_folders_that_cannot_be_read_are_left_out(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "locked").mkdir(mode=0)
    assert images_in(tmp_path) == [tmp_path / "a.png"]


def test_a_folder_that_is_gone_is_no_series(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.scandir", refuse)
    assert not is_series(tmp_path)


def test_a_series_that_was_trained_on_is_found_under_another_name(tmp_path):
    write_series(tmp_path / "ct", np.arange(60, dtype=np.uint16).reshape(3, 4, 5))
    shutil.copytree(tmp_path / "ct", tmp_path / "copy")
    with pytest.raises(VolumeError, match="has the content of"):
        check_held_out([tmp_path / "ct"], [tmp_path / "copy"])
    write_series(tmp_path / "copy", np.arange(1, 61, dtype=np.uint16).reshape(3, 4, 5))
    check_held_out([tmp_path / "ct"], [tmp_path / "copy"])


def test_looking_for_slices_unpacks_no_header(tmp_path, monkeypatch):
    for number in range(2):
        image = dataset(np.zeros((4, 5), np.uint16))
        write(tmp_path / f"{number}.dcm", image, "1.2.840.10008.1.2.1.99")
    unpacked, unpack = [], zlib.decompress
    monkeypatch.setattr("zlib.decompress", lambda *a: unpacked.append(a) or unpack(*a))
    assert not is_series(tmp_path)
    assert unpacked == []


def test_a_patient_is_found_where_files_of_two_folders_have_one_name(tmp_path):
    for folder in ("data", "a", "b"):
        write(tmp_path / folder / "p1_x.dcm", dataset(np.full((4, 5), ord(folder[0]), np.uint16)))
    training = [tmp_path / "a" / "p1_x.dcm", tmp_path / "b" / "p1_x.dcm"]
    with pytest.raises(VolumeError, match="is of patient p1, as is DATA"):
        check_held_out([tmp_path / "data" / "p1_x.dcm"], training, "^[^_]+")
