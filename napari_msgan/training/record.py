"""What a run leaves behind for inspection: a line per interval, and TensorBoard."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.tensorboard import SummaryWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from napari_msgan.intensity import Float32Array
    from napari_msgan.training.gan import Losses

_MOST_PICTURES = 8


class Record:
    """Mean losses per interval, written to ``scale_<s>.jsonl`` and to TensorBoard.

    A resumed run drops what was written after its checkpoint.
    """

    def __init__(self, work: Path, scale: int, first_step: int) -> None:
        self._path, self._scale = _file_of(work, scale), scale
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        if self._path.exists():
            kept = [means for means in read_record(work, scale) if means["step"] <= first_step]
            self._path.write_text("".join(map(_line, kept)), encoding="utf-8")
        self._board = SummaryWriter(work / "tensorboard", purge_step=first_step + 1)

    def state(self) -> dict[str, dict[str, float]]:
        """Return the unfinished interval, for a checkpoint."""
        return {"sums": dict(self._sums), "counts": {k: float(v) for k, v in self._counts.items()}}

    def load_state(self, state: dict[str, dict[str, float]]) -> None:
        self._sums = dict(state["sums"])
        self._counts = {name: int(count) for name, count in state["counts"].items()}

    def add(self, losses: Losses) -> None:
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def write(self, step: int, more: Losses) -> None:
        """Write the means of this interval and start the next one."""
        means = {name: total / self._counts[name] for name, total in self._sums.items()} | more
        self._sums, self._counts = {}, {}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line({"step": step, **means}))
        for name, value in means.items():
            self._board.add_scalar(f"scale_{self._scale}/{name}", value, step)

    def pictures(self, step: int, *rows: Tensor) -> None:
        """Show images, shape (N, 1, ...) with values in [0, 1], one row per tensor."""
        sheet = np.concatenate([np.concatenate(list(_middle(row)), 1) for row in rows], 0)
        self._board.add_image(
            f"scale_{self._scale}/sketch, result, truth", sheet, step, dataformats="HW"
        )

    def close(self) -> None:
        self._board.close()


def read_record(work: Path, scale: int) -> Iterator[Losses]:
    """Yield the mean losses of each interval of a scale, with its last step as ``step``.

    A line torn by a full disk or a power cut is left out.
    """
    path = _file_of(work, scale)
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.splitlines():
        try:
            means: Losses = json.loads(line)
            is_whole = means["step"] > 0
        except (ValueError, TypeError, KeyError):
            continue
        if is_whole:
            yield means


def _file_of(work: Path, scale: int) -> Path:
    return work / f"scale_{scale}.jsonl"


def _line(means: Losses) -> str:
    return json.dumps(means) + "\n"


def _middle(images: Tensor) -> Float32Array:
    """Return the middle slices of the first images (2-D images as they are), in [0, 1]."""
    values: Float32Array = images[:_MOST_PICTURES, 0].float().cpu().numpy()
    if values.ndim == 4:
        values = values[:, values.shape[1] // 2]
    return np.clip(values, 0, 1)
