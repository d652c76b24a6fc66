from __future__ import annotations

import pytest
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QColor, QPalette, QWheelEvent
from qtpy.QtWidgets import QApplication, QSlider, QSpinBox, QToolButton, QVBoxLayout, QWidget

from napari_msgan._napari.choices import Choice
from napari_msgan._napari.widgets import (
    Hint,
    Section,
    combo,
    guarded_from_wheel,
    name_combo,
    set_choices,
)


@pytest.fixture
def box(qtbot):
    box = combo("The finest scale.")
    set_choices(box, [Choice(0, "3 mm"), Choice(1, "3 mm, as fine as it gets")])
    qtbot.addWidget(box)
    box.resize(120, box.sizeHint().height())
    box.show()
    return box


def roll_over(widget):
    """Turn the wheel over a widget; return whether it took that, or what it lies in gets it."""
    place = QPointF(5, 5)
    event = QWheelEvent(
        place,
        QPointF(widget.mapToGlobal(place.toPoint())),
        QPoint(0, 0),
        QPoint(0, -120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(widget, event)
    return event.isAccepted()


def test_a_section_opens_and_closes_at_its_title(qtbot):
    section = Section("Save", is_open=False)
    section.form.addRow(field := QSpinBox())
    qtbot.addWidget(section)
    section.show()
    title = section.findChild(QToolButton)
    for is_open, arrow in (
        (False, Qt.ArrowType.RightArrow),
        (True, Qt.ArrowType.DownArrow),
        (False, Qt.ArrowType.RightArrow),
    ):
        assert (field.isVisible(), title.arrowType()) == (is_open, arrow)
        qtbot.mouseClick(title, Qt.MouseButton.LeftButton)


@pytest.mark.parametrize("kind", ["list", "number", "line"])
def test_the_wheel_changes_only_what_was_clicked(qtbot, kind):
    if kind == "list":
        control = combo("")
        set_choices(control, [Choice(0, "a"), Choice(1, "b")])
        value = control.currentIndex
    else:
        control = guarded_from_wheel(QSpinBox() if kind == "number" else QSlider())
        control.setRange(0, 9)
        control.setValue(5)
        value = control.value
    qtbot.addWidget(control)
    control.show()
    before = value()
    control.hasFocus = lambda: False  # without a window manager no window is active
    assert not roll_over(control)
    assert value() == before
    control.hasFocus = lambda: True
    assert roll_over(control)
    assert value() != before


def picture(box):
    return box.grab().toImage()


def test_a_text_that_is_too_long_ends_in_dots_and_is_whole_in_the_tooltip(box):
    box.setCurrentIndex(1)
    assert box.elided_text().startswith("3 mm,")
    assert box.elided_text().endswith("…")
    assert box.tooltip_now() == "3 mm, as fine as it gets\nThe finest scale."
    cut = picture(box)
    box.setItemText(1, box.elided_text())
    assert picture(box) == cut
    box.setItemText(1, "3 mm")
    assert picture(box) != cut


def test_names_that_begin_alike_are_told_apart_by_their_ends(qtbot):
    box = name_combo("The image.")
    qtbot.addWidget(box)
    box.addItems([f"chest-xray_2026-11-30_{number}" for number in (1, 2)])
    box.resize(120, box.sizeHint().height())
    box.show()
    texts = []
    for index in (0, 1):
        box.setCurrentIndex(index)
        texts.append(box.elided_text())
    assert "…" in texts[0]
    assert texts[0] != texts[1]


def test_a_text_with_room_is_shown_as_it_is(box):
    assert box.elided_text() == "3 mm"
    assert box.tooltip_now() == "The finest scale."
    box.setCurrentIndex(1)
    box.resize(400, box.height())
    assert box.elided_text() == "3 mm, as fine as it gets"
    assert box.tooltip_now() == "The finest scale."


def contrast(one, other):
    """Return how well a text is read on its ground (WCAG 2: 4.5 for small ones)."""

    def luminance(colour):
        parts = [colour.redF(), colour.greenF(), colour.blueF()]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("ground", ["#ebe7e6", "#262930", "#ffffff", "#000000"])
def test_warnings_are_read_on_every_ground_also_after_it_changed(qtbot, ground):
    window = QWidget()
    qtbot.addWidget(window)
    hint = Hint(is_warning=True)
    QVBoxLayout(window).addWidget(hint)
    window.show()
    hint.say("Set its scale.")
    for colour in ("#888888", ground):
        window.setStyleSheet(f"QWidget {{ background-color: {colour}; }}")
    qtbot.wait(20)
    text = hint.palette().color(QPalette.ColorRole.WindowText)
    assert contrast(text, QColor(ground)) > 4.5
    assert text.saturation() > 200  # it stands out
