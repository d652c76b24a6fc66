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
    """Check whether a store can be trusted; parameters and errors are those of `iter_verify`."""
    steps = iter_verify(store, repair=repair, sample=sample, model=model)
    return run_to_end(steps, progress)


def iter_verify(
    store: PyramidStore | Path | str,
    *,
    repair: bool = False,
    sample: int | Literal["all"] = 8,
    model: Model | Path | str | None = None,
) -> Generator[Progress, None, Verification]:
    """Check metadata, files, chunks and sketch of a store, and make some tiles again.

    Parameters
    ----------
    store : its folder or URL, or what is open; it is read anew.
    repair : remove what cannot be trusted and all that was made from it; refining makes it again.
    sample : how many tiles are made again and compared bit for bit.
    model : None to find it by the hash in the store; if it is not found, no tile is compared.

    Raises
    ------
    MsganError
        A subclass: if `sample` is below 0, there is no store, the model is not its own, or another
        process is writing to it when it is to be repaired.
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
