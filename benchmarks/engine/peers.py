"""Rows of other frameworks, each used as its documentation shows, with our network and tile.

All get the network with its weights loaded and in the layout that is fastest for it, all cores
(torch's threads), no gradients, float32, and one window at a time. If an option suits our network
better than the default (repeating the border, no counting array), they get it. Reading from the
store, and writing if the framework writes, is part of what is measured.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.engine.fine import FineGrid, FineNetwork
from benchmarks.engine.measure import Made
from benchmarks.engine.ours import CORES
from benchmarks.engine.scene import Job, window_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    Around = Literal["padded", "in window"]


class _Setting:
    """What all peers get: grid, network, core and halo of a tile on the finest grid."""

    def __init__(self, job: Job, around: Around) -> None:
        store, model = job.scene.store(), job.scene.model()
        scale = store.geometry.finest_scale
        factor, halo = model.factor(scale), model.halo(scale)
        self.grid = FineGrid(store)
        self.network = FineNetwork(model.generator(scale), factor, halo, around).eval()
        self.tile = store.info.tile_shape
        self.halo = tuple(h * f for h, f in zip(halo, factor, strict=True))
        self.window = tuple(t + 2 * h for t, h in zip(self.tile, self.halo, strict=True))
        self.chunks = store.info.chunk_shape
        self.shape = store.geometry.shape
        self._values, self._voxels = window_of(store), job.scene.voxels
        self._folder = job.folder
        torch.set_num_threads(CORES)

    def read(self) -> torch.Tensor:
        """Return the whole input, shape (1, 2, Z, Y, X)."""
        return torch.from_numpy(self.grid.read_all())[None]

    def path(self, name: str) -> str:
        return str(self._folder / name)

    def made(self, result: Any) -> Made:
        """Wrap an image in [-1, 1], an array or tensor with leading axes of length 1."""
        first = (0,) * (len(result.shape) - len(self.shape))

        def read(rows: slice) -> np.ndarray[Any, Any]:
            return self._values.to_stored(np.asarray(result[(*first, rows)]))

        return Made(self._voxels, read)


def monai_constant(job: Job) -> Callable[[], Made]:
    """Blend windows with equal weight and an overlap of 0.25, the defaults."""
    return _monai_sliding(job, overlap=0.25, mode="constant")


def monai_gaussian(job: Job) -> Callable[[], Made]:
    """Blend windows with Gaussian weights and an overlap of 0.5, as used in segmentation."""
    return _monai_sliding(job, overlap=0.5, mode="gaussian")


def _monai_sliding(job: Job, **options: Any) -> Callable[[], Made]:
    from monai.inferers import SlidingWindowInferer

    setting = _Setting(job, "padded")
    inferer = SlidingWindowInferer(setting.tile, sw_batch_size=1, **options)

    def run() -> Made:
        with torch.no_grad():
            return setting.made(inferer(setting.read(), setting.network))

    return run


def monai_patches(job: Job) -> Callable[[], Made]:
    """Split with an overlap of 0.25, and merge to the mean in Zarr arrays on disk."""
    from monai.inferers import PatchInferer, SlidingWindowSplitter, ZarrAvgMerger
    from zarr.storage import LocalStore

    setting = _Setting(job, "padded")
    inferer = PatchInferer(
        SlidingWindowSplitter(setting.tile, overlap=0.25, pad_mode="replicate"),
        ZarrAvgMerger,
        store=LocalStore(setting.path("merged.zarr")),
        value_store=LocalStore(setting.path("values.zarr")),
        count_store=LocalStore(setting.path("counts.zarr")),
    )

    def run() -> Made:
        with torch.no_grad():
            return setting.made(inferer(setting.read(), setting.network))

    return run


def torchio_crop(job: Job) -> Callable[[], Made]:
    """Take windows with our halo from a volume with repeated border; the halo is cropped."""
    import torchio

    setting = _Setting(job, "in window")
    flat = job.scene.ndim == 2  # as (Y, X, 1): TorchIO has three axes

    def run() -> Made:
        image = setting.read()[0]
        subject = torchio.Subject(
            image=torchio.ScalarImage(tensor=image[..., None] if flat else image)
        )
        del image
        sampler = torchio.GridSampler(
            subject,
            (*setting.window, 1) if flat else setting.window,
            (*(2 * h for h in setting.halo), 0) if flat else tuple(2 * h for h in setting.halo),
            padding_mode="edge",
        )
        aggregator = torchio.GridAggregator(sampler, overlap_mode="crop")
        with torch.no_grad():
            for batch in torchio.SubjectsLoader(sampler, batch_size=1):
                windows = batch["image"][torchio.DATA]
                made = setting.network(windows[..., 0] if flat else windows)
                aggregator.add_batch(made[..., None] if flat else made, batch[torchio.LOCATION])
        result = aggregator.get_output_tensor()
        return setting.made(result[..., 0] if flat else result)

    return run


def torch_em_halo(job: Job) -> Callable[[], Made]:
    """Read blocks with our halo from the store and write them to a Zarr array on disk."""
    return _torch_em(job, "predict_with_halo")


def torch_em_pipelined(job: Job) -> Callable[[], Made]:
    """Do the same, with threads that read and write while the network runs."""
    return _torch_em(job, "predict_with_halo_pipelined")


def _torch_em(job: Job, name: str) -> Callable[[], Made]:
    import zarr
    from zarr.codecs import ZstdCodec

    predict = getattr(_torch_em_prediction(), name)
    setting = _Setting(job, "in window")

    def run() -> Made:
        output = zarr.create_array(
            setting.path("out.zarr"),
            shape=setting.shape,
            chunks=setting.chunks,
            dtype="float32",
            compressors=ZstdCodec(level=1),  # as in our store
        )
        predict(
            setting.grid,
            setting.network,
            gpu_ids=["cpu"],
            block_shape=setting.tile,
            halo=setting.halo,
            output=output,
            preprocess=None,
            postprocess=lambda prediction: prediction[0],
            with_channels=True,
            disable_tqdm=True,
        )
        return setting.made(output)

    return run


def _torch_em_prediction() -> ModuleType:
    """Import ``torch_em.util.prediction`` alone.

    The package imports its trainer, and with it torchvision, of which there is no build for
    every torch. `standardize` is only the default of `preprocess`, which is given here.
    """
    for name in ("torch_em", "torch_em.util"):
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.modules[name] = importlib.util.module_from_spec(spec)
    raw = ModuleType("torch_em.transform.raw")
    raw.standardize = None  # type: ignore[attr-defined]
    sys.modules["torch_em.transform"] = ModuleType("torch_em.transform")
    sys.modules[raw.__name__] = raw
    return importlib.import_module("torch_em.util.prediction")


def tiler_overlap(job: Job) -> Callable[[], Made]:
    """Take windows with our halo from an array with repeated border; merge as "overlap-tile".

    The frame is half the overlap. `Tiler.calculate_padding` would use half a tile, and therefore 27
    windows instead of 8 for 256^3: the smaller frame suffices, and favours tiler.
    """
    from tiler import Merger, Tiler

    setting = _Setting(job, "in window")

    def run() -> Made:
        frame = [(h, h) for h in setting.halo]
        image = np.pad(setting.grid.read_all(), [(0, 0), *frame], mode="edge")
        overlap = [2 * h for h in setting.halo]
        windows = Tiler(image.shape, (2, *setting.window), (0, *overlap), 0, mode="edge")
        merged = Tiler(image.shape[1:], setting.window, overlap, mode="edge")
        merger = Merger(merged, window="overlap-tile", save_visits=False)
        with torch.no_grad():
            for number, window in windows(image):
                made = setting.network(torch.from_numpy(window)[None])
                merger.add(number, made[0, 0].numpy())
        return setting.made(merger.merge(extra_padding=frame))

    return run
