"""Build a generator from its description."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_msgan.config import (
    AnyNetwork,
    LowResNetwork,
    MeganLowResNetwork,
    MeganPatchNetwork,
    PatchNetwork,
)
from napari_msgan.networks.low_res import LowResGenerator
from napari_msgan.networks.megan import MeganLowResGenerator, MeganPatchGenerator
from napari_msgan.networks.patch import PatchGenerator

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_msgan.geometry import Ints
    from napari_msgan.networks.generator import Generator

    #: What makes a generator out of its description, as `build_generator` does.
    Build = Callable[[AnyNetwork, Ints], Generator]


def build_generator(network: AnyNetwork, factor: Ints) -> Generator:
    """Build the generator that `network` describes, with newly initialised weights."""
    match network:
        case LowResNetwork():
            return LowResGenerator(factor, network.widths, network.upsampling)
        case PatchNetwork():
            return PatchGenerator(factor, network.width, network.blocks)
        case MeganLowResNetwork():
            return MeganLowResGenerator(network.width)
        case MeganPatchNetwork():
            return MeganPatchGenerator(network.width)
