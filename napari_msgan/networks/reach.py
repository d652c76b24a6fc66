"""The halo of a patch generator, computed from its layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from napari_msgan.errors import ModelError

if TYPE_CHECKING:
    from napari_msgan.geometry import Ints

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_HARMLESS = (nn.SiLU, nn.ReLU, nn.LeakyReLU, nn.Identity)


def required_halo(network: nn.Module) -> Ints:
    """Return how many coarse voxels around its core the generator reads, per axis.

    It is the sum of ``(kernel - 1) / 2 * dilation`` over the convolutions [1]_, which follow each
    other in this project's patch generators (skip connections reach less far).

    Raises
    ------
    ModelError
        If a layer would make tiles differ from the whole image: padding, a stride, an even
        kernel, or statistics over the patch.

    References
    ----------
    .. [1] Araujo, Norris and Sim, "Computing receptive fields of convolutional neural
       networks", Distill, 2019, doi:10.23915/distill.00021.
    """
    halo: list[int] = []
    for name, layer in network.named_modules():
        if isinstance(layer, _CONVOLUTIONS):
            reach = _reach(name, layer)
            halo = [a + b for a, b in zip(halo or [0] * len(reach), reach, strict=True)]
        elif not any(True for _ in layer.children()) and not isinstance(layer, _HARMLESS):
            raise ModelError(
                f"layer {name!r} ({type(layer).__name__}) of a patch generator may depend on the "
                "whole patch, so tiles would show. Use convolutions and activations only."
            )
    return tuple(halo)


def _reach(name: str, layer: nn.Conv2d | nn.Conv3d) -> Ints:
    if any(p != 0 for p in layer.padding) or any(s != 1 for s in layer.stride):
        raise ModelError(
            f"layer {name!r} has padding {layer.padding} and stride {layer.stride}: a patch "
            "generator needs valid convolutions of stride 1, or tile borders would show."
        )
    if any(k % 2 == 0 for k in layer.kernel_size):
        raise ModelError(f"layer {name!r} has an even kernel {layer.kernel_size}: use an odd one.")
    return tuple((k - 1) // 2 * d for k, d in zip(layer.kernel_size, layer.dilation, strict=True))
