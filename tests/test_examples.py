import importlib.util
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from tests.models import write_model

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_generate_and_export_runs_as_printed_in_the_readme(tmp_path):
    spec = importlib.util.spec_from_file_location("example", EXAMPLES / "generate_and_export.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (100, 120), np.uint8)).save(tmp_path / "x.png")
    example.main(tmp_path / "x.png", tmp_path, write_model(tmp_path / "model"))
    made = tifffile.imread(tmp_path / "region.ome.tif")
    assert made.shape == (25, 30)
    assert made.std() > 0
