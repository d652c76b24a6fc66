from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pytest

from napari_msgan.geometry import Affine, Box, PyramidGeometry
from napari_msgan.pyramid import (
    GeometryInfo,
    PyramidStore,
    SketchInfo,
    SourceInfo,
    StoreInfo,
    create_pyramid,
    open_pyramid,
)
from napari_msgan.sketch_settings import SketchSettings

if TYPE_CHECKING:
    import numpy.typing as npt

FINISHED = SketchInfo(settings=SketchSettings(), given=False, sha256="c" * 64)


class MakeInfo(Protocol):
    def __call__(
        self,
        shape: tuple[int, ...] = ...,
        factors: tuple[tuple[int, ...], ...] = ...,
        *,
        affine: Affine | None = ...,
        **changes: Any,
    ) -> StoreInfo: ...


class MakeStore(Protocol):
    def __call__(self, info: StoreInfo, name: str = ...) -> PyramidStore: ...


class WriteScale(Protocol):
    def __call__(
        self,
        store: PyramidStore,
        scale: int,
        data: npt.NDArray[Any] | float,
        box: Box | None = ...,
    ) -> None: ...


@pytest.fixture(scope="session")
def make_info() -> MakeInfo:
    """Return a function that makes metadata: int16, 2-D, three scales unless told otherwise."""

    def make(
        shape: tuple[int, ...] = (75, 90),
        factors: tuple[tuple[int, ...], ...] = ((2, 2), (2, 2)),
        *,
        affine: Affine | None = None,
        **changes: Any,
    ) -> StoreInfo:
        n = len(shape)
        geometry = PyramidGeometry(
            ("z", "y", "x")[-n:],
            shape,
            factors,
            affine or Affine.of_spacing((2.0, 0.7, 0.5)[-n:], (10.0, -20.0, 5.0)[-n:]),
            "millimeter",
        )
        info = GeometryInfo.from_geometry(geometry)
        fields = {
            "version": "0.1.0",
            "model_name": "tiny",
            "model_sha256": "a" * 64,
            "modality": "CT",
            "kind": "physical",
            "window": (-1024, 3071),
            "dtype": "int16",
            "exact": True,
            "stochastic": False,
            "seed": 0,
            "tile_shape": (16,) * n,
            "chunk_shape": (8,) * n,
            "halos": ((0,) * n, *((3,) * n for _ in factors)),
            "geometry": info,
            "source": SourceInfo(
                shape=shape,
                affine=info.affine,
                unit="millimeter",
                order=tuple(range(n)),
                flipped=(False,) * n,
                sha256="b" * 64,
                honest_scale=1,
            ),
            "sketch": SketchInfo(settings=SketchSettings(), given=False),
        }
        return StoreInfo.model_validate(fields | changes)

    return make


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> MakeStore:
    """Return a function that makes a store with a zero sketch, open for writing."""

    def make(info: StoreInfo, name: str = "image.ome.zarr") -> PyramidStore:
        path = tmp_path_factory.mktemp("store") / name
        with create_pyramid(path, info) as builder:
            for scale in range(builder.geometry.n_scales):
                whole = Box.of_shape(builder.geometry.shape_at(scale))
                builder.write_sketch(scale, whole, np.zeros(whole.shape, np.uint8))
            return builder.finish(FINISHED)

    return make


@pytest.fixture(scope="session")
def write_scale() -> WriteScale:
    """Return a function that writes the tiles of a scale that a box touches, cut out of `data`."""

    def write(
        store: PyramidStore,
        scale: int,
        data: npt.NDArray[Any] | float,
        box: Box | None = None,
    ) -> None:
        whole = Box.of_shape(store.geometry.shape_at(scale))
        values = np.broadcast_to(np.asarray(data), whole.shape).astype(store.info.dtype)
        with store.writing():
            for tile in store.tiling.tiles(scale, box or whole):
                core = store.tiling.core(tile)
                store.write(scale, core, values[core.slices])

    return write


@pytest.fixture(scope="session")
def fresh(make_info: MakeInfo, make_store: MakeStore) -> Path:
    """The folder of a store that nobody changes: copying is quicker than creating."""
    return make_store(make_info()).path


@pytest.fixture
def store(fresh: Path, tmp_path: Path) -> PyramidStore:
    """A fresh store of three scales: 19 x 23, 38 x 45, 75 x 90."""
    return open_pyramid(shutil.copytree(fresh, tmp_path / fresh.name), writable=True)


@pytest.fixture(scope="session")
def root() -> Path:
    """Where the package lies, for tests that start another Python."""
    return Path(__file__).parents[2]
