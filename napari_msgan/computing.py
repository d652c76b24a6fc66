"""Compute a single tile: what it reads, where it is computed, and what the network makes of it."""

from __future__ import annotations

import copy
import platform
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_msgan.errors import JobError, StoreError
from napari_msgan.intensity import Window
from napari_msgan.noise import read_sketch
from napari_msgan.pyramid import ChunkCache, Fingerprint
from napari_msgan.sketch import interpolate_sketch
from napari_msgan.volume import read_padded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from napari_msgan.config import Precision
    from napari_msgan.model import Model
    from napari_msgan.networks.generator import Generator
    from napari_msgan.pyramid import PyramidStore
    from napari_msgan.recording import Recordings
    from napari_msgan.tiling import Tile, TileWindows
    from napari_msgan.volume import ArrayLike

#: Scales 0 to this one are always computed in float32.
_LAST_IN_FLOAT32 = 2
#: Increment an entry when the same precision comes to give other bits.
ARITHMETIC: dict[Precision, int] = {"fp32": 1, "bf16": 2}
#: Names that systems use for the same kind of processor.
_SAME_KIND = {"x86_64": "x86-64", "amd64": "x86-64", "aarch64": "arm64"}
#: Memory that a job takes whatever the size of the image. With the first, each coarse chunk is read
#: about once if a slice across the longest axis of the finest scale has 512 x 512 voxels.
COARSE_CACHE_BYTES, SKETCH_CACHE_BYTES = 24 << 20, 16 << 20
#: Advice if a store cannot be repaired.
NEW_STORE = "Generate the image anew from its source, under another name."


def unlike_model(store: PyramidStore, model: Model) -> str | None:
    """Return how a store's description of its tiles differs from its model; None if it does not."""
    info, spec, scales = store.info, model.spec, range(store.n_scales)
    by_model = {
        "halos": (info.halos, tuple(model.halo(s) for s in scales)),
        "factors": (store.geometry.factors, tuple(model.factor(s) for s in scales[1:])),
        "tile_shape": (info.tile_shape, spec.tile_shape),
        "window": (info.window, spec.window),
        "dtype": (info.dtype, spec.dtype),
        "exact": (info.exact, spec.exact),
        "stochastic": (info.stochastic, spec.stochastic),
    }
    for name, (said, true) in by_model.items():
        if said != true:
            return f"its metadata give {name} {said}, those of its model are {true}"
    return None


class TileContext:
    """Everything needed to compute tiles: store, model, device and precision.

    gpu : name of the GPU that computes, if there is one and its name is known.
    machine : kind of machine that computes, see `machine_name`; None for this one.

    Raises
    ------
    StoreError
        If the store describes tiles other than those the model makes.
    """

    def __init__(
        self,
        store: PyramidStore,
        model: Model,
        device: str,
        precision: Precision,
        gpu: str | None = None,
        machine: str | None = None,
    ) -> None:
        if other := unlike_model(store, model):
            raise StoreError(f"{store.address} is damaged: {other}. {NEW_STORE}")
        self.store, self.model, self.device, self.precision = store, model, device, precision
        self.gpu, self.machine = gpu, machine or machine_name()
        self.window = Window(*store.info.window, np.dtype(store.info.dtype))
        self.coarse_cache = ChunkCache(COARSE_CACHE_BYTES)
        self.sketch_cache = ChunkCache(SKETCH_CACHE_BYTES)
        self._generators: dict[int, Generator] = {}
        self._recordings: Recordings | None = None

    def prepare(self, scales: Sequence[int]) -> None:
        """Copy the generators of these scales to the device.

        Raises
        ------
        JobError
            If torch fails, for instance because the memory of the GPU is used up.
        """
        try:
            self._prepare(scales)
        except RuntimeError as error:
            raise JobError(torch_text("the model could not be prepared", error)) from error

    def _prepare(self, scales: Sequence[int]) -> None:
        import torch

        if self.device == "cpu":
            self._generators |= {scale: self.model.generator(scale) for scale in scales}
            return
        from napari_msgan.recording import Recordings, finish_all, forbid_tf32

        if self.device == "cuda":  # fixed here: each thread may have another current GPU
            self.device = f"cuda:{torch.cuda.current_device()}"
        torch.backends.cudnn.deterministic = True
        forbid_tf32()  # for what is computed in float32 in every precision
        for scale in scales:
            # a copy, because other jobs may use the model meanwhile
            self._generators[scale] = copy.deepcopy(self.model.generator(scale)).to(self.device)
        self._recordings = Recordings()
        finish_all(self.device)  # the streams of workers would not wait for the copying of weights

    def compute(
        self, scale: int, windows: TileWindows, inputs: Sequence[npt.NDArray[np.float32]]
    ) -> npt.NDArray[np.float32]:
        """Run the generator of a scale on the windows of a tile; return the tile, in [-1, 1].

        On a GPU the array is valid only until the next call from the same thread.

        Parameters
        ----------
        windows : where the tile lies and what it reads.
        inputs : what `tile_inputs` returns.
        """
        import torch

        generator = self.generator(scale)
        with torch.inference_mode(), autocast(self, scale):
            # Not scale 0, a single tile, nor inexact generators, which need the place of a tile.
            if self._recordings is not None and scale > 0 and self.model.spec.exact:
                shapes = [values.shape for values in inputs]
                recorded = self._recordings.of(scale, generator, shapes, self.device)
                if recorded is not None:
                    return recorded(*inputs)
            tensors = [torch.from_numpy(values[None, None]).to(self.device) for values in inputs]
            made = generator.tile(windows, *tensors)[0, 0]
            return made.float().cpu().numpy()

    def generator(self, scale: int) -> Generator:
        return self._generators[scale]

    def sketch(self, scale: int) -> ArrayLike:
        """Return the sketch that the tiles of a scale read, with values in [0, 255]."""
        at = self.store.info.sketch_scale(scale)
        stored = self.sketch_cache.view(self.store.level(at, sketch=True))
        shape = self.store.geometry.shape_at(max(scale, 1))
        return stored if stored.shape == shape else interpolate_sketch(stored, shape)

    def image(self, scale: int) -> ArrayLike:
        """Return the image of a scale, which tiles of the next scale read, in the stored type."""
        return self.coarse_cache.view(self.store.level(scale))

    @property
    def fingerprint(self) -> Fingerprint:
        import torch

        return Fingerprint(
            device="cuda" if self.device.startswith("cuda") else "cpu",
            precision=self.precision,
            torch=torch.__version__,
            gpu=self.gpu,
            machine=self.machine,
            tile_shape=self.store.info.tile_shape,
            arithmetic=ARITHMETIC[self.precision],
        )


def machine_name() -> str:
    """Return the operating system and kind of processor, e.g. "Linux x86-64", "Darwin arm64"."""
    kind = platform.machine().lower()
    return f"{platform.system()} {_SAME_KIND.get(kind, kind)}"


def run_tile(context: TileContext, tile: Tile) -> npt.NDArray[Any]:
    """Compute the voxels of a tile, clipped to the image, in the stored type."""
    windows = context.store.tiling.windows(tile)
    inputs = tile_inputs(context, tile.scale, windows)
    values = context.compute(tile.scale, windows, inputs)
    inside = tuple(slice(0, n) for n in windows.core.shape)
    return context.window.to_stored(values[inside])


def tile_inputs(
    context: TileContext, scale: int, windows: TileWindows
) -> list[npt.NDArray[np.float32]]:
    """Return the inputs of a generator: above scale 0 the coarse image, in [-1, 1]; the sketch."""
    noise, seed = context.model.spec.noise, context.store.info.seed
    inputs = [read_sketch(context.sketch(scale), windows.sketch, noise, seed=seed, scale=scale)]
    if windows.coarse is not None:
        coarse = read_padded(context.image(scale - 1), windows.coarse.start, windows.coarse.stop)
        inputs.insert(0, context.window.to_network(coarse))
    return inputs


def precision_of(scale: int, precision: Precision) -> Precision:
    """Return the precision in which a scale is computed in a job of the given precision."""
    return "fp32" if scale <= _LAST_IN_FLOAT32 else precision


def autocast(context: TileContext, scale: int) -> torch.autocast:
    """Return the context in which torch computes a scale in its precision, see `precision_of`.

    The coarsest scales are always computed in float32: they take little time, and their rounding
    would make up most of the difference from float32 at every finer scale (docs/performance.md).
    """
    import torch

    is_lower = precision_of(scale, context.precision) == "bf16"
    kind = context.device.split(":")[0]
    # a recording must not read cached casts, which are dropped when this block ends
    return torch.autocast(kind, torch.bfloat16, enabled=is_lower, cache_enabled=kind == "cpu")


@contextmanager
def own_threads(device: str) -> Iterator[None]:
    """Compute with one thread inside the ``with`` block, because the bits of a tile depend on it.

    That is on the CPU; on a GPU, compute in a stream of its own.
    """
    import torch

    if device != "cpu":
        from napari_msgan.recording import own_streams

        with torch.cuda.device(device), own_streams(device, 1) as (own,), torch.cuda.stream(own):
            yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def torch_text(what: str, error: RuntimeError) -> str:
    """Return the text for an error from torch, with advice if the memory of the GPU is used up."""
    import torch

    advice = ""
    if isinstance(error, torch.OutOfMemoryError):
        advice = (
            ". Let other programs free memory of the GPU, or make fewer tiles at a time (workers)"
        )
    return f"{what}: {str(error).rstrip('.')}{advice}"
