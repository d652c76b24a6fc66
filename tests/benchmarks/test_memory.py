"""What `make reproduce` calls peak memory."""

from __future__ import annotations

import sys

import pytest

from benchmarks.memory import is_needed_later
from benchmarks.reproduce.memory import watch_job

if not sys.platform.startswith("linux"):
    pytest.skip("memory is measured on Linux only", allow_module_level=True)

_TAKES_MEMORY = """
import sys, time
before = b"x" * ({before} << 20)
print("idle", flush=True)
sys.stdin.readline()
after = b"x" * ({after} << 20)
time.sleep(0.2)
"""


def peak_mb(before, after):
    code = _TAKES_MEMORY.format(before=before, after=after)
    return watch_job([sys.executable, "-c", code])[0]


def test_what_a_job_takes_is_its_peak_and_what_is_there_before_is_not():
    assert peak_mb(before=0, after=40) == pytest.approx(40 * 1.049, abs=3)
    assert peak_mb(before=40, after=0) == pytest.approx(0, abs=3)


def test_a_job_that_fails_gives_no_figure():
    with pytest.raises(SystemExit, match="failed with 3"):
        watch_job([sys.executable, "-c", "raise SystemExit(3)"])


def test_stores_that_others_read_are_made_whatever_the_folder_is_called(tmp_path):
    folder = tmp_path / "output"
    kept, gone = folder / "store.ome.zarr", folder / "out" / "x.ome.zarr"
    assert is_needed_later(["generate", "a.nii", str(kept)], folder)
    assert not is_needed_later(["generate", "a.nii", str(gone)], folder)
    assert not is_needed_later(["verify", str(kept)], folder)
    kept.mkdir(parents=True)
    assert not is_needed_later(["generate", "a.nii", str(kept)], folder)
