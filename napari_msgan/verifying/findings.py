"""What a verification finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from napari_msgan.geometry import Box
    from napari_msgan.pyramid.checking import Problem
    from napari_msgan.tiling import Tile


@dataclass(frozen=True, slots=True)
class VerifyStep:
    """How far it is: chunks are read, then tiles are compared."""

    stage: Literal["verify", "compare"]
    done: int
    total: int


@dataclass
class Findings:
    """What has been found so far.

    changed_sketches : scales at which it is not as it was when the tiles were made.
    damaged : tiles that cannot be trusted, so that nothing is compared with them.
    chunks, compared : chunks that were read (those of the sketch too), tiles that were made again.
    removed : what a repair removed, per scale the boxes of tiles; None before it.
    """

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    changed_sketches: set[int] = field(default_factory=set)
    damaged: set[Tile] = field(default_factory=set)
    chunks: int = 0
    compared: int = 0
    removed: dict[int, list[Box]] | None = None


@dataclass(frozen=True)
class Verification:
    """What was found in a store.

    problems : what is wrong, or was before it was repaired.
    notes : what is no damage but good to know, such as a check that could not be made.
    chunks : how many were read, those of the sketch too.
    compared : how many tiles were made again.
    removed : what a repair removed, per scale the boxes of tiles; None if nothing was to be.
    """

    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    chunks: int
    compared: int
    removed: dict[int, list[Box]] | None

    @property
    def remaining(self) -> tuple[Problem, ...]:
        """Return the problems that are still there."""
        repaired = self.removed is not None
        return tuple(p for p in self.problems if not (repaired and p.can_be_repaired))

    @property
    def is_sound(self) -> bool:
        """Return whether nothing is wrong (any more)."""
        return not self.remaining
