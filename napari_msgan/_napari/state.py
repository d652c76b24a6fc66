"""What the panel shows; no Qt, so it is tested without a screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from psygnal import SignalGroupDescriptor

from napari_msgan._napari.to_layer import Placement
from napari_msgan.errors import MsganError
from napari_msgan.jobs import Stage
from napari_msgan.pyramid import PyramidStore

JobKind = Literal["", "generate", "refine", "clear", "save", "sketch"]


@dataclass
class JobState:
    """The running job.

    kind : "" while nothing runs.
    stage : None before the first report.
    outcome : how the last job ended, in words.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    kind: JobKind = ""
    stage: Stage | None = None
    done: float = 0
    total: float = 0
    remaining_s: float | None = None
    is_cancelling: bool = False
    has_failed: bool = False
    outcome: str = ""

    @property
    def is_running(self) -> bool:
        return bool(self.kind)


@dataclass(eq=False)
class Opened:
    """A store that is open in the viewer.

    tile_s : seconds per tile in the last job; None before the first one.
    """

    store: PyramidStore
    placement: Placement
    tile_s: float | None = None


@dataclass
class SessionState:
    """Which store the panel works on."""

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    opened: Opened | None = None

    def require(self) -> Opened:
        """Return the open store.

        Raises
        ------
        MsganError
            If there is none.
        """
        if self.opened is None:
            raise MsganError("there is no image yet. Generate one, or open a saved store.")
        return self.opened
