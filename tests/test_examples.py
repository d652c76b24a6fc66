import importlib.util
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

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
