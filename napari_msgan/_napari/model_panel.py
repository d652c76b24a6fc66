"""Choosing a model: a list of folders, and the card of the chosen one."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QLabel,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_msgan._napari.choices import model_text
from napari_msgan._napari.widgets import Hint, Section, button, combo, row
from napari_msgan.config import INEXACT_NOTE, ModelSpec
from napari_msgan.errors import ModelError
from napari_msgan.model import find_model, list_models, read_spec, user_folder


class ModelPanel(Section):
    """Lists bundled models, those in the user's model folder, and folders the user browsed to."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__("Model")
        self._folders: list[tuple[str, Path]] = []
        #: Folders that the user chose, by number of axes.
        self._by_hand: dict[int, str] = {}
        self.box = combo(
            "The model that makes the image. Your own models are listed if their folders are in\n"
            f"{user_folder()}"
        )
        self.box.setAccessibleName("Model")
        self.browse = button("Browse…", "Use a model folder from anywhere.", self._browse)
        self.card = button(
            "Card…",
            "What the model was trained on, how well it performs, and its licence.",
            self._show_card,
        )
        self.hint = Hint()
        self.problem = Hint(is_warning=True)
        self.form.addRow(row(self.box, self.browse, self.card))
        self.form.addRow(self.hint)
        self.form.addRow(self.problem)
        self.reload()
        self.box.currentIndexChanged.connect(self._on_changed)
        self.box.activated.connect(self._on_users_choice)
        self._describe()

    @property
    def folder(self) -> Path | None:
        path = self.box.currentData()
        return None if path is None else Path(path)

    @property
    def spec(self) -> ModelSpec | None:
        """The description of the chosen model; None if there is none that can be used."""
        return self._spec_at(self.box.currentIndex())

    def reload(self) -> None:
        """List the models again, keeping the choice."""
        chosen = self.box.currentData()
        with signals_blocked(self.box):
            self.box.clear()
            for entry in list_models():
                title = (entry.spec.title if entry.spec is not None else "") or entry.name
                self.box.addItem(f"{title} ({entry.origin})", str(entry.folder))
                self._explain(entry.problem or str(entry.folder))
            for name, folder in self._folders:
                self.box.addItem(f"{name} (folder)", str(folder))
                self._explain(str(folder))
            self.box.setCurrentIndex(max(0, self.box.findData(chosen)) if self.box.count() else -1)

    def choose(self, folder: Path) -> None:
        """Choose a model folder, adding it to the list if necessary.

        Raises
        ------
        ModelError
            If it is not a model folder.
        """
        spec = read_spec(folder)
        if self.box.findData(str(folder)) < 0:
            self._folders.append((spec.name, folder))
            self.reload()
        self.box.setCurrentIndex(self.box.findData(str(folder)))
        self._on_users_choice()
        self._on_changed()

    def choose_name(self, name: str) -> None:
        """Choose a model by its name.

        Raises
        ------
        ModelError
            If there is none of that name.
        """
        self.choose(find_model(name))

    def choose_for(self, ndim: int, *, in_hu: bool | None = False) -> None:
        """Choose a model for images with this many axes.

        That is the model that the user last chose for such images; otherwise the current model if
        it suits the image, or the first that does.

        in_hu : whether the image is in Hounsfield units, which a CT model suits, and otherwise any
            other model. None if unknown, as for a sketch, which any model suits.
        """
        by_hand = self.box.findData(self._by_hand.get(ndim, ""))

        def fit(index: int) -> tuple[bool, bool, bool, bool]:
            spec, is_chosen = self._spec_at(index), index == self.box.currentIndex()
            if spec is None or len(spec.axes) != ndim:
                return False, False, False, is_chosen
            is_of_kind = in_hu is None or (spec.modality.upper() == "CT") == in_hu
            return True, index == by_hand, is_of_kind, is_chosen

        self.box.setCurrentIndex(max(range(self.box.count()), key=fit, default=-1))

    def _spec_at(self, index: int) -> ModelSpec | None:
        path = self.box.itemData(index)
        try:
            return None if path is None else read_spec(Path(path))
        except ModelError:
            return None

    def _explain(self, text: str) -> None:
        self.box.setItemData(self.box.count() - 1, text, Qt.ItemDataRole.ToolTipRole)

    def _browse(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Model folder", str(user_folder()))
        if not chosen:
            return
        try:
            self.choose(Path(chosen))
        except ModelError as error:
            self.problem.say(str(error))

    def _on_users_choice(self) -> None:
        if self.spec is not None:
            self._by_hand[len(self.spec.axes)] = str(self.folder)

    def _on_changed(self) -> None:
        self._describe()
        self.changed.emit()

    def _describe(self) -> None:
        spec, problem = None, "There is no model. Browse for a model folder."
        if self.folder is not None:
            try:
                spec, problem = read_spec(self.folder), ""
            except ModelError as error:
                problem = str(error)
        self.problem.say(problem)
        self.hint.say(model_text(spec) if spec is not None else "")
        if spec is not None and not spec.exact:
            self.hint.say(f"{model_text(spec)}; {INEXACT_NOTE}")
        self.card.setEnabled(spec is not None)

    def _show_card(self) -> None:
        if self.folder is not None and self.spec is not None:
            ModelCard(self, self.folder, self.spec).exec()


class ModelCard(QDialog):
    """Shows the card of a model with its preview."""

    def __init__(self, parent: QWidget, folder: Path, spec: ModelSpec) -> None:
        super().__init__(parent)
        self.setWindowTitle(f"Model {spec.name}")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.resize(820, 860)
        layout = QVBoxLayout(self)
        preview = QPixmap(str(folder / "preview.png"))
        if not preview.isNull():
            picture = QLabel()
            picture.setPixmap(
                preview.scaled(
                    790,
                    330,
                    Qt.AspectRatioMode.KeepAspectRatio,
                    Qt.TransformationMode.SmoothTransformation,
                )
            )
            layout.addWidget(picture)
        self.text = QTextBrowser()
        self.text.setOpenExternalLinks(True)
        self.text.setSearchPaths([str(folder)])
        self.text.setMarkdown(_card_text(folder, spec))
        layout.addWidget(self.text, 1)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.reject)
        layout.addWidget(buttons)


def _card_text(folder: Path, spec: ModelSpec) -> str:
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
        return "\n".join(line for line in text.splitlines() if not line.startswith("!["))
    except (OSError, UnicodeDecodeError):
        return f"# {spec.name}\n\n{model_text(spec)}\n\nThis model has no card (README.md)."
