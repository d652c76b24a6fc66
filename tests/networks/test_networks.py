import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_msgan.config import LowResNetwork, PatchNetwork
from napari_msgan.errors import ModelError
from napari_msgan.networks import (
    PatchDiscriminator,
    build_generator,
    judged_window,
    required_halo,
)
from napari_msgan.networks.blocks import fold, unfold, upsample


@pytest.mark.parametrize("factor", [(2, 2), (1, 2, 2), (2, 3, 4)], ids=str)
def test_unfold_is_the_inverse_of_fold(factor):
    x = torch.randn(2, 3, *(f * 4 for f in factor))
    torch.testing.assert_close(unfold(fold(x, factor), factor), x, rtol=0, atol=0)


def test_fold_keeps_a_voxel_at_its_place():
    x = torch.zeros(1, 1, 4, 6)
    x[0, 0, 3, 2] = 1
    folded = fold(x, (2, 2))
    assert folded.shape == (1, 4, 2, 3)
    assert folded[0, 2, 1, 1] == 1  # row 1, column 0 of the block


@pytest.mark.parametrize("factor", [(2, 2), (2, 2, 2)], ids=str)
def test_upsampling_keeps_a_ramp_where_block_means_put_it(factor):
    n = 16
    ramp = torch.arange(float(n * factor[-1])).expand(1, 1, *(n * f for f in factor))
    means = functional.interpolate(ramp, scale_factor=[1 / f for f in factor], mode="area")
    back = upsample(means, factor)
    inside = (..., slice(2, -2))
    torch.testing.assert_close(back[inside], ramp[inside])


@pytest.mark.parametrize("factor", [(3, 2), (1, 5, 7)], ids=str)
def test_factors_that_float32_does_not_divide_are_interpolated_the_same_anywhere(factor):
    torch.manual_seed(0)
    x = torch.randn(1, 2, *[300, 6, 5][: len(factor)])
    mode = {2: "bilinear", 3: "trilinear"}[len(factor)]
    scales = [float(f) for f in factor]
    exact = functional.interpolate(x.double(), scale_factor=scales, mode=mode)
    torch.testing.assert_close(upsample(x, factor).double(), exact, rtol=0, atol=1e-6)
    away = 270 * factor[0]
    part, whole = upsample(x[:, :, 269:], factor), upsample(x, factor)
    assert torch.equal(part[:, :, factor[0] :], whole[:, :, away:])


@pytest.mark.parametrize("factor", [(2, 2), (2, 2, 2), (1, 2, 2)], ids=str)
def test_untrained_patch_generator_shows_no_checkerboard(factor):
    torch.manual_seed(0)
    generator = build_generator(PatchNetwork(width=8, blocks=1), factor).eval()
    n = 20
    made = generator(
        torch.zeros(1, 1, *(n,) * len(factor)), torch.zeros(1, 1, *(n * f for f in factor))
    )
    phases = fold(made, factor)
    assert phases.std(dim=1).max() < 1e-6


def test_patch_generator_adds_a_residual_to_the_interpolated_coarse_image():
    """Written again with torch alone, which has the folding of 2-D images, too."""
    torch.manual_seed(0)
    generator = build_generator(PatchNetwork(width=6, blocks=2), (2, 2)).eval()
    nn.init.normal_(generator.tail.weight, std=0.5)
    nn.init.normal_(generator.tail.bias, std=0.5)
    coarse, sketch = 2 * torch.rand(2, 1, 18, 20) - 1, torch.rand(2, 1, 36, 40)
    x = generator.head(torch.cat([coarse, functional.pixel_unshuffle(sketch, 2)], 1))
    for block in generator.blocks:
        inner = block.second(functional.silu(block.first(functional.silu(x))))
        x = inner + x[:, :, 2:-2, 2:-2]
    residual = functional.pixel_shuffle(generator.tail(functional.silu(x)), 2)
    wide = functional.interpolate(coarse, scale_factor=2.0, mode="bilinear")
    expected = wide[:, :, 12:-12, 12:-12] + residual
    assert expected.min() < -1 < 1 < expected.max()  # so that clamping shows
    torch.testing.assert_close(generator.train()(coarse, sketch), expected)
    made = generator.eval()(coarse, sketch)
    torch.testing.assert_close(made, expected.clamp(-1, 1))
    with torch.no_grad():  # in place
        torch.testing.assert_close(generator(coarse, sketch), made.detach())


@pytest.mark.parametrize("sign", [-1, 1])
def test_low_res_generator_leaves_the_range_in_training_only(sign):
    generator = build_generator(LowResNetwork(widths=(4, 8)), (2, 2))
    nn.init.constant_(generator.tail.bias, 9 * sign)
    sketch = torch.rand(1, 1, 16, 16)
    assert generator.train()(sketch).abs().min() > 2
    assert torch.equal(generator.eval()(sketch), torch.full((1, 1, 8, 8), float(sign)))


def test_low_res_generator_without_dropout_is_the_same_in_training():
    torch.manual_seed(0)
    generator = build_generator(LowResNetwork(widths=(4, 8, 8)), (2, 2))
    sketch = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(generator.train()(sketch).clamp(-1, 1), generator.eval()(sketch))


def test_grid_that_cannot_be_halved_is_continued_by_its_border():
    torch.manual_seed(0)
    generator = build_generator(LowResNetwork(widths=(4, 8, 8, 8)), (2, 2)).eval()
    sketch = torch.rand(1, 1, 26, 36)
    grid = functional.pixel_unshuffle(sketch, 2)  # 13 x 18, to be halved three times
    wide = functional.pixel_shuffle(functional.pad(grid, (0, 6, 0, 3), mode="replicate"), 2)
    torch.testing.assert_close(generator(sketch), generator(wide)[:, :, :13, :18])


def _weave(upsampling):
    """Return how much steps between neighbours differ with their place; 0: not at all."""
    found = []
    for seed in range(4):
        torch.manual_seed(seed)
        network = LowResNetwork(widths=(8, 16, 16), upsampling=upsampling)
        sketch = torch.zeros(1, 1, 128, 128)
        sketch[..., 60:70, 20:110] = 1
        with torch.no_grad():
            steps = build_generator(network, (2, 2)).eval()(sketch).diff(dim=3).abs()[..., :-1]
        by_place = steps.unflatten(3, (-1, 2)).mean((0, 1, 2, 3))
        found.append(float(by_place.max() / by_place.min()) - 1)
    return sum(found) / len(found)


def test_linear_upsampling_weaves_less_than_nearest():
    assert _weave("linear") < 0.5 * _weave("nearest")


@pytest.mark.parametrize("upsampling", ["nearest", "linear"])
@pytest.mark.parametrize("is_channels_last", [False, True])
@pytest.mark.parametrize("ndim", [2, 3])
def test_low_res_generator_makes_the_same_with_and_without_gradients(
    ndim, is_channels_last, upsampling
):
    torch.manual_seed(0)
    network = LowResNetwork(widths=(8, 16, 24), upsampling=upsampling)
    generator = build_generator(network, (2,) * ndim).eval()
    if is_channels_last:
        layouts = {2: torch.channels_last, 3: torch.channels_last_3d}
        generator = generator.to(memory_format=layouts[ndim])
    sketch = torch.rand(1, 1, *(20, 28, 36)[:ndim])
    with torch.no_grad():
        made = generator(sketch)
    torch.testing.assert_close(made, generator(sketch).detach(), rtol=0, atol=1e-5)
    with torch.no_grad():  # what is normalised in place is in the result
        generator.decoders[0].norm_in.weight[0] += 1
        assert (generator(sketch) - made).abs().max() > 1e-4


@pytest.mark.parametrize("shape", [(33, 20), (8, 8), (64, 61), (1, 1), (4, 3)], ids=str)
def test_low_res_generator_keeps_any_shape(shape):
    generator = build_generator(LowResNetwork(widths=(4, 8, 8)), (2, 2)).eval()
    made = generator(torch.rand(1, 1, *(2 * n for n in shape)))
    assert tuple(made.shape) == (1, 1, *shape)
    assert made.abs().max() <= 1


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, padding=1),
        nn.InstanceNorm2d(4),
        nn.GroupNorm(2, 4),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, stride=2),
        nn.Conv2d(4, 4, 2),
        nn.Conv2d(4, 4, 3, padding=(0, 1)),
        nn.Conv2d(4, 4, 3, stride=(2, 1)),
        nn.Conv2d(4, 4, (3, 2)),
        nn.AdaptiveAvgPool2d(1),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layer_that_makes_tiles_visible_is_refused(layer):
    with pytest.raises(ModelError, match="layer '1'"):
        required_halo(nn.Sequential(nn.Conv2d(1, 4, 3), layer))


def test_dilation_counts_in_the_halo():
    assert required_halo(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.SiLU(), nn.Conv2d(4, 4, 5, dilation=2))
    ) == (5, 5)


@pytest.mark.parametrize(("strides", "window"), [((2, 2, 1), 34), ((2, 1), 16)], ids=str)
def test_discriminator_judges_windows_of_the_documented_size(strides, window):
    assert judged_window(strides) == window
    discriminator = PatchDiscriminator(2, 1, 4, strides)
    assert discriminator(torch.rand(1, 1, window, window)).shape == (1, 1, 1, 1)
    with pytest.raises(RuntimeError, match=r"[Kk]ernel"):
        discriminator(torch.rand(1, 1, window - 1, window - 1))


def test_in_lower_precision_the_first_layer_sees_faint_noise_on_a_strong_edge():
    """Rounded to 8 bits, 1.001 is 1."""
    torch.manual_seed(0)
    generator = build_generator(PatchNetwork(width=8, blocks=1), (2, 2)).eval()
    seen = []
    generator.head.register_forward_hook(lambda _, given, made: seen.append(made))
    coarse, edge = torch.zeros(1, 1, 20, 20), torch.ones(1, 1, 40, 40)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for sketch in (edge, edge + 0.001):
            made = generator(coarse, sketch)
    assert seen[0].dtype == torch.float32
    assert not torch.equal(*seen)
    assert torch.equal(edge.bfloat16(), (edge + 0.001).bfloat16())
    assert made.dtype == torch.float32
