"""A widget that notices when its dock or its window is closed."""

from __future__ import annotations

from typing import TypeVar

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (  # type: ignore[attr-defined]
    QDockWidget,
    QMainWindow,
    QOpenGLWidget,
    QWidget,
)

W = TypeVar("W", bound=QWidget)
#: More pixels than any screen has, to claim all remaining space.
_REST = 10_000


def leave_room(content: QWidget) -> None:
    """Make the dock of a widget as high as it needs to be; docks beside it get the rest."""
    dock, window = _holder(content, QDockWidget), _holder(content, QMainWindow)
    if dock is not None and window is not None:
        area = window.dockWidgetArea(dock)
        others = [
            other
            for other in window.findChildren(QDockWidget)
            if other is not dock and other.isVisible() and window.dockWidgetArea(other) == area
        ]
        # Qt changes the height of a single dock only half way.
        sizes = [dock.minimumSizeHint().height(), *(_REST for _ in others)]
        window.resizeDocks([dock, *others], sizes, Qt.Orientation.Vertical)


def _holder(content: QWidget, kind: type[W]) -> W | None:
    """Return the innermost widget of a kind that holds `content`; a floating dock has a window."""
    holder: QWidget | None = content
    while holder is not None and not isinstance(holder, kind):
        holder = holder.parentWidget()
    return holder


class Docked(QWidget):
    """Content of a dock; `let_go` is called once, while the viewer still exists."""

    def __init__(self) -> None:
        super().__init__()
        self._window: QWidget | None = None
        self._is_closed = False

    def let_go(self) -> None:
        """Stop whatever is running, and stop listening to the viewer."""
        raise NotImplementedError

    def make_canvas_current(self, event: object = None) -> None:
        """Make the OpenGL context of the canvas beside this widget the current one.

        Call it before a layer is removed: napari 0.9 frees the layer's programs and textures at
        once, in whatever context is current. If that is Qt's own, Mesa's software rendering (on
        machines without a GPU) kills the whole process at the next image that it draws in 3-D.
        """
        window = _holder(self, QMainWindow)
        if window is not None:
            for canvas in window.findChildren(QOpenGLWidget):
                if canvas.isValid():
                    canvas.makeCurrent()

    def close_session(self) -> None:
        """Let go of the viewer, unless that was done before."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._window is not None:
            self._window.removeEventFilter(self)
            self._window = None
        self.let_go()

    def showEvent(self, event: QShowEvent | None) -> None:
        super().showEvent(event)
        window = self.window()
        if self._window is None and not self._is_closed and window not in (self, None):
            assert window is not None
            self._window = window
            window.installEventFilter(self)

    def changeEvent(self, event: QEvent | None) -> None:
        super().changeEvent(event)
        # napari removes the widget from a dock that is closed, and forgets it.
        is_taken_out = event is not None and event.type() == QEvent.Type.ParentChange
        if is_taken_out and self.parent() is None and self._window is not None:
            self.close_session()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        if watched is not self._window or event is None or event.type() != QEvent.Type.Close:
            return False
        # The window may ask the user, and stay open. If it closes, it does not tell its docks.
        window = self._window
        assert window is not None
        window.event(event)
        if event.isAccepted():
            window.hide()  # at once, as a job ends only with its tile, which may take long
            for docked in window.findChildren(Docked):
                docked.close_session()
        return True
