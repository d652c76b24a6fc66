"""Find problems in the files of a store: its metadata, and files that do not belong there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from napari_msgan.errors import NoStoreError, StoreError
from napari_msgan.geometry import Ints, level_of_scale
from napari_msgan.pyramid._arrays import (
    array_key,
    chunk_grid,
    chunk_key,
    open_level,
    read_attributes,
    read_info,
)
from napari_msgan.pyramid._folder import is_index
from napari_msgan.pyramid._place import WRITER_FILES, Entry, Place
from napari_msgan.pyramid.attributes import root_attributes, sketch_attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_msgan.geometry import Box
    from napari_msgan.pyramid.metadata import StoreInfo
    from napari_msgan.pyramid.store import PyramidStore
    from napari_msgan.tiling import Tile


@dataclass(frozen=True, slots=True)
class Problem:
    """A part of a store that cannot be trusted.

    where : the file or tile, as a person would name it.
    seen : what is wrong with it.
    advice : what to do; empty if ``--repair`` removes it.
    tiles, files : what to remove, so that it can be made again; files are given by their keys.
    """

    where: str
    seen: str
    advice: str = ""
    tiles: tuple[Tile, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def can_be_repaired(self) -> bool:
        return not self.advice


@dataclass(frozen=True, slots=True)
class Stray:
    """A file or folder that does not belong to a store.

    kind : "leftover" of an interrupted write; "impostor" in the place of a file of the store, or
        named like a chunk; "stranger" if neither.
    key : its key, as in ``"0/c/3/1"``.
    """

    kind: Literal["leftover", "impostor", "stranger"]
    key: str
    seen: str
    is_file: bool


def level_name(scale: int, n_scales: int, *, sketch: bool = False) -> str:
    """Return e.g. "level 2 (scale 0)": both names by which users know a level."""
    name = f"level {level_of_scale(scale, n_scales)} (scale {scale})"
    return f"sketch of {name}" if sketch else name


def has_sketch_chunk(store: PyramidStore, scale: int, chunk: Box) -> bool:
    """Return whether a chunk of the sketch has a file; without one it reads as zeros."""
    key = array_key(scale, store.n_scales, sketch=True)
    index = chunk.cover(store.info.chunk_shape).start
    return store.place.exists(chunk_key(key, index))


def chunk_name(index: Ints) -> str:
    """Return e.g. "chunk 0/3/1", like the name of its file."""
    return f"chunk {'/'.join(map(str, index))}"


def check_metadata(place: Place) -> tuple[StoreInfo | None, list[Problem]]:
    """Return the metadata of a store, or None if they cannot be read, and the problems found.

    Raises
    ------
    NoStoreError
        If there is no store.
    """
    advice = "Restore the file from a copy, or generate the image again."
    try:
        info = read_info(place)
    except NoStoreError:
        raise
    except StoreError as error:
        return None, [Problem("zarr.json", str(error), advice)]
    problems = []
    expected = {"": root_attributes(info), "sketch": sketch_attributes(info)}
    for key, attributes in expected.items():
        where = f"{key}/zarr.json".lstrip("/")
        try:
            seen = read_attributes(place, key).get("ome")
        except StoreError as error:
            problems.append(Problem(where, str(error), advice))
            continue
        if _placing(seen) != _placing(_as_json(attributes["ome"])):
            text = (
                "its OME-Zarr attributes do not describe this image, so other programs misplace it"
            )
            problems.append(Problem(where, text, advice))
    for sketch in (False, True):
        for scale in range(info.to_geometry().n_scales):
            try:
                open_level(place, info, scale, sketch=sketch)
            except StoreError as error:
                key = array_key(scale, info.to_geometry().n_scales, sketch=sketch)
                problems.append(Problem(f"{key}/zarr.json", str(error), advice))
    return info, problems


def _placing(ome: Any) -> Any:
    """Return the parts of OME-Zarr attributes that place an image; None if they are malformed."""
    try:
        (image,) = ome["multiscales"]
        return ome["version"], image["axes"], image["datasets"]
    except (KeyError, TypeError, ValueError):
        return None


def _as_json(value: Any) -> Any:
    """Return a value as it would be after a round trip through JSON."""
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, (list, tuple)) else value


def iter_strays(place: Place, info: StoreInfo) -> Iterator[Stray]:
    """Yield every file and folder in a store that does not belong there; follows no links."""
    geometry = info.to_geometry()
    levels = {array_key(s, geometry.n_scales, sketch=False) for s in range(geometry.n_scales)}
    finest = array_key(geometry.finest_scale, geometry.n_scales, sketch=False)
    yield from _iter_unknown(place, "", {"zarr.json"}, {"sketch", *levels})
    yield from _iter_unknown(place, "sketch", {"zarr.json"}, levels)
    for sketch in (False, True):
        for scale in range(geometry.n_scales):
            key = array_key(scale, geometry.n_scales, sketch=sketch)
            own = WRITER_FILES if key == finest else ()
            yield from _iter_unknown(place, key, {"zarr.json", *own}, {"c"})
            grid = chunk_grid(geometry.shape_at(scale), info.chunk_shape)
            yield from _iter_false_chunks(place, f"{key}/c", grid)


def _iter_unknown(place: Place, key: str, files: set[str], folders: set[str]) -> Iterator[Stray]:
    for entry in place.entries(key):
        known = {"file": files, "folder": folders}
        if entry.kind == "link" and entry.name in files - {*WRITER_FILES}:
            continue  # allowed within the store; `check_metadata` refuses those that lead out
        if entry.name in files and entry.kind != "file":
            seen = f"it is a {entry.kind}, where a file of the store belongs"
            yield Stray("impostor", f"{key}/{entry.name}".lstrip("/"), seen, False)
        elif entry.name not in known.get(entry.kind, ()):
            yield _stray(key, entry, looks_like_chunk=False)


def _iter_false_chunks(place: Place, key: str, grid: Ints) -> Iterator[Stray]:
    for entry in place.entries(key):
        name = entry.name
        is_number = name.isascii() and name.isdecimal()
        if not is_index(name) or int(name) >= grid[0]:
            yield _stray(key, entry, looks_like_chunk=is_number)
        elif len(grid) > 1 and entry.kind == "folder":
            yield from _iter_false_chunks(place, f"{key}/{name}", grid[1:])
        elif len(grid) > 1 or entry.kind != "file":
            yield _stray(key, entry, looks_like_chunk=True)


def _stray(folder: str, entry: Entry, *, looks_like_chunk: bool) -> Stray:
    key, is_file = f"{folder}/{entry.name}".lstrip("/"), entry.kind == "file"
    if entry.name.endswith(".partial") and is_file:
        return Stray("leftover", key, "it was left by a write that was interrupted", True)
    if looks_like_chunk:
        seen = f"it is a {entry.kind} named as a chunk, but none of this image"
        return Stray("impostor", key, seen, is_file)
    return Stray(
        "stranger", key, f"it is a {entry.kind} that does not belong to the store", is_file
    )
