"""The sketch as generators read it: with noise, for models that have a random part.

The noise is a function of seed, scale and place. So a voxel gets the same noise in every tile,
whatever the order, the tile grid or the worker.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from napari_msgan.geometry import Box
from napari_msgan.volume import read_padded

if TYPE_CHECKING:
    from napari_msgan.geometry import Ints
    from napari_msgan.intensity import Float32Array
    from napari_msgan.volume import ArrayLike

#: Voxels per side of a block, by number of axes. Blocks are cut from a pattern at least twice as
#: wide, each at a place of its own, which is faster than drawing every voxel.
_BLOCK = {2: 256, 3: 64}
_PATTERN = {2: 1024, 3: 128}


def read_sketch(
    sketch: ArrayLike, box: Box, sigma: float, *, seed: int, scale: int
) -> Float32Array:
    """Read a box of a sketch with values in [0, 255], as float32 in [0, 1] plus noise.

    At scale 0 no noise is added.

    Parameters
    ----------
    box : what to read, which may extend beyond the image.
    sigma : standard deviation of the noise.
    """
    values: Float32Array = read_padded(sketch, box.start, box.stop).astype(np.float32)
    values /= np.float32(255)
    if sigma and scale > 0:
        add_noise(values, box, sigma, seed=seed, scale=scale)
    return values


def add_noise(values: Float32Array, box: Box, sigma: float, *, seed: int, scale: int) -> None:
    """Add Gaussian noise to the values of a box, in place.

    Parameters
    ----------
    box : where the values lie, in voxels of the sketch that the scale reads; it may extend beyond
        the image.
    sigma : standard deviation of the noise.
    """
    block, pattern = (_BLOCK[box.ndim],) * box.ndim, _pattern(box.ndim)
    for index in box.cover(block).indices():
        whole = Box.of_cell(index, block)
        part = whole.intersect(box)
        source = part.relative_to(whole.start).shift(_place(index, seed, scale))
        target = part.relative_to(box.start)
        values[target.slices] += np.float32(sigma) * pattern[source.slices]


@lru_cache(maxsize=2)
def _pattern(ndim: int) -> Float32Array:
    """Return standard normal numbers, the same for every version of NumPy (`RandomState`)."""
    shape = (_PATTERN[ndim],) * ndim
    return np.random.RandomState(0).standard_normal(shape).astype(np.float32)


def _place(block: Ints, seed: int, scale: int) -> Ints:
    """Return where in the pattern a block is cut from."""
    ndim = len(block)
    key = np.array([seed % 2**63, scale, *block], "<i8").tobytes()
    digest = hashlib.blake2b(key, digest_size=8 * ndim).digest()
    room = _PATTERN[ndim] - _BLOCK[ndim] + 1
    return tuple(int(n % room) for n in np.frombuffer(digest, "<u8"))
