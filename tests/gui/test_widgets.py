from __future__ import annotations

import pytest

from napari_msgan._napari.choices import Choice
from napari_msgan._napari.widgets import combo, set_choices


@pytest.fixture
def box(qtbot):
    box = combo("The finest scale.")
    set_choices(box, [Choice(0, "3 mm"), Choice(1, "3 mm, as fine as it gets")])
    qtbot.addWidget(box)
    box.resize(120, box.sizeHint().height())
    box.show()
    return box


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


def test_a_text_with_room_is_shown_as_it_is(box):
    assert box.elided_text() == "3 mm"
    assert box.tooltip_now() == "The finest scale."
    box.setCurrentIndex(1)
    box.resize(400, box.height())
    assert box.elided_text() == "3 mm, as fine as it gets"
    assert box.tooltip_now() == "The finest scale."
