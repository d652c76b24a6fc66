from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_msgan.pyramid import open_pyramid

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]

    def check_refused(self, advice: str) -> None:
        """Exit code 2 and nothing but one line on stderr that says what is wrong."""
        assert self.code == 2, self
        assert len(self.err.splitlines()) == len(self.errors) == 1, self.err
        assert advice in self.err
        assert self.out == ""


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "napari_msgan", *map(str, arguments)]


def picture(shape: tuple[int, ...], seed: int) -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(seed).random(shape)
    smooth = ndimage.gaussian_filter(noise, 3)
    return (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


def pixels(store: Path) -> list[npt.NDArray[np.generic]]:
    """Return the image at every scale."""
    opened = open_pyramid(store)
    return [np.asarray(opened.array(scale)[...]) for scale in range(opened.n_scales)]


def listing(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {
        os.fspath(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
