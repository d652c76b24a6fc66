"""Choosing where tiles are made: threads or processes on this computer, or a cluster."""

from __future__ import annotations

from qtpy.QtWidgets import QLineEdit, QSpinBox, QVBoxLayout, QWidget

from napari_msgan._napari.widgets import combo, guarded_from_wheel
from napari_msgan.errors import MsganError
from napari_msgan.steps import n_cores

HERE, LOCAL, REMOTE = "This computer", "Local cluster", "Dask scheduler"


class Workplace(QWidget):
    """A list, and below it the number of workers or the address of a scheduler."""

    def __init__(self) -> None:
        super().__init__()
        self.box = combo(
            "What makes the tiles; the image is the same.\n"
            "This computer: threads of napari.\n"
            "Local cluster: worker processes on this computer, e.g. one per GPU; they take\n"
            "some seconds to start.\n"
            "Dask scheduler: the workers of a cluster that see the folder of the store."
        )
        self.box.setAccessibleName("Where to run")
        self.box.addItems([HERE, LOCAL, REMOTE])
        self.count = guarded_from_wheel(QSpinBox())
        self.count.setAccessibleName("Number of workers")
        self.count.setRange(1, 9999)
        self.count.setValue(n_cores())
        self.count.setSuffix(" workers")
        self.count.setToolTip("Number of worker processes, each with one thread.")
        self.address = QLineEdit()
        self.address.setAccessibleName("Address of the scheduler")
        self.address.setPlaceholderText("tcp://host:8786")
        self.address.setToolTip("Address that `dask scheduler` prints when it starts.")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.box, self.count, self.address):
            layout.addWidget(widget)
        self.box.currentIndexChanged.connect(self._show_chosen)
        self._show_chosen()

    @property
    def cluster(self) -> str | None:
        """The cluster as the library expects it; None for this process.

        Raises
        ------
        MsganError
            If there is no address.
        """
        chosen = self.box.currentText()
        if chosen == HERE:
            return None
        if chosen == LOCAL:
            return f"local:{self.count.value()}"
        address = self.address.text().strip()
        if not address:
            raise MsganError("there is no address of a scheduler: fill it in under Where to run")
        return address

    def _show_chosen(self) -> None:
        self.count.setVisible(self.box.currentText() == LOCAL)
        self.address.setVisible(self.box.currentText() == REMOTE)
