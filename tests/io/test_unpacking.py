"""Compressed images are unpacked to temporary files of bounded memory that leave nothing behind."""

from __future__ import annotations

import gc
import gzip
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_msgan.errors import VolumeError
from napari_msgan.geometry import Affine
from napari_msgan.io import _unpacked, iter_read_volume, read_volume, write_volume
from napari_msgan.volume import Volume
from tests.io.helpers import RecordingArray, names_in

MIB = 2**20
SHAPE = (96, 512, 512)  # 48 MiB as int16
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files, which images larger than nothing go to."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(_unpacked, "IN_MEMORY_BYTES", 0)
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compressed image of 48 MiB."""
    path = tmp_path_factory.mktemp("large") / "a.nii.gz"
    volume = Volume(RecordingArray(SHAPE), Affine.of_spacing((1, 1, 1)), "millimeter")
    write_volume(path, [volume], description={})
    return path


def n_mapped(folder: Path) -> int:
    """Return how many files without a name of this folder are mapped by this process."""
    gc.collect()
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return sum(str(folder) in line and "(deleted)" in line for line in maps)


@on_linux
def test_compressed_nifti_is_unpacked_to_a_file_without_a_name(large, temporary):
    fractions = []
    steps = iter_read_volume(large)
    while True:
        try:
            fractions.append(next(steps))
        except StopIteration as stop:
            volume = stop.value
            break
    assert fractions == sorted(fractions)
    assert len(fractions) == 6  # pieces of 8 MiB
    assert fractions[-1] == 1
    assert names_in(temporary) == []
    assert n_mapped(temporary) == 1
    np.testing.assert_array_equal(np.asarray(volume.data), RecordingArray(SHAPE)[:, :, :])
    del volume, steps
    assert n_mapped(temporary) == 0


@on_linux
def test_small_image_is_unpacked_in_memory(large, temporary, monkeypatch):
    monkeypatch.setattr(_unpacked, "IN_MEMORY_BYTES", 64 * MIB)
    volume = read_volume(large)
    assert n_mapped(temporary) == 0
    np.testing.assert_array_equal(volume.data[:2, :, :], RecordingArray(SHAPE)[:2, :, :])


@on_linux
def test_unpacking_that_is_given_up_leaves_nothing_behind(large, temporary):
    steps = iter_read_volume(large)
    assert 0 < next(steps) < 1
    assert n_mapped(temporary) == 1
    steps.close()
    del steps
    assert names_in(temporary) == []
    assert n_mapped(temporary) == 0


@on_linux
def test_killed_unpacking_leaves_nothing_behind(large, temporary):
    code = """
        import sys, time
        from napari_msgan.io import _unpacked, iter_read_volume
        _unpacked.IN_MEMORY_BYTES = 0
        steps = iter_read_volume(sys.argv[1])
        next(steps)
        print("begun", flush=True)
        time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(large)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
    assert f"{temporary}/" in maps
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert names_in(temporary) == []


def run_limited(path: Path, extra_mib: int, *, in_memory: bool) -> subprocess.CompletedProcess[str]:
    """Read all slabs of a file in a process that may take little more memory of its own."""
    code = """
        import resource, sys
        import numpy as np
        from napari_msgan.io import _unpacked, nifti, read_volume, tiff
        _unpacked.IN_MEMORY_BYTES = 2**40 if sys.argv[3] == "True" else 0
        with open("/proc/self/statm") as file:
            data = 4096 * int(file.read().split()[5])
        limit = data + int(sys.argv[2]) * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        volume = read_volume(sys.argv[1])
        total = sum(int(volume.data[z : z + 8].sum(dtype=np.int64)) for z in range(0, 96, 8))
        print(total)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(path), str(extra_mib)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TIFFFILE_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, str(in_memory)], capture_output=True, text=True, check=False, env=environment
    )


@on_linux
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_DATA"), reason="limits the heap")
def test_memory_of_unpacking_does_not_grow_with_the_image(large):
    # RLIMIT_DATA counts private writable memory: not the map of a file.
    small = run_limited(large, 32, in_memory=False)
    assert small.returncode == 0, small.stderr
    assert int(small.stdout) == int(RecordingArray(SHAPE)[:, :, :].sum(dtype=np.int64))
    # Negative control: in memory the same limit is not enough.
    whole = run_limited(large, 32, in_memory=True)
    assert whole.returncode != 0
    assert "Unable to allocate" in whole.stderr


@pytest.mark.parametrize("tile", [None, (128, 128)], ids=["strips", "tiles"])
def test_compressed_tiff_is_unpacked_to_the_same_pixels(tmp_path, temporary, rng, tile):
    stack = rng.integers(0, 60000, (5, 300, 200)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack, compression="zlib", tile=tile, predictor=True)
    volume = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(np.asarray(volume.data), stack)
    assert isinstance(volume.data, np.memmap)
    assert names_in(temporary) == []


def test_no_room_is_said_before_anything_is_written(large, temporary, monkeypatch):
    usage = _unpacked.shutil.disk_usage(temporary)._replace(free=MIB)
    monkeypatch.setattr(_unpacked.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(VolumeError, match=r"0\.05 GB .* 0\.00 GB free. Set TMPDIR"):
        read_volume(large)
    assert names_in(temporary) == []


def test_damage_is_found_while_unpacking(large, temporary, tmp_path):
    content = large.read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(VolumeError, match=r"cut\.nii\.gz cannot be read"):
        read_volume(tmp_path / "cut.nii.gz")
    flipped = bytearray(content)
    flipped[-8] ^= 1  # of the checksum
    (tmp_path / "flipped.nii.gz").write_bytes(flipped)
    with pytest.raises(VolumeError, match="CRC check failed"):
        read_volume(tmp_path / "flipped.nii.gz")
    short = gzip.compress(gzip.decompress(content)[: 20 * MIB], 1)
    (tmp_path / "short.nii.gz").write_bytes(short)
    with pytest.raises(VolumeError, match="it ends after"):
        read_volume(tmp_path / "short.nii.gz")
    assert names_in(temporary) == []


def test_chosen_folder_comes_before_the_one_for_large_files(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", None)
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_unpacked, "_LARGE_FILES", tmp_path / "absent")
    assert _unpacked.temporary_folder() != tmp_path
    monkeypatch.setattr(_unpacked, "_LARGE_FILES", tmp_path)
    assert _unpacked.temporary_folder() == tmp_path
    chosen = tmp_path / "chosen"
    chosen.mkdir()
    monkeypatch.setenv("TMPDIR", str(chosen))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert _unpacked.temporary_folder() == chosen
