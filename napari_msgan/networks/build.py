"""From the description of a network to the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_msgan.config import LowResNetwork, PatchNetwork
from napari_msgan.networks.low_res import LowResGenerator
from napari_msgan.networks.patch import PatchGenerator

if TYPE_CHECKING:
    from napari_msgan.geometry import Ints

AnyGenerator = LowResGenerator | PatchGenerator


def build_generator(network: LowResNetwork | PatchNetwork, factor: Ints) -> AnyGenerator:
    """Return a generator with fresh weights."""
    if isinstance(network, LowResNetwork):
        return LowResGenerator(factor, network.widths)
    return PatchGenerator(factor, network.width, network.blocks)
