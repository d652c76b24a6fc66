"""Building blocks that all networks share, for 2 or 3 spatial axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_LINEAR = {2: "bilinear", 3: "trilinear"}


def conv(
    ndim: int, n_in: int, n_out: int, kernel: int, *, stride: int = 1, padding: int = 0
) -> nn.Module:
    """Return a convolution over `ndim` axes."""
    return cast("nn.Module", _CONV[ndim](n_in, n_out, kernel, stride, padding))


def pointwise(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a convolution with a kernel of one voxel to `x`.

    It is computed as a matrix product: on a single thread, torch's 3-D convolution would copy `x`.
    """
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    return functional.linear(x.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)


def normalise_(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """Apply a group normalisation to `x`, in place if `x` is float32."""
    if x.dtype != torch.float32:
        return norm(x)  # type: ignore[no-any-return]
    groups = x.unflatten(1, (norm.num_groups, -1))  # type: ignore[no-untyped-call]
    axes = list(range(2, groups.dim()))
    variance, mean = torch.var_mean(groups, axes, correction=0, keepdim=True)
    groups.sub_(mean).mul_(torch.rsqrt(variance + norm.eps))
    shape = (-1, *[1] * (x.dim() - 2))
    return x.mul_(norm.weight.view(shape)).add_(norm.bias.view(shape))


def fold(x: Tensor, factor: Sequence[int]) -> Tensor:
    """Move space into channels: (N, C, Z, Y, X) to (N, C * prod(f), Z / fz, Y / fy, X / fx)."""
    n, channels, *shape = x.shape
    split = [m for size, f in zip(shape, factor, strict=True) for m in (size // f, f)]
    x = x.reshape(n, channels, *split)
    ndim = len(shape)
    order = [0, 1, *(3 + 2 * i for i in range(ndim)), *(2 + 2 * i for i in range(ndim))]
    return x.permute(order).flatten(1, 1 + ndim)


def unfold(x: Tensor, factor: Sequence[int]) -> Tensor:
    """Move channels back into space, the inverse of `fold`."""
    n, channels, *shape = x.shape
    ndim = len(shape)
    channels //= int(torch.Size(factor).numel())
    x = x.reshape(n, channels, *factor, *shape)
    order = [0, 1, *(a for i in range(ndim) for a in (2 + ndim + i, 2 + i))]
    fine = [size * f for size, f in zip(shape, factor, strict=True)]
    return x.permute(order).reshape(n, channels, *fine)


def crop(x: Tensor, margin: int | Sequence[int]) -> Tensor:
    """Return a view of `x` without `margin` voxels on each side of every spatial axis."""
    ndim = x.dim() - 2
    margins = (margin,) * ndim if isinstance(margin, int) else tuple(margin)
    key = [slice(m, size - m) for m, size in zip(margins, x.shape[2:], strict=True)]
    return x[(slice(None), slice(None), *key)]


def upsample(x: Tensor, factor: Sequence[int]) -> Tensor:
    """Interpolate `x` linearly to a grid `factor` times as fine.

    Voxel centres lie where block averaging by `factor` assumes them. A new voxel depends only on
    its neighbours in `x`, not on where the tensor begins.
    """
    if all(f.bit_count() == 1 for f in factor):  # float32 holds these positions exactly
        scales = [float(f) for f in factor]
        return functional.interpolate(
            x, scale_factor=scales, mode=_LINEAR[x.dim() - 2], align_corners=False
        )
    for axis, f in enumerate(factor, 2):
        x = _upsample_axis(x, axis, f)
    return x


def _upsample_axis(x: Tensor, axis: int, factor: int) -> Tensor:
    size = x.shape[axis]
    before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, size - 1)], axis)
    after = torch.cat([x.narrow(axis, 1, size - 1), x.narrow(axis, size - 1, 1)], axis)
    phases = []
    for phase in range(factor):
        away = (2 * phase + 1 - factor) / (2 * factor)  # from the coarse centre, in coarse voxels
        phases.append(torch.lerp(x, before if away < 0 else after, abs(away)))
    return torch.stack(phases, axis + 1).flatten(axis, axis + 1)


def resize(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Interpolate `x` linearly to another spatial shape that covers the same region."""
    size, mode = list(shape), _LINEAR[x.dim() - 2]
    return functional.interpolate(x, size, mode=mode, align_corners=False)


def full_precision(x: Tensor) -> torch.autocast:
    """Return a context without autocast on the device of `x`; also for tensors without data."""
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)


def lowered(x: Tensor) -> Tensor:
    """Cast `x` to the precision that autocast computes in here, if it is enabled."""
    device = "cpu" if x.is_meta else x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x
