"""What has to be on the disk before a name says that it is; the order is recorded, not mocked."""

from __future__ import annotations

import ast
import errno
import json
import os
import platform
import shutil
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from filelock import FileLock, Timeout

from napari_msgan import durable, jobs
from napari_msgan.errors import StoreError, VolumeError
from napari_msgan.geometry import Affine, Box
from napari_msgan.io import read_volume, write_volume
from napari_msgan.io._atomic import complete_or_nothing
from napari_msgan.locking import hold_lock, living_holder
from napari_msgan.pyramid import PyramidStore, open_pyramid, place_of
from napari_msgan.volume import Volume
from tests.models import write_model

PACKAGE = Path(__file__).parents[1] / "napari_msgan"


def write_image(folder, name):
    """Write what makes a folder a Zarr image."""
    attributes = {"ome": {"multiscales": [{"name": name}]}}
    (folder / "zarr.json").write_text(json.dumps({"attributes": attributes}))


def name_of(folder):
    attributes = json.loads((folder / "zarr.json").read_text())["attributes"]
    return attributes["ome"]["multiscales"][0]["name"]


class Record:
    """Which files were synchronised, and which were not when their folder or they were renamed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: set[int] = set()
        self.unsynced: dict[str, list[str]] = {}
        fsync, replace, rename = os.fsync, os.replace, Path.rename

        def record_fsync(descriptor: int) -> None:
            self.synced.add(os.fstat(descriptor).st_ino)
            fsync(descriptor)

        def record(source: Path, target: Path) -> None:
            paths = [source, *source.rglob("*")] if source.is_dir() else [source]
            missing = [p.name for p in paths if p.stat().st_ino not in self.synced]
            self.unsynced[Path(target).name] = missing

        def record_replace(source: Path, target: Path) -> None:
            record(Path(source), target)
            replace(source, target)

        def record_rename(source: Path, target: Path) -> Path:
            record(source, target)
            return rename(source, target)

        monkeypatch.setattr(os, "fsync", record_fsync)
        monkeypatch.setattr(os, "replace", record_replace)
        monkeypatch.setattr(Path, "rename", record_rename)


@pytest.fixture
def record(monkeypatch):
    return Record(monkeypatch)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def source(rng):
    pixels = rng.random((90, 110), np.float32)
    return Volume(pixels, Affine(np.eye(3)), "pixel")


@pytest.mark.parametrize("name", ["a.ome.tif", "a.nii.gz", "a.ome.zarr"])
def test_export_is_on_the_disk_before_it_has_its_name(record, source, tmp_path, name):
    write_volume(tmp_path / name, [source], description={})
    assert record.unsynced[name] == []
    assert tmp_path.stat().st_ino in record.synced  # and the name is, afterwards


def test_missing_synchronisation_would_be_seen(record, source, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_msgan.io._atomic.sync_tree", lambda path: None)
    write_volume(tmp_path / "a.ome.zarr", [source], description={})
    assert "zarr.json" in record.unsynced["a.ome.zarr"]


def test_sketch_and_metadata_are_on_the_disk_before_the_store_has_its_name(
    record, source, model, tmp_path
):
    store = jobs.generate(source, tmp_path / "a.ome.zarr", model, scale=0, device="cpu")
    assert record.unsynced["a.ome.zarr"] == []
    assert tmp_path.stat().st_ino in record.synced
    assert (store.path / "zarr.json").stat().st_ino in record.synced  # again: the fingerprint


def test_what_is_written_durably_is_on_the_disk_when_it_gets_its_name(record, tmp_path):
    place = place_of(tmp_path)
    for name, durably in (("a", True), ("b", False)):
        place.write(name, b"x", durably=durably)
        assert (record.unsynced[name] == []) == durably
        assert (tmp_path / name).read_bytes() == b"x"
    assert tmp_path.stat().st_ino in record.synced


def test_chunks_are_on_the_disk_when_a_job_has_ended_and_cancelling_does_not_wait(
    record, source, model, tmp_path
):
    store = jobs.generate(source, tmp_path / "a.ome.zarr", model, scale=1, device="cpu")

    def unsynced(scale):
        files = (store.path / str(2 - scale) / "c").rglob("*")
        return [p for p in files if p.is_file() and p.stat().st_ino not in record.synced]

    assert unsynced(0) == unsynced(1) == []
    steps = jobs.iter_refine(store.path, device="cpu", workers=1)
    next(steps)
    steps.close()
    assert unsynced(2)
    jobs.refine(store.path, device="cpu")
    assert unsynced(2) == []  # also what was cancelled by another object, or killed


def test_chunks_of_a_job_that_ended_are_not_waited_for_again(record, source, model, tmp_path):
    store = jobs.generate(source, tmp_path / "a.ome.zarr", model, scale=1, device="cpu")
    record.synced.clear()
    jobs.refine(store.path, device="cpu")
    assert not [p for p in (store.path / "1/c").rglob("*") if p.stat().st_ino in record.synced]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges names")
def test_folder_that_is_overwritten_has_its_name_all_the_time(tmp_path, monkeypatch):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        write_image(tmp_path / name, name)
    old, new = tmp_path / "old", tmp_path / "new"
    assert durable.exchange(new, old)
    assert (name_of(old), name_of(new)) == ("new", "old")
    assert not durable.exchange(new, tmp_path / "none")

    def refuse(*_):
        raise AssertionError("for a moment the name would be free")

    monkeypatch.setattr("pathlib.Path.rename", refuse)
    with complete_or_nothing(old, overwrite=True) as partial:
        partial.mkdir()
        write_image(partial, "newest")
    assert name_of(old) == "newest"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "old"]


@pytest.mark.parametrize("can_exchange", [False, True])
def test_old_content_stays_until_the_new_name_is_on_the_disk(
    record, tmp_path, monkeypatch, can_exchange
):
    if not can_exchange:
        monkeypatch.setattr("napari_msgan.io._atomic.exchange", lambda *_: False)
    old = tmp_path / "old"
    old.mkdir()
    write_image(old, "old")
    rmtree, safe = shutil.rmtree, []

    def note(path, **options):
        safe.append(tmp_path.stat().st_ino in record.synced)
        rmtree(path, **options)

    monkeypatch.setattr("shutil.rmtree", note)
    with complete_or_nothing(old, overwrite=True) as partial:
        partial.mkdir()
        write_image(partial, "new")
        record.synced.clear()
    assert safe == [True]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges names")
def test_old_content_stays_if_the_new_name_does_not_come_to_the_disk(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr("napari_msgan.io._atomic.sync_folder", fail)
    old = tmp_path / "old"
    old.mkdir()
    write_image(old, "old")

    def overwrite():
        with complete_or_nothing(old, overwrite=True) as partial:
            partial.mkdir()
            write_image(partial, "new")

    with pytest.raises(VolumeError, match="broken"):
        overwrite()
    assert name_of(old) == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old"]


def test_who_deletes_its_lock_leaves_the_note_of_its_successor(tmp_path):
    file, note = tmp_path / "x.lock", tmp_path / "x.pid"
    with hold_lock(file, "x"):
        pid, _, host = mine = json.loads(note.read_text())
        assert (pid, host) == (os.getpid(), platform.node())
        theirs = json.dumps([1, *mine[1:]])
        note.write_text(theirs)
    assert note.read_text() == theirs
    note.unlink()
    with hold_lock(file, "x"):
        pass
    assert not note.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_in_the_place_of_the_note_is_not_written_through(tmp_path):
    """The archive of a stranger may hold one beside its store."""
    theirs = tmp_path / "bashrc"
    theirs.write_text("precious")
    (tmp_path / "x.pid").symlink_to(theirs)
    with hold_lock(tmp_path / "x.lock", "x"):
        assert json.loads((tmp_path / "x.pid").read_text())[0] == os.getpid()
        assert theirs.read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".lock") == ["bashrc"]


def test_a_lock_that_its_holder_is_just_removing_is_made_once_more(tmp_path, monkeypatch):
    file, tries = tmp_path / "x.lock", []
    acquire = FileLock.acquire

    def late(lock, **options):
        tries.append(options)
        if len(tries) < 3:
            raise Timeout(str(file))
        return acquire(lock, **options)

    monkeypatch.setattr(FileLock, "acquire", late)
    with hold_lock(file, "x"):
        pass
    assert len(tries) == 3


def test_a_process_id_that_is_used_again_holds_nothing(tmp_path):
    file, note = tmp_path / "x.lock", tmp_path / "x.pid"
    with hold_lock(file, "x"):
        assert living_holder(file) == f"process {os.getpid()}"
        pid, started, host = json.loads(note.read_text())
    for text in (json.dumps([pid, started - 60, host]), str(pid), "[1, 2]", "{}", "x"):
        note.write_text(text)
        assert living_holder(file) is None
    note.write_text(json.dumps([pid, started - 60, "elsewhere"]))  # nobody here can know
    assert living_holder(file) == f"process {pid} on elsewhere"


def test_a_clock_that_is_set_hides_no_holder(tmp_path, monkeypatch):
    booted, began = psutil.boot_time(), psutil.Process().create_time()
    with hold_lock(tmp_path / "x.lock", "x"):
        monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: booted + 3600)
        if psutil.Process().create_time() - began < 3000:
            pytest.skip("this psutil reckons from the clock only once")
        assert living_holder(tmp_path / "x.lock") == f"process {os.getpid()}"


def test_a_lock_is_free_again_though_its_note_cannot_be_removed(tmp_path, monkeypatch):
    unlink = Path.unlink

    def fail(path, **options):
        if path.suffix == ".pid":
            raise OSError(errno.ESTALE, "stale")
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(ValueError, match="the first error"), hold_lock(tmp_path / "x.lock", "x"):
        raise ValueError("the first error")
    with hold_lock(tmp_path / "x.lock", "x"):
        pass


def test_what_is_removed_is_gone_after_a_power_cut_the_finest_first(
    record, source, model, tmp_path, monkeypatch
):
    """Else a chunk that was found to be wrong could come back, with a right checksum."""
    store = jobs.generate(source, tmp_path / "a.ome.zarr", model, device="cpu")
    chunks = [store.path / level / "c" for level in "012"]  # the finest first
    unlink, are_finer_safe = Path.unlink, []

    def is_safe(folder):
        return all(p.stat().st_ino in record.synced for p in folder.rglob("*") if p.is_dir())

    def note(path, **options):
        unlink(path, **options)
        if path.is_relative_to(chunks[1]):
            are_finer_safe.append(is_safe(chunks[0]))

    record.synced.clear()
    monkeypatch.setattr(Path, "unlink", note)
    there = open_pyramid(store.path, writable=True)
    with there.writing():
        assert not is_safe(chunks[0])
        removed = there.clear(1, Box.of_shape(there.geometry.shape))
        assert set(removed) == {1, 2}
        assert are_finer_safe
        assert all(are_finer_safe)
        assert is_safe(chunks[1])


def test_folder_is_overwritten_also_where_names_cannot_be_exchanged(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_msgan.io._atomic.exchange", lambda *_: False)
    old = tmp_path / "old"
    old.mkdir()
    write_image(old, "old")
    with complete_or_nothing(old, overwrite=True) as partial:
        partial.mkdir()
        write_image(partial, "new")
    assert name_of(old) == "new"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows locks in another way")
@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_of_the_file_system_nobody_writes(tmp_path, monkeypatch, code):
    def missing(_, operation):
        raise OSError(code, "no flock")

    file = tmp_path / "x.lock"
    with hold_lock(file, "x"):
        pass
    monkeypatch.setattr("fcntl.flock", missing)
    with pytest.raises(StoreError, match="keeps no locks"), hold_lock(file, "x"):
        pass
    assert not file.exists()


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="a folder that takes no file: /proc")
def test_folder_that_takes_no_file_is_not_taken_for_another_writer():
    with (
        pytest.raises(StoreError, match=r"cannot be written: .*/proc"),
        hold_lock(Path("/proc/x.lock"), "/proc/x"),
    ):
        pass


def test_chunks_stay_noted_until_somebody_has_waited_for_them(
    record, source, model, tmp_path, monkeypatch
):
    store = jobs.generate(source, tmp_path / "a.ome.zarr", model, scale=1, device="cpu")
    mark, voxels = store.path / "0/.writer.unsynced", Box.of_shape(store.geometry.shape_at(0))
    pixels = store.read(0, voxels)

    def fail(*_):
        raise OSError(errno.EIO, "broken")

    with store.writing():
        store.set_fingerprint(store.info.fingerprint)
        with monkeypatch.context() as patch:
            patch.setattr(type(store.place), "sync", fail)
            with pytest.raises(StoreError, match=r"cannot be written: .*broken"), store.writing():
                store.write(0, voxels, pixels)
        assert mark.exists()
        record.synced.clear()
    assert not mark.exists()
    assert [p for p in (store.path / "2/c").rglob("*") if p.stat().st_ino in record.synced]


def test_cancelling_waits_for_the_tiles_in_progress_only(source, model, tmp_path, monkeypatch):
    """On a slow disk: every tile takes 0.4 s to write, and many are still to be made."""
    store = jobs.generate(source, tmp_path / "a.ome.zarr", model, scale=1, device="cpu")
    write, begun = PyramidStore.write, threading.Semaphore(0)

    def slow(*arguments):
        begun.release()
        time.sleep(0.4)
        write(*arguments)

    monkeypatch.setattr(PyramidStore, "write", slow)
    steps = jobs.iter_refine(store.path, device="cpu", workers=1)
    next(steps)
    closing = time.monotonic()
    steps.close()
    assert time.monotonic() - closing < 5  # nine tiles would take longer with any machine's noise
    n_begun = 0
    while begun.acquire(blocking=False):
        n_begun += 1
    assert n_begun <= 2
    assert 0 < open_pyramid(store.path).refined_fraction(2) < 1


def test_file_is_old_or_new_and_nothing_else_stays(tmp_path):
    path = tmp_path / "a.json"
    durable.write_atomically(path, b"old")
    durable.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        durable.write_atomically(path, b"newer")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="synchronises only what is open for writing")
def test_who_may_only_read_a_file_can_wait_for_it(tmp_path, monkeypatch):
    import fcntl

    modes = []

    def fsync(descriptor: int) -> None:
        modes.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(sys, "platform", "linux")
    file = tmp_path / "a"
    file.touch()
    durable.sync_file(file)
    durable.sync_files([file, tmp_path / "absent"])
    durable.sync_tree(tmp_path)
    assert modes == [os.O_RDONLY] * 4


def test_room_of_a_mapped_file_is_taken_when_it_is_made(tmp_path):
    array = durable.create_array_file(tmp_path / "a.npy", np.uint16, (300, 400))
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= array.nbytes
    array[...] = 7
    np.save(tmp_path / "plain.npy", array)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "plain.npy").read_bytes()


def wall_clocks(code: str) -> list[str]:
    """Return what asks for the time of day, or for that of a file."""
    names = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "date.today"}
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            if node.attr in {"st_mtime", "st_ctime", "st_mtime_ns"} or text in names:
                found.append(text)
    return found


def test_nothing_depends_on_the_clock_of_the_wall():
    found = {p.name: wall_clocks(p.read_text(encoding="utf-8")) for p in PACKAGE.rglob("*.py")}
    assert {name: clocks for name, clocks in found.items() if clocks} == {
        "card.py": ["date.today"],  # said in a text
        "stores.py": ["date.today"],  # a part of a name; names that are taken are not used
        "_folder.py": ["known.st_mtime_ns"],  # whether a file is still the same, not which is newer
        "_measuring.py": ["time.time"],  # how long a process needed to start, for an estimate
    }


def test_wall_clocks_would_be_found():
    assert wall_clocks("import time\nx = time.time() + path.stat().st_mtime") != []
    assert wall_clocks("import time\nx = time.monotonic()") == []


def test_on_a_mac_the_memory_of_the_disk_is_emptied_before_a_name_is_given(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    done = []
    replace = os.replace
    with monkeypatch.context() as patched:
        patched.setattr(sys, "platform", "darwin")
        patched.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
        patched.setattr(fcntl, "fcntl", lambda descriptor, request: done.append(request))
        patched.setattr(os, "replace", lambda a, b: (done.append("name"), replace(a, b)))
        durable.write_atomically(tmp_path / "a", b"new")
        write_image(tmp_path, "x")
        durable.sync_tree(tmp_path)

        def unknown(descriptor, request):
            raise OSError(errno.ENOTSUP, "not supported")

        patched.setattr(fcntl, "fcntl", unknown)
        patched.setattr(os, "fsync", lambda descriptor: done.append("fsync"))
        durable.sync_file(tmp_path / "a")
    assert done == [51, "name", 51, 51, "fsync"]


def test_on_a_mac_the_memory_of_the_disk_is_emptied_once_for_all_folders(tmp_path, monkeypatch):
    """It takes some 10 ms each time, and a large export has thousands of folders."""
    fcntl = pytest.importorskip("fcntl")
    keys = [f"0/c/{i}/{j}" for i in range(3) for j in range(2)]
    for key in keys:
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).touch()
    done = []
    with monkeypatch.context() as patched:
        patched.setattr(sys, "platform", "darwin")
        patched.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
        patched.setattr(fcntl, "fcntl", lambda descriptor, request: done.append(request))
        patched.setattr(os, "fsync", lambda descriptor: done.append("fsync"))
        durable.sync_tree(tmp_path)
        place_of(tmp_path).sync(keys)
    assert done == 2 * [*["fsync"] * (6 + 5), 51]


class Scanner:
    """Has every file open for a moment, as virus scanners do; Windows then refuses these calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int, code: int = 32) -> None:
        self.refused: Counter[tuple[str, str]] = Counter()
        self._times, self._code = times, code
        for name in ("replace", "rename", "unlink"):
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))
        monkeypatch.setattr(durable, "_WAITS_S", (0.0,) * 3)

    def _watched(self, name, call):
        def act(path, *others, **more):
            is_other = Path(path).name.startswith("zarr.")  # zarr writes those
            is_ours = os.path.lexists(path) and not str(path).endswith((".lock", ".pid"))
            if is_ours and not is_other and self.refused[name, str(path)] < self._times:
                self.refused[name, str(path)] += 1
                error = PermissionError(errno.EACCES, "it is used by another process", str(path))
                error.winerror = self._code
                raise error
            return call(path, *others, **more)

        return act


@pytest.mark.parametrize("code", [5, 32, 33])
def test_a_file_that_a_scanner_has_open_for_a_moment_is_written_all_the_same(
    tmp_path, monkeypatch, code
):
    scanner = Scanner(monkeypatch, times=2, code=code)
    durable.write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert scanner.refused.total() == 2


def test_a_store_comes_to_its_place_and_loses_tiles_though_a_scanner_looks(
    source, model, tmp_path, monkeypatch
):
    with monkeypatch.context() as patched:
        scanner = Scanner(patched, times=1)
        store = jobs.generate(source, tmp_path / "a.ome.zarr", model, workers=1)
        with store.writing():
            assert store.clear(1, Box.of_shape(store.geometry.shape_at(1)))
    assert {name for name, _ in scanner.refused} == {"rename", "replace", "unlink"}


@pytest.mark.parametrize("name", ["a.nii", "a.ome.zarr"])
def test_an_export_takes_its_name_and_replaces_another_though_a_scanner_looks(
    tmp_path, monkeypatch, name
):
    monkeypatch.setattr("napari_msgan.io._atomic.exchange", lambda one, other: False)
    for value in (1, 2):
        image = Volume(np.full((8, 8), value, np.uint8), Affine(np.eye(3)), "pixel")
        with monkeypatch.context() as patched:
            with complete_or_nothing(tmp_path / name, overwrite=True) as partial:
                write_volume(partial, [image], description={})
                scanner = Scanner(patched, times=1)
            assert scanner.refused.total() == (1 if value == 1 or name == "a.nii" else 2)
    assert [path.name for path in tmp_path.glob("[!.]*")] == [name]
    assert int(read_volume(tmp_path / name).data[0, 0]) == 2


def test_no_file_of_an_export_is_replaced(tmp_path, monkeypatch):
    """Windows refuses that now and then, and zarr tries once."""
    taken = []
    replace = os.replace

    def watched(source, target):
        taken.append(os.path.lexists(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    image = Volume(np.zeros((8, 8), np.uint8), Affine(np.eye(3)), "pixel")
    write_volume(tmp_path / "a.ome.zarr", [image, image], description={})
    assert len(taken) > 4
    assert not any(taken)


def test_what_stays_open_or_is_forbidden_is_told(tmp_path, monkeypatch):
    Path(tmp_path, "a").touch()
    scanner = Scanner(monkeypatch, times=1000)
    with pytest.raises(PermissionError, match="used by another"):
        durable.patiently(Path(tmp_path, "a").replace, tmp_path / "b")
    assert scanner.refused.total() == 4
    calls = []

    def forbidden():
        calls.append(1)
        raise PermissionError(errno.EACCES, "not allowed")

    with pytest.raises(PermissionError, match="not allowed"):
        durable.patiently(forbidden)
    assert len(calls) == 1


def test_several_may_write_a_file_at_once(tmp_path):
    path, contents = tmp_path / "a.json", [bytes([i]) * 5000 for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        written = [pool.submit(durable.write_atomically, path, c) for c in contents * 25]
        seen = {path.read_bytes() for _ in range(200) if path.exists()}
    assert [future.result() for future in written] == [None] * 100
    assert seen <= set(contents)
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
