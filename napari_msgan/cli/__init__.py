"""The terminal program: arguments in, exit code out."""

from napari_msgan.cli._main import main

__all__ = ["main"]
