"""When the content of a dock lets go."""

from __future__ import annotations

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDockWidget, QMainWindow

from napari_msgan._napari.docked import Docked


class Content(Docked):
    times = 0

    def let_go(self):
        self.times += 1


class AskingWindow(QMainWindow):
    """Asks before it is closed, as napari's window does."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.contents = [Content(), Content()]
        for content in self.contents:
            dock = QDockWidget()
            dock.setWidget(content)
            self.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, dock)
        self.answer = True

    def closeEvent(self, event):
        self.seen.append([content.times for content in self.contents])
        event.setAccepted(self.answer)


@pytest.fixture
def window(qtbot):
    window = AskingWindow()
    qtbot.addWidget(window)
    window.show()
    return window


def test_a_window_that_stays_open_keeps_its_docks(window):
    window.answer = False
    window.close()
    assert window.isVisible()
    assert [content.times for content in window.contents] == [0, 0]


def test_all_docks_let_go_once_it_is_settled_that_the_window_goes(window):
    for window.answer in (False, True):
        window.close()
    assert window.seen == [[0, 0], [0, 0]]  # asked once each time, and nothing ended before
    assert [content.times for content in window.contents] == [1, 1]
