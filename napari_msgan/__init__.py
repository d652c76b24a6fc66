"""Multi-scale GANs for high-resolution medical images, in constant memory.

The public names are imported on first use, so that ``import napari_msgan`` is fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from napari_msgan.errors import MsganError
    from napari_msgan.estimating import estimate
    from napari_msgan.geometry import Affine, Box
    from napari_msgan.io import read_volume
    from napari_msgan.jobs import (
        Progress,
        export,
        generate,
        iter_generate,
        iter_refine,
        iter_verify,
        make_sketch,
        refine,
        verify,
    )
    from napari_msgan.model import list_models, load_model
    from napari_msgan.pyramid import PyramidStore, open_pyramid, view_volume
    from napari_msgan.volume import Volume

__all__ = [
    "Affine",
    "Box",
    "MsganError",
    "Progress",
    "PyramidStore",
    "Volume",
    "__version__",
    "estimate",
    "export",
    "generate",
    "iter_generate",
    "iter_refine",
    "iter_verify",
    "list_models",
    "load_model",
    "make_sketch",
    "open_pyramid",
    "read_volume",
    "refine",
    "verify",
    "view_volume",
]

_HOME = {
    "Affine": "geometry",
    "Box": "geometry",
    "MsganError": "errors",
    "PyramidStore": "pyramid",
    "Volume": "volume",
    "view_volume": "pyramid",
    "estimate": "estimating",
    "read_volume": "io",
    "list_models": "model",
    "load_model": "model",
    "open_pyramid": "pyramid",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME.get(name, 'jobs')}"), name)


def __dir__() -> list[str]:
    return __all__
