"""A widget that notices when its dock or its window is closed."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget


def leave_room(content: QWidget) -> None:
    """Make the dock of a widget as high as it has to be; others beside it get the rest."""
    dock: QWidget | None = content
    while dock is not None and not isinstance(dock, QDockWidget):
        dock = dock.parentWidget()
    window = None if dock is None else dock.parentWidget()
    if isinstance(dock, QDockWidget) and isinstance(window, QMainWindow):
        height = dock.minimumSizeHint().height()
        window.resizeDocks([dock], [height], Qt.Orientation.Vertical)


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
        # The window goes without telling its docks: what is running must end before.
        if watched is self._window and event is not None and event.type() == QEvent.Type.Close:
            self.close_session()
        return False
