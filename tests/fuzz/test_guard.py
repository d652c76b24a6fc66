"""The harness notices everything that no input may do: otherwise its silence says nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from mmap import mmap
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.guard import Limits, examine
from benchmarks.fuzz.targets import TARGETS, Regions
from benchmarks.fuzz.terminal import BadEnding, run_terminal
from napari_msgan import cli
from napari_msgan.errors import ModelError


@pytest.fixture
def places(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("x")
    return inside, outside


def test_success_and_our_own_errors_are_no_findings(places):
    def refuse():
        raise ModelError("no")

    assert examine(lambda: None, *places) is None
    assert examine(refuse, *places) is None


def test_another_exception_is_found_with_its_place(places):
    found = examine(lambda: {}["a"], *places)
    assert found is not None
    assert found.kind == "error"
    assert "KeyError" in found.what
    assert "test_guard.py" in found.where


def test_hang_is_found(places):
    found = examine(lambda: time.sleep(5), *places, Limits(seconds=0.2))
    assert found is not None
    assert found.kind == "hang"


def test_endless_loop_is_found(places):
    def loop():
        while True:
            pass

    found = examine(loop, *places, Limits(cpu_seconds=0.2))
    assert found is not None
    assert found.kind == "hang"


def test_hang_whose_alarm_is_swallowed_is_found(places):
    def stubborn():
        try:
            time.sleep(5)
        except Exception:  # as somebody might who catches everything
            time.sleep(5)

    found = examine(stubborn, *places, Limits(seconds=0.2))
    assert found is not None
    assert found.kind == "hang"


def take_pages(n_bytes):
    """Take memory that is new: the heap may hold as much that another test gave back."""
    np.frombuffer(mmap(-1, n_bytes), np.uint8)[:] = 1


@pytest.mark.parametrize(
    ("take", "n_bytes"), [(np.ones, 2**45), (take_pages, 100 * 2**20)], ids=["absurd", "large"]
)
def test_memory_that_an_input_takes_is_found(places, take, n_bytes):
    found = examine(lambda: take(n_bytes), *places, Limits(memory_bytes=2**25))
    assert found is not None
    assert found.kind == "memory"


@pytest.mark.parametrize(
    "act",
    [
        lambda inside, outside: (outside / "secret").read_text(),
        lambda inside, outside: (inside / "link").read_text(),
        lambda inside, outside: (inside / "../outside/secret").read_text(),
        lambda inside, outside: list(outside.iterdir()),
        lambda inside, outside: (outside / "secret").unlink(),
        lambda inside, outside: (outside / "new").write_text("x"),
        lambda inside, outside: (inside.parent / "beside").write_text("x"),
        lambda inside, outside: (inside / "a").rename(outside / "a"),
        lambda inside, outside: os.mkdir(outside / "folder"),  # noqa: PTH102
    ],
    ids=["read", "link", "dots", "list", "remove", "write", "beside", "move", "mkdir"],
)
def test_paths_outside_are_found(places, act):
    inside, outside = places
    (inside / "link").symlink_to(outside / "secret")
    (inside / "a").write_text("x")
    found = examine(lambda: act(inside, outside), inside, outside)
    assert found is not None
    assert found.kind == "path"


def test_paths_inside_are_no_findings(places):
    inside, outside = places

    def act():
        (inside / "a").write_text("x")
        (inside / "a").rename(inside / "b")
        (inside / "b").unlink()

    assert examine(act, inside, outside) is None


def test_reader_that_raises_another_error_is_found(scratch, monkeypatch):
    target = Regions(scratch)
    monkeypatch.setattr("napari_msgan.geometry.Box.parse", lambda text, axes: {}["a"])
    assert target.check(b"").kind == "error"


#: In a process of its own: a store that is followed anywhere leaves threads in an odd state.
SWITCHED_OFF = """
import os, sys
from pathlib import Path
from benchmarks.fuzz.engines import seeded_inputs
from benchmarks.fuzz.targets import TARGETS
import napari_msgan.pyramid._arrays, napari_msgan.pyramid.store, napari_msgan.zarr_folder
os.mkfifo = Path.touch  # a pipe would hold it for ever
for name in ("folders", "zarr_folder", "pyramid._arrays", "pyramid.store"):
    if sys.argv[1] == "off":
        sys.modules[f"napari_msgan.{name}"].check_inside = lambda root, path: 0
for name in ("store", "model-folder", "ome-zarr"):
    target = TARGETS[name](Path(sys.argv[2], name))
    inputs = seeded_inputs(60 if sys.argv[1] == "on" else 400, 0)
    is_missed = any(getattr(target.check(data), "kind", None) == "path" for data in inputs)
    print(name, is_missed, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("switch", ["on", "off"])
def test_guard_of_paths_that_is_switched_off_is_noticed(switch, scratch):
    command = [sys.executable, "-c", SWITCHED_OFF, switch, str(scratch)]
    root = Path(__file__).parents[2]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    missed = switch == "off"
    assert ended.stdout.split("\n")[:3] == [
        f"{name} {missed}" for name in ("store", "model-folder", "ome-zarr")
    ]


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (lambda argv: 1, "exit code 1"),
        (lambda argv: 2, "not one line"),
        (lambda argv: print("error: a\nb", file=sys.stderr) or 2, "not one line"),
        (lambda argv: print("\x1b[2J") or 0, "control characters"),
    ],
    ids=["code", "silent", "two lines", "escape"],
)
def test_bad_endings_of_the_program_are_found(monkeypatch, ending, said):
    monkeypatch.setattr("benchmarks.fuzz.terminal.main", ending)
    with pytest.raises(BadEnding, match=said):
        run_terminal([])


def test_traceback_of_the_program_is_found(scratch, monkeypatch):
    def broken(arguments):
        raise KeyError("a")

    monkeypatch.setattr("napari_msgan.cli._info.info", broken)
    target = TARGETS["command-lines"](scratch)
    target.harm = lambda choices, folder: setattr(target, "words", ["info", "x"])
    assert target.check(b"").kind == "error"
    assert callable(cli.main)


def test_choices_are_a_function_of_the_bytes():
    data = bytes(range(50))
    a, b = Choices(data), Choices(data)
    assert [a.below(1000) for _ in range(40)] == [b.below(1000) for _ in range(40)]
    assert Choices(b"").pick("xyz") == "x"
