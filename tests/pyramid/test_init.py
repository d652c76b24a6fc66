from __future__ import annotations

import subprocess
import sys


def test_importing_the_folder_is_cheap(root):
    code = "import sys, napari_msgan.pyramid; print({'zarr', 'filelock', 'torch'} & {*sys.modules})"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert result.stdout == "set()\n"
