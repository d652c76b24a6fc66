import importlib.util
import json
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_msgan.errors import MsganError
from tests.models import write_model

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location("example", EXAMPLES / name)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


def test_variants_differ_and_labels_move_with_them(tmp_path):
    square = np.zeros((100, 120), np.uint8)
    square[30:70, 40:90] = 200
    Image.fromarray(square).save(tmp_path / "x.png")
    tifffile.imwrite(tmp_path / "labels.tif", (square > 0).astype(np.uint8) * 7)
    model = write_model(tmp_path / "model")
    out = tmp_path / "new" / "variants"
    example = load("variants.py")
    for _ in range(2):  # given again, it goes on
        example.main(tmp_path / "x.png", out, tmp_path / "labels.tif", model, count=2)
    first, second = (tifffile.imread(out / f"variant_{i}.ome.tif") for i in range(2))
    assert first.shape == square.shape
    assert (first != second).mean() > 0.5
    labels = [tifffile.imread(out / f"labels_{i}.ome.tif") for i in range(2)]
    assert [set(np.unique(moved)) for moved in labels] == [{0, 7}, {0, 7}]
    assert 0 < ((labels[0] > 0) != (square > 0)).mean() < 0.2


def test_generate_and_export_runs_as_printed_in_the_readme(tmp_path):
    example = load("generate_and_export.py")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (100, 120), np.uint8)).save(tmp_path / "x.png")
    for _ in range(2):  # given again, it goes on
        example.main(tmp_path / "x.png", tmp_path / "new", write_model(tmp_path / "model"))
    made = tifffile.imread(tmp_path / "new" / "region.ome.tif")
    assert made.shape == (25, 30)
    assert made.std() > 0


def test_data_set_has_the_layout_of_nnunet_and_leaves_a_bad_file_out(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    images, labels, out = (tmp_path / name for name in ("images", "labels", "Dataset001"))
    images.mkdir()
    labels.mkdir()
    rng = np.random.default_rng(0)
    for case in ("a", "b", "c"):
        Image.fromarray(rng.integers(0, 255, (100, 120), np.uint8)).save(images / f"{case}.png")
        painted = np.zeros((100, 120), np.uint8)
        painted[30:70, 40:90] = 1
        Image.fromarray(painted).save(labels / f"{case}.png")
    (images / "b.png").write_bytes((images / "b.png").read_bytes()[:99])
    Image.fromarray(painted[:, 1:]).save(labels / "c.png")
    example = load("nnunet.py")
    for _ in range(2):  # given again, it goes on
        left_out = example.main(images, labels, out, write_model(tmp_path / "model"), 2)
        assert [message.split(":")[0] for message in left_out] == [
            str(images / "b.png"),
            str(images / "c.png"),
        ]
    cases = ["a", "a_synthetic1", "a_synthetic2"]
    for folder, end in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        assert sorted(p.name for p in (out / folder).iterdir()) == [case + end for case in cases]
    for case in cases:
        made = nib.load(out / f"imagesTr/{case}_0000.nii.gz")
        drawn = nib.load(out / f"labelsTr/{case}.nii.gz")
        assert made.shape == drawn.shape == (120, 100, 1)
        np.testing.assert_array_equal(made.affine, drawn.affine)
        assert set(np.unique(np.asanyarray(drawn.dataobj))) == {0, 1}
        is_synthetic = bytes(made.header["descrip"]).startswith(b"SYNTHETIC")
        assert is_synthetic == ("synthetic" in case)
        assert is_synthetic == bytes(drawn.header["descrip"]).startswith(b"SYNTHETIC")
    settings = json.loads((out / "dataset.json").read_text())
    assert settings["numTraining"] == len(cases)
    assert settings["labels"] == {"background": 0, "label 1": 1}
    assert not (out / "splits_final.json").exists()  # nnU-Net cannot train on no image
    Image.fromarray(painted).save(images / "a.tif")
    with pytest.raises(MsganError, match="differ in their suffix only"):
        example.main(images, labels, out, write_model(tmp_path / "model"), 2)


def test_data_set_counts_what_was_made_before_a_variant_failed(tmp_path, monkeypatch):
    """nnU-Net refuses a data set with other files than its numTraining says."""
    monkeypatch.syspath_prepend(EXAMPLES)
    images, labels, out = (tmp_path / name for name in ("images", "labels", "Dataset001"))
    for folder in (images, labels):
        folder.mkdir()
        Image.fromarray(np.eye(100, 120, dtype=np.uint8)).save(folder / "a.png")
    (images / "series").mkdir()  # as of DICOM, without a suffix
    example = load("nnunet.py")
    write_variant = example.write_variant

    def fail_late(pair, number, *others):
        if number == 2:
            raise MsganError("no room")
        write_variant(pair, number, *others)

    monkeypatch.setattr(example, "write_variant", fail_late)
    left_out = example.main(images, labels, out, write_model(tmp_path / "model"), 2)
    assert left_out[0] == f"{images / 'a.png'}: no room"
    assert left_out[1].startswith(f"{images / 'series'}: ")
    n_files = len(list((out / "imagesTr").iterdir()))
    assert json.loads((out / "dataset.json").read_text())["numTraining"] == n_files == 2


def test_variants_of_a_patient_are_in_no_fold_that_tests_on_the_patient(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    made = {f"p{i}": [f"p{i}", f"p{i}_synthetic1"] for i in range(7)}
    load("nnunet.py").write_settings(tmp_path, made, [0, 1], "CT")
    splits = json.loads((tmp_path / "splits_final.json").read_text())
    assert len(splits) == 5
    for split in splits:
        assert "p1_synthetic1" in split["train"] or "p1" in split["val"]
        assert not {name.split("_")[0] for name in split["train"]} & set(split["val"])
    assert sorted(name for split in splits for name in split["val"]) == sorted(made)


def test_lesson_draws_sketch_and_image_of_every_scale(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (100, 120), np.uint8)).save(tmp_path / "x.png")
    example = load("lesson.py")
    for _ in range(2):
        example.main(tmp_path / "x.png", tmp_path / "new", write_model(tmp_path / "model"))
    pictures = sorted((tmp_path / "new").iterdir())
    assert [picture.name for picture in pictures] == ["scale-0.png", "scale-1.png", "scale-2.png"]
    for picture, parts in zip(pictures, (2, 4, 4), strict=True):
        with Image.open(picture) as drawn:
            assert drawn.size[0] == parts * example.SIDE
            assert drawn.info["Description"].startswith("SYNTHETIC")
            below_captions = np.split(np.asarray(drawn)[30:], parts, axis=1)
        assert all(part.std() > 0 for part in below_captions)
        assert all((a != b).any() for a, b in pairwise(below_captions))
