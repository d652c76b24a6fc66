"""The files of an evaluation, and removing those of an earlier one beside them."""

from __future__ import annotations

import hashlib
from pathlib import PurePath
from typing import TYPE_CHECKING

from napari_msgan import __version__
from napari_msgan.durable import write_atomically
from napari_msgan.evaluation.tables import figures_csv, images_of, report_markdown, summary_csv
from napari_msgan.evaluation.units import units_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL.Image import Image

    from napari_msgan.config import ModelSpec
    from napari_msgan.evaluation.case import Computing
    from napari_msgan.evaluation.figures import ScaleFigures
    from napari_msgan.evaluation.memorisation import Memorisation

_FIGURES, _SUMMARY, _REPORT, _PAGE = "figures.csv", "summary.csv", "report.md", "reader-study.html"
_PICTURES = "pictures"
#: Bytes of a file name that file systems allow, less the extension that is added.
_LONGEST_NAME = 255 - len(".png")


class Results:
    """Writes the results of an evaluation to a folder.

    Files of an earlier evaluation stay until the first image is finished, then all are removed.

    folder : created with the first file.
    """

    def __init__(self, folder: Path, spec: ModelSpec, computing: Computing) -> None:
        self._folder, self._spec, self._computing = folder, spec, computing
        self._is_begun = False

    def add_image(self, name: str, picture: Image, rows: Sequence[ScaleFigures]) -> None:
        """Write the picture of an image, and all rows so far."""
        if not self._is_begun:
            self._remove_former()
            self._is_begun = True
        (self._folder / _PICTURES).mkdir(parents=True, exist_ok=True)
        self._write(_FIGURES, figures_csv(rows))
        picture.save(self._folder / _PICTURES / picture_name(name))

    def write_tables(
        self,
        rows: Sequence[ScaleFigures],
        problems: Sequence[str],
        memorisation: Memorisation | None = None,
    ) -> None:
        """Write summary and report; `problems` say what could not be measured, and why."""
        report = report_markdown(
            rows,
            model_name=self._spec.name,
            units=units_of(self._spec).name,
            made_by=self._made_by(),
            memorisation=memorisation,
            problems=problems,
        )
        self._write(_SUMMARY, summary_csv(rows))
        self._write(_REPORT, report)

    def write_page(self, page: str) -> None:
        self._write(_PAGE, page)

    def _made_by(self) -> str:
        import torch

        where = f"{self._computing.precision} on {self._computing.device}"
        programs = f"napari-msgan {__version__} (torch {torch.__version__}, {where})"
        return f"{programs} with model {self._spec.name}, sha256 {self._spec.identity}"

    def _remove_former(self) -> None:
        former = self._folder / _FIGURES
        images = (
            images_of(former.read_text(encoding="utf-8", errors="replace"))
            if former.exists()
            else ()
        )
        pictures = (f"{_PICTURES}/{picture_name(i)}" for i in images if PurePath(i).name == i)
        for name in (*pictures, _FIGURES, _SUMMARY, _REPORT, _PAGE):
            (self._folder / name).unlink(missing_ok=True)

    def _write(self, name: str, text: str) -> None:
        # file names need not be UTF-8
        write_atomically(self._folder / name, text.encode(errors="backslashreplace"))


def picture_name(image: str) -> str:
    """Return the file name of an image's picture; a long name is cut, and a hash of it added.

    Examples
    --------
    >>> picture_name("chest.tif")
    'chest.tif.png'
    >>> len(picture_name("x" * 300))
    255
    """
    content = image.encode(errors="surrogateescape")
    if len(content) <= _LONGEST_NAME:
        return f"{image}.png"
    digest = hashlib.sha256(content).hexdigest()[:16]
    begin = content[: _LONGEST_NAME - 1 - len(digest)].decode(errors="ignore")
    return f"{begin}-{digest}.png"
