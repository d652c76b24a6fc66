from __future__ import annotations

import shutil

import numpy as np

from napari_msgan.evaluation.places import find_images
from napari_msgan.io import images_in
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
