"""verify, as typed."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from napari_msgan.cli._verify import _problems, merged
from napari_msgan.geometry import Box
from napari_msgan.pyramid.checking import Problem
from napari_msgan.verifying.findings import Verification
from tests.cli.helpers import pixels

HOLDER = """
import sys
from napari_msgan.pyramid import open_pyramid
with open_pyramid(sys.argv[1], writable=True).writing():
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_sound_store_is_well(cli, store):
    ended = cli("verify", store)
    assert ended.code == 0
    assert ended.out == (
        f"{store}: all is well (116 chunks read, 8 tiles made again and compared).\n"
    )
    ended = cli("verify", store, "--sample", "0", "-q")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_broken_chunk_is_named_repaired_and_made_again(cli, store, finished):
    chunk = store / "1" / "c" / "2" / "2"  # in the second tile of each axis
    chunk.write_bytes(chunk.read_bytes()[:20])
    ended = cli("verify", store, "--sample", "all")
    assert ended.code == 2
    assert ended.errors == [
        f"error: {store} has 1 problem(s): napari-msgan verify {store} --repair removes them"
    ]
    assert "level 1 (scale 1), chunk 2/2: it cannot be read (" in ended.out
    assert "--repair removes it." in ended.out

    ended = cli("verify", store, "--sample", "all", "--repair")
    assert ended.code == 0
    assert "Removed." in ended.out
    assert "Tiles removed, with those made from them: 1 of scale 1, " in ended.out
    advised = [line for line in ended.out.splitlines() if line.startswith("  napari-msgan refine")]
    assert len(advised) == 1  # what it makes again is made from the broken one, too
    for line in advised:
        assert cli(*line.split()[1:], "-q").code == 0
    assert cli("verify", store, "-q").code == 0
    for mended, before in zip(pixels(store), pixels(finished), strict=True):
        np.testing.assert_array_equal(mended, before)


def test_quiet_names_problems_and_advises_what_can_be_pasted(cli, store):
    spaced = store.rename(store.with_name("my copy.ome.zarr"))
    (spaced / "0" / "c" / "0" / "0").write_bytes(b"")
    (spaced / "sketch" / "0" / "c" / "1" / "1").write_bytes(b"")
    ended = cli("verify", spaced, "--sample", "0", "-q")
    assert [line.partition(",")[0] for line in ended.out.splitlines()] == [
        "sketch of level 0 (scale 2)",
        "level 0 (scale 2)",
    ]
    command = f"napari-msgan verify '{spaced}' --repair"
    assert ended.err == f"error: {spaced} has 2 problem(s): {command} removes 1 of them\n"


def test_of_many_problems_the_first_are_named_and_the_others_counted():
    problem = Problem("chunk", "it is broken")
    assert len(_problems(Verification((problem,) * 50, (), 0, 0, None))) == 50
    lines = _problems(Verification((problem,) * 51, (), 0, 0, None))
    assert lines[-2:] == ["chunk: it is broken. --repair removes it.", "... and 1 more"]


def tiles(*cells):
    return [Box.of_cell(cell, (8, 8)) for cell in cells]


@pytest.mark.parametrize(
    ("boxes", "regions"),
    [
        (tiles((0, 0)), ["0:8,0:8"]),
        (tiles((0, 0), (9, 9)), ["0:8,0:8", "72:80,72:80"]),  # not all that is between them
        (tiles(*np.ndindex(5, 6)), ["0:40,0:48"]),
        (tiles(*np.ndindex(2, 2), (9, 8), (9, 9)), ["0:16,0:16", "72:80,64:80"]),
        (tiles(*((2 * i, 7 * i) for i in range(9))), ["0:136,0:456"]),  # too many places
    ],
)
def test_regions_to_make_again_are_few_and_little_larger_than_what_was_removed(boxes, regions):
    found = merged(boxes[::-1])
    assert [str(box) for box in found] == regions
    assert all(any(box.contains(tile) for box in found) for tile in boxes)


def test_broken_sketch_cannot_be_repaired(cli, store):
    chunk = store / "sketch" / "0" / "c" / "1" / "1"
    chunk.write_bytes(b"")
    for repair in ([], ["--repair"]):
        ended = cli("verify", store, *repair)
        assert ended.code == 2
        assert "sketch of level 0 (scale 2), chunk 1/1: it cannot be read" in ended.out
        assert "generate the image anew from its source" in ended.out
        assert "that --repair cannot remove" in ended.errors[0]


def test_wrong_arguments_are_refused(cli, store, tmp_path, originals):
    cli("verify", tmp_path / "no.ome.zarr").check_refused("there is no store at")
    cli("verify", store, "--sample", "many").check_refused("'many' is not a whole number")
    other = cli("verify", store, "--model", originals / "other", "-q")
    other.check_refused("was made by model 'small'")


def test_store_without_its_model_is_checked_but_not_compared(cli, store):
    zarr_json = store / "zarr.json"
    zarr_json.write_text(zarr_json.read_text().replace('"model_path": "/', '"model_path": "/no/'))
    ended = cli("verify", store)
    assert ended.code == 0
    assert "note: No tile was made again to be compared: the model of this store" in ended.out
    assert "0 tiles made again" in ended.out


def test_only_one_process_writes_and_a_killed_one_leaves_no_lock(cli, store, image, model):
    writers = (
        ("generate", image, store, "--model", model, "-q"),
        ("refine", store, "--region", "0:90,0:110", "-q"),
        ("verify", store, "--sample", "0", "--repair", "-q"),
    )
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "writing\n"
        for arguments in writers:
            cli(*arguments).check_refused(f"being written by process {process.pid}")
        assert cli("info", store).code == 0
        ended = cli("verify", store, "--sample", "0")
        assert ended.code == 0
        assert f"note: The store is being written by process {process.pid}:" in ended.out
        os.kill(process.pid, signal.SIGKILL)
    for arguments in writers:
        assert cli(*arguments).code == 0


@pytest.mark.parametrize("name", ["a.ome.tif", "a.nii.gz", "a.ome.zarr"])
def test_only_one_process_exports_to_a_name_and_a_killed_one_leaves_nothing(
    cli, store, tmp_path, name
):
    code = """
import sys
from pathlib import Path
from napari_msgan.io._atomic import complete_or_nothing
with complete_or_nothing(Path(sys.argv[1]), overwrite=False) as partial:
    partial.write_bytes(b"half")
    print("writing", flush=True)
    sys.stdin.read()
"""
    folder = tmp_path / "out"
    folder.mkdir()
    out = folder / name
    near = folder / f".partial-01234567-b-{name}"  # of another export
    near.touch()
    with subprocess.Popen(
        [sys.executable, "-c", code, str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "writing\n"
        cli("export", store, out, "-q").check_refused(f"written by process {process.pid}")
        os.kill(process.pid, signal.SIGKILL)
    assert len(list(folder.iterdir())) == 4  # lock, process id, half a file, the other's
    assert cli("export", store, out, "-q").code == 0
    assert sorted(folder.iterdir()) == sorted([near, out])


def test_exported_image_is_no_store_to_verify(cli, finished, tmp_path, monkeypatch):
    exported = tmp_path / "sub" / "image.ome.zarr"
    exported.parent.mkdir()
    assert cli("export", finished, exported).code == 0
    cli("verify", exported).check_refused("an exported image, not a store")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    cli("verify", "../sub/none.ome.zarr").check_refused("/../sub/none.ome.zarr. Give the folder")
