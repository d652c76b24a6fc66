"""Process-wide settings that several jobs may need at the same time."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Held:
    """A setting that the first holder makes and the last one undoes.

    If every holder restored what it had found, the last of two overlapping jobs would restore the
    setting of the other.

    make : makes the setting, and returns a function that undoes it.
    """

    def __init__(self, make: Callable[[], Callable[[], object]]) -> None:
        self._make, self._lock = make, Lock()
        self._n_holders = 0
        self._undo: Callable[[], object] | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the setting inside the ``with`` block."""
        with self._lock:
            if not self._n_holders:
                self._undo = self._make()
            self._n_holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_holders -= 1
                if not self._n_holders:
                    assert self._undo is not None
                    self._undo()
