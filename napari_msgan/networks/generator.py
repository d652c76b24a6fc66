"""What the refiner asks of a generator of any scale."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from napari_msgan.geometry import Ints
    from napari_msgan.tiling import TileWindows


class Generator(nn.Module, ABC):
    """A network that makes tiles out of what they read."""

    @property
    @abstractmethod
    def halo(self) -> Ints:
        """Return how many coarse voxels around a tile are read; zeros where there is no coarse."""

    def tile(self, windows: TileWindows, *inputs: Tensor) -> Tensor:
        """Return a tile; its first voxel is that of the core, what lies beyond the core is cut off.

        Exact generators do not ask where the tile lies: they make the same of the same windows.

        Parameters
        ----------
        windows : where the tile and its inputs lie.
        inputs : what `forward` takes, with the border of the image repeated outside of it.

        Returns
        -------
        Tensor, shape (1, 1, Z, Y, X) or (1, 1, Y, X), in [-1, 1]
        """
        result: Tensor = self(*inputs)
        return result
