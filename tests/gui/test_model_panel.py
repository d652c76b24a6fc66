from napari_msgan._napari.model_panel import ModelPanel
from napari_msgan.config import INEXACT_NOTE
from napari_msgan.megan_import import import_megan
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
