"""Generated patches are found in training images, at the sizes in which training showed them."""

import json

import numpy as np
import pytest
import tifffile
import torch
from torch.nn import functional

from napari_msgan.config import LowResNetwork
from napari_msgan.errors import ModelError, VolumeError
from napari_msgan.evaluation import draw_patches, evaluate
from napari_msgan.evaluation.training_images import (
    _at_scale,
    check_sizes,
    iter_search_training,
    trained_zooms,
)
from napari_msgan.io import read_volume
from napari_msgan.model import load_folder, read_spec, save_spec, save_weights
from napari_msgan.networks import build_generator
from napari_msgan.resampling import reduce_mean
from napari_msgan.sketch import sketch_of
from napari_msgan.sketch_settings import SketchSettings
from napari_msgan.source import plan_magnified, plan_source
from napari_msgan.steps import run_to_end
from tests.evaluation.images import smooth, textured
from tests.models import write_model

STEPS = 400


def write_image(path, seed, shape=(132, 120)):
    grey = textured(shape, seed)
    grey = 255 * (grey - grey.min()) / np.ptp(grey)
    tifffile.imwrite(path, grey.astype(np.uint8))
    return path


def write_zoom(folder, zoom):
    (folder / "training.json").write_text(json.dumps({"zoom": zoom, "pool": 3}))


def test_factors_cover_the_range_closely_and_are_few(tmp_path):
    assert trained_zooms(tmp_path) == ()
    write_zoom(tmp_path, (0.85, 1.15))
    found = trained_zooms(tmp_path)
    assert (found[0], found[-1]) == pytest.approx((0.85, 1.15))
    assert max(np.divide(found[1:], found[:-1])) < 1.065
    write_zoom(tmp_path, (1.15, 0.85))
    assert trained_zooms(tmp_path)[::-1] == pytest.approx(found)
    write_zoom(tmp_path, (1, 1))
    assert trained_zooms(tmp_path) == (1, 1)
    write_zoom(tmp_path, (0.1, 10))
    assert len(trained_zooms(tmp_path)) == 9


@pytest.mark.parametrize("text", ["{}", '{"zoom": [0.5]}', '{"zoom": [0, 1]}', "no JSON"])
def test_training_settings_without_a_range_are_refused(tmp_path, text):
    (tmp_path / "training.json").write_text(text)
    with pytest.raises(ModelError, match="does not say by which factors"):
        trained_zooms(tmp_path)


@pytest.mark.parametrize("zoom", [0.75, 0.85])
def test_copy_of_a_resampled_training_image_is_found(tmp_path, zoom):
    """With the range of training; without it, the size of the image itself is all there is."""
    folder = write_model(tmp_path / "model", n_scales=3, base_size=64)
    trained = write_image(tmp_path / "trained.tif", 0, (300, 280))
    model = load_folder(folder)
    made, true = (
        _at_scale(plan_magnified(read_volume(path), model.spec, zoom), model, 2, 1)
        for path in (trained, write_image(tmp_path / "other.tif", 1, (300, 280)))
    )
    patches = draw_patches(made, true, np.ones(made.shape, bool), 8)

    def found():
        return run_to_end(iter_search_training(model, patches, [trained], 2, 1))

    assert found().median > 0.3
    assert found().zooms == ()
    write_zoom(folder, (0.75, 1.05))
    assert found().median < 0.15
    assert found().n_images == 1
    assert len(found().zooms) == 7


def test_sizes_at_which_an_image_lacks_the_scale_are_not_searched(tmp_path):
    folder = write_model(tmp_path / "model", n_scales=2)
    write_zoom(folder, (0.4, 1))
    model = load_folder(folder)
    small, large = (write_image(tmp_path / f"{n}.tif", n, (n, n)) for n in (48, 70))
    assert _at_scale(None, model, 1, 1) is None
    assert _at_scale(plan_source(read_volume(small), model.spec), model, 2, 1) is None
    image = _at_scale(plan_source(read_volume(large), model.spec), model, 1, 1)
    patches = draw_patches(image, image, np.ones(image.shape, bool), 2)
    found = run_to_end(iter_search_training(model, patches, [small, large], 1, 1))
    assert found.median == pytest.approx(1)
    assert (found.n_images, len(found.zooms)) == (2, 9)


def test_one_image_as_large_as_a_patch_is_enough_for_a_search(tmp_path):
    spec = read_spec(write_model(tmp_path / "model", n_scales=2))
    tiny, enough = (
        plan_source(read_volume(write_image(tmp_path / f"{n}.tif", n, (n, 48))), spec)
        for n in (31, 32)
    )
    check_sizes([tiny, enough], [enough, tiny], None, 1)
    for images, training, what in (
        ([tiny], [enough], "no image"),
        ([enough], [tiny], "no training image"),
    ):
        with pytest.raises(VolumeError, match=f"{what} is as large as a patch at scale 1"):
            check_sizes(images, training, None, 1)
    with pytest.raises(VolumeError, match="no image is as large"):
        check_sizes([enough], [enough], 0, 1)  # the scale is not made


def test_progress_tells_every_size(tmp_path):
    folder = write_model(tmp_path / "model", n_scales=2)
    write_zoom(folder, (0.9, 1.0))
    path, model = write_image(tmp_path / "image.tif", 0, (70, 64)), load_folder(folder)
    image = _at_scale(plan_source(read_volume(path), model.spec), model, 1, 1)
    seen = []
    patches = draw_patches(image, image, np.ones(image.shape, bool), 2)
    run_to_end(iter_search_training(model, patches, [path, path], 1, 1), seen.append)
    assert [share for share, _ in seen] == pytest.approx([*np.arange(8) / 8, 1])


def write_trained(folder, images, *, remembers):
    """Write a model of two scales whose scale 0 was trained on sketches of these images.

    remembers : make the first image of every sketch, not its own. Scale 1 interpolates.
    """
    write_model(folder, n_scales=2, strength=0)
    spec = read_spec(folder)
    sketches, targets = (torch.cat(parts) for parts in zip(*map(pair_of, images), strict=True))
    if remembers:
        targets = targets[:1].expand_as(targets)
    torch.manual_seed(0)
    network = LowResNetwork(widths=(16, 32, 48))
    generator = build_generator(network, (2, 2))
    optimiser = torch.optim.Adam(generator.parameters(), 2e-3)
    for _ in range(STEPS):
        batch = torch.randint(len(sketches), (4,))
        optimiser.zero_grad()
        functional.l1_loss(generator(sketches[batch]), targets[batch]).backward()
        optimiser.step()
    sha256 = save_weights(generator, folder / spec.scales[0].file)
    first = spec.scales[0].model_copy(update={"network": network, "sha256": sha256})
    save_spec(spec.model_copy(update={"scales": (first, *spec.scales[1:])}), folder)
    return load_folder(folder)


def pair_of(path):
    """Return the sketch that scale 0 sees of an image, and scale 0 of the image in [-1, 1]."""
    image = tifffile.imread(path).astype(np.float32) / 255
    sketch = sketch_of(image, SketchSettings(dilations=4)).astype(np.float32) / 255
    coarse = reduce_mean(image, (2, 2))
    return torch.from_numpy(sketch)[None, None], torch.from_numpy(2 * coarse - 1)[None, None]


@pytest.mark.slow
def test_model_that_gives_its_training_image_whatever_the_sketch_is_found_out(tmp_path):
    images = [write_smooth(tmp_path / f"{seed}.tif", seed) for seed in range(24)]
    other = write_smooth(tmp_path / "held-out.tif", 100)
    found = {}
    for remembers in (True, False):
        folder = tmp_path / f"remembers-{remembers}"
        model = write_trained(folder / "model", images, remembers=remembers)
        found[remembers] = evaluate(
            model, [other], folder / "out", training=images[:1]
        ).memorisation
    assert found[True].median < 0.3, found
    assert found[False].median > 0.7, found


def write_smooth(path, seed):
    """Write an image whose details scale 0 can hold."""
    tifffile.imwrite(path, smooth((64, 64), seed, sigma=2.5).astype(np.uint8))
    return path
