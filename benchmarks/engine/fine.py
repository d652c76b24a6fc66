"""The generator as window frameworks need it: from an array to another one of the same shape.

They know only one grid, so the coarse image is passed as a second channel on the finest grid, with
each voxel repeated, and the wrapper takes back every f-th voxel (exact, as windows start at
multiples of f). What the network reads around its output is provided in one of two ways:

- `around="padded"` (frameworks that blend overlapping windows and have no halo): the border of the
  window is repeated by the halo, so the network has "same" padding, as their users' networks have;
- `around="in window"` (frameworks that crop a halo): the window includes the halo, and the smaller
  output is framed with zeros, which the framework discards. The network computes what ours does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.nn import functional

from benchmarks.engine.scene import SKETCH_TOP, window_of
from napari_msgan.geometry import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_msgan.pyramid import PyramidStore


class FineNetwork(torch.nn.Module):
    """A patch generator from (N, 2, Z, Y, X), coarse image and sketch, to (N, 1, Z, Y, X)."""

    def __init__(
        self,
        generator: torch.nn.Module,
        factor: Sequence[int],
        halo: Sequence[int],
        around: Literal["padded", "in window"],
    ) -> None:
        super().__init__()
        self.generator = generator
        self.factor = tuple(factor)
        self.halo = tuple(halo)
        self.around = around

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        every = (slice(None), slice(None), *(slice(None, None, f) for f in self.factor))
        coarse, sketch = window[:, :1][every], window[:, 1:]
        fine_halo = [h * f for h, f in zip(self.halo, self.factor, strict=True)]
        if self.around == "padded":
            coarse = functional.pad(coarse, _both_sides(self.halo), mode="replicate")
            sketch = functional.pad(sketch, _both_sides(fine_halo), mode="replicate")
            result: torch.Tensor = self.generator(coarse, sketch)
            return result
        return functional.pad(self.generator(coarse, sketch), _both_sides(fine_halo))


class FineGrid:
    """Coarse image in [-1, 1] and sketch in [0, 1] as one array-like, shape (2, Z, Y, X), float32.

    A box is read from the store when it is indexed.
    """

    def __init__(self, store: PyramidStore) -> None:
        scale = store.geometry.finest_scale
        self._sketch, self._coarse = store.sketch_array(scale), store.array(scale - 1)
        self._factor, self._window = store.geometry.factor(scale), window_of(store)
        self.shape = (2, *self._sketch.shape)
        self.ndim = len(self.shape)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray[Any, Any]:
        assert key[0] == slice(None), "both channels are read together"
        ranges = [part.indices(n) for part, n in zip(key[1:], self.shape[1:], strict=True)]
        box = Box(tuple(r[0] for r in ranges), tuple(r[1] for r in ranges))
        block = np.empty((2, *box.shape), np.float32)
        cover = box.cover(self._factor)
        coarse = self._window.to_network(np.asarray(self._coarse[cover.slices]))
        for axis, factor in enumerate(self._factor):
            coarse = coarse.repeat(factor, axis)
        block[0] = coarse[box.relative_to(cover.multiply(self._factor).start).slices]
        np.divide(np.asarray(self._sketch[box.slices]), SKETCH_TOP, out=block[1])
        return block

    def read_all(self) -> np.ndarray[Any, Any]:
        return self[(slice(None),) * self.ndim]


def _both_sides(margins: Sequence[int]) -> list[int]:
    return [m for margin in reversed(margins) for m in (margin, margin)]
