"""What a GPU recorded is what it would compute, which needs one to be seen."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from napari_msgan import recording
from napari_msgan.config import PatchNetwork
from napari_msgan.networks import build_generator

FACTOR = (2, 2, 2)


class _Devices(TorchDispatchMode):
    """The devices of all tensors that operations take and give."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, made)) if isinstance(t, torch.Tensor)]
        self.seen |= {t.device.type for t in tensors}
        return made


class _AsksTheProcessor(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, coarse, sketch):
        return self.network(coarse, sketch) * torch.tensor(2.0)


@pytest.mark.parametrize("factor", [(2, 2), (1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_is_recorded_stays_on_its_device(factor, wrapped):
    """A recording ends where the processor is asked; a tensor without data cannot be read there."""
    with torch.device("meta"):
        network = build_generator(PatchNetwork(width=8, blocks=2), factor).eval()
        coarse = torch.zeros((1, 1, *[20] * len(factor)))
        sketch = torch.zeros((1, 1, *[20 * f for f in factor]))
    if wrapped:
        network = _AsksTheProcessor(network)
    with torch.inference_mode(), _Devices() as devices:
        network(coarse, sketch)
    assert devices.seen == ({"meta", "cpu"} if wrapped else {"meta"})


def test_no_two_threads_compute_in_one_stream(monkeypatch):
    """torch has 32, of which it gives out the first again after the last."""
    made = itertools.count()
    monkeypatch.setattr("torch.cuda.Stream", lambda device: next(made) % 32)
    with recording.own_streams("none", 2) as one:
        for _ in range(40):
            with recording.own_streams("none", 2) as other:
                assert len({*one, *other}) == 4
    with recording.own_streams("none", 4) as again:
        assert {*again} == {*one, *other}


def test_what_cannot_be_recorded_is_told_once_and_left_out(monkeypatch):
    asked = []

    class Spoilt:
        def __init__(self, network, shapes, device, pool):
            asked.append(shapes)
            raise RuntimeError("operation failed due to a previous error\nCUDA kernel errors")

    monkeypatch.setattr(recording, "RecordedNetwork", Spoilt)
    monkeypatch.setattr("torch.cuda.graph_pool_handle", lambda: "pool")
    recordings = recording.Recordings()
    with pytest.warns(UserWarning, match=r"scale 1 .* \(operation failed .* error\): its") as told:
        made = [recordings.of(1, None, [(4, 4)], "cuda") for _ in range(2)]
    assert made == [None, None]
    assert (len(told), len(asked)) == (1, 1)


@pytest.mark.parametrize("of", ["torch.backends", "torch.backends.cudnn"])
def test_float32_stays_float32_where_all_of_the_process_may_be_tf32(of):
    code = (
        f"import torch; {of}.fp32_precision = 'tf32';"
        "torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False;"
        "print(torch.backends.cudnn.conv.fp32_precision);"
        "from napari_msgan.recording import forbid_tf32; forbid_tf32();"
        "print(torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.split() == ["tf32", "ieee", "ieee"]


@pytest.fixture
def network():
    torch.backends.cudnn.deterministic = True
    generator = build_generator(PatchNetwork(width=8, blocks=2), FACTOR)
    return generator.to("cuda", memory_format=torch.channels_last_3d).eval()


def windows(seed):
    random = np.random.default_rng(seed)
    return [random.random((size,) * 3, np.float32) for size in (20, 40)]


def made_by(network, arrays):
    tensors = [torch.from_numpy(a[None, None]).cuda() for a in arrays]
    return network(*tensors)[0, 0].float().cpu().numpy()


@pytest.fixture
def own_stream():
    """Compute as a worker does: nothing can be recorded in the stream that all share."""
    with recording.own_streams("cuda", 1) as (own,), torch.cuda.stream(own):
        yield


@pytest.mark.gpu
@pytest.mark.usefixtures("own_stream")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recorded_network_makes_the_bits_of_the_network(network, precision):
    recordings = recording.Recordings()
    lower = torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)
    with torch.inference_mode(), lower:
        for seed in (0, 1, 0):
            arrays = windows(seed)
            played = recordings.of(1, network, [a.shape for a in arrays], "cuda")(*arrays).copy()
            np.testing.assert_array_equal(played, made_by(network, arrays))
            assert not np.array_equal(played, made_by(network, windows(seed + 2)))


@pytest.mark.gpu
@pytest.mark.usefixtures("own_stream")
def test_recordings_of_two_scales_do_not_disturb_each_other(network):
    other = build_generator(PatchNetwork(width=8, blocks=3), FACTOR).to("cuda").eval()
    recordings = recording.Recordings()
    with torch.inference_mode():
        for scale, made_with in ((1, network), (2, other), (1, network), (2, other)):
            arrays = windows(scale)
            played = recordings.of(scale, made_with, [a.shape for a in arrays], "cuda")(*arrays)
            np.testing.assert_array_equal(played, made_by(made_with, arrays))
