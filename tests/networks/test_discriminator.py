import torch
from torch.nn.utils.parametrizations import _SpectralNorm

from napari_msgan.networks import PatchDiscriminator


def test_norms_are_found_in_float32_once_a_pass(monkeypatch):
    """CUDA's autocast would compute their matrix-vector products in bfloat16."""
    seen = []
    found = _SpectralNorm.forward

    def watched(self, weight):
        seen.append(torch.is_autocast_enabled("cpu"))
        return found(self, weight)

    judged = PatchDiscriminator(2, 3, 8, (2, 1))
    n_layers = sum(isinstance(layer, torch.nn.Conv2d) for layer in judged.layers)
    monkeypatch.setattr(_SpectralNorm, "forward", watched)
    image = torch.rand(1, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert judged(image).dtype == torch.bfloat16
        assert seen == [False] * n_layers
        seen.clear()
        judged.layers(image)
        assert seen == [True] * n_layers


def test_logits_are_those_of_the_layers():
    torch.manual_seed(0)
    judged, same = (PatchDiscriminator(2, 1, 8, (2, 1)) for _ in range(2))
    same.load_state_dict(judged.state_dict())
    image = torch.rand(1, 1, 32, 32)
    for _ in range(3):  # each pass changes what the norms are found from
        torch.testing.assert_close(judged(image), same.layers(image), rtol=0, atol=0)


def test_layers_double_in_width_and_leak_a_fifth():
    judged = PatchDiscriminator(2, 3, 8, (2, 2, 1), spectrally_normalised=False)
    layers = list(judged.layers)
    shapes = [(c.in_channels, c.out_channels, c.stride[0]) for c in layers[::2]]
    assert shapes == [(3, 8, 2), (8, 16, 2), (16, 32, 1), (32, 1, 1)]
    assert layers[1](torch.tensor([-1.0, 1.0])).tolist() == torch.tensor([-0.2, 1.0]).tolist()
