"""The files of a store: foreign files, unreadable chunks, and the hash of the sketch."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Any

from napari_msgan.errors import StoreError
from napari_msgan.geometry import Box
from napari_msgan.pyramid.checking import (
    Problem,
    chunk_name,
    has_sketch_chunk,
    level_name,
)
from napari_msgan.verifying.findings import Findings, VerifyStep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from napari_msgan.pyramid import PyramidStore
    from napari_msgan.pyramid.checking import Stray

    Read = Callable[[int, Box], npt.NDArray[Any]]

_NEW_STORE = (
    "A store cannot make its sketch again: generate the image anew from its source, under another "
    "name."
)
#: Most unreadable sketch chunks that are named per scale; there can be millions.
_NAMED = 20


def judge_strays(strays: list[Stray], found: Findings, *, busy: bool) -> None:
    """Sort files that do not belong in a store; leftovers in a busy store may be in use."""
    for stray in strays:
        if stray.kind == "stranger":
            found.notes.append(f"{stray.key}: {stray.seen}; it does no harm.")
        elif not stray.is_file:
            found.problems.append(Problem(stray.key, stray.seen, "Delete it, and check again."))
        elif stray.kind == "impostor" or not busy:
            found.problems.append(Problem(stray.key, stray.seen, files=(stray.key,)))


class FileCheck:
    """Reads every chunk of a store and records what is wrong."""

    def __init__(self, store: PyramidStore, found: Findings) -> None:
        self._store, self._found = store, found
        self._unreadable: Counter[int] = Counter()  # sketch chunks, per scale

    def run(self) -> Iterator[VerifyStep]:
        """Read all chunks, in the blocks over which the hash of the sketch is computed."""
        store, chunk_shape = self._store, self._store.info.chunk_shape
        total = 0
        for scale in range(store.n_scales):
            shape = store.geometry.shape_at(scale)
            total += Box.of_shape(shape).cover(chunk_shape).size
            total += int(store.refined_chunks(scale).sum())
        for _ in chain(self._iter_sketch(), self._iter_image()):
            yield VerifyStep("verify", self._found.chunks, total)

    def _iter_sketch(self) -> Iterator[None]:
        """Check against the recorded hash, see `napari_msgan.creating.iter_make_sketch`."""
        store, whole, changed = self._store, hashlib.sha256(), self._found.changed_sketches
        for scale, block, chunks in self._blocks():
            missing = [c for c in chunks if not has_sketch_chunk(store, scale, c)]
            pixels = None if missing else self._read(store.read_sketch, scale, block)
            if pixels is None:
                changed.add(scale)
                self._judge_sketch(scale, chunks, missing)
            else:
                whole.update(hashlib.sha256(pixels.tobytes()).digest())
            self._found.chunks += len(chunks)
            yield
        self._count_others()
        if not changed and whole.hexdigest() != store.info.sketch.sha256:
            changed.update(range(store.n_scales))  # the hash does not tell which of them
            seen = (
                f"its pixels have the hash {whole.hexdigest()[:12]}, recorded is "
                f"{str(store.info.sketch.sha256)[:12]}: it was changed after it was made"
            )
            self._found.problems.append(Problem("the sketch", seen, _NEW_STORE))

    def _judge_sketch(self, scale: int, chunks: list[Box], missing: list[Box]) -> None:
        for chunk in chunks:
            error: object = "there is no such file"
            if chunk not in missing and (error := self._error(True, scale, chunk)) is None:
                continue
            self._unreadable[scale] += 1
            if self._unreadable[scale] <= _NAMED:
                where = self._name(scale, chunk, sketch=True)
                problem = Problem(where, f"it cannot be read ({error})", _NEW_STORE)
                self._found.problems.append(problem)

    def _count_others(self) -> None:
        """Report the number of sketch chunks that were not named individually."""
        for scale, count in self._unreadable.items():
            if count > _NAMED:
                where = level_name(scale, self._store.n_scales, sketch=True)
                seen = f"{count - _NAMED} more chunks cannot be read"
                self._found.problems.append(Problem(where, seen, _NEW_STORE))

    def _iter_image(self) -> Iterator[None]:
        store, chunk_shape = self._store, self._store.info.chunk_shape
        for scale, block, chunks in self._blocks():
            refined = store.refined_chunks(scale)
            there = [c for c in chunks if refined[c.cover(chunk_shape).start]]
            is_whole = len(there) == len(chunks)
            if not is_whole or self._read(store.read, scale, block) is None:
                for chunk in there:
                    self._judge_chunk(scale, chunk)
            self._found.chunks += len(there)
            yield

    def _judge_chunk(self, scale: int, chunk: Box) -> None:
        error = self._error(False, scale, chunk)
        if error is not None:
            tiles = tuple(self._store.tiling.tiles(scale, chunk))
            self._found.damaged.update(tiles)
            where = self._name(scale, chunk, sketch=False)
            problem = Problem(where, f"it cannot be read ({error})", tiles=tiles)
            self._found.problems.append(problem)

    def _blocks(self) -> Iterator[tuple[int, Box, list[Box]]]:
        info, geometry = self._store.info, self._store.geometry
        for scale in range(geometry.n_scales):
            for block in Box.of_shape(geometry.shape_at(scale)).blocks(info.tile_shape):
                yield scale, block, block.blocks(info.chunk_shape)

    def _read(self, read: Read, scale: int, box: Box) -> npt.NDArray[Any] | None:
        try:
            return read(scale, box)
        except StoreError:
            return None  # which of its chunks is at fault, and why, is asked next

    def _error(self, sketch: bool, scale: int, chunk: Box) -> BaseException | None:
        read = self._store.read_sketch if sketch else self._store.read
        try:
            read(scale, chunk)
        except StoreError as error:
            return error.__cause__ or error
        return None

    def _name(self, scale: int, chunk: Box, *, sketch: bool) -> str:
        index = chunk.cover(self._store.info.chunk_shape).start
        return f"{level_name(scale, self._store.n_scales, sketch=sketch)}, {chunk_name(index)}"
