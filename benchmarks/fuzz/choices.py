"""A string of bytes as a series of choices, so that any engine can drive any mutation.

A coverage-guided engine changes a few bytes and thereby a few choices; a seeded one draws them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

T = TypeVar("T")


class Choices:
    """The choices that bytes encode; once they are used up, each choice is the first option."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def below(self, n: int) -> int:
        """Return a whole number from 0 to n - 1."""
        size = max(((n - 1).bit_length() + 7) // 8, 1)
        taken = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(taken, "little") % n

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def bytes(self, most: int) -> bytes:
        return bytes(self.below(256) for _ in range(self.below(most + 1)))
