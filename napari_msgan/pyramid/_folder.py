"""A store in a local folder; links that lead out of it are refused, as it may come from anybody."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from napari_msgan.durable import (
    patiently,
    sync_files,
    sync_folder,
    sync_tree,
    told_if_disk_full,
    write_atomically,
)
from napari_msgan.errors import FolderError, StoreError
from napari_msgan.folders import check_inside, check_is_folder, read_inside
from napari_msgan.locking import hold_lock, living_holder
from napari_msgan.pyramid._place import LOCK_FILE, UNSYNCED_FILE, Entry, EntryKind, taken

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zarr.abc.store import Store

    from napari_msgan.geometry import Ints
    from napari_msgan.zarr_folder import ChunkSize

_LOCK_KEY, _UNSYNCED_KEY = f"0/{LOCK_FILE}", f"0/{UNSYNCED_FILE}"


class FolderPlace:
    """A store in a local folder; see `napari_msgan.pyramid._place.Place`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def address(self) -> str:
        return str(self._root)

    @property
    def path(self) -> Path:
        return self._root

    def is_there(self) -> bool:
        return self._root.is_dir()

    def zarr_store(self, chunk: ChunkSize | None = None) -> Store:
        from napari_msgan.zarr_folder import ZarrFolder

        return ZarrFolder(self._root, chunk=chunk)

    def read(self, key: str, most_bytes: int) -> bytes | None:
        try:
            return read_inside(self._root, key, most_bytes)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def write(self, key: str, content: bytes, *, durably: bool = False) -> None:
        path = self._root / key
        check_inside(self._root, path)
        if durably:
            write_atomically(path, content)
            return
        if not self._root.is_dir():  # or `mkdir` would bring back a part of a deleted store
            raise self._is_gone()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
        try:
            partial.write_bytes(content)
            patiently(partial.replace, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def exists(self, key: str) -> bool:
        return (self._root / key).is_file()

    def stamp(self, key: str) -> object:
        try:
            known = (self._root / key).stat()
        except OSError:
            return None
        return known.st_ino, known.st_mtime_ns, known.st_size

    def remove(self, key: str) -> None:
        path = self._root / key
        check_inside(self._root, path.parent)  # the file may be a link: then the link is removed
        with suppress(FileNotFoundError):
            patiently(path.unlink)

    def scan(self, key: str, grid: Ints) -> tuple[npt.NDArray[np.bool_], list[str]]:
        present = np.zeros(grid, dtype=np.bool_)
        leftovers = []
        check_inside(self._root, self._root / key / "c")
        for index, entry in _walk(self._root, self._root / key / "c", grid):
            if index is None:
                leftovers.append(Path(entry.path).relative_to(self._root).as_posix())
            else:
                present[index] = True
        return present, leftovers

    def entries(self, key: str) -> Iterator[Entry]:
        folder = self._root / key
        try:
            check_inside(self._root, folder)
        except FolderError:
            return  # the link itself is reported by the folder that contains it
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as found:
            for entry in found:
                yield Entry(entry.name, _kind(entry))

    def writer(self) -> str | None:
        lock = self._root / _LOCK_KEY
        try:
            check_inside(self._root, lock.with_suffix(".pid"))
        except FolderError:
            return None
        return living_holder(lock)

    def marks(self) -> list[str]:
        return [path.name for path in self._root.glob("*.partial") if not path.is_dir()]

    def sync(self, keys: Iterable[str]) -> None:
        folders: set[PurePosixPath] = set()

        def files() -> Iterator[Path]:
            for key in keys:
                folders.update(PurePosixPath(key).parents)  # the last one is the store itself
                yield self._root / key

        sync_files(files())
        for folder in sorted(folders, reverse=True):  # the store itself last
            with suppress(FileNotFoundError):  # removed meanwhile
                sync_folder(self._root / folder, through=folder == PurePosixPath())

    def has_unsynced(self) -> bool:
        return (self._root / _UNSYNCED_KEY).exists()

    def note_unsynced(self, *, are_there: bool) -> None:
        with told_if_disk_full(self._root, StoreError):
            if are_there:
                (self._root / _UNSYNCED_KEY).touch()
            else:
                self.remove(_UNSYNCED_KEY)

    @contextmanager
    def lock(self) -> Iterator[None]:
        if not self._root.is_dir():  # or the lock would create the folder anew
            raise self._is_gone()
        lock = self._root / _LOCK_KEY
        for file in (lock, lock.with_suffix(".pid"), self._root / _UNSYNCED_KEY):
            check_inside(self._root, file)  # or a link there would be written through
            if file.is_dir():
                raise StoreError(f"{file} is a folder, where a file of ours belongs. Delete it.")
        with hold_lock(lock, self.address):
            self._forget_creation()
            yield

    @contextmanager
    def creating(self) -> Iterator[Path]:
        target = self._root
        _check_free(target)
        prefix = f".{target.name}.partial-"
        with self._creation_lock():
            _check_free(target)
            # Whoever made these held the lock, and no longer runs.
            for stale in [p for p in target.parent.iterdir() if _is_partial(p.name, prefix)]:
                if stale.is_symlink() or not stale.is_dir():
                    stale.unlink()
                else:
                    shutil.rmtree(stale)
            temporary = target.with_name(f"{prefix}{os.getpid()}")
            try:
                with told_if_disk_full(target, StoreError):
                    yield temporary
            finally:
                # Files in use are left, without hiding an error; the next creator removes them.
                shutil.rmtree(temporary, ignore_errors=True)

    def _is_gone(self) -> StoreError:
        return StoreError(f"{self.address} is gone: put the folder back, or close its layers")

    @property
    def _creation_file(self) -> Path:
        return self._root.with_name(f".{self._root.name}.lock")

    @contextmanager
    def _creation_lock(self) -> Iterator[None]:
        """Be the only creator of the store, and leave no lock file beside it."""
        with hold_lock(self._creation_file, self.address):
            try:
                yield
            finally:
                # Unlinked while held: whoever opened it meanwhile notices that its file has no name
                # any more, and tries again. Windows deletes no open file: there it stays, empty.
                with suppress(OSError):
                    self._creation_file.unlink(missing_ok=True)

    def _forget_creation(self) -> None:
        """Remove the lock of a creator that was killed just after the store came to its place."""
        file = self._creation_file
        if file.exists() or file.with_suffix(".pid").exists():
            with suppress(StoreError), self._creation_lock():  # StoreError: its creator holds it
                pass

    def adopt(self, folder: Path) -> None:
        sync_tree(folder)
        try:
            patiently(folder.rename, self._root)
        except OSError as error:
            if self._root.exists():
                raise taken(self.address) from error
            raise StoreError(f"{self._root} cannot be made: {error}") from error
        sync_folder(self._root.parent)


def _is_partial(name: str, prefix: str) -> bool:
    """Return whether a name is the prefix and a number.

    With other text after it, as in ``.a.partial-b``, it belongs to another store.
    """
    return name.startswith(prefix) and is_index(name[len(prefix) :])


def _check_free(target: Path) -> None:
    check_is_folder(target.parent, StoreError)
    if target.exists() or target.is_symlink():
        raise taken(str(target))


def _walk(
    root: Path, folder: Path | str, grid: Ints, prefix: Ints = ()
) -> Iterator[tuple[Ints | None, os.DirEntry[str]]]:
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise StoreError(
            f"{folder} is a file, where a folder of chunks belongs. Delete it."
        ) from error
    is_last = len(prefix) == len(grid) - 1
    with entries:
        for entry in entries:
            name = entry.name
            if entry.is_symlink():
                check_inside(root, Path(entry.path))
            if name.endswith(".partial"):
                if not entry.is_dir():
                    yield None, entry
            elif is_index(name):
                index = (*prefix, int(name))
                if index[-1] >= grid[len(prefix)]:
                    continue
                if not is_last:
                    yield from _walk(root, entry.path, grid, index)
                elif not entry.is_dir():
                    yield index, entry


def _kind(entry: os.DirEntry[str]) -> EntryKind:
    if entry.is_symlink():
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    return "file" if entry.is_file(follow_symlinks=False) else "special file"


def is_index(name: str) -> bool:
    """Return whether a name is an index as in the names of chunk files.

    Examples
    --------
    >>> is_index("12"), is_index("012"), is_index("-1")
    (True, False, False)
    """
    return name.isascii() and name.isdecimal() and str(int(name)) == name
