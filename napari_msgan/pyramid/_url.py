"""A store at a URL that fsspec opens: in an object store, on a share or on a server.

Open only URLs whose content you trust: zarr reads their metadata without our size limits.
"""

from __future__ import annotations

import inspect
import json
import os
import platform
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from napari_msgan.errors import FolderError, MsganError, StoreError
from napari_msgan.pyramid._folder import is_index
from napari_msgan.pyramid._place import URL_LOCK_FILE, Entry, EntryKind, taken

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zarr.abc.store import Store

    from napari_msgan.geometry import Ints
    from napari_msgan.zarr_folder import ChunkSize

#: Not the name of a folder's lock, whose file stays when nobody holds it, and may be copied here.
_LOCK_KEY = f"0/{URL_LOCK_FILE}"
_KINDS: dict[str, EntryKind] = {"directory": "folder", "file": "file", "link": "link"}
#: In these, an upload becomes visible when it is complete; elsewhere, files are renamed into place.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "memory"}
#: Packages whose `pipe_file` can create an object only if none exists, in a single request.
_CREATES_ALONE = ("s3fs.", "gcsfs.", "adlfs.", "fsspec.implementations.memory")


class UrlPlace:
    """A store at a URL; see `napari_msgan.pyramid._place.Place`.

    Listings are never cached, because others may write too.
    """

    def __init__(self, url: str) -> None:
        import fsspec  # type: ignore[import-untyped]

        if not url.partition("://")[2].strip("/"):
            raise StoreError(f"{url} names no place: write what it is called behind the ://")
        self._url = url.rstrip("/")
        try:
            self._files, self._root = fsspec.core.url_to_fs(self._url, use_listings_cache=False)
        except (ImportError, ValueError, OSError) as error:
            raise StoreError(f"{url} cannot be opened: {error}") from error
        kinds = self._files.protocol
        kinds = (kinds,) if isinstance(kinds, str) else kinds
        self._is_object_store = not _OBJECT_STORES.isdisjoint(kinds)

    @property
    def address(self) -> str:
        return self._url

    @property
    def path(self) -> Path:
        raise StoreError(
            f"{self._url} is a URL, and this works with folders only: fetch a copy of it first"
        )

    def is_there(self) -> bool:
        return self.exists("zarr.json")

    def zarr_store(self, chunk: ChunkSize | None = None) -> Store:
        from zarr.storage import FsspecStore

        return FsspecStore.from_url(
            self._url, storage_options={"use_listings_cache": False}, read_only=True
        )

    def read(self, key: str, most_bytes: int) -> bytes | None:
        try:
            content: bytes = self._files.cat_file(self._at(key), start=0, end=most_bytes + 1)
        except FileNotFoundError:
            return None
        if len(content) > most_bytes:
            raise FolderError(
                f"{self._url}/{key} has more than the {most_bytes} bytes that it can need"
            )
        return content

    def write(self, key: str, content: bytes, *, durably: bool = False) -> None:
        target = self._at(key)
        if self._is_object_store:
            self._files.pipe_file(target, content)
            return
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        partial = f"{target}.{uuid4().hex}.partial"
        try:
            self._files.pipe_file(partial, content)
            self._files.mv(partial, target)
        except BaseException:
            with suppress(FileNotFoundError):
                self._files.rm_file(partial)
            raise

    def exists(self, key: str) -> bool:
        # fsspec's own `exists` and `isfile` return False when a request fails.
        try:
            return bool(self._files.info(self._at(key))["type"] == "file")
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise MsganError(
                f"{self._url}/{key} cannot be looked up: {str(error) or type(error).__name__}. Try "
                "again; the store itself may be sound."
            ) from error

    def stamp(self, key: str) -> object:
        return None  # asking would take as long as reading the file

    def remove(self, key: str) -> None:
        with suppress(FileNotFoundError):
            self._files.rm_file(self._at(key))

    def scan(self, key: str, grid: Ints) -> tuple[npt.NDArray[np.bool_], list[str]]:
        present = np.zeros(grid, np.bool_)
        folder, leftovers = self._at(f"{key}/c"), []
        for path in self._files.find(folder):
            inner = path[len(folder) :].strip("/")
            names = inner.split("/")
            if inner.endswith(".partial"):
                leftovers.append(f"{key}/c/{inner}")
            elif len(names) == len(grid) and all(map(is_index, names)):
                index = tuple(map(int, names))
                if all(i < n for i, n in zip(index, grid, strict=True)):
                    present[index] = True
        return present, leftovers

    def entries(self, key: str) -> Iterator[Entry]:
        folder = self._at(key).rstrip("/")
        try:
            found = self._files.ls(folder, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in found:
            path = entry["name"].rstrip("/")
            if path != folder:  # an object of that name stands for the folder itself
                kind = "link" if entry.get("islink") else _KINDS.get(entry["type"], "special file")
                yield Entry(path.rpartition("/")[2], kind)

    def writer(self) -> str | None:
        if not self.exists(_LOCK_KEY):
            return None
        return f"{self._holder()} (if it was killed, delete {self._url}/{_LOCK_KEY})"

    def marks(self) -> list[str]:
        return [entry.name for entry in self.entries("") if entry.name.endswith(".partial")]

    def sync(self, keys: Iterable[str]) -> None:
        """Return at once: data that were sent are as safe as the server keeps them."""

    def has_unsynced(self) -> bool:
        """Return False: see `sync`."""
        return False

    def note_unsynced(self, *, are_there: bool) -> None:
        """Do nothing: see `sync`."""

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only writer; the lock of a killed process stays and has to be deleted by hand.

        Raises
        ------
        StoreError
            If another process is writing, or the file system cannot keep two writers apart.
        """
        mine = {"host": platform.node(), "process": os.getpid(), "token": uuid4().hex}
        target = self._at(_LOCK_KEY)
        try:
            if not self._is_object_store:
                self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._create(target, json.dumps(mine).encode())
        except FileExistsError:
            if self._noted() != mine:  # if it is, the answer got lost, and the client tried again
                raise StoreError(
                    f"{self._url} is being written by {self._holder()}. Wait until that is done, "
                    f"or stop it. If it was killed, delete {self._url}/{_LOCK_KEY}."
                ) from None
        except (NotImplementedError, TypeError, ValueError) as error:
            raise StoreError(
                f"{self._url} cannot be written: its file system ({error}) is not known to keep "
                "two writers apart. Update its package, or use a folder, or an object store."
            ) from error
        except OSError as error:
            raise StoreError(f"{self._url} cannot be written: {error}") from error
        try:
            yield
        finally:
            if self._noted() == mine:  # if not, it was deleted, and another process may hold it
                self.remove(_LOCK_KEY)

    def _create(self, target: str, content: bytes) -> None:
        """Create a file atomically, or fail with FileExistsError if it exists.

        fsspec itself looks first and writes later; so only packages known to do better are trusted.
        """
        modules = {kind.__module__ for kind in type(self._files).__mro__}
        if "fsspec.implementations.local" in modules:
            with self._files.open(target, "xb") as file:
                file.write(content)
            return
        mine = type(self._files).__module__
        if not any(module.startswith(_CREATES_ALONE) for module in modules):
            raise NotImplementedError(f"{mine}, not tried")
        writer = getattr(self._files, "_pipe_file", self._files.pipe_file)
        if not {"mode", "overwrite"} & {*inspect.signature(writer).parameters}:
            raise NotImplementedError(f"{mine}, too old")
        self._files.pipe_file(target, content, mode="create")

    def _noted(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(self._files.cat_file(self._at(_LOCK_KEY)))
        except (OSError, ValueError):
            return None
        return found

    @contextmanager
    def creating(self) -> Iterator[Path]:
        if self.is_there():
            raise taken(self._url)
        with self.lock(), tempfile.TemporaryDirectory(prefix="napari-msgan-") as folder:
            if self.is_there():
                raise taken(self._url)
            yield Path(folder, "store")

    def adopt(self, folder: Path) -> None:
        """Upload the files of a folder; the root metadata, which make it a store, come last."""
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        root = folder / "zarr.json"
        self._forget({p.relative_to(folder).parts[0] for p in files if p != root})
        for file in [*(p for p in files if p != root), root]:
            self.write(file.relative_to(folder).as_posix(), file.read_bytes())

    def _forget(self, keys: Iterable[str]) -> None:
        """Remove what is left here of a store that was not deleted completely."""
        lock = self._at(_LOCK_KEY)
        for key in keys:
            for path in self._files.find(self._at(key)):
                if path != lock:
                    self._files.rm_file(path)

    def _at(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _holder(self) -> str:
        holder = self._noted()
        try:
            return f"process {holder['process']} on {holder['host']}"  # type: ignore[index]
        except (KeyError, TypeError):
            return "another process"
