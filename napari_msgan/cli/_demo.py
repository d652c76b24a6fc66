"""``napari-msgan demo``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from napari_msgan.errors import JobError

if TYPE_CHECKING:
    from argparse import Namespace

_SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")


def demo(arguments: Namespace) -> None:
    """Open napari with a sample image and the panel."""
    # Without a screen, Qt aborts the process, which cannot be caught.
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in _SCREENS):
        raise JobError(
            "there is no screen (DISPLAY is not set). Use: "
            "xvfb-run -a -s '-screen 0 1600x1000x24' napari-msgan demo --unattended"
        )
    try:
        from napari_msgan._napari.demo import run
    except ImportError as error:
        raise JobError(
            f'the demo needs napari with Qt: pip install "napari-msgan[all]" ({error})'
        ) from error
    run(arguments.output, unattended=arguments.unattended)
