"""Where a store lies: in a folder, or at a URL that fsspec opens; the rest is the same for both."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

from napari_msgan.errors import StoreError
from napari_msgan.folders import is_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    import numpy as np
    import numpy.typing as npt
    from zarr.abc.store import Store

    from napari_msgan.geometry import Ints
    from napari_msgan.zarr_folder import ChunkSize


LOCK_FILE, URL_LOCK_FILE = ".writer.lock", ".writer.url.lock"
#: Exists while chunks may not be on the disk yet, see `Place.note_unsynced`.
UNSYNCED_FILE = ".writer.unsynced"
#: Files in the folder of the finest level that are not part of the image.
WRITER_FILES = (LOCK_FILE, ".writer.pid", URL_LOCK_FILE, UNSYNCED_FILE)

EntryKind = Literal["file", "folder", "link", "special file"]


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a folder; links are not followed."""

    name: str
    kind: EntryKind


def taken(address: str) -> StoreError:
    """Return the error for a place where something exists already."""
    return StoreError(
        f"{address} exists already. Choose another name, delete it, or open it to continue it."
    )


class Place(Protocol):
    """The files of a store by key, e.g. ``"0/c/3/1"``; any thread may use it."""

    @property
    def address(self) -> str:
        """Return the path or URL, as a user would write it."""

    @property
    def path(self) -> Path:
        """Return the folder.

        Raises
        ------
        StoreError
            If the store is at a URL.
        """

    def is_there(self) -> bool:
        """Return whether a folder, or a store at a URL, exists at this address."""

    def zarr_store(self, chunk: ChunkSize | None = None) -> Store:
        """Return this place as a read-only store for zarr; `chunk` limits the size of chunks."""

    def read(self, key: str, most_bytes: int) -> bytes | None:
        """Return the content of a file, or None if there is no such file.

        Raises
        ------
        FolderError
            If it is larger than `most_bytes`, or is a link that leads out of the store.
        """

    def write(self, key: str, content: bytes, *, durably: bool = False) -> None:
        """Write a file atomically: a reader sees the old or the new content.

        durably : return only when it will survive a power cut; see also `sync`.
        """

    def exists(self, key: str) -> bool:
        """Return whether a file exists right now."""

    def stamp(self, key: str) -> object:
        """Return a token that changes when a file is written anew; None if it is not known."""

    def remove(self, key: str) -> None:
        """Remove a file if it exists."""

    def scan(self, key: str, grid: Ints) -> tuple[npt.NDArray[np.bool_], list[str]]:
        """Return which chunks of an array exist, and the keys that interrupted writes left over."""

    def entries(self, key: str) -> Iterator[Entry]:
        """Yield the entries of a folder; none if it does not exist."""

    def writer(self) -> str | None:
        """Return who seems to be writing, e.g. ``"process 1234"``, or None; changes nothing."""

    def marks(self) -> list[str]:
        """Return the names of the ``.partial`` files beside the root metadata of the store."""

    def sync(self, keys: Iterable[str]) -> None:
        """Wait until files that have been written are on the disk."""

    def has_unsynced(self) -> bool:
        """Return whether some files may not be on the disk yet, see `note_unsynced`."""

    def note_unsynced(self, *, are_there: bool) -> None:
        """Record whether some files may not be on the disk yet, for whoever writes next."""

    def lock(self) -> AbstractContextManager[None]:
        """Be the only writer inside the ``with`` block.

        Raises
        ------
        StoreError
            If another process is writing.
        """

    def creating(self) -> AbstractContextManager[Path]:
        """Give the path of a folder to build a new store in, which is removed at the end.

        Raises
        ------
        StoreError
            If something exists here already, or another process is creating it.
        """

    def adopt(self, folder: Path) -> None:
        """Move or send a complete store to this place.

        Raises
        ------
        StoreError
            If something else has come to exist here meanwhile.
        """


def place_of(address: Path | str) -> Place:
    """Return the place at a path or URL; nothing needs to exist there.

    Raises
    ------
    StoreError
        If a URL names no place.
    """
    if not isinstance(address, Path) and address.startswith("file://"):
        address = _folder_of(address)  # so that a store has only one kind of lock
    if not isinstance(address, Path) and is_url(address):
        from napari_msgan.pyramid._url import UrlPlace

        return UrlPlace(address)
    from napari_msgan.pyramid._folder import FolderPlace

    return FolderPlace(Path(address).absolute())


def _folder_of(url: str) -> Path:
    problem = StoreError(f"{url} names no folder of this computer. Write its path instead.")
    try:
        parts = urlsplit(url)
    except ValueError as error:  # e.g. an unclosed bracket
        raise problem from error
    path = Path(url2pathname(parts.path))
    has_more = parts.netloc not in ("", "localhost") or parts.query or parts.fragment
    if has_more or not path.is_absolute():
        raise problem
    return path
