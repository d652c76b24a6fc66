"""When the content of a dock lets go."""

from __future__ import annotations

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDockWidget, QLabel, QMainWindow

from napari_msgan._napari.docked import Docked, leave_room


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


def test_a_window_is_gone_before_its_docks_wait_for_what_runs(window):
    seen = []
    for content in window.contents:
        content.let_go = lambda: seen.append(window.isVisible())
    window.close()
    assert seen == [False, False]


@pytest.mark.parametrize("n_others", [1, 2])
def test_a_dock_is_as_high_as_it_has_to_be_and_others_have_the_rest(qtbot, n_others):
    window = QMainWindow()
    qtbot.addWidget(window)
    window.setCentralWidget(QLabel("canvas"))
    window.resize(600, 900)
    docks = []
    for _ in range(n_others + 1):
        dock = QDockWidget()
        dock.setWidget(QLabel("content"))
        docks.append(dock)
        window.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, dock)
    window.show()
    qtbot.waitExposed(window)
    small = docks[-1]
    leave_room(small.widget())
    qtbot.wait(50)
    assert small.height() <= small.minimumSizeHint().height() + 2
    assert sum(dock.height() for dock in docks) > 800
