from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_msgan.errors import GeometryError, StoreError
from napari_msgan.geometry import Box
from napari_msgan.pyramid import SketchInfo, create_pyramid, open_pyramid
from napari_msgan.sketch_settings import SketchSettings

FINISHED = SketchInfo(settings=SketchSettings(), given=True, sha256="c" * 64)

INTERRUPTED = """
import sys
from napari_msgan.pyramid import StoreInfo, create_pyramid
with create_pyramid(sys.argv[1], StoreInfo.model_validate_json(sys.argv[2])):
    print("building", flush=True)
    sys.stdin.read()
"""


def write_sketch(builder, rng):
    sketches = []
    for scale in range(builder.geometry.n_scales):
        sketch = rng.integers(0, 256, builder.geometry.shape_at(scale), dtype=np.uint8)
        sketch[:16] = 0  # whole chunks that equal the fill value
        for box in Box.of_shape(sketch.shape).blocks((16, 16)):
            builder.write_sketch(scale, box, sketch[box.slices])
        sketches.append(sketch)
    return sketches


def test_sketch_is_there_when_the_store_appears(make_info, tmp_path, rng):
    path = tmp_path / "image.ome.zarr"
    with create_pyramid(path, make_info()) as builder:
        sketches = write_sketch(builder, rng)
        assert not path.exists()
        np.testing.assert_array_equal(
            builder.read_sketch(2, Box((3, 5), (20, 9))), sketches[2][3:20, 5:9]
        )
        store = builder.finish(FINISHED)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]
    for opened in (store, open_pyramid(path)):
        assert opened.info.sketch == FINISHED
        for scale, sketch in enumerate(sketches):
            np.testing.assert_array_equal(opened.sketch_array(scale)[:], sketch)
            np.testing.assert_array_equal(
                opened.read_sketch(scale, Box((1, 2), (9, 4))), sketch[1:9, 2:4]
            )
            assert opened.refined_fraction(scale) == 0
            assert (opened.array(scale)[:] == -1024).all()


def test_leaving_without_finish_leaves_nothing(make_info, tmp_path, rng):
    def stop_halfway() -> None:
        with create_pyramid(tmp_path / "a", make_info()) as builder:
            write_sketch(builder, rng)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_halfway()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_removed_hides_no_error_and_is_removed_by_the_next(
    make_info, tmp_path, monkeypatch
):
    """As on Windows, where a file that is open or mapped stays."""
    unlink = os.unlink

    def refuse(path, **more):
        if not str(path).endswith((".lock", ".pid")):
            raise PermissionError("it is used by another process")
        unlink(path, **more)

    def stop() -> None:
        with monkeypatch.context() as patched, create_pyramid(tmp_path / "a", make_info()):
            patched.setattr(os, "unlink", refuse)
            raise ValueError("why it stopped")

    with pytest.raises(ValueError, match="why it stopped"):
        stop()
    assert len(list(tmp_path.glob(".a.partial-*"))) == 1
    with create_pyramid(tmp_path / "a", make_info()):
        pass
    assert list(tmp_path.iterdir()) == []


def test_sketch_with_a_hole_is_refused(make_info, tmp_path):
    with create_pyramid(tmp_path / "a", make_info()) as builder:
        for scale in range(3):
            shape = builder.geometry.shape_at(scale)
            builder.write_sketch(scale, Box.of_shape(shape), np.zeros(shape, np.uint8))
        (hole,) = tmp_path.glob(".a.partial-*/sketch/0/c/9/11")
        hole.unlink()
        with pytest.raises(StoreError, match="sketch of scale 2 misses 1 of 120 chunks"):
            builder.finish(FINISHED)
        with pytest.raises(StoreError, match="needs its sha256"):
            builder.finish(SketchInfo(settings=SketchSettings(), given=True))
    assert list(tmp_path.iterdir()) == []


def test_sketch_is_written_in_whole_chunks(make_info, tmp_path):
    with create_pyramid(tmp_path / "a", make_info()) as builder:
        with pytest.raises(GeometryError, match="not whole chunks"):
            builder.write_sketch(2, Box((0, 0), (8, 9)), np.zeros((8, 9), np.uint8))
        with pytest.raises(StoreError, match="needs uint8"):
            builder.write_sketch(2, Box((0, 0), (8, 8)), np.zeros((8, 8), np.float32))


def test_existing_target_is_not_touched(make_info, tmp_path):
    path = tmp_path / "a"
    path.mkdir()
    (path / "holiday.jpg").touch()
    with pytest.raises(StoreError, match=r"exists already\. Choose another name"):
        create_pyramid(path, make_info()).__enter__()
    assert [p.name for p in path.iterdir()] == ["holiday.jpg"]
    with pytest.raises(StoreError, match=r"does not exist\. Make it first"):
        create_pyramid(tmp_path / "b" / "a", make_info()).__enter__()


def test_target_that_appears_meanwhile_is_not_touched(make_info, tmp_path, rng):
    path = tmp_path / "a"
    with create_pyramid(path, make_info()) as builder:
        write_sketch(builder, rng)
        path.mkdir()
        (path / "holiday.jpg").touch()
        with pytest.raises(StoreError, match="exists already"):
            builder.finish(FINISHED)
    assert [p.name for p in tmp_path.rglob("*")] == ["a", "holiday.jpg"]


def test_a_move_that_fails_says_why(make_info, tmp_path, rng, monkeypatch):
    def fail(self: Path, target: Path) -> None:
        raise PermissionError("not on this disk")

    with create_pyramid(tmp_path / "a", make_info()) as builder:
        write_sketch(builder, rng)
        monkeypatch.setattr(Path, "rename", fail)
        with pytest.raises(StoreError, match="cannot be made: not on this disk"):
            builder.finish(FINISHED)
    assert list(tmp_path.iterdir()) == []


def test_one_process_creates_and_what_it_left_when_killed_is_removed(
    make_info, tmp_path, root, rng
):
    path = tmp_path / "image.ome.zarr"
    command = [sys.executable, "-c", INTERRUPTED, str(path), make_info().model_dump_json()]
    other = tmp_path / ".image.ome.zarr.partial"  # of somebody else
    other.touch()
    with subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "building\n"
        with pytest.raises(StoreError, match=f"written by process {process.pid}"):
            create_pyramid(path, make_info()).__enter__()
        process.kill()
    assert list(tmp_path.glob(".*.partial-*"))
    (tmp_path / ".image.ome.zarr.partial-1").touch()
    (tmp_path / ".image.ome.zarr.partial-2").symlink_to(tmp_path)
    with create_pyramid(path, make_info()) as builder:
        write_sketch(builder, rng)
        builder.finish(FINISHED)
    assert sorted(p.name for p in tmp_path.iterdir()) == [other.name, path.name]


def test_what_another_builds_under_a_longer_name_is_left(make_info, tmp_path):
    with create_pyramid(tmp_path / "a.partial-2.ome.zarr", make_info()):
        before = set(tmp_path.glob(".a.partial-2.ome.zarr.partial-*"))
        assert len(before) == 1
        with create_pyramid(tmp_path / "a", make_info()):
            assert before < set(tmp_path.glob(".*.partial-*"))


def test_the_lock_of_a_creator_that_was_killed_at_the_end_is_removed(make_info, tmp_path, rng):
    """The crash benchmark found it: the store was in its place, two hidden files beside it."""
    with create_pyramid(tmp_path / "a.ome.zarr", make_info()) as builder:
        write_sketch(builder, rng)
        store = builder.finish(FINISHED)
        with store.writing():
            assert (tmp_path / ".a.ome.zarr.lock").exists()  # its creator still holds it
    both = (".a.ome.zarr.lock", ".a.ome.zarr.pid")
    for names in (both, both[:1], both[1:]):
        for name in names:
            (tmp_path / name).write_text("123")
        with open_pyramid(store.path, writable=True).writing():
            pass
        assert list(tmp_path.iterdir()) == [store.path]
