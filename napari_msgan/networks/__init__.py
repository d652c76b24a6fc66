"""Generators and discriminators: how they are built from layers, not how they are used."""

from napari_msgan.networks.build import build_generator
from napari_msgan.networks.discriminator import PatchDiscriminator, judged_window
from napari_msgan.networks.low_res import LowResGenerator
from napari_msgan.networks.patch import PatchGenerator
from napari_msgan.networks.reach import required_halo

__all__ = [
    "LowResGenerator",
    "PatchDiscriminator",
    "PatchGenerator",
    "build_generator",
    "judged_window",
    "required_halo",
]
