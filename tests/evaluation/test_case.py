"""What a generated image is compared with."""

import weakref

import numpy as np
import pytest

from napari_msgan.evaluation import case
from napari_msgan.evaluation.case import save_truth
from napari_msgan.geometry import Affine
from napari_msgan.model import bundled_folder, load_folder, read_spec
from napari_msgan.sketch_settings import SketchSettings
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


def test_true_images_are_mapped_only_while_somebody_looks_at_them(tmp_path, monkeypatch):
    """Windows deletes no file that is mapped: the folder of a case could not be removed."""
    mapped = []

    def watched(function):
        def call(*arguments, **more):
            array = function(*arguments, **more)
            mapped.append(weakref.ref(array))
            return array

        return call

    monkeypatch.setattr(case, "create_array_file", watched(case.create_array_file))
    monkeypatch.setattr(np, "load", watched(np.load))
    spec = read_spec(bundled_folder() / "chest-xray")
    volume = Volume(np.full((256, 256), 7, np.uint16), Affine.of_spacing((1, 1)), "pixel")
    truth = case.save_truth(plan_source(volume, spec), spec, tmp_path, 1, 1)
    assert [image.shape for image in truth] == [(128, 128), (256, 256)]
    assert len(mapped) == 4
    assert not any(array() is not None for array in mapped)
