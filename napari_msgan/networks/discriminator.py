"""The discriminator used in training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from napari_msgan.networks.blocks import conv, full_precision

_KERNEL = 4

if TYPE_CHECKING:
    from collections.abc import Sequence


def judged_window(strides: Sequence[int]) -> int:
    """Return the width in voxels of the windows that a `PatchDiscriminator` judges."""
    window = _KERNEL
    for stride in reversed(strides):
        window = (window - 1) * stride + _KERNEL
    return window


class PatchDiscriminator(nn.Module):
    """Judge windows of an image with valid convolutions, spectrally normalised [1]_ by default.

    n_in : number of input channels, e.g. sketch, upsampled coarse image and image.
    strides : strides of the 4-wide layers before the last one. Windows are 34 voxels wide with
        (2, 2, 1), and 16 with (2, 1).

    References
    ----------
    .. [1] Miyato et al., "Spectral normalization for generative adversarial networks", ICLR 2018.
    """

    def __init__(
        self,
        ndim: int,
        n_in: int,
        width: int,
        strides: Sequence[int],
        *,
        spectrally_normalised: bool = True,
    ) -> None:
        super().__init__()
        normalised = spectral_norm if spectrally_normalised else nn.Identity()
        layers: list[nn.Module] = []
        for stride in strides:
            layers += [
                normalised(conv(ndim, n_in, width, _KERNEL, stride=stride)),
                nn.LeakyReLU(0.2),
            ]
            n_in, width = width, 2 * width
        layers.append(normalised(conv(ndim, n_in, 1, _KERNEL)))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return one logit per window, shape (N, 1, ...)."""
        with parametrize.cached():
            with full_precision(x):  # autocast on CUDA would round the spectral norms
                for layer in self.layers:
                    getattr(layer, "weight", None)  # computes the normalised weight and caches it
            logits: Tensor = self.layers(x)
        return logits
