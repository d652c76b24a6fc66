"""What a trained scale makes of the training images, written tile by tile."""

import numpy as np
from torch import nn

from napari_msgan.resampling import reduce_mean
from napari_msgan.training.generated import iter_generate_coarse
from napari_msgan.training.run import open_fabric
from napari_msgan.training.sources import dequantise, prepare
from napari_msgan.training.survey import survey
from tests.training.made import blobs, config_of, write_image


class Means(nn.Module):
    """Stands for scale 0: makes the mean of the sketch below each voxel."""

    def forward(self, sketch):
        return 2 * nn.functional.avg_pool2d(sketch, 2) - 1


class Repeated(nn.Module):
    """Stands for a finer scale: repeats the voxels of the coarse image, beside the sketch."""

    halo = (4, 4)

    def forward(self, coarse, sketch):
        inner = coarse[..., 4:-4, 4:-4].repeat_interleave(2, 2).repeat_interleave(2, 3)
        return 0.5 * inner + 0.5 * sketch[..., 8:-8, 8:-8]


def test_every_image_with_a_finer_scale_is_generated_once_from_sketch_and_coarse_image(tmp_path):
    (tmp_path / "data").mkdir()
    for name, side in (("coarse", 64), ("fine", 120)):
        write_image(tmp_path / "data" / f"{name}.ome.tif", blobs((128 * side // 120, side), 0))
    config = config_of(2, zoom=(1, 1), precision="fp32")
    found = [p for _, _, p in prepare(survey(tmp_path / "data"), tmp_path / "cache", config)]
    coarse, fine = found
    assert (coarse.n_scales, fine.n_scales) == (2, 3)
    fabric = open_fabric(config)

    def generate(generator, scale):
        return list(iter_generate_coarse(generator, scale, found, config, fabric))

    assert generate(Means(), 0) == [(1, 2), (2, 2)]
    assert generate(Repeated(), 1) == [(1, 1)]
    assert coarse.generated(1) is None
    assert generate(Repeated(), 2) == []
    for pyramid in found:
        sketch = pyramid.sketch(1).astype(np.float32) / 255
        expected = 2 * reduce_mean(sketch, (2, 2)) - 1
        first = dequantise(np.asarray(pyramid.generated(0)))
        np.testing.assert_allclose(first[:-1, :-1], expected[:-1, :-1], atol=1e-4)
    first = dequantise(np.asarray(fine.generated(0)))
    made, sketch = fine.generated(1), fine.sketch(1).astype(np.float32) / 255
    assert max(made.shape) > max(config.tile_shape)
    repeated = first.repeat(2, 0).repeat(2, 1)[: made.shape[0], : made.shape[1]]
    expected = 0.5 * repeated + 0.5 * sketch
    np.testing.assert_allclose(dequantise(np.asarray(made)), expected, atol=1e-4)
    kept = fine.generated_path(0).read_bytes()
    assert generate(nn.Sequential(Means(), nn.Tanh()), 0) == [(1, 2), (2, 2)]
    assert fine.generated_path(0).read_bytes() == kept
