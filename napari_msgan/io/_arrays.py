"""Array-likes that convert values as they are read, and reading an image slab by slab."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_msgan.volume import LazyArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_msgan.geometry import Box
    from napari_msgan.volume import ArrayLike

Block = npt.NDArray[Any]

#: Most bytes that `iter_slabs` reads at once (more only if a single band of rows is larger).
SLAB_BYTES = 64 * 2**20
#: Most planes of a slab: the depth of a chunk of our stores, so that a chunk is seldom read twice.
SLAB_PLANES = 64


def converted(
    source: ArrayLike, convert: Callable[[Block], Block], *, dtype: npt.DTypeLike, ndim: int
) -> LazyArray:
    """Return an array-like, shape (Z, Y, X) or (Y, X), that converts the blocks of another one.

    source : array-like with the same leading axes; `convert` may reduce one more axis, the last.
    convert : takes a block as stored, and returns one that can be cast to `dtype`.
    """

    def compute(box: Box) -> Block:
        return convert(np.asarray(source[box.slices]))

    return LazyArray(source.shape[:ndim], dtype, compute)


def native(data: Block) -> ArrayLike:
    """Return the array in the native byte order, converted as it is read."""
    if data.dtype.isnative:
        return data
    dtype = data.dtype.newbyteorder("=")
    return converted(data, lambda block: block, dtype=dtype, ndim=data.ndim)


def scaled(stored: ArrayLike, slope: float | None, inter: float | None) -> ArrayLike:
    """Return ``slope * stored + inter``, computed as it is read; of integers if all are whole."""
    if slope is None or inter is None or (slope, inter) == (1, 0):
        return native(stored) if isinstance(stored, np.ndarray) else stored
    if stored.dtype.kind != "f" and float(slope).is_integer() and float(inter).is_integer():
        limits = np.iinfo(stored.dtype)
        ends = sorted(int(slope) * end + int(inter) for end in (limits.min, limits.max))
        if -(2**63) <= ends[0] and ends[1] < 2**63:
            return converted(
                stored,
                lambda block: block.astype(np.int64) * int(slope) + int(inter),
                dtype=integer_type(*ends),
                ndim=len(stored.shape),
            )
    # float64 for 32-bit integers, which float32 cannot hold.
    real = np.result_type(stored.dtype.newbyteorder("="), np.float32)
    return converted(
        stored,
        lambda block: block.astype(real) * real.type(slope) + real.type(inter),
        dtype=real,
        ndim=len(stored.shape),
    )


def integer_type(low: int, high: int) -> np.dtype[Any]:
    """Return the smallest type for integers from `low` to `high`."""
    # Mixing a signed with an unsigned type may give float64: one end decides for both.
    return np.min_scalar_type(high if low >= 0 else min(low, -high - 1))


def iter_slabs(
    data: ArrayLike,
    *,
    row_step: int = 1,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Iterator[Block]:
    """Yield an image as whole planes or, if planes are large, as bands of whole rows.

    Parameters
    ----------
    data : array-like, shape (Z, Y, X) or (Y, X)
    row_step : all bands but the last of a plane have a multiple of this many rows.
    progress : called with the fraction yielded so far, when the next slab is requested.

    Yields
    ------
    array, shape (planes, rows, X)
        In the order of the file formats: z slowest.
    """
    n_planes, n_rows, n_columns = (1, *data.shape)[-3:]
    row_bytes = n_columns * data.dtype.itemsize
    rows = max(SLAB_BYTES // row_bytes // row_step, 1) * row_step
    planes = 1
    if rows >= n_rows:
        rows = n_rows
        fitting = max(SLAB_BYTES // (row_bytes * n_rows), 1)
        planes = min(SLAB_PLANES, 1 << (fitting.bit_length() - 1))  # divides a chunk's depth
    for z in range(0, n_planes, planes):
        for y in range(0, n_rows, rows):
            stop_z, stop_y = min(z + planes, n_planes), min(y + rows, n_rows)
            key = (slice(z, stop_z), slice(y, stop_y), slice(0, n_columns))
            # Not assigned to a name, which would keep it in memory while the next one is read.
            yield np.asarray(data[key[-len(data.shape) :]]).reshape(-1, stop_y - y, n_columns)
            progress((z * n_rows + (stop_z - z) * stop_y) / (n_planes * n_rows))
