"""What generators read of a sketch, with the noise of models that have a random part.

The noise is a function of seed, scale and place. So tiles in any order, on any grid and of any
worker see the same at the same voxel.
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

#: Voxels per side of a block, by number of axes; blocks are cut from a pattern twice or more as
#: wide, each at a place of its own, which is faster than drawing every voxel.
_BLOCK = {2: 256, 3: 64}
_PATTERN = {2: 1024, 3: 128}


def read_sketch(
    sketch: ArrayLike, box: Box, sigma: float, *, seed: int, scale: int
) -> Float32Array:
    """Return what the generator of a scale reads of a sketch in [0, 255]: [0, 1], with noise.

    Scale 0 reads no noise.
    """
    values: Float32Array = read_padded(sketch, box.start, box.stop).astype(np.float32)
    values /= np.float32(255)
    if sigma and scale > 0:
        add_noise(values, box, sigma, seed=seed, scale=scale)
    return values


def add_noise(values: Float32Array, box: Box, sigma: float, *, seed: int, scale: int) -> None:
    """Add normal noise to the values of a box, in place.

    Parameters
    ----------
    box : where the values lie, in voxels of the grid of the sketch that a scale reads; it may leave
        the image.
    sigma : standard deviation.
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
    """Return standard normal numbers, the same for every version of numpy (`RandomState`)."""
    shape = (_PATTERN[ndim],) * ndim
    return np.random.RandomState(0).standard_normal(shape).astype(np.float32)


def _place(block: Ints, seed: int, scale: int) -> Ints:
    """Return where in the pattern a block is cut out."""
    ndim = len(block)
    key = np.array([seed % 2**63, scale, *block], "<i8").tobytes()
    digest = hashlib.blake2b(key, digest_size=8 * ndim).digest()
    room = _PATTERN[ndim] - _BLOCK[ndim] + 1
    return tuple(int(n % room) for n in np.frombuffer(digest, "<u8"))
