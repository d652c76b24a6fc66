"""Integer boxes, affines, and the arithmetic between the scales of a pyramid.

Arrays are indexed (z, y, x) or (y, x). World coordinates have the same order, so those of a volume
are (S, P, L) in mm: superior, posterior and left are positive (DICOM's LPS, reversed).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from napari_msgan.errors import GeometryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Ints = tuple[int, ...]
Floats = tuple[float, ...]
Unit = Literal["millimeter", "pixel"]

_RANGE = re.compile(r"\s*(-?\d{1,18})\s*:\s*(-?\d{1,18})\s*$")


@dataclass(frozen=True, slots=True)
class Box:
    """Half-open box of voxels: `start` is included, `stop` is not."""

    start: Ints
    stop: Ints

    def __post_init__(self) -> None:
        if len(self.start) != len(self.stop):
            raise GeometryError(f"a box needs as many starts as stops, got {self!r}")
        if any(b < a for a, b in zip(self.start, self.stop, strict=True)):
            raise GeometryError(f"a box must not stop before it starts, got {self}")

    @classmethod
    def of_shape(cls, shape: Sequence[int]) -> Box:
        """Return the box that covers a whole array of this shape."""
        return cls((0,) * len(shape), tuple(int(n) for n in shape))

    @classmethod
    def of_cell(cls, index: Sequence[int], cell_shape: Sequence[int]) -> Box:
        """Return a cell of the grid of `cell_shape` that is anchored at voxel 0."""
        return cls(tuple(index), tuple(i + 1 for i in index)).multiply(cell_shape)

    @classmethod
    def parse(cls, text: str, axes: Sequence[str]) -> Box:
        """Parse a box written as ``z0:z1,y0:y1,x0:x1`` (2-D: ``y0:y1,x0:x1``).

        Raises
        ------
        GeometryError
            If the text has another form or number of axes, or a range is empty or starts below 0.

        Examples
        --------
        >>> Box.parse("10:20,0:5", ("y", "x"))
        Box(start=(10, 0), stop=(20, 5))
        """
        form = ",".join(f"{a}0:{a}1" for a in axes)
        parts = [_RANGE.match(part) for part in text.split(",")]
        if len(parts) != len(axes) or not all(parts):
            example = ",".join(["0:64"] * len(axes))
            raise GeometryError(f"region {text!r} is not of the form {form}, such as {example}")
        pairs = [(int(m[1]), int(m[2])) for m in parts if m]
        for axis, (a, b) in zip(axes, pairs, strict=True):
            if a < 0 or b <= a:
                raise GeometryError(
                    f"region {text!r}: {axis} goes from {a} to {b}; "
                    "it must start at 0 or more and stop after its start"
                )
        return cls(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))

    def __str__(self) -> str:
        return ",".join(f"{a}:{b}" for a, b in zip(self.start, self.stop, strict=True))

    @property
    def ndim(self) -> int:
        return len(self.start)

    @property
    def shape(self) -> Ints:
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def indices(self) -> Iterator[Ints]:
        """Iterate over the indices of all voxels, last axis fastest."""
        return product(*map(range, self.start, self.stop))

    def intersect(self, other: Box) -> Box:
        """Return the box that both cover; an empty box if they do not overlap."""
        start = tuple(max(a, b) for a, b in zip(self.start, other.start, strict=True))
        stop = tuple(min(a, b) for a, b in zip(self.stop, other.stop, strict=True))
        return Box(start, tuple(max(a, b) for a, b in zip(start, stop, strict=True)))

    def contains(self, other: Box) -> bool:
        return self.intersect(other) == other

    def grow(self, margin: int | Sequence[int]) -> Box:
        """Return the box extended by `margin` voxels on every side, per axis or for all axes."""
        margins = (margin,) * self.ndim if isinstance(margin, int) else tuple(margin)
        return Box(
            tuple(a - m for a, m in zip(self.start, margins, strict=True)),
            tuple(b + m for b, m in zip(self.stop, margins, strict=True)),
        )

    def shift(self, offset: Sequence[int]) -> Box:
        return Box(
            tuple(a + o for a, o in zip(self.start, offset, strict=True)),
            tuple(b + o for b, o in zip(self.stop, offset, strict=True)),
        )

    def relative_to(self, origin: Sequence[int]) -> Box:
        return self.shift([-o for o in origin])

    def multiply(self, factor: Sequence[int]) -> Box:
        """Return the same box on a grid that is `factor` times finer."""
        return Box(
            tuple(a * f for a, f in zip(self.start, factor, strict=True)),
            tuple(b * f for b, f in zip(self.stop, factor, strict=True)),
        )

    def cover(self, factor: Sequence[int]) -> Box:
        """Return the smallest box that covers this one on a grid `factor` times coarser."""
        return Box(
            tuple(a // f for a, f in zip(self.start, factor, strict=True)),
            tuple(-(-b // f) for b, f in zip(self.stop, factor, strict=True)),
        )

    def blocks(self, block_shape: Sequence[int]) -> list[Box]:
        """Split the box along the grid of `block_shape` that is anchored at voxel 0."""
        cells = self.cover(block_shape).indices()
        return [Box.of_cell(index, block_shape).intersect(self) for index in cells]


@dataclass(frozen=True, eq=False)
class Affine:
    """Affine map from voxel index to the world position of the voxel's centre.

    matrix : array, shape (ndim + 1, ndim + 1), float64
        Index and world order are both (z, y, x). The world is in mm, (S, P, L), or in pixels.
    """

    matrix: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=np.float64)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise GeometryError(f"an affine must be square, got shape {matrix.shape}")
        # Judged by the directions alone: the voxels of a microscope are tiny without being flat.
        lengths = np.linalg.norm(matrix[:-1, :-1], axis=0)
        if (
            not np.isfinite(matrix).all()
            or lengths.min() == 0
            or abs(np.linalg.det(matrix / [*lengths, 1.0])) < 1e-9
        ):
            raise GeometryError(f"an affine must be finite and invertible, got {matrix.tolist()}")
        if np.abs(matrix[-1] - np.eye(len(matrix))[-1]).max() > 1e-9:
            raise GeometryError(f"last row {matrix[-1]}, not 0 ... 1: is the matrix transposed?")
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Affine) and np.array_equal(self.matrix, other.matrix)

    @classmethod
    def of_spacing(cls, spacing: Sequence[float], origin: Sequence[float] | None = None) -> Affine:
        """Return the affine of a grid that is aligned with the world axes.

        spacing : distance between voxel centres, as (z, y, x) or (y, x).
        origin : position of the centre of voxel 0, in the same order; None for 0.

        Raises
        ------
        GeometryError
            If either is not one number per axis.
        """
        try:
            matrix = np.diag([*(float(v) for v in spacing), 1.0])
            matrix[:-1, -1] = 0.0 if origin is None else np.reshape(origin, len(matrix) - 1)
        except (TypeError, ValueError) as error:
            raise GeometryError(f"{spacing!r}, {origin!r}: not one number for each axis") from error
        return cls(matrix)

    @property
    def ndim(self) -> int:
        return len(self.matrix) - 1

    @property
    def spacing(self) -> Floats:
        """Distance between voxel centres along each index axis."""
        return tuple(float(v) for v in np.linalg.norm(self.matrix[:-1, :-1], axis=0))

    @property
    def origin(self) -> Floats:
        return tuple(float(v) for v in self.matrix[:-1, -1])

    @property
    def is_oblique(self) -> bool:
        """Whether an index axis is not parallel to a world axis."""
        direction = self.matrix[:-1, :-1] / np.array(self.spacing)
        return bool(np.sort(np.abs(direction), axis=0)[:-1].max(initial=0.0) > 1e-3)

    @property
    def is_upright(self) -> bool:
        """Whether index axis i grows along world axis i, so that scale and translation suffice."""
        order, backwards = self.axis_order()
        return not self.is_oblique and order == tuple(range(self.ndim)) and not any(backwards)

    def at(self, index: Sequence[float]) -> npt.NDArray[np.float64]:
        """Return the world position of a (fractional) voxel index."""
        position: npt.NDArray[np.float64] = self.matrix[:-1, :-1] @ np.asarray(index, float)
        return position + self.matrix[:-1, -1]

    def rescaled(self, step: Sequence[float], first: Sequence[float]) -> Affine:
        """Return the affine of a grid whose voxel i lies at index ``first + step * i``."""
        inner = np.diag([*step, 1.0])
        inner[:-1, -1] = first
        return Affine(self.matrix @ inner)

    def respaced(self, spacing: Sequence[float]) -> Affine:
        """Return the affine with another voxel size, but the same directions and origin."""
        matrix = self.matrix.copy()
        for axis, (new, own) in enumerate(zip(spacing, self.spacing, strict=True)):
            column = matrix[:-1, axis]
            # exact if the index axis is parallel to a world axis
            is_straight = np.count_nonzero(column) == 1
            matrix[:-1, axis] = new * (np.sign(column) if is_straight else column / own)
        return Affine(matrix)

    def axis_order(self) -> tuple[Ints, tuple[bool, ...]]:
        """Return which index axis is closest to each world axis, and whether it runs backwards."""
        direction = np.abs(self.matrix[:-1, :-1] / np.array(self.spacing))
        order = [-1] * self.ndim
        for _ in range(self.ndim):
            world, index = np.unravel_index(int(np.argmax(direction)), direction.shape)
            order[int(world)] = int(index)
            direction[world, :] = -1
            direction[:, index] = -1
        return tuple(order), tuple(bool(self.matrix[w, i] < 0) for w, i in enumerate(order))


def level_of_scale(scale: int, n_scales: int) -> int:
    """Convert a GAN scale (0 = coarsest) to its stored level (0 = finest)."""
    return n_scales - 1 - scale


@dataclass(frozen=True)
class PyramidGeometry:
    """Shapes and positions of all scales of an image.

    shape : shape of the finest scale, in voxels.
    factors : ``factors[s - 1]`` is how much finer scale s is than scale s - 1, per axis.
    affine : affine of the finest scale.
    """

    axes: tuple[str, ...]
    shape: Ints
    factors: tuple[Ints, ...]
    affine: Affine
    unit: Unit

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.axes) or min(self.shape) < 1:
            raise GeometryError(f"shape {self.shape} does not fit the axes {self.axes}")
        if any(len(f) != len(self.axes) or min(f) < 1 for f in self.factors):
            raise GeometryError(f"factors {self.factors} do not fit the axes {self.axes}")
        if self.affine.ndim != len(self.axes):
            raise GeometryError(f"a {self.affine.ndim}-D affine does not fit the axes {self.axes}")

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def n_scales(self) -> int:
        return len(self.factors) + 1

    @property
    def finest_scale(self) -> int:
        return self.n_scales - 1

    def factor(self, scale: int) -> Ints:
        """Return how much finer `scale` is than the previous scale, per axis."""
        return self.factors[scale - 1]

    def total_factor(self, scale: int) -> Ints:
        """Return F: how much coarser `scale` is than the finest scale, per axis."""
        rest = self.factors[scale:]
        return tuple(math.prod(f[axis] for f in rest) for axis in range(self.ndim))

    def shape_at(self, scale: int) -> Ints:
        shape = self.shape
        for factor in reversed(self.factors[scale:]):
            shape = tuple(-(-n // f) for n, f in zip(shape, factor, strict=True))
        return shape

    def spacing_at(self, scale: int) -> Floats:
        total = self.total_factor(scale)
        return tuple(v * f for v, f in zip(self.affine.spacing, total, strict=True))

    def affine_at(self, scale: int) -> Affine:
        """Return the affine of `scale`, whose voxel 0 is centred at finest index (F - 1) / 2."""
        total = self.total_factor(scale)
        return self.affine.rescaled(total, [(f - 1) / 2 for f in total])

    def box_at(self, scale: int, region: Box) -> Box:
        """Return the voxels of `scale` that a region of the finest scale touches, inside the image.

        Raises
        ------
        GeometryError
            If the region has another number of axes or does not overlap the image.
        """
        if region.ndim != self.ndim:
            raise GeometryError(f"region {region} has {region.ndim} axes, the image {self.ndim}")
        inside = region.intersect(Box.of_shape(self.shape))
        if inside.size == 0:
            raise GeometryError(
                f"region {region} lies outside the image, which is {Box.of_shape(self.shape)}"
            )
        return inside.cover(self.total_factor(scale)).intersect(Box.of_shape(self.shape_at(scale)))

    def region_of(self, scale: int, box: Box) -> Box:
        """Return the region of the finest scale that a box of `scale` covers, inside the image."""
        return box.multiply(self.total_factor(scale)).intersect(Box.of_shape(self.shape))

    def check_scale(self, scale: int) -> None:
        if not 0 <= scale < self.n_scales:
            raise GeometryError(
                f"scale {scale} does not exist: the scales are 0 to {self.finest_scale}"
            )
