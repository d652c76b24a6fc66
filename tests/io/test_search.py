from __future__ import annotations

import shutil

from napari_msgan.io import images_in


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
