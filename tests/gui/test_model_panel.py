from napari_msgan._napari.model_panel import ModelCard, ModelPanel
from napari_msgan.config import INEXACT_NOTE
from napari_msgan.megan_import import import_megan
from napari_msgan.model import find_model, read_spec
from tests.megan import write_checkpoints
from tests.models import write_model


def test_panel_says_of_imported_models_that_they_are_not_exact(qtbot, tmp_path):
    import_megan(write_checkpoints(tmp_path / "theirs", widths=(1, 1)), tmp_path / "toy")
    panel = ModelPanel()
    qtbot.addWidget(panel)
    panel.choose(tmp_path / "toy")
    assert INEXACT_NOTE in panel.hint.text()
    panel.choose(write_model(tmp_path / "small"))
    assert INEXACT_NOTE not in panel.hint.text()


def test_model_is_chosen_that_fits_the_image(qtbot):
    panel = ModelPanel()
    qtbot.addWidget(panel)
    panel.choose_for(3, in_hu=True)
    assert panel.spec.modality == "CT"
    panel.choose_for(3)
    assert (panel.spec.modality, len(panel.spec.axes)) == ("MR", 3)
    panel.choose_for(2, in_hu=True)  # there is none of CT
    assert len(panel.spec.axes) == 2
    chosen = panel.folder
    panel.choose_for(7)
    assert panel.folder == chosen
    panel.choose_for(3, in_hu=True)
    panel.choose_for(3, in_hu=None)  # of a sketch nothing is known
    assert panel.spec.modality == "CT"


def test_model_that_was_chosen_by_hand_stays_while_it_can_be_used(qtbot):
    panel = ModelPanel()
    qtbot.addWidget(panel)
    panel.choose_name("thorax-ct")
    panel.choose_for(3)
    assert panel.spec.name == "thorax-ct"
    panel.choose_for(2)
    assert len(panel.spec.axes) == 2
    panel.choose_for(3)
    assert panel.spec.name == "thorax-ct"  # whatever was chosen for other images in between
    panel.choose_name("brain-mri")
    panel.choose_for(3, in_hu=True)
    assert panel.spec.name == "brain-mri"
    index = panel.box.findData(str(find_model("thorax-ct")))
    panel.box.setCurrentIndex(index)
    panel.box.activated.emit(index)  # as a click into the list does
    panel.choose_for(3)
    assert panel.spec.name == "thorax-ct"


def test_card_shows_its_preview_once(qtbot):
    folder = find_model("chest-xray")
    assert "![" in (folder / "README.md").read_text(encoding="utf-8")
    panel = ModelPanel()
    qtbot.addWidget(panel)
    card = ModelCard(panel, folder, read_spec(folder))
    qtbot.addWidget(card)
    assert "How it was trained" in card.text.toPlainText()
    assert "\ufffc" not in card.text.toPlainText()  # stands for a picture in the text
