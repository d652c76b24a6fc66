"""Small settings and images to train on."""

import numpy as np

from napari_msgan.config import LowResNetwork, PatchNetwork
from napari_msgan.geometry import Affine
from napari_msgan.io import write_volume
from napari_msgan.training.config import ScaleTraining, TrainConfig
from napari_msgan.volume import Volume


def config_of(ndim, n_scales=3, **changes):
    """Return settings of a model with isotropic voxels of 1 mm at the finest scale."""
    physical = ndim == 3
    side = changes.get("base_size", 32)
    scales = []
    for index in range(n_scales):
        mm = 2.0 ** (n_scales - 1 - index)
        scales.append(
            ScaleTraining(
                network=PatchNetwork(width=4, blocks=1) if index else LowResNetwork(widths=(4, 8)),
                factor=(2,) * ndim,
                spacing_mm=(mm,) * ndim if physical else None,
                steps=2,
                batch=2,
                patch_shape=(side if index == 0 and not physical else 16,) * ndim,
                discriminator_width=4,
                discriminator_strides=(2,),
            )
        )
    return TrainConfig(
        **{
            "name": "made",
            "kind": "physical" if physical else "relative",
            "axes": ("z", "y", "x")[-ndim:],
            "orientation": "LPS" if physical else None,
            "modality": "CT" if physical else "XR",
            "base_size": 32,
            "tile_shape": (32,) * ndim,
            "chunk_shape": (16,) * ndim,
            "window": (0, 1000),
            "dtype": "uint16",
            "scales": tuple(scales),
            "zoom": (0.9, 1.0),
            "pool": 4,
        }
        | changes
    )


def blobs(shape, seed):
    """Return waves along the axes, around 500."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    waves = sum(np.sin(rng.uniform(5, 20) * g + rng.uniform(0, 6)) for g in grid)
    return (500 + 150 * waves).astype(np.uint16)


def write_image(path, values, spacing=None):
    """Write an array with a voxel size in mm, or without one."""
    unit = "millimeter" if spacing else "pixel"
    affine = Affine.of_spacing(spacing or (1.0,) * values.ndim)
    write_volume(path, [Volume(values, affine, unit)], description={})
    return path
