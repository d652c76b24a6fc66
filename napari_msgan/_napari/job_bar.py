"""Progress of a job, with a button that cancels it."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtWidgets import QProgressBar, QVBoxLayout, QWidget

from napari_msgan._napari.choices import time_text
from napari_msgan._napari.state import JobState
from napari_msgan._napari.widgets import Hint, button, row
from napari_msgan.jobs import Stage

_STAGES: dict[Stage, str] = {
    "unpacking": "Unpacking",
    "sketch": "Finding edges",
    "export": "Saving",
    "clear": "Removing tiles",
}


class JobBar(QWidget):
    """Progress bar, remaining time and outcome; the bar is hidden while nothing runs.

    explanation : tooltip of the cancel button.
    """

    def __init__(self, cancel: Callable[[], None], explanation: str) -> None:
        super().__init__()
        self.bar = QProgressBar()
        self.bar.setAccessibleName("Progress")
        self.bar.setToolTip("How far the running job is.")
        self.cancel = button("Cancel", explanation, cancel)
        self.status = Hint()
        self._row = row(self.bar, self.cancel)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._row)
        layout.addWidget(self.status)

    def show_job(self, job: JobState) -> None:
        self._row.setVisible(job.is_running)
        self.cancel.setEnabled(not job.is_cancelling)
        if not job.is_running:
            self.status.say(job.outcome)
            return
        if job.stage == "tiles":
            self.bar.setRange(0, round(job.total))
            self.bar.setValue(round(job.done))
            text = f"Tile {job.done:.0f} of {job.total:.0f}"
        else:
            self.bar.setRange(0, 1000 if job.total else 0)
            self.bar.setValue(round(1000 * job.done / job.total) if job.total else 0)
            text = "Starting" if job.stage is None else _STAGES[job.stage]
        if job.remaining_s is not None:
            text += f", {time_text(job.remaining_s)} left"
        self.status.say("Stopping…" if job.is_cancelling else text)
