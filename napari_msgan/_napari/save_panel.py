"""Saves what is shown of a scale, or of a region of it, as a file for other programs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QLineEdit

from napari_msgan._napari.choices import scale_choices
from napari_msgan._napari.controllers import StoreController
from napari_msgan._napari.state import Opened
from napari_msgan._napari.widgets import Hint, Section, button, combo, row, set_choices
from napari_msgan.errors import MsganError
from napari_msgan.exporting import Grid
from napari_msgan.geometry import Box

FORMATS = {"OME-Zarr": ".ome.zarr", "OME-TIFF": ".ome.tif", "NIfTI": ".nii.gz"}
PICTURES = {"PNG": ".png"}
#: May be typed in place of the extension of a format.
_ENDING = re.compile(r"((\.ome)?(\.zarr|\.tiff?)|\.ome|\.nii(\.gz)?|\.png)$", re.IGNORECASE)
GRIDS: dict[str, Grid] = {"the result's grid": "store", "the source's grid": "source"}


class SavePanel(Section):
    """Format, scale, region and grid of an export."""

    def __init__(
        self,
        stores: StoreController,
        boxes: Callable[[], list[Box]],
        run: Callable[[Callable[[], None]], None],
    ) -> None:
        super().__init__("Save", is_open=False)
        self._stores, self._boxes = stores, boxes
        self.format = combo(
            "Every format keeps voxel size and position, and states that it is synthetic."
        )
        self.format.addItems(list(FORMATS))
        self.scale = combo("What is not refined at this scale is interpolated from coarser scales.")
        self.region = combo("Everything, or the region that is chosen under Refine.")
        self.region.addItems(["Everything", "Region under Refine"])
        self.grid = combo(
            "The voxels of this scale, or the voxels and the orientation of the source, so that\n"
            "both can be compared voxel by voxel."
        )
        self.grid.addItems(list(GRIDS))
        self.hint = Hint()
        self.hint.say(
            "The store saves itself while you work; File > Open Folder continues it. "
            "Save makes files for other programs."
        )
        self.save = button("Save…", "Choose a name and save.", lambda: run(self._ask))
        self.form.addRow("Format", self.format)
        self.form.addRow("Scale", self.scale)
        self.form.addRow("Region", self.region)
        self.form.addRow("Voxels of", self.grid)
        self.folder = QLineEdit()
        self.folder.setReadOnly(True)
        self.form.addRow(row(self.save))
        self.form.addRow("Store", self.folder)
        self.form.addRow(self.hint)

    def show_store(self, opened: Opened | None) -> None:
        if opened is None:
            set_choices(self.scale, ())
        else:
            choices = scale_choices(opened.store)
            set_choices(self.scale, choices, opened.store.geometry.finest_scale)
            self._list_formats(opened.store.geometry.ndim)
        path = "" if opened is None else str(opened.store.path)
        self.folder.setText(path)
        self.folder.setToolTip(f"{path}\nThe folder in which the image above is kept.".strip())
        self.show_row(self.folder, visible=opened is not None)

    def _list_formats(self, ndim: int) -> None:
        chosen = self.format.currentText()
        self.format.clear()
        self.format.addItems([*FORMATS, *(PICTURES if ndim == 2 else ())])
        self.format.setCurrentText(chosen)  # remains the first one if it is no longer listed

    def save_to(self, path: Path, *, overwrite: bool = False) -> None:
        """Save with the settings in the panel.

        Raises
        ------
        MsganError
            If the name is taken or does not fit the format, or the region is not a single box.
        """
        region = None
        if self.region.currentIndex() == 1:
            boxes = self._boxes()
            if len(boxes) != 1:
                raise MsganError(
                    f"a file holds one region, {len(boxes)} are chosen. Select one rectangle."
                )
            region = boxes[0]
        self._stores.session.require()
        if os.path.lexists(path) and not overwrite:
            raise MsganError(f"{path} exists already: choose another name, or delete it first")
        scale = self.scale.currentData()
        grid = GRIDS[self.grid.currentText()]
        self._stores.save(path, scale=scale, region=region, grid=grid, overwrite=overwrite)

    def _ask(self) -> None:
        suffix = (FORMATS | PICTURES)[self.format.currentText()]
        opened = self._stores.session.opened
        name = "image" if opened is None else opened.store.info.model_name
        chosen, _ = QFileDialog.getSaveFileName(
            self, "Save", name + suffix, f"{self.format.currentText()} (*{suffix})"
        )
        if not chosen:
            return
        path = Path(chosen)
        asked = path.name.endswith(suffix)
        if not asked:
            path = path.with_name(_ENDING.sub("", path.name) + suffix)
        # The dialog asks before a file is replaced; a folder is never replaced.
        self.save_to(path, overwrite=asked and os.path.lexists(path) and path.is_file())
