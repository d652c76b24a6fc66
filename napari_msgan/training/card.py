"""The card of a trained model: what the program knows about it and what its trainer must add."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import torch

from napari_msgan.durable import write_atomically
from napari_msgan.training.record import read_record

if TYPE_CHECKING:
    from pathlib import Path

    from napari_msgan.config import ModelSpec
    from napari_msgan.training.config import TrainConfig

_SIZES = {"physical": "voxel size in mm (slices first)", "relative": "longest side in pixels"}
#: A card with this line is rewritten; a card without it belongs to whoever edited it.
_OURS = "<!-- Written by napari-msgan train, which writes it anew while this line stands here. -->"


def write_card(
    out: Path, work: Path, spec: ModelSpec, config: TrainConfig, *, trained: int, kept_out: int
) -> None:
    """Write ``README.md`` beside a model, unless the existing one was written or edited by hand.

    Parameters
    ----------
    work : folder with the records of the run.
    trained, kept_out : numbers of images used for training, and kept out to monitor the loss.
    """
    path = out / "README.md"
    if path.exists() and _OURS not in path.read_text(encoding="utf-8", errors="replace"):
        return
    rows = "\n".join(
        f"| {scale} | {size} | {_learned(scale, work, config)} |"
        for scale, size in enumerate(_sizes(spec))
    )
    licence = f" (in model.json: {spec.licence})" if spec.licence else ""
    text = f"""{_OURS}
# {spec.title or spec.name}

{len(spec.axes)}-D, modality {spec.modality}, from an edge sketch at {spec.n_scales} scales, stored
as {spec.dtype}, {spec.window[0]:g} to {spec.window[1]:g}. Not for diagnosis.

**Not finished.** `napari-msgan train` knows settings and numbers; what is set *in italics* has to
be filled in by whoever gives this model away.

## Patients and privacy
An image made from a patient's sketch keeps that patient's anatomy: it is that patient's data, not
anonymous. Everything that this model makes is synthetic, and what this program saves says so.
Weights may hold parts of the images that they were trained on: `napari-msgan evaluate` with
`--training DATA` searches for them.

## Training data
{trained} images, and {kept_out} more that were kept out to monitor the loss.

*Who are the patients (ages, sites, scanners, pathology)? Who was never seen? Who allowed this use
of their images, and under which licence may the weights be passed on{licence}?*

## How it was trained
`training.json` beside this card holds every setting. The L1 distance is that of the last
validation, in percent of the output window.

| scale | {_SIZES[spec.kind]} | steps | L1 (%) |
|---|---|---|---|
{rows}

torch {torch.__version__}; finished {date.today():%Y-%m-%d}.

## Held-out figures
*Of patients that were not trained on: `napari-msgan evaluate MODEL HELDOUT OUT --training DATA`.
A picture named `preview.png` beside this card is shown in napari: choose an image that may be.*
"""
    write_atomically(path, text.encode())


def _sizes(spec: ModelSpec) -> list[str]:
    """Return the voxel size, or the longest side, of each scale as text."""
    if spec.kind == "physical":
        return [" x ".join(f"{mm:g}" for mm in scale.spacing_mm or ()) for scale in spec.scales]
    return list(map(str, spec.longest_sides))


def _learned(scale: int, work: Path, config: TrainConfig) -> str:
    if config.scales[scale].steps == 0:
        return "0 (another model's) | "
    steps, loss = 0, ""
    for means in read_record(work, scale):
        steps = int(means["step"])
        if "validation_l1" in means:
            loss = f"{50 * means['validation_l1']:.2f}"  # values lie in [-1, 1]
    return f"{steps} | {loss}"
