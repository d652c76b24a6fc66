"""One `PyramidStore` object per folder, so that panel, layers and reader see the same tiles."""

from __future__ import annotations

import os
from datetime import date
from itertools import count
from pathlib import Path
from weakref import WeakValueDictionary

from napari_msgan.pyramid import PyramidStore, open_pyramid

#: Environment variable with the folder for new stores, in place of the default.
STORES_VARIABLE = "NAPARI_MSGAN_STORES"

_open: WeakValueDictionary[Path, PyramidStore] = WeakValueDictionary()


def shared_store(path: Path | str) -> PyramidStore:
    """Return the store in a folder, open for writing; the same object as long as it is in use.

    Raises
    ------
    StoreError
        If there is none, or it is damaged.
    """
    key = Path(path).resolve()
    store = _open.get(key)
    if store is None or not key.exists():
        store = _open[key] = open_pyramid(key, writable=True)
    return store


def share(store: PyramidStore) -> None:
    """Make this object the one that `shared_store` returns for its folder."""
    _open[store.path.resolve()] = store


def name_of(store: PyramidStore) -> str:
    """Return the name of a store's folder, without its suffix."""
    return store.path.name.removesuffix(".zarr").removesuffix(".ome")


def stores_folder() -> Path:
    """Return the folder for new stores unless the user chooses another."""
    from platformdirs import user_data_path

    if chosen := os.environ.get(STORES_VARIABLE):
        return Path(chosen)
    return user_data_path("napari-msgan", appauthor=False) / "stores"


def free_path(model_name: str, folder: Path | None = None) -> Path:
    """Return a free name based on the model, never on the source, which may name a patient.

    The name of a deleted store stays taken while layers show it, because it identifies them.
    """
    stem = (folder or stores_folder()) / f"{model_name}_{date.today():%Y-%m-%d}"
    paths = (Path(f"{stem}_{number}.ome.zarr") for number in count(1))
    return next(path for path in paths if not os.path.lexists(path) and path.resolve() not in _open)
