"""What a generated image is compared with."""

import numpy as np
import pytest

from napari_msgan.config import SketchSettings
from napari_msgan.evaluation.case import save_truth
from napari_msgan.geometry import Affine
from napari_msgan.model import load_folder
from napari_msgan.source import plan_source
from napari_msgan.volume import Volume
from tests.evaluation.images import smooth
from tests.models import write_model


@pytest.mark.parametrize("sketch_window", [(-1000, 600), "percentiles"])
def test_truth_has_the_window_that_training_gave_it(tmp_path, sketch_window):
    """Fixed for HU; else, as for MRI, the percentiles of the image become the output window."""
    spec = load_folder(write_model(tmp_path, ndim=3, n_scales=2)).spec
    spec = spec.model_copy(update={"sketch": SketchSettings(window=sketch_window)})
    values = np.rint(2 * smooth((32, 32, 32), 0) - 500).astype(np.int16)
    volume = Volume(values, Affine.of_spacing((1.0,) * 3), "millimeter")
    truth = save_truth(plan_source(volume, spec), spec, tmp_path, 1, 1)[-1]
    spread = np.percentile(truth, [1, 99])
    if sketch_window == "percentiles":
        assert spread[0] < -900
        assert spread[1] > 400
    else:
        np.testing.assert_allclose(truth, values, atol=1)
