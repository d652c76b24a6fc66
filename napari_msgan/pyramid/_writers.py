"""Who may write to a store: the holder of its lock, and the helpers of that holder."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from napari_msgan.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_msgan.pyramid._place import Place


class Writers:
    """The writers of an open store; any thread may use it.

    Either threads of this process hold the lock of the store together, or this process helps the
    holder in another process, which has put a *mark* into the store: an empty file, which the next
    holder removes.
    """

    def __init__(self, place: Place, *, allowed: bool) -> None:
        self._place, self.allowed = place, allowed
        self._count = 0
        self._mark: str | None = None
        # Reentrant, because the garbage collector may end an abandoned job in any thread, anywhere.
        self._lock = threading.RLock()
        self._held = ExitStack()

    @contextmanager
    def hold(self, begin: Callable[[], None]) -> Iterator[None]:
        """Hold the lock of the store until the last ``with`` block of this object ends.

        Parameters
        ----------
        begin : called once the lock is taken, by the first holder only.

        Raises
        ------
        StoreError
            If the store was opened for reading only, or another process is writing.
        """
        self._check_allowed()
        with self._lock:
            if self._count == 0:
                with ExitStack() as stack:
                    stack.enter_context(self._place.lock())
                    begin()
                    self._held = stack.pop_all()
            self._count += 1
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1
                if self._count == 0:
                    self._held.close()

    @contextmanager
    def paused(self) -> Iterator[bool]:
        """Keep writers of this process from joining or leaving; yield whether there is just one."""
        with self._lock:
            yield self._count == 1

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other writers of this process from joining.

        Raises
        ------
        StoreError
            If there already is another writer.
        """
        with self.paused() as is_only:
            if not is_only:
                address = self._place.address
                raise StoreError(f"tiles are being made in {address}: wait until that has ended.")
            yield

    def put_mark(self) -> str:
        """Put a mark into the store and return its name."""
        name = f".{uuid4().hex}.partial"
        self._place.write(name, b"")
        return name

    def assist(self, mark: str) -> None:
        """Allow writing without the lock, on behalf of its holder, while the mark exists.

        Raises
        ------
        StoreError
            If the store was opened for reading only, or has no such mark.
        """
        self._check_allowed()
        self._mark = mark
        self.check()

    def check(self) -> None:
        """Check that this process may write.

        Raises
        ------
        StoreError
            If this process neither holds the lock nor helps its holder, or that holder is gone.
        """
        if self._count > 0:
            return
        address = self._place.address
        if self._mark is None:
            raise StoreError(f"{address} is only changed inside `with store.writing()`.")
        if not self._place.exists(self._mark):
            raise StoreError(
                f"{address} is no longer written to: the process that this one helped is gone, "
                "and another may be writing."
            )

    def _check_allowed(self) -> None:
        if not self.allowed:
            address = self._place.address
            raise StoreError(f"{address} was opened for reading. Open it with writable=True.")
