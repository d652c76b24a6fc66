"""Tiles on a GPU: the kernels of a network are recorded once, then played for each tile.

A tile is some forty short kernels, which take a processor longer to launch than a fast GPU to
compute; a CUDA graph launches them together. Windows and tiles go through pinned memory.

Not run on a GPU yet: none was at hand. `tests/test_recording.py` compares bit by bit where there is
one, `tests/test_emulated_gpu.py` tells elsewhere whether it waits for what it asks for.

References
----------
CUDA graphs, in the notes of PyTorch: https://docs.pytorch.org/docs/stable/notes/cuda.html
"""

from __future__ import annotations

import gc
import threading
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    import numpy.typing as npt

    from napari_msgan.geometry import Ints

    Float32Array = npt.NDArray[np.float32]

#: Calls before recording, in which libraries choose their kernels and take their workspaces.
_WARM_UP = 3
#: Recording stops where another thread waits for the whole GPU.
_recording = threading.Lock()

#: Streams of each device that nobody computes in.
_free: dict[str, list[torch.cuda.Stream]] = {}
_taking = threading.Lock()


@contextmanager
def own_streams(device: str, count: int) -> Iterator[list[torch.cuda.Stream]]:
    """Give streams that no other thread computes in; they are used again afterwards.

    torch has 32 and gives each out again and again, so a new one may be that of a thread that is
    recording, which what another thread does there would spoil. Of more than 32 at a time, some are
    the same.
    """
    with _taking:
        free = _free.setdefault(device, [])
        taken = [
            free.pop() if free else torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            for _ in range(count)
        ]
    try:
        yield list(taken)
    finally:
        with _taking:
            free.extend(taken)


def forbid_tf32() -> None:
    """Compute float32 in float32: TF32 would round it to 10 bits."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    # where that only says that the setting of the process counts, which may be TF32
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]


def finish_all(device: str) -> None:
    """Wait until a GPU has done what it was told to, in all streams."""
    with _recording:
        torch.cuda.synchronize(device)


class RecordedNetwork:
    """What a network makes of windows of one shape, for one thread in a stream of its own.

    Parameters
    ----------
    network : takes tensors of shape (1, 1, *window), returns one of shape (1, 1, *tile). What it
        does must depend on the shapes only.
    shapes : of the windows that it takes.
    device : "cuda" or "cuda:N".
    pool : memory that recordings of the same thread share, see `torch.cuda.graph_pool_handle`.
    """

    def __init__(
        self,
        network: Callable[..., torch.Tensor],
        shapes: Sequence[Ints],
        device: str,
        pool: Any,
    ) -> None:
        self._device = device
        with _recording:
            self._sent = [torch.zeros((1, 1, *shape), pin_memory=True) for shape in shapes]
            self._windows = [sent.to(device) for sent in self._sent]
            for _ in range(_WARM_UP):
                network(*self._windows)
            gc.collect()  # what is freed on the GPU while it records would spoil the recording
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(
                self._graph,
                pool=pool,
                stream=torch.cuda.current_stream(device),
                capture_error_mode="thread_local",
            ):
                self._made = network(*self._windows).float()
            self._received = torch.empty(self._made.shape, pin_memory=True)

    def __call__(self, *windows: Float32Array) -> Float32Array:
        """Return a tile, in memory that the next call writes to."""
        for sent, window, values in zip(self._sent, self._windows, windows, strict=True):
            sent[0, 0] = torch.from_numpy(values)
            window.copy_(sent, non_blocking=True)
        self._graph.replay()
        self._received.copy_(self._made, non_blocking=True)
        torch.cuda.current_stream(self._device).synchronize()
        tile: Float32Array = self._received[0, 0].numpy()
        return tile


class Recordings(threading.local):
    """The recordings of each thread, by scale; made when they are first asked for."""

    def __init__(self) -> None:
        self._networks: dict[int, RecordedNetwork | None] = {}
        self._pool: Any = None

    def of(
        self, scale: int, network: Callable[..., torch.Tensor], shapes: Sequence[Ints], device: str
    ) -> RecordedNetwork | None:
        """Return what was recorded of the network of a scale; all its windows have these shapes.

        None where it could not be recorded, because memory is short, or another part of the
        program waits for the whole GPU: then its kernels are launched for each tile.
        """
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        if scale not in self._networks:
            try:
                self._networks[scale] = RecordedNetwork(network, shapes, device, self._pool)
            except RuntimeError as error:
                self._networks[scale] = None
                reason = str(error).partition("\n")[0]
                warnings.warn(
                    f"scale {scale} could not be recorded on the GPU ({reason}): its tiles take "
                    "longer",
                    stacklevel=2,
                )
        return self._networks[scale]
