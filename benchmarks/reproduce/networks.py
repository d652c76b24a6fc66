"""Generators that the project's own are compared with, for 2 and 3 axes.

The layers of the method's authors (padded convolutions, instance normalisation, six residual blocks
at a quarter of the grid) are those of `napari_msgan.networks.megan`, plus what only training needs.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from napari_msgan.geometry import Box
from napari_msgan.networks.blocks import conv, crop, upsample
from napari_msgan.networks.generator import Generator
from napari_msgan.networks.patchwork import cut

_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_RESIDUAL_BLOCKS = 6
_DROPOUT = 0.5
#: The authors keep the middle 20 of 32 voxels of a patch.
_MARGIN_SHARE = 6 / 32


class MeganLowRes(Generator):
    """The authors' low-resolution generator: makes the whole image from a sketch twice as fine."""

    def __init__(self, ndim, width):
        super().__init__()
        self.ndim = ndim
        self.model = nn.Sequential(
            *_normalised(ndim, conv(ndim, 1, width, 3, padding=1)),
            *_normalised(ndim, conv(ndim, width, width, 4, stride=2, padding=1)),
            *_body(ndim, width),
        )

    @property
    def halo(self):
        return (0,) * self.ndim

    def forward(self, sketch):
        """Return the image, shape (N, 1, ...) in [-1, 1], for a sketch in [0, 1] twice as large."""
        shape = [n // 2 for n in sketch.shape[2:]]
        return cut(self.model(_padded(2 * sketch - 1, multiple=8)), Box.of_shape(shape))


class MeganPatch(Generator):
    """The authors' patch generator as it is trained, on whole patches.

    patch : side of a patch in voxels.
    reads_coarse : whether it sees the coarse image, with twice the field of view of the patch, as
        in the multi-scale scheme; otherwise it sees only the sketch, as a common patch GAN does.
    """

    def __init__(self, ndim, width, patch, *, reads_coarse):
        super().__init__()
        self.ndim, self.patch, self.reads_coarse = ndim, patch, reads_coarse
        first = conv(ndim, 1 + reads_coarse, width, 3, padding=1)
        self.model = nn.Sequential(*_normalised(ndim, first), *_body(ndim, width))

    @property
    def halo(self):
        return (self.patch // 4 if self.reads_coarse else 0,) * self.ndim

    def forward(self, coarse, sketch):
        """Return the patch, with as many voxels as the coarse window, or else the sketch, has."""
        shape = coarse.shape[2:] if self.reads_coarse else sketch.shape[2:]
        x = 2 * _middle(sketch, shape) - 1
        if self.reads_coarse:
            x = torch.cat([coarse, x], 1)
        return cut(self.model(_padded(x, multiple=4)), Box.of_shape(shape))


class MiddleOfPatch(Generator):
    """Makes tiles as the authors' program does, keeping only the middle of each patch.

    A tile has 20/32 of the side of a patch. For factors of 2 only.
    """

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.margin = 2 * round(network.patch * _MARGIN_SHARE / 2)

    @property
    def tile_side(self):
        return self.network.patch - 2 * self.margin

    @property
    def halo(self):
        patch = self.network.patch
        # the coarse patch has as many voxels as the patch, so it reaches much further
        wide = (patch - self.tile_side // 2) // 2 if self.network.reads_coarse else self.margin // 2
        return (wide,) * self.network.ndim

    def forward(self, coarse, sketch):
        """Return the core of a window."""
        sides = [2 * (n - 2 * h) for n, h in zip(coarse.shape[2:], self.halo, strict=True)]
        patch = [n + 2 * self.margin for n in sides]
        seen = _middle(coarse, patch) if self.network.reads_coarse else coarse
        return crop(self.network(seen, _middle(sketch, patch)), self.margin)


class Upsampling(Generator):
    """Linear interpolation of the coarse image, whatever the sketch."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    @property
    def halo(self):
        return (1,) * len(self.factor)

    def forward(self, coarse, sketch):
        return crop(upsample(coarse, self.factor), self.factor)


class Blank(Generator):
    """Grey, for a method without a coarser image.

    factor : how many times larger the sketch is than the result.
    """

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    @property
    def halo(self):
        return (0,) * len(self.factor)

    def forward(self, *inputs):
        sketch = inputs[-1]
        shape = [n // f for n, f in zip(sketch.shape[2:], self.factor, strict=True)]
        return sketch.new_zeros((len(sketch), 1, *shape))


class WholeImage(Generator):
    """Makes the whole image from its sketch alone, in one tile."""

    def __init__(self, network, ndim):
        super().__init__()
        self.network, self.ndim = network, ndim

    @property
    def halo(self):
        return (0,) * self.ndim

    def tile(self, windows, *inputs):
        """Return the image; tiles extend past its border, where there is nothing to see."""
        return self.network(cut(inputs[-1], Box.of_shape(windows.core.shape)))


def _body(ndim, width):
    """Return what the authors' two generators share."""

    def up(n_in):
        return _TRANSPOSED[ndim](n_in, n_in // 2, 4, stride=2, padding=1)

    return [
        *_normalised(ndim, conv(ndim, width, 2 * width, 4, stride=2, padding=1)),
        *_normalised(ndim, conv(ndim, 2 * width, 4 * width, 4, stride=2, padding=1)),
        *(_Residual(ndim, 4 * width) for _ in range(_RESIDUAL_BLOCKS)),
        *_normalised(ndim, up(4 * width)),
        *_normalised(ndim, up(2 * width)),
        conv(ndim, width, 1, 7, padding=3),
        nn.Tanh(),
    ]


def _normalised(ndim, layer):
    return [layer, _NORM[ndim](layer.out_channels, affine=True), nn.ReLU()]


class _Residual(nn.Module):
    def __init__(self, ndim, width):
        super().__init__()
        self.layers = nn.Sequential(
            *_normalised(ndim, conv(ndim, width, width, 3, padding=1)),
            nn.Dropout(_DROPOUT),
            conv(ndim, width, width, 3, padding=1),
            _NORM[ndim](width, affine=True),
        )

    def forward(self, x):
        return x + self.layers(x)


def _padded(x, multiple):
    """Return a tensor whose sides are multiples, its last voxels repeated."""
    pads = [p for n in reversed(x.shape[2:]) for p in (0, -n % multiple)]
    return functional.pad(x, pads, mode="replicate") if any(pads) else x


def _middle(x, shape):
    start = [(n - m) // 2 for n, m in zip(x.shape[2:], shape, strict=True)]
    return cut(x, Box.of_shape(shape).shift(start))
