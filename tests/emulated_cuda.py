"""CUDA emulated on the CPU, to test the code that drives a GPU: requested work runs late.

Streams are queues that run when somebody waits for them; graphs are tapes of operations that are
replayed. So a buffer that is reused too early, or read before it is written, changes the image.
What a real GPU computes, and how fast, this does not show.

`install` changes torch for the whole process, so use it in a separate one.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from itertools import count

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

#: Everything requested so far: its kind, and the number of its stream.
events: list[tuple[str, int]] = []
_here = threading.local()
_captures: dict[int, CUDAGraph] = {}
_numbers = count()
_copy, _to, _cpu = torch.Tensor.copy_, torch.Tensor.to, torch.Tensor.cpu
_module_to = torch.nn.Module.to


class Stream:
    """Work that is done only when somebody waits for it."""

    def __init__(self, device=None):
        self.number, self.queue = next(_numbers), []
        _streams.append(self)

    def add(self, kind, work):
        events.append((kind, self.number))
        inference = torch.is_inference_mode_enabled()  # the mode at the time of the request

        def run():
            with torch.inference_mode(inference), torch.autocast("cpu", enabled=False):
                work()

        self.queue.append(run)

    def synchronize(self):
        _refuse_in_capture("synchronize")
        todo, self.queue = self.queue, []
        for work in todo:
            work()


_streams: list[Stream] = []
_default = Stream()


def _refuse_in_capture(what):
    if threading.get_ident() in _captures:
        raise RuntimeError(f"{what}: operation not permitted when stream is capturing")


def _current(device=None):
    return getattr(_here, "stream", _default)


def _set_stream(stream):
    _here.stream = stream


@contextmanager
def _in_stream(stream):
    before, _here.stream = _current(), stream
    try:
        yield
    finally:
        _here.stream = before


def _synchronize(device=None):
    if _captures:
        raise RuntimeError("synchronize: operation not permitted when a stream is capturing")
    for stream in list(_streams):
        stream.synchronize()


class _Tape(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, made))
        return made


def _tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class CUDAGraph:
    """Operations that are repeated on the tensors they were recorded with."""

    def replay(self):
        _refuse_in_capture("replay")
        _current().add("replay", self._play)

    def _play(self):
        for function, args, kwargs, made in self.tape.operations:
            given = {t.untyped_storage().data_ptr() for t in _tensors((args, kwargs))}
            again = _tensors(function(*args, **kwargs))
            for old, new in zip(_tensors(made), again, strict=True):
                if old.untyped_storage().data_ptr() not in given:  # not a view of its input
                    _copy(old, new)


class _Graph:
    def __init__(self, graph, pool=None, stream=None, capture_error_mode="global"):
        self.graph, self.stream = graph, stream

    def __enter__(self):
        _synchronize()
        if self.stream in (None, _default):
            raise RuntimeError("CUDA graphs must be captured on a non-default stream")
        events.append(("capture", self.stream.number))
        _captures[threading.get_ident()] = self.graph
        self.graph.tape = _Tape()
        self.graph.tape.__enter__()

    def __exit__(self, *error):
        self.graph.tape.__exit__(*error)
        del _captures[threading.get_ident()]


@contextmanager
def _on_device(device):
    yield


def _is_cuda(value):
    return isinstance(value, str | torch.device) and str(value).startswith("cuda")


def _without_cuda(args, kwargs):
    args = tuple("cpu" if _is_cuda(value) else value for value in args)
    return args, {key: "cpu" if _is_cuda(value) else value for key, value in kwargs.items()}


def _tensor_to(tensor, *args, **kwargs):
    if not any(map(_is_cuda, (*args, *kwargs.values()))):
        return _to(tensor, *args, **kwargs)
    _refuse_in_capture("to")
    args, kwargs = _without_cuda(args, kwargs)
    return _to(tensor, *args, **kwargs).clone()


def _tensor_cpu(tensor):
    _current().synchronize()
    return _cpu(tensor)


def _copy_late(target, source, non_blocking=False):
    if not non_blocking:
        return _copy(target, source)
    _current().add("copy", lambda: _copy(target, source))
    return target


def _made_here(function):
    def make(*args, **kwargs):
        kwargs.pop("pin_memory", None)
        args, kwargs = _without_cuda(args, kwargs)
        return function(*args, **kwargs)

    return make


class _Autocast(torch.autocast):
    def __init__(self, device_type, *args, **kwargs):
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


def install() -> None:
    """Make torch believe that there is one GPU."""
    for name, value in {
        "CUDAGraph": CUDAGraph,
        "Stream": Stream,
        "current_device": lambda: 0,
        "current_stream": _current,
        "device": _on_device,
        "device_count": lambda: 1,
        "get_device_name": lambda device=None: "emulated",
        "graph": _Graph,
        "graph_pool_handle": lambda: (0, 1),
        "is_available": lambda: True,
        "set_device": lambda device: None,
        "set_stream": _set_stream,
        "stream": _in_stream,
        "synchronize": _synchronize,
    }.items():
        setattr(torch.cuda, name, value)
    for name in ("empty", "ones", "zeros"):
        setattr(torch, name, _made_here(getattr(torch, name)))
    torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.copy_ = _tensor_to, _tensor_cpu, _copy_late
    torch.nn.Module.to = lambda self, *args, **kwargs: _module_to(
        self, *_without_cuda(args, kwargs)[0], **_without_cuda(args, kwargs)[1]
    )
    torch.autocast = _Autocast
