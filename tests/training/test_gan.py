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


def test_the_generator_learns_ever_more_slowly_down_to_a_fiftieth():
    gan = gan_of(learning_rate=1e-3)
    rates = []
    for step in (0, 5, 10):
        gan._set_rate(step)
        rates.append([o.param_groups[0]["lr"] for o in (gan._g_optimiser, gan._d_optimiser)])
    assert rates == [
        pytest.approx((1e-3, 1e-3)),
        pytest.approx((0.51e-3, 1e-3)),
        pytest.approx((0.02e-3, 1e-3)),
    ]


def test_the_average_begins_as_a_mean_of_the_first_weights():
    """Of which it forgets the untrained ones: 9/10 of the first step count, then 9/11."""
    gan = gan_of(average=0.999, learning_rate=1e-2)
    expected = weights(gan.average)
    for step, share in enumerate((9 / 10, 9 / 11, 9 / 12)):
        gan.step(step, batch_of())
        expected = expected.lerp(weights(gan.generator), share)
        torch.testing.assert_close(weights(gan.average), expected)
    steady = gan_of(average=0.1, learning_rate=1e-2)
    before = weights(steady.average)
    steady.step(8, batch_of())
    expected = before.lerp(weights(steady.generator), 0.9)  # at most 0.1 is kept, not 9/18
    torch.testing.assert_close(weights(steady.average), expected)


def test_the_discriminator_sees_the_sketch_and_coarse_image_of_the_same_place():
    gan, batch = gan_of(), batch_of()
    condition = gan._condition(batch)
    assert condition.shape == (2, 2, 16, 16)
    assert torch.equal(condition[:, :1], batch.sketch[..., 8:-8, 8:-8])
    # block means of the interpolated coarse image lie on the coarse grid
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    ramp = (y + 10 * x).expand_as(batch.coarse)
    seen = gan._condition(Batch(batch.sketch, batch.image, ramp, batch.truthful))[:, 1:]
    means = torch.nn.functional.avg_pool2d(seen, 2)
    torch.testing.assert_close(means, ramp[..., 4:-4, 4:-4])
    assert torch.equal(gan_of(0)._condition(batch_of(0))[:, 1], batch_of(0).sketch[:, 0, ::2, 1::2])


def test_the_generator_is_pushed_by_the_discriminator_and_leaves_it_as_it_is():
    """With no weight on the distance, it comes to convince the discriminator."""
    gan = gan_of(l1_weight=1e-9, learning_rate=3e-3, accuracy_gate=0.0)
    batch, before = batch_of(), weights(gan.discriminator)
    losses = [gan.step(0, batch) for _ in range(21)]
    assert losses[-1]["adversarial"] < 0.5 * losses[0]["adversarial"]
    assert torch.equal(weights(gan.discriminator), before)


def test_the_discriminator_comes_to_tell_real_from_generated():
    gan = gan_of(learning_rate=2e-3)
    gan._g_steps.step = lambda: None  # which stays as bad as it is
    losses = [gan.step(0, batch_of()) for _ in range(40)]
    assert losses[-1]["discriminator"] < 0.5 * losses[0]["discriminator"]
    assert losses[-1]["accuracy"] > 0.9


def test_two_bands_of_details_are_amplified():
    gan = gan_of(coarse=CoarseMixture(kept=4))
    stripes = (torch.arange(16) % 2 * 2.0 - 1).expand(1, 1, 16, 16)  # finer than coarse voxels
    wide = (torch.arange(16) // 4 % 2 * 2.0 - 1).expand(1, 1, 16, 16)  # only finer than blocks of 8
    fine, wider = gan._judged(stripes)[0]
    torch.testing.assert_close(fine, 4 * stripes[0, 0])
    torch.testing.assert_close(wider, 2 * stripes[0, 0])
    fine, wider = gan._judged(wide)[0]
    assert fine.abs().mean() < 0.5 * 4
    torch.testing.assert_close(wider, 2 * wide[0, 0])


def test_pictures_show_sketch_result_and_truth_of_the_same_place_from_0_to_1():
    for scale in (0, 1):
        gan, batch = gan_of(scale), batch_of(scale)
        sketch, made, truth = gan.pictures(batch, -batch.image)
        assert sketch.shape == made.shape == truth.shape == (2, 1, 16, 16)
        torch.testing.assert_close(made, (1 - batch.image) / 2)
        torch.testing.assert_close(truth, (1 + batch.image) / 2)
        if scale:
            assert torch.equal(sketch, batch.sketch[..., 8:-8, 8:-8])
        else:  # the strongest edge below each voxel
            assert torch.equal(sketch, torch.nn.functional.max_pool2d(batch.sketch, 2))
