"""A full disk and a read-only one, on a small file system of its own (where that is allowed)."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli.helpers import pixels

CHILD = """
import contextlib, io, json, os, shutil, subprocess, sys
from pathlib import Path
from napari_msgan.cli import main

disk, image, model, finished, outside = map(Path, sys.argv[1:])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)], check=True)
store, filler, seen = disk / "a.ome.zarr", disk / "filler", {}

def run(name, *arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(a) for a in arguments] + ["-q"])
    seen[name] = {"code": code, "err": err.getvalue(), "left": sorted(os.listdir(disk))}

def leave(n_bytes):
    filler.unlink(missing_ok=True)
    free = shutil.disk_usage(disk).free
    filler.write_bytes(bytes(free - n_bytes))

generate = ("generate", image, store, "--model", model, "--workers", 2)
refine = ("refine", store, "--region", "0:90,0:110", "--workers", 2)
verify = ("verify", store, "--sample", "all")

leave(60_000)
run("sketch", *generate)
filler.unlink()
run("scale 0", *generate, "--scale", 0)
leave(80_000)
run("tiles", *refine)
run("tiles again", *generate)
run("verify full", *verify)
filler.unlink()
leave(14_000)
run("export", "export", store, disk / "a.nii.gz", "--scale", 2)
run("export zarr", "export", store, disk / "b.ome.zarr", "--scale", 2)
filler.unlink()
run("goes on", *generate)
run("exports", "export", store, disk / "a.nii.gz", "--scale", 2)
run("verify", *verify)
shutil.copytree(store, outside / "all.ome.zarr")
(store / "0" / "c" / "0" / "0").unlink()
subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
run("refine read-only", *refine)
run("generate read-only", *generate)
run("repair read-only", *verify, "--repair")
run("verify read-only", *verify)
run("export read-only", "export", store, outside / "b.nii.gz")
run("export to read-only", "export", store, disk / "c.nii.gz")
(outside / "seen.json").write_text(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def disk(originals, finished, tmp_path_factory):
    """What happened on a disk that became full, then free, then read-only; and its last store."""
    folder = tmp_path_factory.mktemp("disk")
    mount, outside = folder / "small", folder / "outside"
    mount.mkdir()
    outside.mkdir()
    own = ["unshare", "--map-root-user", "--mount"]
    try:
        subprocess.run(
            [*own, "mount", "-t", "tmpfs", "none", str(mount)], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system may be mounted here: {error}")
    paths = (mount, originals / "image.tif", originals / "small", finished, outside)
    ended = subprocess.run(
        [*own, sys.executable, "-c", CHILD, *map(str, paths)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads((outside / "seen.json").read_text()), outside / "all.ome.zarr"


@pytest.mark.parametrize(
    ("step", "left"),
    [
        ("sketch", ["filler"]),
        ("tiles", ["a.ome.zarr", "filler"]),
        ("tiles again", ["a.ome.zarr", "filler"]),
        ("export", ["a.ome.zarr", "filler"]),
        ("export zarr", ["a.ome.zarr", "filler"]),
    ],
)
def test_full_disk_is_one_line_and_leaves_nothing_behind(disk, step, left):
    seen = disk[0][step]
    assert seen["code"] == 2
    lines = seen["err"].splitlines()
    assert [line[:7] for line in lines if "warning" not in line] == ["error: "], lines
    assert "cannot be written: the disk is full (" in lines[-1]
    assert "Make room, then do the same again." in lines[-1]
    assert seen["left"] == left


def test_export_says_how_much_it_needs(disk):
    assert "are free there, up to 20 kB are needed)" in disk[0]["export"]["err"]


def test_store_on_a_full_disk_is_sound_and_the_same_command_goes_on(disk, finished):
    seen, store = disk
    for step in ("verify full", "goes on", "exports", "verify"):
        assert seen[step]["code"] == 0, seen[step]
    assert seen["verify"]["left"] == ["a.nii.gz", "a.ome.zarr"]
    for made, expected in zip(pixels(store), pixels(finished), strict=True):
        np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("step", ["refine", "generate", "repair"])
def test_read_only_disk_is_refused_by_who_writes(disk, step):
    seen = disk[0][f"{step} read-only"]
    assert seen["code"] == 2
    assert seen["err"].count("error: ") == 1
    assert "Check its permissions, and whether its disk is read-only." in seen["err"]


def test_read_only_disk_can_be_read(disk):
    seen = disk[0]
    assert seen["verify read-only"]["code"] == 0
    assert seen["export read-only"]["code"] == 0
    assert seen["export to read-only"]["code"] == 2
    assert "whether its disk is read-only" in seen["export to read-only"]["err"]
