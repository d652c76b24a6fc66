"""Small widgets that the panels share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QHelpEvent, QPaintEvent, QPalette, QShowEvent
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QToolButton,
    QToolTip,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_msgan._napari.choices import Choice

W = TypeVar("W", bound=QWidget)

_QUIET = "font-size: 11px;"
#: Ambers readable on dark and on light backgrounds, at a contrast of 7 and 5.
_ON_DARK, _ON_LIGHT = "#e8960c", "#8a5200"
#: Margins around the content of a section: left, top, right, bottom.
INDENT = (10, 0, 0, 4)
#: Pixels to the left and right of the text of a list.
_TEXT_MARGIN = 3


class Section(QWidget):
    """A part of the panel under a title that folds it away."""

    def __init__(self, title: str, *, is_open: bool = True) -> None:
        super().__init__()
        self._title = QToolButton()
        self._title.setText(title)
        self._title.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._title.setCheckable(True)
        self._title.setChecked(is_open)
        self._title.setAutoRaise(True)
        self._title.setStyleSheet("QToolButton { border: none; font-weight: bold; padding: 2px; }")
        self._title.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._title.toggled.connect(self._fold)
        self.content = QWidget()
        self.form = QFormLayout(self.content)
        self.form.setContentsMargins(*INDENT)
        self.form.setVerticalSpacing(4)
        self.form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self._title)
        layout.addWidget(self.content)
        self._fold(is_open)

    def show_row(self, field: QWidget, *, visible: bool) -> None:
        """Show or hide a row of the form, including its label."""
        field.setVisible(visible)
        label = self.form.labelForField(field)
        if isinstance(label, QWidget):
            label.setVisible(visible)

    def _fold(self, is_open: bool) -> None:
        self._title.setArrowType(Qt.ArrowType.DownArrow if is_open else Qt.ArrowType.RightArrow)
        self.content.setVisible(is_open)


class UprightScrollArea(QScrollArea):
    """Scrolls only vertically, and is never narrower than its content plus the scroll bar."""

    def __init__(self, content: QWidget) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidget(content)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Adapt the minimum width when the content changes."""
        content, bar = self.widget(), self.verticalScrollBar()
        if event is not None and event.type() == QEvent.Type.LayoutRequest and content and bar:
            around = bar.sizeHint().width() + 2 * self.frameWidth()
            self.setMinimumWidth(content.minimumSizeHint().width() + around)
        return super().eventFilter(watched, event)


class ElidingComboBox(QComboBox):
    """A list that elides a chosen text that is too long, and shows all of it in its tooltip.

    elide : which part of the text is left out.
    """

    def __init__(self, elide: Qt.TextElideMode) -> None:
        super().__init__()
        self._elide = elide

    def paintEvent(self, event: QPaintEvent | None) -> None:
        painter, option = QStylePainter(self), QStyleOptionComboBox()
        self.initStyleOption(option)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        option.currentText = self.elided_text()
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)

    def elided_text(self) -> str:
        """Return the visible part of the chosen text."""
        style, option, text = self.style(), QStyleOptionComboBox(), self.currentText()
        self.initStyleOption(option)
        if style is None:
            return text
        control, part = QStyle.ComplexControl.CC_ComboBox, QStyle.SubControl.SC_ComboBoxEditField
        width = style.subControlRect(control, option, part, self).width() - 2 * _TEXT_MARGIN
        return self.fontMetrics().elidedText(text, self._elide, width)

    def event(self, event: QEvent | None) -> bool:
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            QToolTip.showText(event.globalPos(), self.tooltip_now(), self)
            return True
        return super().event(event)

    def tooltip_now(self) -> str:
        text, whole = self.toolTip(), self.currentText()
        return text if self.elided_text() == whole else f"{whole}\n{text}"


class _WheelGuard(QObject):
    """Lets the wheel scroll the panel unless the control under it has the focus."""

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        is_wheel = event is not None and event.type() == QEvent.Type.Wheel
        if not is_wheel or not isinstance(watched, QWidget) or watched.hasFocus():
            return False
        assert event is not None
        event.ignore()  # so that the parent receives it
        return True


def guarded_from_wheel(control: W) -> W:
    """Make a control react to the wheel only after it was clicked, and return it."""
    control.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    control.installEventFilter(_WheelGuard(control))
    return control


class Hint(QLabel):
    """A line of text under a control, hidden while there is nothing to say."""

    def __init__(self, *, is_warning: bool = False) -> None:
        super().__init__()
        self._is_warning = is_warning
        self.setWordWrap(True)
        self.setStyleSheet(_QUIET)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.say("")

    def changeEvent(self, event: QEvent | None) -> None:
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.StyleChange:
            self._colour()

    def showEvent(self, event: QShowEvent | None) -> None:
        super().showEvent(event)
        self._colour()

    def _colour(self) -> None:
        """Make a warning stand out from the background colour of the theme."""
        if self._is_warning:
            ground = self.palette().color(QPalette.ColorRole.Window)
            style = f"{_QUIET} color: {_ON_DARK if ground.lightness() < 128 else _ON_LIGHT};"
            if style != self.styleSheet():  # because setting it counts as a change of style
                self.setStyleSheet(style)

    def say(self, text: str) -> None:
        self.setText(text)
        self.setVisible(bool(text))


def combo(tooltip: str, elide: Qt.TextElideMode = Qt.TextElideMode.ElideRight) -> QComboBox:
    """Return a list that does not widen the panel to fit its longest entry.

    elide : which part of a text that is too long is left out.
    """
    box = guarded_from_wheel(ElidingComboBox(elide))
    box.setToolTip(tooltip)
    policy = QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
    box.setSizeAdjustPolicy(policy)
    box.setMinimumContentsLength(10)
    return box


def name_combo(tooltip: str) -> QComboBox:
    """Return a list for names of layers, which often start alike and differ at the end."""
    return combo(tooltip, Qt.TextElideMode.ElideMiddle)


def set_choices(box: QComboBox, choices: Iterable[Choice], scale: int | None = None) -> None:
    """Replace the entries; select the given scale, or keep the chosen one, if it is among them."""
    wanted = box.currentData() if scale is None else scale
    with signals_blocked(box):
        box.clear()
        for choice in choices:
            box.addItem(choice.text, choice.scale)
            box.setItemData(box.count() - 1, choice.text, Qt.ItemDataRole.ToolTipRole)
        box.setCurrentIndex(max(0, box.findData(wanted)) if box.count() else -1)


def button(text: str, tooltip: str, clicked: Callable[[], object]) -> QPushButton:
    widget = QPushButton(text)
    widget.setToolTip(tooltip)
    widget.clicked.connect(lambda: clicked())
    return widget


def row(*widgets: QWidget, stretch: int | None = 0) -> QWidget:
    """Lay widgets out side by side; the one with index `stretch` takes the remaining space."""
    box = QWidget()
    layout = QHBoxLayout(box)
    layout.setContentsMargins(0, 0, 0, 0)
    for index, widget in enumerate(widgets):
        layout.addWidget(widget, int(index == stretch))
    return box
