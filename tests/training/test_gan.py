"""One step of both networks: gate, average, warm start and what is shared between processes."""

import numpy as np
import pytest
import torch

from napari_msgan.errors import TrainingError
from napari_msgan.networks.blocks import crop
from napari_msgan.training.config import CoarseMixture
from napari_msgan.training.gan import Batch, ScaleGan
from napari_msgan.training.run import open_fabric
from napari_msgan.training.samples import Sample
from tests.training.made import config_of


def gan_of(scale=1, gan_from=0.0, **changes):
    config = config_of(2, **changes)
    scales = [s.model_copy(update={"gan_from": gan_from, "steps": 10}) for s in config.scales]
    config = config.model_copy(update={"scales": tuple(scales)})
    return ScaleGan(config, scale, open_fabric(config))


def batch_of(scale=1, truthful=True):
    random = np.random.default_rng(0)

    def values(side):
        return random.uniform(-1, 1, (side, side)).astype(np.float32)

    halo = 4  # of one block
    if scale == 0:
        samples = [Sample(values(32), values(16)) for _ in range(2)]
    else:
        side = 8 + 2 * halo
        samples = [Sample(values(2 * side), values(16), values(side), truthful) for _ in range(2)]
    return Batch.of(samples, torch.device("cpu"))


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()]).clone()


@pytest.mark.parametrize("scale", [0, 1])
def test_both_networks_learn(scale):
    gan = gan_of(scale)
    before = weights(gan.generator), weights(gan.discriminator)
    losses = gan.step(0, batch_of(scale))
    assert set(losses) == {"l1", "adversarial", "discriminator", "accuracy"}
    assert not torch.equal(before[0], weights(gan.generator))
    assert not torch.equal(before[1], weights(gan.discriminator))


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_networks_are_given_what_the_losses_see(precision):
    """Only layers are rounded: the coarse image is added to as it is."""
    gan, batch, seen = gan_of(precision=precision), batch_of(), []
    for network in (gan.generator, gan.discriminator):
        network.register_forward_pre_hook(lambda _, given: seen.append(given))
    gan.step(0, batch)
    assert torch.equal(seen[0][0], batch.coarse)
    assert torch.equal(seen[0][1], batch.sketch)
    assert {part.dtype for given in seen for part in given} == {torch.float32}
    assert not torch.equal(batch.coarse.bfloat16().float(), batch.coarse)


def test_more_gpus_than_there_are_are_refused():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(TrainingError, match="2 GPUs were asked for, but torch sees 0"):
        open_fabric(config_of(2), "cuda", 2)


def test_before_its_time_the_discriminator_does_not_learn():
    gan = gan_of(gan_from=0.5)
    before = weights(gan.discriminator)
    assert set(gan.step(4, batch_of())) == {"l1"}
    assert torch.equal(before, weights(gan.discriminator))
    assert "adversarial" in gan.step(5, batch_of())


def test_gate_skips_a_discriminator_that_is_too_good():
    shut, open_ = gan_of(accuracy_gate=0.0), gan_of(accuracy_gate=1.0)
    before = weights(shut.discriminator)
    losses = shut.step(0, batch_of())
    assert losses["accuracy"] > 0
    assert losses["skipped"] == 1
    assert torch.equal(before, weights(shut.discriminator))
    assert open_.step(0, batch_of())["skipped"] == 0
    assert not torch.equal(before, weights(open_.discriminator))


def test_without_spectral_norm_the_weights_are_free():
    names = [
        set(dict(gan.discriminator.named_parameters()))
        for gan in (gan_of(spectral_norm=True), gan_of(spectral_norm=False))
    ]
    assert any("parametrizations" in name for name in names[0])
    assert not any("parametrizations" in name for name in names[1])


def test_average_follows_the_generator_slowly():
    gan, fast = gan_of(average=0.999), gan_of(average=0.0)
    for step in range(3):
        gan.step(step, batch_of())
        fast.step(step, batch_of())
    assert torch.equal(weights(fast.average), weights(fast.generator))
    assert not torch.equal(weights(gan.average), weights(gan.generator))


def test_untruthful_samples_are_compared_in_their_details_only():
    """Another brightness of the coarse image costs nothing if the result keeps it."""
    gan = gan_of()
    batch = batch_of(truthful=False)
    lighter = Batch(batch.sketch, batch.image, batch.coarse + 0.5, batch.truthful)
    with torch.no_grad():
        fake = gan.generator(batch.coarse, batch.sketch)
        same = gan._distance(fake, batch)
        kept = gan._distance(fake + 0.5, lighter)
        lost = gan._distance(fake, lighter)
    assert kept == pytest.approx(float(same), abs=1e-5)
    assert lost > same + 0.15


@pytest.mark.parametrize(("kept", "is_free"), [(1, False), (4, True)])
def test_what_is_finer_than_the_kept_blocks_may_be_made_anew(kept, is_free):
    """A woven texture of the coarse image need not be passed on."""
    gan = gan_of(coarse=CoarseMixture(kept=kept))
    batch = batch_of(truthful=False)
    woven = 0.3 * (torch.arange(16) % 2 * 2 - 1).float().expand_as(batch.coarse)
    marred = Batch(batch.sketch, batch.image, batch.coarse + woven, batch.truthful)
    with torch.no_grad():
        fake = gan.generator(batch.coarse, batch.sketch)
        sound, lost = gan._distance(fake, batch), gan._distance(fake, marred)
    assert (float(lost) == pytest.approx(float(sound), abs=1e-6)) == is_free


@pytest.mark.parametrize("kept", [3, 4], ids=["blocks that do not fit", "blocks that fit"])
def test_an_image_that_keeps_every_voxel_keeps_the_blocks(kept):
    gan = gan_of(coarse=CoarseMixture(kept=kept))
    batch = batch_of(truthful=False)
    inner = crop(batch.coarse, (4, 4))
    keeping = inner.repeat_interleave(2, 2).repeat_interleave(2, 3)
    same = Batch(batch.sketch, keeping, batch.coarse, batch.truthful)  # no detail is missing
    assert float(gan._distance(keeping, same)) == pytest.approx(0, abs=1e-6)
    assert float(gan._distance(keeping.flip(3), same)) > 0.1


def test_the_discriminator_judges_details_not_brightness():
    gan, image = gan_of(), batch_of().image
    judged = gan._judged(image)
    assert judged.shape == (2, 2, 16, 16)  # two bands
    torch.testing.assert_close(gan._judged(image + 0.3), judged, atol=1e-5, rtol=0)
    assert not torch.allclose(gan._judged(image.flip(3)), judged, atol=0.1)
    assert torch.equal(gan_of(0)._judged(image), image)


def test_processes_leave_out_channels_of_their_own(monkeypatch):
    made = []
    for rank in (0, 1, 0):
        gan = gan_of(0)
        gan.generator.drop_out(0.5)
        monkeypatch.setattr(type(gan.fabric), "global_rank", rank)
        gan.step(0, batch_of(0))
        made.append(weights(gan.generator))
    assert torch.equal(made[0], made[2])
    assert not torch.equal(made[0], made[1])


def test_losses_are_weighed(monkeypatch):
    gan, stepped = gan_of(l1_weight=7.0), []
    gan.plan = gan.plan.model_copy(update={"gan_weight": 0.5})
    backward = gan.fabric.backward
    monkeypatch.setattr(
        gan.fabric, "backward", lambda loss: stepped.append(float(loss.detach())) or backward(loss)
    )
    losses = gan.step(0, batch_of())
    assert stepped[-1] == pytest.approx(7 * losses["l1"] + 0.5 * losses["adversarial"], rel=1e-5)
