"""Check whether a store can be trusted."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Literal

from napari_msgan.errors import JobError
from napari_msgan.jobs._common import OnProgress, Progress, model_of
from napari_msgan.model import Model, load_model
from napari_msgan.pyramid import PyramidStore, place_of
from napari_msgan.steps import changed, run_to_end
from napari_msgan.verifying import Verification, iter_verify_store

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


def verify(
    store: PyramidStore | Path | str,
    *,
    progress: OnProgress | None = None,
    repair: bool = False,
    sample: int | Literal["all"] = 8,
    model: Model | Path | str | None = None,
) -> Verification:
    """Check whether a store can be trusted, and return what was found.

    Parameters
    ----------
    progress : called with each `Progress`.
    store, repair, sample, model : see `iter_verify`, also for the exceptions raised.
    """
    steps = iter_verify(store, repair=repair, sample=sample, model=model)
    return run_to_end(steps, progress)


def iter_verify(
    store: PyramidStore | Path | str,
    *,
    repair: bool = False,
    sample: int | Literal["all"] = 8,
    model: Model | Path | str | None = None,
) -> Generator[Progress, None, Verification]:
    """Check the metadata, files, chunks and sketch of a store, and recompute some of its tiles.

    Parameters
    ----------
    store : folder or URL of the store, or an open store; it is read anew in any case.
    repair : remove what cannot be trusted and everything made from it; refining recomputes it.
    sample : number of tiles to recompute and compare bit for bit, or "all".
    model : model of the store; None to find it by the hash in the store. If it is not found, no
        tile is compared.

    Raises
    ------
    MsganError
        A subclass: if `sample` is below 0, there is no store, `model` is not the one that made it,
        or it is to be repaired while another process writes to it.
    """
    is_all = isinstance(sample, str) and sample == "all"
    if not is_all and not (isinstance(sample, Integral) and sample >= 0):
        raise JobError(f'sample {sample!r} is neither a number of tiles nor "all"')
    given = None if model is None else load_model(model)
    steps = iter_verify_store(
        store.place if isinstance(store, PyramidStore) else place_of(store),
        lambda opened: model_of(opened, given),
        sample=None if isinstance(sample, str) else sample,
        repair=repair,
    )
    return (yield from changed(steps, lambda step: Progress(step.stage, step.done, step.total)))
