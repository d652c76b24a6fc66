"""``napari-msgan import-megan``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_msgan import megan_import
from napari_msgan.cli._tables import quoted
from napari_msgan.config import INEXACT_NOTE

if TYPE_CHECKING:
    from argparse import Namespace


def import_megan(arguments: Namespace) -> None:
    """Make a model folder from checkpoints of the method's authors."""
    low, high = arguments.window
    spec = megan_import.import_megan(
        arguments.source,
        arguments.out,
        name=arguments.name,
        title=arguments.title,
        modality=arguments.modality,
        window=(low, high),
    )
    if not arguments.quiet:
        out = quoted(arguments.out)
        print(f"{arguments.out}: model {spec.name!r}, {spec.n_scales} scales; {INEXACT_NOTE}.")
        print(
            f"Next:\n  napari-msgan generate SKETCH NAME.ome.zarr --model {out} --input-is-sketch"
        )
