"""The tiles of a store: whether their sources exist, and whether a sample comes out the same."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_msgan.computing import (
    ARITHMETIC,
    NEW_STORE,
    TileContext,
    machine_name,
    own_threads,
    run_tile,
    torch_text,
    unlike_model,
)
from napari_msgan.errors import JobError, ModelError, StoreError
from napari_msgan.geometry import Box
from napari_msgan.pyramid.checking import Problem, level_name
from napari_msgan.tiling import Tile
from napari_msgan.verifying.findings import Findings, VerifyStep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from napari_msgan.geometry import Ints
    from napari_msgan.model import Model
    from napari_msgan.pyramid import Fingerprint, PyramidStore

_SEED = 0


class TileCheck:
    """Checks the tiles of a store, after its chunks have been read."""

    def __init__(self, store: PyramidStore, found: Findings) -> None:
        self._store, self._found = store, found

    def find_orphans(self) -> None:
        """Find tiles whose sources are missing, which clearing a store never leaves behind."""
        unfinished = 0
        for tile in self._iter_tiles():
            core = self._store.tiling.core(tile)
            unfinished += not self._store.is_refined(tile.scale, core)
            if missing := self._missing_sources(tile):
                self._found.damaged.add(tile)
                seen = (
                    f"it is there, but {self._tile_name(missing[0])} that it was made from is not"
                    f" ({len(missing)} in all): somebody deleted files of the store"
                )
                self._found.problems.append(Problem(self._tile_name(tile), seen, tiles=(tile,)))
        if unfinished:
            self._found.notes.append(
                f"{unfinished} tile(s) were interrupted halfway; refining makes them again."
            )

    def _iter_tiles(self) -> Iterator[Tile]:
        """Yield all tiles of which at least a part exists, coarsest scale first."""
        tiling, chunk_shape = self._store.tiling, self._store.info.chunk_shape
        for scale in range(self._store.n_scales):
            refined = self._store.refined_chunks(scale)
            grid = tiling.grid(scale)
            for index in grid.cells(Box.of_shape(grid.shape)).indices():
                if refined[grid.core(index).cover(chunk_shape).slices].any():
                    yield Tile(scale, index)

    def _missing_sources(self, tile: Tile) -> list[Tile]:
        store = self._store
        needed = [(t, store.tiling.core(t)) for t in store.tiling.dependencies(tile)]
        # Another process may be refining, so look again for what was not there at first.
        return [
            t
            for t, core in needed
            if not store.is_refined(t.scale, core) and not store.look(t.scale, core)
        ]

    def _tile_name(self, tile: Tile) -> str:
        level = level_name(tile.scale, self._store.n_scales)
        return f"{level}, tile {self._store.tiling.core(tile)}"

    def iter_compare(
        self, load: Callable[[PyramidStore], Model], sample: int | None
    ) -> Iterator[VerifyStep]:
        """Make a sample of tiles again and compare all their voxels."""
        tiles = self._sample(sample)
        made, store = self._store.info.fingerprint, self._store
        left_out = [s for s in range(store.n_scales) if not self._has_sketch(s)]
        if left_out and sample != 0:
            self._found.notes.append(
                "Tiles of these scales are not compared, because the sketch that they were made "
                f"from is damaged: {', '.join(map(str, left_out))}."
            )
        if not tiles or made is None:
            if sample != 0:
                self._found.notes.append("No tile was made again: there is none to compare.")
            return
        skipped = "No tile was made again to be compared: "
        try:
            model = load(store)
        except ModelError as error:
            self._found.notes.append(f"{skipped}{error}")
            return
        if other := unlike_model(store, model):
            self._found.problems.append(Problem("the metadata", other, NEW_STORE))
            return
        context = TileContext(store, model, made.device, made.precision)
        import torch

        if made.device == "cuda" and not torch.cuda.is_available():
            self._found.notes.append(f"{skipped}they were made on a GPU, and there is none here.")
            return
        if excuse := excuse_of(made):
            self._found.notes.append(
                f"Tiles were {excuse}: they may differ a little because of that."
            )
        context.prepare(sorted({tile.scale for tile in tiles}))
        for done, tile in enumerate(tiles, 1):
            try:
                made_again = _run(context, tile)
            except StoreError as problem:
                name = self._tile_name(tile)
                self._found.notes.append(f"{name} was not made again: {problem}")
            else:
                self._compare(tile, made_again, excuse)
                self._found.compared += 1
            yield VerifyStep("compare", done, len(tiles))

    def _has_sketch(self, scale: int) -> bool:
        """Return whether the sketch that tiles of a scale are made from is sound."""
        return self._store.info.sketch_scale(scale) not in self._found.changed_sketches

    def _sample(self, size: int | None) -> list[Tile]:
        """Return complete tiles with sound sources, each scale in turn; always the same ones."""
        per_scale: list[list[Tile]] = [[] for _ in range(self._store.n_scales)]
        if size == 0:
            return []
        for tile in self._iter_tiles():
            if not self._has_sketch(tile.scale):
                continue  # even sound tiles would look wrong
            needed = self._store.tiling.dependencies(tile)
            whole = self._store.is_refined(tile.scale, self._store.tiling.core(tile))
            if whole and self._found.damaged.isdisjoint([tile, *needed]):
                per_scale[tile.scale].append(tile)
        order = random.Random(_SEED)
        for tiles in per_scale:
            order.shuffle(tiles)
        longest = max(map(len, per_scale))
        chosen = [
            tiles[turn] for turn in range(longest) for tiles in per_scale if turn < len(tiles)
        ]
        return sorted(chosen[:size])

    def _compare(self, tile: Tile, made: npt.NDArray[Any], excuse: str) -> None:
        gone: list[Ints] = []
        stored = self._store.read(tile.scale, self._store.tiling.core(tile), missing=gone)
        if gone:  # another process may clear tiles at any time
            self._found.notes.append(f"{self._tile_name(tile)} was removed meanwhile.")
            return
        if stored.tobytes() == made.tobytes():
            return
        difference = np.abs(stored.astype(np.float64) - made.astype(np.float64))
        seen = (
            f"{np.count_nonzero(difference)} of {made.size} voxels differ from what the model "
            f"makes, by up to {difference.max():g}"
        )
        rounding = 1 if self._store.info.dtype != "float32" else 1e-4 * float(np.ptp(made))
        if difference.max() <= rounding:
            excuse = excuse or "as another kind of processor would round"
        advice = ""
        if excuse:
            advice = (
                f"That may be harmless ({excuse}), so --repair keeps it. Check the store where it "
                "was made, or generate it anew."
            )
        self._found.problems.append(Problem(self._tile_name(tile), seen, advice, tiles=(tile,)))


def excuse_of(made: Fingerprint) -> str:
    """Return why sound tiles may differ from those made here; "" if there is no such reason.

    Another processor of the same kind may differ by one integer step, which `TileCheck` allows;
    in bfloat16, other kinds and other GPU kernels may differ by more.
    """
    import torch

    if made.arithmetic != ARITHMETIC[made.precision]:
        return (
            f"made by another version of this program, which computes {made.precision} differently"
        )
    if made.torch != torch.__version__:
        return f"made with torch {made.torch}, this is {torch.__version__}"
    if made.machine != (here := machine_name()):
        return f"made on {made.machine}, this is {here}"
    if made.device == "cuda" and made.gpu != (here := torch.cuda.get_device_name()):
        return f"made on {made.gpu or 'an unknown GPU'}, this is {here}"
    return ""


def _run(context: TileContext, tile: Tile) -> npt.NDArray[Any]:
    try:
        with own_threads(context.device):
            return run_tile(context, tile)
    except RuntimeError as error:  # as in `refiner`
        raise JobError(torch_text(f"tile {tile} could not be made again", error)) from error
