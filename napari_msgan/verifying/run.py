"""All checks of a store, one after the other, and its repair."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from napari_msgan.errors import StoreError
from napari_msgan.pyramid import open_pyramid
from napari_msgan.pyramid.checking import Problem, check_metadata, iter_strays
from napari_msgan.verifying.files import FileCheck, judge_strays
from napari_msgan.verifying.findings import Findings, Verification, VerifyStep
from napari_msgan.verifying.tiles import TileCheck

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari_msgan.model import Model
    from napari_msgan.pyramid import Place, PyramidStore
    from napari_msgan.tiling import Tile


def iter_verify_store(
    place: Place, load: Callable[[PyramidStore], Model], *, sample: int | None, repair: bool
) -> Generator[VerifyStep, None, Verification]:
    """Check a store and, if asked, repair it; yield progress, return the findings.

    Parameters
    ----------
    load : returns the model that made the store; a ModelError it raises becomes a note.
    sample : number of tiles to make again and compare; None for all.
    repair : remove what cannot be trusted, under the lock of the store.

    Raises
    ------
    StoreError
        If there is no store; or if a repair finds that another process is writing, or the disk
        refuses.
    """
    found = Findings()
    info, found.problems = check_metadata(place)
    if info is not None:
        writer = None if repair else place.writer()
        strays = list(iter_strays(place, info))  # leftovers may go with whoever takes the lock
        if not repair:  # a writer may have come or gone while the files were listed
            writer = writer or place.writer()
        if writer is not None:
            found.notes.append(
                f"The store is being written by {writer}: what it is writing is not judged. Check "
                "again when it is done."
            )
        judge_strays(strays, found, busy=writer is not None)
        if repair:
            _remove_files(place, found)
        try:
            store = open_pyramid(place.address, writable=repair)
        except (StoreError, OSError) as error:
            if not found.problems:
                advice = "Restore the folder from a copy, or generate the image again."
                found.problems.append(Problem("the folder", str(error), advice))
        else:
            yield from _iter_check(store, load, found, sample=sample, repair=repair)
    if not found.chunks:
        found.notes.append("No chunk was read: fix the problems named above first.")
    return Verification(
        tuple(found.problems), tuple(found.notes), found.chunks, found.compared, found.removed
    )


def _iter_check(
    store: PyramidStore,
    load: Callable[[PyramidStore], Model],
    found: Findings,
    *,
    sample: int | None,
    repair: bool,
) -> Generator[VerifyStep, None, None]:
    if not store.level(0).has_checksums:
        found.notes.append(
            "The chunks of this store have no checksums, because an earlier version made it: a "
            "flipped bit may be found only in tiles that are compared."
        )
    if store.refined_fraction(0) < 1:
        found.notes.append(
            "The low-resolution image (scale 0) is incomplete, so nothing can be saved from the "
            "store: refine completes it."
        )
    with ExitStack() as held:
        if repair:
            held.enter_context(store.writing())
        tiles = TileCheck(store, found)
        yield from FileCheck(store, found).run()
        tiles.find_orphans()
        yield from tiles.iter_compare(load, sample)
        if repair:
            _repair(store, found)


def _remove_files(place: Place, found: Findings) -> None:
    """Remove foreign files; one in the place of a folder keeps the store from opening."""
    doomed = [file for problem in found.problems for file in problem.files]
    if doomed:
        with place.lock():
            for file in doomed:
                place.remove(file)
        found.removed = {}


def _repair(store: PyramidStore, found: Findings) -> None:
    """Remove tiles that cannot be trusted, and everything made from them."""
    doomed: set[Tile] = set()
    for problem in found.problems:
        if problem.can_be_repaired:
            doomed.update(problem.tiles)
    found.removed = store.discard(doomed)
