"""Choosing what the image is made from, and where the result goes."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from qtpy.QtCore import Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QCheckBox, QFileDialog, QLineEdit, QSpinBox
from superqt.utils import signals_blocked

from napari_msgan._napari.choices import SourceCheck, check_source, original_of
from napari_msgan._napari.compare import is_comparison
from napari_msgan._napari.connecting import connected
from napari_msgan._napari.controllers import GenerateWish
from napari_msgan._napari.from_layer import holds_edges, store_link, to_volume
from napari_msgan._napari.scene import key_of, layer_of
from napari_msgan._napari.state import Opened
from napari_msgan._napari.stores import free_path, share
from napari_msgan._napari.to_layer import Placement
from napari_msgan._napari.widgets import (
    Hint,
    Section,
    button,
    combo,
    guarded_from_wheel,
    name_combo,
    row,
    set_choices,
)
from napari_msgan.config import ModelSpec, Precision
from napari_msgan.errors import MsganError
from napari_msgan.jobs import Progress, iter_generate
from napari_msgan.pyramid import PyramidStore

DEVICES = {"Automatic": "auto", "Processor (CPU)": "cpu", "GPU (CUDA)": "cuda"}
#: Layer events after which the layer must be checked again.
_LAYER_CHANGES = ("data", "scale", "rotate", "shear", "affine", "units")
_LARGEST_SEED = 999_999
PRECISIONS: dict[str, Precision] = {"float32": "fp32", "bfloat16 (faster, coarser)": "bf16"}


class SourcePanel(Section):
    """Source layer, device, precision and folder; says what does not fit before anything runs."""

    changed = Signal()
    #: Emitted when another layer becomes the source.
    layer_changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__("Source")
        self._viewer = viewer
        self._spec: ModelSpec | None = None
        self._model: Path | None = None
        self.check = SourceCheck("")
        self._watched: Layer | None = None
        self._unwatch = connected()
        self._proposed = ""
        self.box = name_combo("The image layer whose edges guide the model.")
        self.box.setAccessibleName("Source")
        self.is_sketch = QCheckBox("It is a sketch already")
        self.is_sketch.setToolTip(
            "The layer holds edges, not an image: 0 is no edge; integers are divided by the\n"
            "largest value of their type, floats lie between 0 and 1. In a Labels layer the\n"
            "largest label is the strongest edge; if labels fill regions,\n"
            "their borders are the edges."
        )
        self.hint = Hint()
        self.problem = Hint(is_warning=True)
        self.fix = button(
            "Its scale is in mm",
            "The layer has a scale but no unit: treat the scale as millimetres.",
            self._declare_mm,
        )
        self.finest = combo(
            "How fine the result can be refined. Beyond what the source resolves, the model\n"
            "invents detail."
        )
        self.form.addRow(self.box)
        self.form.addRow(self.hint)
        self.form.addRow(self.problem)
        self.form.addRow(self.fix)
        self.form.addRow(self.is_sketch)
        self.form.addRow("Up to", self.finest)
        self.seed = guarded_from_wheel(QSpinBox())
        self.seed.setRange(0, _LARGEST_SEED)
        self.seed.setToolTip(
            "Another number gives another texture; the low-resolution image stays the same."
        )
        self.form.addRow("Seed", self.seed)
        self.where = Section("Where", is_open=False)
        self.device = combo("Where tiles are computed. A store keeps to one kind of device.")
        self.device.addItems(list(DEVICES))
        self.precision = combo(
            "Number format of the networks. A store keeps the one it was made with."
        )
        self.precision.addItems(list(PRECISIONS))
        self.path = QLineEdit()
        self.path.setToolTip(
            "The OME-Zarr folder that holds the result while you work; nothing is ever\n"
            "overwritten. It is named after the model and the day, never after your file,\n"
            "because file names name patients."
        )
        self.path.setAccessibleName("Store")
        self.browse = button("…", "Choose the folder in which the store is made.", self._browse)
        self.browse.setAccessibleName("Folder of the store")
        self.where.form.addRow("Device", self.device)
        self.where.form.addRow("Precision", self.precision)
        self.where.form.addRow("Store", row(self.path, self.browse))
        self.box.currentIndexChanged.connect(self._check)
        self.finest.currentIndexChanged.connect(lambda: self.changed.emit())

    @property
    def layer(self) -> Layer | None:
        return layer_of(self._viewer, self.box.currentData())

    @property
    def chosen_device(self) -> str:
        return DEVICES[self.device.currentText()]

    def set_model(self, folder: Path | None, spec: ModelSpec | None) -> None:
        self._model, self._spec = folder, spec
        self.finest.clear()  # its scales belonged to another model
        self.show_row(self.seed, visible=spec is not None and spec.stochastic)
        if self.path.text() in ("", self._proposed):  # not what the user typed
            self._propose_path()
        self._check()

    def list_layers(self) -> None:
        """List the image layers again, without results, which cannot be sources.

        An image opened since the last call becomes the source.
        """
        chosen = self.box.currentData()
        known = {self.box.itemData(i) for i in range(self.box.count())}
        with signals_blocked(self.box):
            self.box.clear()
            for layer in self._viewer.layers:
                link = store_link(layer)
                is_source = isinstance(layer, Image | Labels) and not is_comparison(layer)
                if is_source and (link is None or link.role == "sketch"):
                    self.box.addItem(layer.name, key_of(layer))
                    is_new = bool(known) and key_of(layer) not in known
                    if is_new and isinstance(layer, Image) and link is None:
                        chosen = key_of(layer)
            index = self.box.findData(chosen)
            if index < 0 and self.box.count():
                # a sketch of ours becomes the source only if the user chooses it
                index = next((i for i in range(self.box.count()) if not self._is_ours(i)), -1)
            self.box.setCurrentIndex(index)
        self._check()

    def close_all(self) -> None:
        """Stop watching the chosen layer."""
        self._watch(None)

    def choose_precision(self, precision: Precision) -> None:
        self.precision.setCurrentText(next(k for k, p in PRECISIONS.items() if p == precision))

    def choose(self, layer: Layer) -> None:
        self.box.setCurrentIndex(self.box.findData(key_of(layer)))

    def wish(self) -> GenerateWish:
        """Return the checked wish to make a store with only its low-resolution image.

        Raises
        ------
        MsganError
            If something does not fit.
        """
        layer, spec, model = self.layer, self._spec, self._model
        self._check()
        if self.check.problem is not None or layer is None or spec is None or model is None:
            raise MsganError(self.check.problem or "there is nothing to make an image from")
        path = self._free_path()
        volume = to_volume(layer, is_kept=True)
        placement = Placement.of_layer(layer, volume.affine)
        finest = self.finest.currentData() if spec.kind == "physical" else None
        device, precision = self.chosen_device, PRECISIONS[self.precision.currentText()]
        is_sketch = self.is_sketch.isChecked()
        original = original_of(layer, spec) if is_sketch else None
        seed = self.seed.value() if spec.stochastic else 0

        def steps() -> Generator[Progress, None, PyramidStore]:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise MsganError(
                    f"{path.parent} cannot be made: {error.strerror or error}. Choose another "
                    "folder under Where."
                ) from error
            return (
                yield from iter_generate(
                    volume,
                    path,
                    model,
                    scale=0,
                    finest=finest,
                    seed=seed,
                    device=device,
                    precision=precision,
                    input_is_sketch=is_sketch,
                    edited_from=original,
                )
            )

        def opened(store: PyramidStore) -> Opened:
            share(store)
            return Opened(store, placement)

        return GenerateWish(steps(), opened, layer.name)

    def _free_path(self) -> Path:
        """Return where the store will be made.

        Raises
        ------
        MsganError
            If there is no name for it, it cannot be one, or it is taken.
        """
        if self.path.text() == self._proposed:
            self.propose_next_path()  # another window may have taken the name
        text = self.path.text()
        if not text.strip():
            raise MsganError("there is no name for the store: fill it in under Where")
        try:
            path = Path(text).expanduser()
            if not path.name.endswith(".ome.zarr"):
                path = path.with_name(path.name + ".ome.zarr")
        except (RuntimeError, ValueError) as error:  # ~ of nobody; a folder such as / or .
            raise MsganError(
                f"{text} is no name for a store: add one after the folder, under Where"
            ) from error
        if os.path.lexists(path):  # does not raise, even if the name is too long to look up
            raise MsganError(
                f"{path} exists already. Choose another name under Where, or continue it: Open… "
                "under Refine."
            )
        return path

    def propose_next_path(self) -> None:
        """Propose a new free name if the current one has been used."""
        if os.path.lexists(self.path.text()):
            self._propose_path()

    def _is_ours(self, index: int) -> bool:
        layer = layer_of(self._viewer, self.box.itemData(index))
        return layer is not None and store_link(layer) is not None

    def _propose_path(self, folder: Path | None = None) -> None:
        """Propose a free name based on the model, in `folder` or the one already chosen."""
        if self._spec is not None:
            if folder is None and self.path.text():
                folder = Path(self.path.text()).parent
            self._proposed = str(free_path(self._spec.name, folder))
            self.path.setText(self._proposed)

    def _browse(self) -> None:
        start = str(Path(self.path.text()).parent)
        folder = QFileDialog.getExistingDirectory(self, "Folder for the store", start)
        if folder:
            self._propose_path(Path(folder))

    def _declare_mm(self) -> None:
        if (layer := self.layer) is not None:
            layer.units = ("mm",) * layer.ndim

    def _watch(self, layer: Layer | None) -> None:
        """Check again when this layer changes, and ignore all others."""
        self._unwatch()
        self._watched = layer
        changes = [] if layer is None else [layer.events[name] for name in _LAYER_CHANGES]
        self._unwatch = connected(*((change, self._check) for change in changes))

    def _check(self, event: object = None) -> None:
        layer = self.layer
        self.check = check_source(layer, self._spec)
        is_other = layer is not self._watched
        if is_other:
            self._watch(layer)
            self.finest.clear()  # its scales were those of another image
            self.is_sketch.setChecked(layer is not None and holds_edges(layer))
        self.hint.say(self.check.text)
        self.problem.say(self.check.problem or "")
        self.fix.setVisible(self.check.lacks_mm)
        set_choices(self.finest, self.check.finest)
        self.finest.setEnabled(len(self.check.finest) > 1)
        self.changed.emit()
        if is_other:
            self.layer_changed.emit()
