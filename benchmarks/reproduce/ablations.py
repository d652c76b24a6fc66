"""Our settings with one changed at a time, all trained for the steps of the unchanged ones."""

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

_FORMER_MIXTURE = CoarseMixture(
    true=0.25, generated=0.25, blurred=0.4, grey=0.1, target="detail", kept=1
)


def _former_run(data):
    """Return a run with the settings of chest-xray until 2026-11-29."""
    first, *others = data.config.scales
    scales = (first, *(s.model_copy(update={"gan_from": 0.2, "gan_weight": 0.3}) for s in others))
    return _changed_run({"scales": scales, "coarse": _FORMER_MIXTURE}, data)


def _coarse_run(changes, data):
    return _changed_run({"coarse": data.config.coarse.model_copy(update=changes)}, data)


#: What patches learn from a generated coarse image.
LOSSES = {
    UNCHANGED: ABLATIONS[UNCHANGED],
    "kept-voxels": replace(
        METHODS["ours"],
        title="every voxel of a generated image is kept",
        run=partial(_coarse_run, {"kept": 1}),
    ),
    "truth": replace(
        METHODS["ours"],
        title="patches of a generated image are compared with the whole truth",
        run=partial(_coarse_run, {"target": "truth"}),
    ),
    "former": replace(
        METHODS["ours"], title="settings of chest-xray until 2026-11-29", run=_former_run
    ),
}
