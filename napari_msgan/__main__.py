"""Run the terminal program: ``python -m napari_msgan`` is the same as ``napari-msgan``."""

import sys

from napari_msgan.cli import main

if __name__ == "__main__":
    sys.exit(main())
