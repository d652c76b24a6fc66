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
#: More pixels than a screen has: all that is left.
_REST = 10_000


def leave_room(content: QWidget) -> None:
    """Make the dock of a widget as high as it has to be; others beside it get the rest."""
    dock, window = _holder(content, QDockWidget), _holder(content, QMainWindow)
    if dock is not None and window is not None:
        area = window.dockWidgetArea(dock)
        others = [
            other
            for other in window.findChildren(QDockWidget)
            if other is not dock and other.isVisible() and window.dockWidgetArea(other) == area
        ]
        # of one dock alone Qt changes the height half the way only
        sizes = [dock.minimumSizeHint().height(), *(_REST for _ in others)]
        window.resizeDocks([dock, *others], sizes, Qt.Orientation.Vertical)


def make_canvas_current(content: QWidget) -> None:
    """Make the OpenGL context of the canvas, beside which a widget is docked, the current one.

    To be called before a layer is removed: napari 0.9 frees the programs and textures of the layer
    at once, in whatever context is current. Where that is Qt's own, Mesa's software rendering, of
    machines without a GPU, ends the whole process with the next image that it draws in 3-D.
    """
    window = _holder(content, QMainWindow)
    if window is not None:
        for canvas in window.findChildren(QOpenGLWidget):
            if canvas.isValid():
                canvas.makeCurrent()


def _holder(content: QWidget, kind: type[W]) -> W | None:
    """Return the innermost widget of a kind that holds a widget; a floating dock has a window."""
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
        """Stop what runs, and listen to the viewer no longer."""
        raise NotImplementedError

    def close_session(self) -> None:
        """Let go of the viewer, if that was not done yet."""
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
        # napari takes the widget out of a dock that is closed, and forgets it.
        is_taken_out = event is not None and event.type() == QEvent.Type.ParentChange
        if is_taken_out and self.parent() is None and self._window is not None:
            self.close_session()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        if watched is not self._window or event is None or event.type() != QEvent.Type.Close:
            return False
        # The window may ask, and stay. Where it goes, it tells none of its docks.
        window = self._window
        assert window is not None
        window.event(event)
        if event.isAccepted():
            window.hide()  # a job ends with its tile, which may take long: not before the eyes
            for docked in window.findChildren(Docked):
                docked.close_session()
        return True
