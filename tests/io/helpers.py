from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_msgan.geometry import Affine
from napari_msgan.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

SPACING = {2: (0.7, 0.6), 3: (2.5, 0.7, 0.6)}
ORIGIN = (-310.25, 33.3, 12.1)
SHAPE = {2: (37, 45), 3: (11, 37, 45)}


def rotation(degrees: float, axis: int) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix = np.eye(3)
    i, j = (k for k in range(3) if k != axis)
    matrix[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
    return matrix


def affine_3d(inner: np.ndarray) -> Affine:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = inner, ORIGIN
    return Affine(matrix)


STRAIGHT = np.diag(SPACING[3])
#: What scanners and other programs write: all of it must survive.
AFFINES = {
    "straight": affine_3d(STRAIGHT),
    "flipped z": affine_3d(np.diag([-1, 1, 1]) @ STRAIGHT),
    "flipped y and x": affine_3d(np.diag([1, -1, -1]) @ STRAIGHT),
    "coronal": affine_3d(STRAIGHT[[1, 0, 2]]),
    "sagittal": affine_3d(STRAIGHT[[1, 2, 0]] @ np.diag([1, -1, 1])),
    "oblique": affine_3d(rotation(15, 0) @ rotation(-33, 2) @ STRAIGHT),
    "oblique, flipped": affine_3d(rotation(80, 1) @ np.diag([1, -1, 1]) @ STRAIGHT),
}


def make_volume(
    rng: np.random.Generator, ndim: int, dtype: str = "int16", affine: Affine | None = None
) -> Volume:
    shape = SHAPE[ndim]
    low, high = (0, 250) if dtype == "uint8" else (0 if dtype[0] == "u" else -1000, 3000)
    data = rng.uniform(low, high, shape).astype(dtype)
    return Volume(data, affine or Affine.of_spacing(SPACING[ndim], ORIGIN[-ndim:]), "millimeter")


def difference(a: Volume, b: Volume) -> str:
    """Return what differs between two volumes; nothing for equal ones."""
    if a.unit != b.unit:
        return f"unit {a.unit} {b.unit}"
    if a.shape != b.shape or a.data.dtype != b.data.dtype:
        return f"array {a.shape} {a.data.dtype} {b.shape} {b.data.dtype}"
    if not np.array_equal(np.asarray(a.data), np.asarray(b.data)):
        return "voxels"
    # float32 is what a NIfTI header holds.
    if not np.allclose(a.affine.matrix, b.affine.matrix, rtol=1e-6, atol=1e-6):
        return f"affine {a.affine.matrix.tolist()} {b.affine.matrix.tolist()}"
    return ""


class RecordingArray:
    """Array-like that computes a pattern when it is read, and remembers how much that was."""

    def __init__(self, shape: tuple[int, ...], dtype: str = "int16", fail_at: int = -1) -> None:
        self.shape, self.dtype, self.ndim = shape, np.dtype(dtype), len(shape)
        self.requests: list[tuple[int, ...]] = []
        self._fail_at = fail_at

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        assert len(key) == self.ndim
        assert all(isinstance(part, slice) for part in key)
        ranges = [np.arange(*part.indices(n)) for part, n in zip(key, self.shape, strict=True)]
        if len(self.requests) == self._fail_at:
            raise ArithmeticError("the source broke")
        self.requests.append(tuple(len(r) for r in ranges))
        grids = np.meshgrid(*ranges, indexing="ij", sparse=True)
        pattern: Any = sum(g * p for g, p in zip(grids, (31, 7, 3), strict=False))
        return (pattern % 251).astype(self.dtype)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
