"""Where a store lies: a folder, or a URL of fsspec. Everything else of a store is the same."""

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
#: There while chunks may not be on the disk yet, see `Place.note_unsynced`.
UNSYNCED_FILE = ".writer.unsynced"
#: Files of the finest level that are no part of the image.
WRITER_FILES = (LOCK_FILE, ".writer.pid", URL_LOCK_FILE, UNSYNCED_FILE)

EntryKind = Literal["file", "folder", "link", "special file"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What a folder lists; a link is never followed."""

    name: str
    kind: EntryKind


def taken(address: str) -> StoreError:
    """Return the error for a place that is not free."""
    return StoreError(
        f"{address} exists already. Choose another name, delete it, or open it to continue it."
    )


class Place(Protocol):
    """Files by key, e.g. ``"0/c/3/1"``; any thread may use it."""

    @property
    def address(self) -> str:
        """Return the path or URL, as people write it."""

    @property
    def path(self) -> Path:
        """Return the folder.

        Raises
        ------
        StoreError
            If it is none.
        """

    def is_there(self) -> bool:
        """Return whether something has this address."""

    def zarr_store(self, chunk: ChunkSize | None = None) -> Store:
        """Return the same for zarr, read-only; `chunk` is what a chunk may be."""

    def read(self, key: str, most_bytes: int) -> bytes | None:
        """Return the content of a file, None if there is none.

        Raises
        ------
        FolderError
            If it is larger than it may be, or lies elsewhere.
        """

    def write(self, key: str, content: bytes, *, durably: bool = False) -> None:
        """Replace a file in one step: a reader sees the old or the new content.

        durably : do not return before it survives a power cut; see also `sync`.
        """

    def exists(self, key: str) -> bool:
        """Return whether there is such a file right now."""

    def stamp(self, key: str) -> object:
        """Return what differs once a file was written anew; None if that is not known."""

    def remove(self, key: str) -> None:
        """Remove a file, if it is there."""

    def scan(self, key: str, grid: Ints) -> tuple[npt.NDArray[np.bool_], list[str]]:
        """Return which chunks of an array exist, and the leftovers of interrupted writes."""

    def entries(self, key: str) -> Iterator[Entry]:
        """Yield what lies in a folder; nothing if there is none."""

    def writer(self) -> str | None:
        """Return who seems to be writing, e.g. ``"process 1234"``, without touching anything."""

    def marks(self) -> list[str]:
        """Return the ``.partial`` files beside the metadata of the store."""

    def sync(self, keys: Iterable[str]) -> None:
        """Wait until files that were written are safe."""

    def has_unsynced(self) -> bool:
        """Return whether there may be files that were not waited for, see `note_unsynced`."""

    def note_unsynced(self, *, are_there: bool) -> None:
        """Note whether there may be files that were not waited for."""

    def lock(self) -> AbstractContextManager[None]:
        """Be the only writer.

        Raises
        ------
        StoreError
            If somebody else is.
        """

    def creating(self) -> AbstractContextManager[Path]:
        """Give the name of a folder to build a new store in, which is removed at the end.

        Raises
        ------
        StoreError
            If something is there already, or another process is creating it.
        """

    def adopt(self, folder: Path) -> None:
        """Bring a complete store here.

        Raises
        ------
        StoreError
            If the place is taken by now.
        """


def place_of(address: Path | str) -> Place:
    """Return the place that an address names.

    Raises
    ------
    StoreError
        If a URL names no place.
    """
    if not isinstance(address, Path) and address.startswith("file://"):
        address = _folder_of(address)  # one store has one lock
    if not isinstance(address, Path) and is_url(address):
        from napari_msgan.pyramid._url import UrlPlace

        return UrlPlace(address)
    from napari_msgan.pyramid._folder import FolderPlace

    return FolderPlace(Path(address).absolute())


def _folder_of(url: str) -> Path:
    problem = StoreError(f"{url} names no folder of this computer. Write its path instead.")
    try:
        parts = urlsplit(url)
    except ValueError as error:  # e.g. a bracket that is not closed
        raise problem from error
    path = Path(url2pathname(parts.path))
    has_more = parts.netloc not in ("", "localhost") or parts.query or parts.fragment
    if has_more or not path.is_absolute():
        raise problem
    return path
