"""The interface through which the refiner uses a generator of any scale."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from napari_msgan.geometry import Ints
    from napari_msgan.tiling import TileWindows


class Generator(nn.Module, ABC):
    """A network that makes tiles from their input windows."""

    @property
    @abstractmethod
    def halo(self) -> Ints:
        """How many coarse voxels around a tile are read, per axis; zeros without a coarse input."""

    def tile(self, windows: TileWindows, *inputs: Tensor) -> Tensor:
        """Return a tile that starts at the first voxel of the core; any excess is cut off later.

        Exact generators ignore where the tile lies: the same windows always give the same tile.

        Parameters
        ----------
        windows : where the tile and its inputs lie.
        inputs : the arguments of `forward`; the border of the image is repeated outside of it.

        Returns
        -------
        Tensor, shape (1, 1, Z, Y, X) or (1, 1, Y, X), in [-1, 1]
        """
        result: Tensor = self(*inputs)
        return result
