"""File > Open Sample: small synthetic images made by the bundled models."""

from __future__ import annotations

from importlib.resources import as_file, files

from napari_msgan._napari.to_layer import LayerTuple, volume_layer
from napari_msgan._napari.windows import CT_WINDOWS
from napari_msgan.io import read_volume


def chest_xray() -> list[LayerTuple]:
    """Return a synthetic chest X-ray."""
    return [_sample("chest_xray.png", "chest X-ray (synthetic)")]


def thorax_ct() -> list[LayerTuple]:
    """Return a synthetic thorax CT with its voxel size, in a soft-tissue window."""
    low, high = CT_WINDOWS["Soft tissue"]
    return [_sample("thorax_ct.nii.gz", "thorax CT (synthetic)", contrast_limits=(low, high))]


def _sample(file: str, name: str, **options: object) -> LayerTuple:
    with as_file(files("napari_msgan.resources") / "samples" / file) as path:
        description = {"synthetic": True, "software": "napari-msgan", "sample": file}
        return volume_layer(read_volume(path), name, description=description, **options)
