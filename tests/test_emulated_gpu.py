"""What drives a GPU, on an emulated one: `tests/emulated_cuda.py` says what that tells."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_msgan import jobs
from napari_msgan.geometry import Affine
from napari_msgan.pyramid import open_pyramid
from napari_msgan.volume import Volume
from tests.models import write_model

ROOT = Path(__file__).parents[1]
#: What makes images wrong on a GPU.
FAULTS = {
    "tiles are read before they are there": "torch.cuda.current_stream(self._device).synchronize()",
    "windows are not sent": "window.copy_(sent, non_blocking=True)",
}
SCRIPT = """
import inspect, json, sys, textwrap, torch
from tests import emulated_cuda
emulated_cuda.install()
torch.set_num_threads(1)  # the bits of a CPU depend on it
from napari_msgan import generate, recording, verify
from napari_msgan.io import read_volume
source, out, model, precision, workers, fault = sys.argv[1:]
if fault:
    call = textwrap.dedent(inspect.getsource(recording.RecordedNetwork.__call__))
    assert call.count(fault) == 1
    exec("from __future__ import annotations\\n" + call.replace(fault, "pass"), vars(recording))
    recording.RecordedNetwork.__call__ = recording.__call__
store = generate(
    source, out, model, device="cuda", precision=precision, workers=int(workers), seed=3
)
found = verify(store, sample="all")
kinds = [kind for kind, _ in emulated_cuda.events]
print(json.dumps({
    "gpu": store.info.fingerprint.gpu,
    "captures": kinds.count("capture"),
    "replays": kinds.count("replay"),
    "streams": len({number for kind, number in emulated_cuda.events if kind == "replay"}),
    "compared": found.compared,
    "problems": [str(problem) for problem in found.problems],
}))
"""


@pytest.fixture(scope="module")
def made(request, tmp_path_factory):
    """A model with noise, a source, and the images that the CPU makes of it, by precision."""
    folder = tmp_path_factory.mktemp("cpu")
    ndim = request.param
    model = write_model(folder / "model", ndim=ndim, noise=0.1)
    shape = (101, 83) if ndim == 2 else (37, 50, 41)
    pixels = np.random.default_rng(0).integers(-900, 500, shape).astype(np.int16)
    unit = "pixel" if ndim == 2 else "millimeter"
    volume = Volume(pixels, Affine.of_spacing((1.0,) * ndim), unit)
    jobs.generate(volume, folder / "source.ome.zarr", model, device="cpu")
    source = jobs.export(folder / "source.ome.zarr", folder / "source.ome.tif")
    stores = {
        precision: jobs.generate(
            source, folder / f"{precision}.ome.zarr", model, precision=precision, seed=3
        )
        for precision in ("fp32", "bf16")
    }
    return source, model, stores


def generated(made, out, precision, workers, fault=""):
    source, model, stores = made
    command = [sys.executable, "-c", SCRIPT, source, out, model, precision, str(workers), fault]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    cpu, gpu = stores[precision], open_pyramid(out)
    differ = [
        float((np.asarray(cpu.array(s)[...]) != np.asarray(gpu.array(s)[...])).mean())
        for s in range(cpu.n_scales)
    ]
    return json.loads(ended.stdout.splitlines()[-1]), differ


@pytest.mark.parametrize("made", [2, 3], indirect=True, ids=["2-D", "3-D"])
@pytest.mark.parametrize(("precision", "workers"), [("fp32", 3), ("bf16", 2)])
def test_recorded_tiles_are_those_of_the_cpu(made, tmp_path, precision, workers):
    seen, differ = generated(made, tmp_path / "a.ome.zarr", precision, workers)
    assert differ == [0, 0, 0]
    assert seen["gpu"] == "emulated"
    assert seen["problems"] == []
    assert seen["compared"] > 0
    assert seen["replays"] > seen["captures"] > 0
    assert seen["streams"] >= workers


@pytest.mark.parametrize("made", [2], indirect=True, ids=["2-D"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_images_are_wrong_where_the_gpu_is_not_waited_for(made, tmp_path, fault):
    _, differ = generated(made, tmp_path / "a.ome.zarr", "fp32", 2, fault)
    assert differ[0] == 0  # scale 0 is not recorded
    assert max(differ[1:]) > 0.01
