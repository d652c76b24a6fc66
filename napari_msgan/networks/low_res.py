"""The generator of scale 0."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_msgan.networks.blocks import (
    conv,
    fold,
    full_precision,
    normalise_,
    pointwise,
    upsample,
)
from napari_msgan.networks.generator import Generator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_msgan.geometry import Ints


def _repeat(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0)


def _interpolate(x: Tensor) -> Tensor:
    return upsample(x, (2,) * (x.dim() - 2))


_DOUBLE: dict[str, Callable[[Tensor], Tensor]] = {"nearest": _repeat, "linear": _interpolate}


class LowResGenerator(Generator):
    """Residual U-Net that makes the whole low-resolution image from the folded sketch.

    widths : number of channels at each depth; each further depth halves the grid.
    upsampling : "nearest" or "linear", used from each depth to the one above.
    """

    def __init__(self, factor: Ints, widths: Sequence[int], upsampling: str) -> None:
        super().__init__()
        ndim = len(factor)
        self.factor = factor
        self.head = conv(ndim, math.prod(factor), widths[0], 3, padding=1)
        self.encoders = nn.ModuleList(_Residual(ndim, w, w) for w in widths[:-1])
        self.downs = nn.ModuleList(
            conv(ndim, a, b, 2, stride=2) for a, b in itertools.pairwise(widths)
        )
        self.middle = nn.Sequential(
            _Residual(ndim, widths[-1], widths[-1]), _Residual(ndim, widths[-1], widths[-1])
        )
        pairs = list(itertools.pairwise(widths))[::-1]
        double = _DOUBLE[upsampling]
        self.decoders = nn.ModuleList(_Joining(ndim, a + b, a, double) for a, b in pairs)
        self.tail = conv(ndim, widths[0], 1, 3, padding=1)

    @property
    def halo(self) -> Ints:
        return (0,) * len(self.factor)

    def drop_out(self, share: float) -> None:
        """Set the dropout share of channels for the deeper half of the blocks (training only)."""
        shallow = (len(self.downs) + 1) // 2
        deep = [*self.encoders[shallow:], *self.middle, *self.decoders[: len(self.downs) - shallow]]
        for block in deep:
            assert isinstance(block, _Residual)
            block.dropout = share

    def forward(self, sketch: Tensor) -> Tensor:
        """Return the image at scale 0.

        Parameters
        ----------
        sketch : Tensor, shape (N, 1, fz * Z, fy * Y, fx * X), in [0, 1], of scale 1

        Returns
        -------
        Tensor, shape (N, 1, Z, Y, X), float32; outside training in [-1, 1].
        """
        x = fold(sketch, self.factor)
        shape = x.shape[2:]
        x = self.head(functional.pad(x, self._pads(shape), mode="replicate"))
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for decoder in self.decoders:
            x = decoder(x, skips)
        with full_precision(x):
            result = self.tail(functional.silu(x.float()))[(..., *(slice(n) for n in shape))]
        return result if self.training else torch.clamp(result, -1, 1)

    def _pads(self, shape: Sequence[int]) -> list[int]:
        """Return padding that lets the grid be halved at every depth.

        The deepest grid keeps at least two voxels, because a single voxel cannot be normalised.
        """
        multiple = 2 ** len(self.downs)
        after = [-size % multiple for size in shape]
        if max(map(sum, zip(shape, after, strict=True))) == multiple:
            after[-1] += multiple
        return [p for n in reversed(after) for p in (0, n)]


class _Residual(nn.Module):
    """Residual block with group normalisation."""

    def __init__(self, ndim: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(math.gcd(8, n_in), n_in)
        self.first = conv(ndim, n_in, n_out, 3, padding=1)
        self.norm_out = nn.GroupNorm(math.gcd(8, n_out), n_out)
        self.second = conv(ndim, n_out, n_out, 3, padding=1)
        self.dropout = 0.0
        self.skip = nn.Identity() if n_in == n_out else conv(ndim, n_in, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        # In place without gradients: the same bits with fewer large buffers.
        inner = functional.silu(self.norm_in(x), inplace=not torch.is_grad_enabled())
        return self._add(self.skip(x), self.first(inner))

    def _add(self, skip: Tensor, inner: Tensor) -> Tensor:
        in_place = not torch.is_grad_enabled()
        inner = torch.feature_dropout(inner, self.dropout, self.training)
        inner = self.second(functional.silu(self.norm_out(inner), inplace=in_place))
        result: Tensor = inner.add_(skip) if in_place else skip + inner
        return result


class _Joining(_Residual):
    """Residual block for an upsampled tensor joined with the last of the skip tensors.

    The joined tensor is the largest of the network; without gradients only one copy of it exists.
    The skip tensor is removed from its list, so that it can be freed.
    """

    def __init__(
        self, ndim: int, n_in: int, n_out: int, double: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__(ndim, n_in, n_out)
        self._double = double

    def forward(self, x: Tensor, kept: list[Tensor]) -> Tensor:  # type: ignore[override]
        if torch.is_grad_enabled():
            return super().forward(torch.cat([self._double(x), kept.pop()], dim=1))
        both = self._join(x, kept)
        skip = pointwise(self.skip, both)
        inner = self.first(functional.silu(normalise_(self.norm_in, both), inplace=True))
        del both
        return self._add(skip, inner)

    def _join(self, x: Tensor, kept: list[Tensor]) -> Tensor:
        """Return `x`, upsampled, joined with the last of `kept`, which is removed and freed."""
        n, channels, *shape = kept[-1].shape
        both = x.new_empty((n, *shape, x.shape[1] + channels)).movedim(-1, 1)  # channels last
        both[:, x.shape[1] :] = kept.pop()
        both[:, : x.shape[1]] = self._double(x)
        return both
