"""How the method's authors put an image together from overlapping patches.

Patches of 32 voxels start every 20 voxels; the last one of each axis ends at the image border.
Inside the image the mean is taken over the middle 20 voxels of each patch, in the outer 6 voxels of
the image over whole patches. The last patch of the image, in its far corner, counts twice (found
in the output of their program).

Everything follows from the shape of the image, so any part of it can be made on its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_msgan.geometry import Box, Ints

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from napari_msgan.intensity import Float32Array

PATCH = 32
STRIDE = 20
MARGIN = (PATCH - STRIDE) // 2
_LAST_COUNTS = 2


@dataclass(frozen=True)
class Patch:
    """One evaluation of the generator for part of an image.

    sketch : the box it makes, and reads of the sketch.
    coarse : the box it reads of the coarser scale.
    part : where it overlaps the requested box.
    weight : how much each voxel of `part` counts.
    """

    sketch: Box
    coarse: Box
    part: Box
    weight: Float32Array


def patch_starts(size: int, shift: int = 0) -> list[int]:
    """Return where the patches along an axis of `size` voxels start.

    Parameters
    ----------
    shift : voxels by which all patches but the first and the last are shifted; the authors
        use 0.

    Examples
    --------
    >>> patch_starts(64), patch_starts(72), patch_starts(10)
    ([0, 20, 32], [0, 20, 40], [0])
    >>> patch_starts(64, shift=10)
    [0, 10, 30, 32]
    """
    last = max(0, size - PATCH)
    return sorted({0, *range(shift, last, STRIDE), last})


def iter_patches(image: Ints, box: Box, factor: Ints, shift: int = 0) -> Iterator[Patch]:
    """Yield the patches that count in a box, always in the same order.

    Parameters
    ----------
    image : shape of the image; axes shorter than a patch are taken to be as long as one.
    box : the requested part, inside the image.
    factor : how many times finer the image is than the coarser scale, per axis.
    shift : see `patch_starts`.
    """
    image = tuple(max(n, PATCH) for n in image)
    last = tuple(n - PATCH for n in image)
    near = [
        [start for start in patch_starts(n, shift) if start < b and start + PATCH > a]
        for n, a, b in zip(image, box.start, box.stop, strict=True)
    ]
    for start in product(*near):
        sketch = Box(start, tuple(a + PATCH for a in start))
        part = sketch.intersect(box)
        counts = _counts(image, start, part)
        if counts.any():
            times = _LAST_COUNTS if start == last else 1
            yield Patch(sketch, _coarse(start, factor), part, times * counts.astype(np.float32))


def _coarse(start: Ints, factor: Ints) -> Box:
    first = tuple(a // f - (PATCH - PATCH // f) // 2 for a, f in zip(start, factor, strict=True))
    return Box(first, tuple(a + PATCH for a in first))


def _counts(image: Ints, start: Ints, part: Box) -> npt.NDArray[np.bool_]:
    """Return where a patch counts: in its middle, and in the outer voxels of the image."""
    voxels = np.ogrid[part.slices]
    middle = [
        (v >= a + MARGIN) & (v < a + PATCH - MARGIN) for v, a in zip(voxels, start, strict=True)
    ]
    outer = [(v < MARGIN) | (v >= n - MARGIN) for v, n in zip(voxels, image, strict=True)]
    counts: npt.NDArray[np.bool_] = reduce(np.logical_and, middle) | reduce(np.logical_or, outer)
    return counts


def blank_outside(
    block: torch.Tensor, window: Box, image: Sequence[int], value: float
) -> torch.Tensor:
    """Return a window, shape (1, 1, ...), filled with `value` where it extends past the image."""
    inside = window.intersect(Box.of_shape(image))
    if inside == window:
        return block
    result = torch.full_like(block, value)
    part = inside.relative_to(window.start)
    cut(result, part)[:] = cut(block, part)
    return result


def cut(block: torch.Tensor, box: Box) -> torch.Tensor:
    """Return a view of a box of a window; `block` has shape (1, 1, ...)."""
    return block[(slice(None), slice(None), *box.slices)]
