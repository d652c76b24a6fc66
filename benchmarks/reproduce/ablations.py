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


ABLATIONS = {UNCHANGED: replace(METHODS["ours"], title="ours")} | {
    name: replace(METHODS["ours"], title=title, run=partial(_changed_run, update))
    for name, (title, update) in _CHANGES.items()
}
