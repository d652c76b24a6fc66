from __future__ import annotations

import logging
import shutil
import tempfile
from typing import TYPE_CHECKING

import pytest

from benchmarks.fuzz.engines import scratch_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in memory, which is where temporary files go too; readers log nothing."""
    folder = scratch_folder()
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "sandbox"))
    monkeypatch.setenv("TMPDIR", str(folder / "sandbox"))
    logging.disable(logging.CRITICAL)
    yield folder
    logging.disable(logging.NOTSET)
    shutil.rmtree(folder)
