"""Our settings, changed one at a time; all with the steps of the unchanged ones."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks.reproduce.methods import METHODS, Run
from napari_msgan.training.config import CoarseMixture, ImageChanges, SketchChanges

UNCHANGED = "unchanged"
_TRUE_ONLY = CoarseMixture(true=1, generated=0, blurred=0, grey=0, target="truth")

_CHANGES = {
    "accuracy-gate": (
        "accuracy gate 0.8 instead of spectral norm",
        {"spectral_norm": False, "accuracy_gate": 0.8},
    ),
    "last-weights": ("last weights instead of their average", {"average": 0.0}),
    "plain-images": (
        "images only shifted and scaled: no turns, stretches, grey values, flips",
        {"images": ImageChanges(turn=0, stretch=0, view=(1, 1), flip=False)},
    ),
    "plain-sketches": (
        "sketches unchanged but for noise",
        {"sketches": SketchChanges(share=0, reduced=0)},
    ),
    "true-coarse": ("true coarse images only", {"coarse": _TRUE_ONLY}),
    "cold-start": ("no warm start", {"warm_start": False}),
    "fp32": ("float32 convolutions", {"precision": "fp32"}),
}


def _changed_run(update, data):
    run = Run(data.config.model_copy(update=update), tuple(range(data.finest + 1)))
    # the pool of scale 0 holds changed images and sketches
    return replace(run, has_own_pool=bool({"images", "sketches"} & set(update)))


def _nearest_run(data):
    """Return a run whose scale 0 repeats voxels from one depth to the next."""
    first, *others = data.config.scales
    network = first.network.model_copy(update={"upsampling": "nearest"})
    scales = (first.model_copy(update={"network": network}), *others)
    return _changed_run({"scales": scales}, data)


ABLATIONS = {UNCHANGED: replace(METHODS["ours"], title="ours")} | {
    name: replace(METHODS["ours"], title=title, run=partial(_changed_run, update))
    for name, (title, update) in _CHANGES.items()
}
ABLATIONS["nearest"] = replace(
    METHODS["ours"], title="scale 0 repeats voxels, does not interpolate", run=_nearest_run
)
