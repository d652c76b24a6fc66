"""What every row starts from: an image file, a store without its finest scale, the right answer.

The answer is a pass of the network over the whole image at once, in float32 and with one thread,
converted to the stored type. Everything is made once per size and kept.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import tifffile
import torch

from napari_msgan import generate, load_model, open_pyramid, read_volume, refine
from napari_msgan.intensity import Window
from napari_msgan.volume import read_padded

if TYPE_CHECKING:
    from pathlib import Path

    from napari_msgan.model import Model
    from napari_msgan.pyramid import PyramidStore

MODELS = {2: "chest-xray", 3: "thorax-ct"}
SPACING_MM = 0.75  # of the finest scale of thorax-ct
#: The whole pass keeps a few feature maps of the image: beyond this there is no answer to compare.
MOST_VOXELS = 60_000_000
SKETCH_TOP = np.float32(255)


@dataclass(frozen=True)
class Scene:
    """One image; `sample` is the real image that it is cut or mirrored from, None for waves."""

    work: Path
    ndim: int
    size: int
    sample: Path | None = None

    @property
    def folder(self) -> Path:
        name = f"{self.ndim}d-{self.size}" + (f"-{self.sample.name}" if self.sample else "")
        return self.work / name

    @property
    def image(self) -> Path:
        return self.folder / ("image.tif" if self.ndim == 2 else "image.nii")

    @property
    def whole(self) -> Path:
        return self.folder / "whole.npy"

    @property
    def has_answer(self) -> bool:
        return self.voxels <= MOST_VOXELS

    @property
    def voxels(self) -> int:
        return int(self.size**self.ndim)

    def store(self, *, writable: bool = False) -> PyramidStore:
        return open_pyramid(self.folder / "store.ome.zarr", writable=writable)

    def copy_store(self, out: Path) -> None:
        """Copy the store with hard links: the program replaces files and never changes one."""
        shutil.copytree(self.folder / "store.ome.zarr", out, copy_function=os.link)

    @property
    def model_name(self) -> str:
        return MODELS[self.ndim]

    def model(self) -> Model:
        """Return the bundled model without its random part, as no peer adds noise to the sketch."""
        model, plain = load_model(self.model_name), {"stochastic": False, "noise": 0.0}
        return replace(model, spec=model.spec.model_copy(update=plain))


@dataclass(frozen=True)
class Job:
    """The work of one row; `folder` is empty, and is removed once the result has been compared."""

    scene: Scene
    precision: str
    folder: Path


def prepare_image(scene: Scene) -> None:
    """Write the image file unless it exists."""
    if scene.image.exists():
        return
    scene.folder.mkdir(parents=True, exist_ok=True)
    grey = _fitted(scene) if scene.sample else _waves(scene.ndim, scene.size)
    partial = scene.image.with_name(f"partial-{scene.image.name}")
    if scene.ndim == 2:
        tifffile.imwrite(partial, np.uint8(255 * grey))
    else:
        affine = np.diag([-SPACING_MM, -SPACING_MM, SPACING_MM, 1])  # LPS, as the model has it
        hounsfield = np.int16(1600 * grey - 1000)
        volume = nibabel.Nifti1Image(np.ascontiguousarray(hounsfield.T), affine)
        volume.header.set_xyzt_units("mm")
        nibabel.save(volume, partial)
    partial.rename(scene.image)


def prepare_store(scene: Scene) -> None:
    """Make the sketch, every scale but the finest, and the answer, unless they exist."""
    prepare_image(scene)
    path = scene.folder / "store.ome.zarr"
    if not path.exists():
        partial = scene.folder / "partial.ome.zarr"
        shutil.rmtree(partial, ignore_errors=True)
        store = generate(scene.image, partial, scene.model(), scale=0, device="cpu")
        if store.geometry.shape != (scene.size,) * scene.ndim:
            raise SystemExit(
                f"the result has shape {store.geometry.shape}, not {scene.size} a side"
            )
        refine(store, scale=store.n_scales - 2, model=scene.model(), device="cpu")
        _forget_fingerprint(partial)
        partial.rename(path)
    if scene.has_answer and not scene.whole.exists():
        partial = scene.whole.with_name("partial.npy")
        np.save(partial, whole_pass(scene.store(), scene.model()))
        partial.rename(scene.whole)


def _forget_fingerprint(path: Path) -> None:
    """Let the finest scale be made in any precision from the same coarser one."""
    file = path / "zarr.json"
    content = json.loads(file.read_text())
    content["attributes"]["napari_msgan"]["fingerprint"] = None
    file.write_text(json.dumps(content))


def whole_pass(store: PyramidStore, model: Model) -> np.ndarray[Any, Any]:
    """Return the finest scale from a single pass of the network, in the stored type."""
    scale = store.geometry.finest_scale
    halo, factor = model.halo(scale), model.factor(scale)
    coarse, sketch = store.array(scale - 1), store.sketch_array(scale)
    window = window_of(store)
    grid = [n // f for n, f in zip(sketch.shape, factor, strict=True)]
    start = [-h for h in halo]
    stop = [n + h for n, h in zip(grid, halo, strict=True)]
    inputs = network_inputs(
        window,
        read_padded(coarse, start, stop),
        read_padded(
            sketch,
            [a * f for a, f in zip(start, factor, strict=True)],
            [b * f for b, f in zip(stop, factor, strict=True)],
        ),
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            made = model.generator(scale)(*inputs)[0, 0].numpy()
    finally:
        torch.set_num_threads(threads)
    return window.to_stored(made)


def window_of(store: PyramidStore) -> Window:
    """Return the output window of a store."""
    low, high = store.info.window
    return Window(low, high, np.dtype(store.info.dtype))


def network_inputs(
    window: Window, coarse: np.ndarray[Any, Any], sketch: np.ndarray[Any, Any]
) -> list[torch.Tensor]:
    """Convert a stored coarse image and a stored sketch to the inputs of the generator."""
    arrays = window.to_network(coarse), sketch.astype(np.float32) / SKETCH_TOP
    return [torch.from_numpy(a[None, None]) for a in arrays]


def _fitted(scene: Scene) -> np.ndarray[Any, Any]:
    """Return the middle of a real image in [0, 1], mirrored where it is too small."""
    data = np.asarray(read_volume(scene.sample).data[(slice(None),) * scene.ndim], np.float32)
    low, high = np.percentile(data, (0.5, 99.5))
    grey = np.clip((data - low) / (high - low), 0, 1)
    for axis, n in enumerate(grey.shape):
        start = max(0, (n - scene.size) // 2)
        grey = grey.take(range(start, min(n, start + scene.size)), axis)
    return np.pad(grey, [(0, scene.size - n) for n in grey.shape], mode="symmetric")


def _waves(ndim: int, size: int) -> np.ndarray[Any, Any]:
    """Return an image in [0, 1] with edges of several sizes everywhere."""
    random = np.random.default_rng(0)
    total = random.normal(0, 0.2, (size,) * ndim).astype(np.float32)
    for grid in np.ogrid[(slice(size),) * ndim]:
        for period in (11, 37, 128):
            total += np.sin(grid * (2 * np.pi / period), dtype=np.float32)
    return (total - total.min()) / np.ptp(total)
