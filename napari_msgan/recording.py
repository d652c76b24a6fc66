"""Tiles on a GPU: the kernels of a network are recorded once, then replayed for each tile.

A tile takes some forty short kernels, which take the CPU longer to launch than a fast GPU to
compute; a CUDA graph launches them together. Windows and tiles are copied through pinned memory.

This has not been run on a GPU yet, because none was available. With a GPU,
`tests/test_recording.py` compares results bit by bit; elsewhere `tests/test_emulated_gpu.py` checks
that the code waits for what it requests.

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

#: Calls before recording, during which libraries choose kernels and allocate workspaces.
_WARM_UP = 3
#: Recording would fail if another thread waited for the whole GPU meanwhile.
_recording = threading.Lock()

#: Streams of each device that no thread is using.
_free: dict[str, list[torch.cuda.Stream]] = {}
_taking = threading.Lock()


@contextmanager
def own_streams(device: str, count: int) -> Iterator[list[torch.cuda.Stream]]:
    """Give CUDA streams that no other thread computes in; they are reused afterwards.

    torch has 32 and hands them out in turn, so a new one may be that of a thread that is recording,
    and work by another thread in that stream would spoil the recording. If more than 32 are in use
    at a time, some are the same.
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
    """Make torch compute float32 in full precision: TF32 would round it to 10 bits."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    # for versions in which that only defers to the process-wide setting, which may be TF32
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]


def finish_all(device: str) -> None:
    """Wait until a GPU has finished the work in all its streams."""
    with _recording:
        torch.cuda.synchronize(device)


class RecordedNetwork:
    """A network recorded for windows of fixed shapes, for one thread with a stream of its own.

    Parameters
    ----------
    network : takes tensors of shape (1, 1, *window) and returns one of shape (1, 1, *tile). Which
        operations it performs must depend on the shapes only.
    shapes : shapes of the windows.
    device : "cuda" or "cuda:N".
    pool : memory shared by the recordings of a thread, see `torch.cuda.graph_pool_handle`.
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
            gc.collect()  # freeing memory on the GPU during the recording would spoil it
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
        """Compute a tile; it is returned in memory that the next call overwrites."""
        for sent, window, values in zip(self._sent, self._windows, windows, strict=True):
            sent[0, 0] = torch.from_numpy(values)
            window.copy_(sent, non_blocking=True)
        self._graph.replay()
        self._received.copy_(self._made, non_blocking=True)
        torch.cuda.current_stream(self._device).synchronize()
        tile: Float32Array = self._received[0, 0].numpy()
        return tile


class Recordings(threading.local):
    """The recordings of each thread, by scale, made when they are first needed."""

    def __init__(self) -> None:
        self._networks: dict[int, RecordedNetwork | None] = {}
        self._pool: Any = None

    def of(
        self, scale: int, network: Callable[..., torch.Tensor], shapes: Sequence[Ints], device: str
    ) -> RecordedNetwork | None:
        """Return the recording of the network of a scale, all of whose windows have these shapes.

        It is None if recording failed, because memory was short or another part of the program
        waited for the whole GPU: then the kernels have to be launched for each tile.
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
