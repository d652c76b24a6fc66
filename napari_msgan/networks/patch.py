"""The generator of scales 1 and above."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_msgan.networks.blocks import (
    conv,
    crop,
    fold,
    full_precision,
    lowered,
    unfold,
    upsample,
)
from napari_msgan.networks.generator import Generator
from napari_msgan.networks.reach import required_halo

if TYPE_CHECKING:
    from napari_msgan.geometry import Ints


class PatchGenerator(Generator):
    """Refines a window of the coarse image with the sketch of its own scale.

    It has no padding and no statistics over the patch: an output voxel depends only on its
    receptive field, so tiles equal the whole image. All convolutions run on the coarse grid.
    The output is the upsampled coarse image plus a residual.
    """

    def __init__(self, factor: Ints, width: int, blocks: int) -> None:
        super().__init__()
        ndim, folded = len(factor), math.prod(factor)
        self.factor = factor
        self.head = conv(ndim, 1 + folded, width, 3)
        self.blocks = nn.ModuleList(_ValidResidual(ndim, width) for _ in range(blocks))
        self.tail = conv(ndim, width, folded, 3)
        self._start_without_checkerboard(folded)

    def _start_without_checkerboard(self, folded: int) -> None:
        weight, bias = self.tail.weight, self.tail.bias
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        # An operation on tensors without data would make torch import its compiler, and with it
        # Triton, which kills a process that draws windows with Mesa.
        if weight.is_meta:
            return
        with torch.no_grad():
            weight.copy_(0.1 * weight[:1].repeat(folded, *[1] * (weight.dim() - 1)))
            bias.zero_()

    @property
    def halo(self) -> Ints:
        return required_halo(self)

    def forward(self, coarse: Tensor, sketch: Tensor) -> Tensor:
        """Return the refined core of a window.

        Parameters
        ----------
        coarse : Tensor, shape (N, 1, Z, Y, X), in [-1, 1]
        sketch : Tensor, shape (N, 1, fz * Z, fy * Y, fx * X), in [0, 1]

        Returns
        -------
        Tensor, shape (N, 1, fz * (Z - 2 h), ...), float32
            h is the halo, see `napari_msgan.networks.reach`. In [-1, 1] outside training.
        """
        # In float32, because rounding would lose faint noise on a strong edge.
        with full_precision(coarse):
            x = self.head(torch.cat([coarse, fold(sketch, self.factor)], dim=1))
        x = lowered(x)
        for block in self.blocks:
            x = block(x)
        # In float32, because the residual would show steps in lower precision.
        with full_precision(x):
            in_place = not torch.is_grad_enabled()
            residual = self.tail(functional.silu(x.float(), inplace=in_place))
            margin = (coarse.shape[2] - residual.shape[2]) // 2
            base = upsample(crop(coarse.float(), margin - 1), self.factor)
            result = crop(base, self.factor) + unfold(residual, self.factor)
        return result if self.training else torch.clamp(result, -1, 1)


class _ValidResidual(nn.Module):
    """Two valid convolutions; the skip connection is cropped by the same border."""

    def __init__(self, ndim: int, width: int) -> None:
        super().__init__()
        self.first = conv(ndim, width, width, 3)
        self.second = conv(ndim, width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        in_place = not torch.is_grad_enabled()  # the same bits, fewer large buffers
        inner = self.first(functional.silu(x))
        inner = self.second(functional.silu(inner, inplace=in_place))
        result: Tensor = inner.add_(crop(x, 2)) if in_place else crop(x, 2) + inner
        return result
