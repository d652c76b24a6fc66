"""Generators with the layers of the method's authors, so that their weights can be used.

Layers and weight names are those of the authors' checkpoints [1]_; the code is our own.

References
----------
.. [1] Uzunova et al., "Multi-scale GANs for memory-efficient generation of high resolution medical
   images", MICCAI 2019, arXiv 1907.01376.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_msgan.geometry import Box
from napari_msgan.networks.generator import Generator
from napari_msgan.networks.patchwork import PATCH, STRIDE, blank_outside, cut, iter_patches

if TYPE_CHECKING:
    from napari_msgan.geometry import Ints
    from napari_msgan.tiling import TileWindows

_FACTOR = (2, 2, 2)
_BLOCKS = 6
#: The low-resolution generator halves its grid three times and normalises over what remains.
_MULTIPLE, _LEAST = 8, 16
#: What both networks see in place of nothing, in [-1, 1].
_BLANK = -1.0


class MeganLowResGenerator(Generator):
    """Makes the whole low-resolution image from a sketch at twice its resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            *_normalised(nn.Conv3d(1, width, 3, padding=1)),
            *_normalised(nn.Conv3d(width, width, 4, stride=2, padding=1)),
            *_body(width),
        )

    @property
    def halo(self) -> Ints:
        return (0, 0, 0)

    def forward(self, sketch: Tensor) -> Tensor:
        """Return the image at scale 0.

        Sizes that cannot be halved three times are padded with "no edge", to at least 16 voxels
        per axis, and the result is cropped.

        Parameters
        ----------
        sketch : Tensor, shape (N, 1, 2 Z, 2 Y, 2 X), in [0, 1], of scale 1

        Returns
        -------
        Tensor, shape (N, 1, Z, Y, X), in [-1, 1]
        """
        shape = sketch.shape[2:]
        full = [max(_LEAST, n + -n % _MULTIPLE) for n in shape]
        pads = [p for n, m in zip(reversed(shape), reversed(full), strict=True) for p in (0, m - n)]
        result: Tensor = self.model(functional.pad(2 * sketch - 1, pads, value=_BLANK))
        return cut(result, Box.of_shape([n // 2 for n in shape]))


class MeganPatchGenerator(Generator):
    """Refines a patch 32 voxels wide, given a coarse patch with twice its field of view.

    Its instance normalisation takes statistics over the patch. A tile is therefore not computed
    at once, but put together from patches at the authors' positions, see
    `napari_msgan.networks.patchwork`.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.model = nn.Sequential(*_normalised(nn.Conv3d(2, width, 3, padding=1)), *_body(width))
        self.patch_shift = 0

    @property
    def halo(self) -> Ints:
        # A patch that covers the first voxel of a tile may start up to 31 fine voxels (16 coarse
        # ones) before it, and its coarse patch another 8 coarse voxels earlier.
        return tuple(PATCH // f + (PATCH - PATCH // f) // 2 for f in _FACTOR)

    def forward(self, coarse: Tensor, sketch: Tensor) -> Tensor:
        """Return the refined patch.

        Parameters
        ----------
        coarse : Tensor, shape (N, 1, 32, 32, 32), in [-1, 1]
            The sketch covers its middle 16 voxels.
        sketch : Tensor, shape (N, 1, 32, 32, 32), in [0, 1]

        Returns
        -------
        Tensor, shape (N, 1, 32, 32, 32), in [-1, 1]
        """
        result: Tensor = self.model(torch.cat([coarse, 2 * sketch - 1], dim=1))
        return result

    def with_shifted_patches(self) -> MeganPatchGenerator:
        """Return a copy with the same weights, its patches half a stride from the authors' places.

        Where the two differ, the result depends on the patches and not on the image.
        """
        other = copy(self)
        other.patch_shift = STRIDE // 2
        return other

    def tile(self, windows: TileWindows, *inputs: Tensor) -> Tensor:
        """Return a tile as the weighted mean of all patches that count in it; see the base class.

        Outside the image the sketch has no edges and the coarse image is -1; this also fills up
        images smaller than a patch.
        """
        coarse, sketch = inputs
        assert windows.coarse is not None
        coarse = blank_outside(coarse, windows.coarse, windows.coarse_image(_FACTOR), _BLANK)
        sketch = blank_outside(sketch, windows.sketch, windows.image, 0.0)
        total = sketch.new_zeros((1, 1, *windows.core.shape))
        weight = torch.zeros_like(total)
        for patch in iter_patches(windows.image, windows.core, _FACTOR, self.patch_shift):
            made = self(
                cut(coarse, patch.coarse.relative_to(windows.coarse.start)),
                cut(sketch, patch.sketch.relative_to(windows.sketch.start)),
            )
            share = torch.from_numpy(patch.weight).to(made.device)
            part = patch.part.relative_to(windows.core.start)
            cut(total, part).add_(share * cut(made, patch.part.relative_to(patch.sketch.start)))
            cut(weight, part).add_(share)
        return total / weight


def _body(width: int) -> list[nn.Module]:
    """Return the layers that both generators share: all that follow their first ones."""
    return [
        *_normalised(nn.Conv3d(width, 2 * width, 4, stride=2, padding=1)),
        *_normalised(nn.Conv3d(2 * width, 4 * width, 4, stride=2, padding=1)),
        *(_Residual(4 * width) for _ in range(_BLOCKS)),
        *_normalised(nn.ConvTranspose3d(4 * width, 2 * width, 4, stride=2, padding=1)),
        *_normalised(nn.ConvTranspose3d(2 * width, width, 4, stride=2, padding=1)),
        nn.Conv3d(width, 1, 7, padding=3),
        nn.Tanh(),
    ]


def _normalised(layer: nn.Conv3d | nn.ConvTranspose3d) -> list[nn.Module]:
    return [layer, nn.InstanceNorm3d(layer.out_channels, affine=True), nn.ReLU()]


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            *_normalised(nn.Conv3d(width, width, 3, padding=1)),
            nn.Identity(),  # in place of the authors' dropout, which is off outside training
            nn.Conv3d(width, width, 3, padding=1),
            nn.InstanceNorm3d(width, affine=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.conv_block(x)
        return result
