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
    """Progress of a verification: chunks are read first, then tiles are compared."""

    stage: Literal["verify", "compare"]
    done: int
    total: int


@dataclass
class Findings:
    """What has been found so far.

    changed_sketches : scales whose sketch may differ from when the tiles were made.
    damaged : tiles that cannot be trusted, so nothing is compared with them.
    chunks, compared : number of chunks read (including the sketch), and of tiles made again.
    removed : boxes of the tiles that a repair removed, per scale; None before a repair.
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

    problems : what is wrong, or was wrong before the repair.
    notes : what is not damage but worth knowing, such as a check that could not be done.
    chunks : number of chunks read, including the sketch.
    compared : number of tiles made again.
    removed : boxes of the tiles that a repair removed, per scale; None without a repair.
    """

    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    chunks: int
    compared: int
    removed: dict[int, list[Box]] | None

    @property
    def remaining(self) -> tuple[Problem, ...]:
        """The problems that are still there."""
        repaired = self.removed is not None
        return tuple(p for p in self.problems if not (repaired and p.can_be_repaired))

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong, or nothing any more after the repair."""
        return not self.remaining
