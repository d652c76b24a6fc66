"""A store at a URL holds what a store in a folder holds, and keeps two writers apart."""

import itertools
import re
import threading
import time
import uuid
from contextlib import suppress

import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractFileSystem

from napari_msgan import jobs
from napari_msgan.cli import main
from napari_msgan.errors import FolderError, MsganError, StoreError
from napari_msgan.geometry import Box
from napari_msgan.model import load_folder
from napari_msgan.pyramid import open_pyramid, place_of
from napari_msgan.pyramid._url import UrlPlace
from tests.models import write_model
from tests.test_refiner import assert_equal_stores, picture


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A model, and the store that it makes in a folder."""
    folder = tmp_path_factory.mktemp("job")
    model = load_folder(write_model(folder / "model"))
    return model, jobs.generate(picture(2), folder / "whole.ome.zarr", model, device="cpu")


@pytest.fixture(params=["memory", "local"])
def url(request, tmp_path):
    """An address where nothing is yet."""
    where = f"/{uuid.uuid4().hex}" if request.param == "memory" else str(tmp_path / "files")
    return f"{request.param}://{where}/a.ome.zarr"


@pytest.fixture
def store(job, url):
    return jobs.generate(picture(2), url, job[0], device="cpu", scale=0, finest=2)


def files_at(url):
    files, root = fsspec.core.url_to_fs(url)
    return {path[len(root) :].strip("/"): path for path in files.find(root)}


def test_it_holds_what_a_folder_holds(job, url):
    made = jobs.generate(picture(2), url, job[0], device="cpu")
    assert made.address == url
    assert_equal_stores(made, job[1])
    whole = {p.relative_to(job[1].path).as_posix() for p in job[1].path.rglob("*") if p.is_file()}
    assert set(files_at(url)) == {name for name in whole if ".writer" not in name}
    scale = made.geometry.finest_scale
    box = Box.of_shape(made.geometry.shape)
    np.testing.assert_array_equal(
        made.read_sketch(scale, box), job[1].read_sketch(scale, box), strict=True
    )
    # One voxel less, and the comparison finds it.
    with made.writing():
        core = made.tiling.core(made.tiling.tiles(scale, box)[0])
        made.write(scale, core, made.read(scale, core) + np.uint16(1))
    with pytest.raises(AssertionError):
        assert_equal_stores(made, job[1])


def test_a_stopped_job_goes_on_there(job, store):
    steps = jobs.iter_refine(store.address, model=job[0], device="cpu", workers=1)
    list(itertools.islice(steps, 2))
    steps.close()
    half = open_pyramid(store.address)
    assert 0 < half.refined_fraction(1) < 1
    refined = jobs.refine(store.address, model=job[0], device="cpu", workers=1)
    assert_equal_stores(refined, job[1])


def test_cleared_tiles_are_gone_and_come_back(job, store):
    jobs.refine(store.address, model=job[0], device="cpu")
    there = open_pyramid(store.address, writable=True)
    with there.writing():
        assert there.clear(1, Box((0, 0), (8, 8)))
    again = open_pyramid(store.address)
    assert not again.is_refined(1, Box((0, 0), (8, 8)))
    assert_equal_stores(jobs.refine(store.address, model=job[0], device="cpu"), job[1])


def test_two_writers_are_kept_apart_and_the_second_names_the_first(store):
    there = open_pyramid(store.address, writable=True)
    with there.writing():
        with (
            pytest.raises(StoreError, match=r"written by process \d+ on .*If it was killed"),
            open_pyramid(store.address, writable=True).writing(),
        ):
            pass
        assert "0/.writer.url.lock" in files_at(store.address)
    assert "0/.writer.url.lock" not in files_at(store.address)
    with open_pyramid(store.address, writable=True).writing():
        pass


@pytest.mark.parametrize("content", [b"not even JSON", b"[]", b'{"host": "a"}'], ids=str)
def test_the_lock_of_a_killed_writer_stays_until_it_is_deleted(store, content):
    files, root = fsspec.core.url_to_fs(store.address)
    files.pipe_file(f"{root}/0/.writer.url.lock", content)
    writer = open_pyramid(store.address, writable=True)
    with pytest.raises(StoreError, match=r"another process.*delete .*0/\.writer\.url\.lock"):
        writer.writing().__enter__()
    files.rm_file(f"{root}/0/.writer.url.lock")
    with writer.writing():
        pass


def test_what_was_left_half_written_is_removed(store):
    files, root = fsspec.core.url_to_fs(store.address)
    left = [f"{root}/0/c/0/1.abc.partial", f"{root}/.abc.partial"]
    for path in left:
        files.makedirs(path.rpartition("/")[0], exist_ok=True)
        files.pipe_file(path, b"half")
    there = open_pyramid(store.address, writable=True)
    assert not there.refined_chunks(2).any()
    with there.writing():
        pass
    assert not any(files.exists(path) for path in left)


def test_a_place_that_is_taken_is_refused(job, store):
    other = load_folder(job[0].folder)
    with pytest.raises(StoreError, match="belongs to another job"):
        jobs.generate(picture(2, seed=1), store.address, other, device="cpu")


def test_what_an_interrupted_deletion_left_is_no_part_of_the_next_store(job, url):
    old = jobs.generate(picture(2, seed=1), url, job[0], device="cpu")
    assert old.refined_fraction(2) == 1
    files, root = fsspec.core.url_to_fs(url)
    files.rm_file(f"{root}/zarr.json")
    files.pipe_file(f"{root}/notes.txt", b"mine")
    new = jobs.generate(picture(2), url, job[0], device="cpu", scale=0, finest=2)
    assert new.refined_fraction(2) == 0
    assert_equal_stores(jobs.refine(url, model=job[0], device="cpu"), job[1])
    assert files.exists(f"{root}/notes.txt")


@pytest.fixture
def asked(url):
    """The class of the file system, as one that asks far away: `exists` takes errors for "no"."""
    return type(fsspec.core.url_to_fs(url)[0])


def test_a_failed_request_is_not_taken_for_an_answer(store, asked, monkeypatch):
    helper = open_pyramid(store.address, writable=True)
    with store.writing():
        helper.assist(store.put_mark())
        with monkeypatch.context() as patched:
            patched.setattr(asked, "isfile", AbstractFileSystem.isfile)
            patched.setattr(asked, "exists", AbstractFileSystem.exists)
            patched.setattr(asked, "info", _timed_out)
            for ask in (
                lambda: helper.look(0, Box((0, 0), (4, 4))),
                lambda: open_pyramid(store.address),
            ):
                with pytest.raises(MsganError, match=r"cannot be looked up: timed out\. Try again"):
                    ask()
        assert helper.look(0, Box((0, 0), (4, 4)))


def _timed_out(*anything, **options):
    raise TimeoutError("timed out")


def test_who_asks_for_the_lock_twice_because_the_answer_got_lost_has_it(url, monkeypatch):
    create = UrlPlace._create

    def sent_twice(place, target, content):
        create(place, target, content)
        create(place, target, content)

    monkeypatch.setattr(UrlPlace, "_create", sent_twice)
    with UrlPlace(url).lock():
        other = UrlPlace(url)
        with pytest.raises(StoreError, match="is being written by process"), other.lock():
            pass
    assert not UrlPlace(url).exists("0/.writer.url.lock")


def test_a_file_of_more_bytes_than_it_can_need_is_refused(url, tmp_path):
    for place in (place_of(url), place_of(tmp_path)):
        place.write("1/a", b"12345")
        assert place.read("1/a", 5) == b"12345"
        assert place.read("1/b", 5) is None
        with pytest.raises(FolderError, match="more than the 4"):
            place.read("1/a", 4)


def test_a_damaged_chunk_is_an_error_that_names_it(store):
    path = files_at(store.address)["sketch/0/c/0/0"]
    files, _ = fsspec.core.url_to_fs(store.address)
    files.pipe_file(path, files.cat_file(path)[:-3])
    with pytest.raises(StoreError, match=r"a\.ome\.zarr/sketch/0/c/0/0 cannot be read"):
        open_pyramid(store.address).read_sketch(2, Box((0, 0), (4, 4)))


def test_exports_and_info(store, tmp_path, capsys):
    assert main(["export", store.address, str(tmp_path / "a.ome.tif"), "--quiet"]) == 0
    assert (tmp_path / "a.ome.tif").exists()
    assert main(["info", store.address]) == 0
    assert store.address in capsys.readouterr().out


def test_verify_finds_damage_there_and_repairs_it(job, url):
    made = jobs.generate(picture(2), url, job[0], device="cpu")
    found = jobs.verify(url, model=job[0], sample="all")
    assert (found.problems, found.notes) == ((), ())
    assert found.chunks > found.compared > 0
    files, root = fsspec.core.url_to_fs(url)
    finest = f"{root}/0/c/0/0"
    files.pipe_file(finest, files.cat_file(finest)[:-3])
    files.rm_file(f"{root}/1/c/0/1")
    files.pipe_file(f"{root}/0/c/0/77", b"no chunk of this image")
    files.pipe_file(f"{root}/1/c/0/0.abc.partial", b"half")
    files.pipe_file(f"{root}/notes.txt", b"mine")
    found = jobs.verify(url, model=job[0], sample=0)
    seen = {problem.where for problem in found.problems}
    assert {"0/c/0/77", "1/c/0/0.abc.partial", "level 0 (scale 2), chunk 0/0"} < seen
    assert any("that it was made from is not" in problem.seen for problem in found.problems)
    assert any(note.startswith("notes.txt") for note in found.notes)
    repaired = jobs.verify(url, model=job[0], sample=0, repair=True)
    assert repaired.is_sound
    assert repaired.removed
    assert not any(files.exists(f"{root}/{key}") for key in ("0/c/0/77", "1/c/0/0.abc.partial"))
    assert files.exists(f"{root}/notes.txt")
    assert_equal_stores(jobs.refine(url, model=job[0], device="cpu"), job[1])
    assert jobs.verify(made.address, model=job[0]).problems == ()


def test_verify_does_not_judge_what_somebody_is_writing(store, job):
    files, root = fsspec.core.url_to_fs(store.address)
    with open_pyramid(store.address, writable=True).writing():
        files.makedirs(f"{root}/0/c/0", exist_ok=True)
        files.pipe_file(f"{root}/0/c/0/1.abc.partial", b"half")
        found = jobs.verify(store.address, model=job[0])
        assert found.problems == ()
        assert re.search(r"written by process \d+ on .*if it was killed, delete", found.notes[0])
        with pytest.raises(StoreError, match="is being written"):
            jobs.verify(store.address, model=job[0], repair=True)
    assert jobs.verify(store.address, model=job[0]).problems


def test_verify_is_told_where_the_store_is(store, job, capsys):
    command = ["verify", store.address, "--model", str(job[0].folder)]
    assert main(command) == 0
    assert f"{store.address}: all is well" in capsys.readouterr().out
    files, root = fsspec.core.url_to_fs(store.address)
    files.makedirs(f"{root}/0/c/0", exist_ok=True)
    files.pipe_file(f"{root}/0/c/0/99", b"x")
    assert main([*command, "--repair"]) == 0
    assert main(["verify", "memory://nowhere/a.ome.zarr"]) == 2
    assert "no store at memory://nowhere/a.ome.zarr" in capsys.readouterr().err


def test_what_needs_a_folder_says_so(store):
    with pytest.raises(StoreError, match="works with folders only"):
        open_pyramid(store.address).path  # noqa: B018


def test_unknown_kinds_of_urls_are_errors_that_say_what_is_missing(capsys):
    assert main(["info", "nothing://bucket/a.ome.zarr"]) == 2
    assert "nothing://bucket/a.ome.zarr cannot be opened" in capsys.readouterr().err
    assert main(["info", f"memory://{uuid.uuid4().hex}/a.ome.zarr"]) == 2
    assert "there is no store at memory://" in capsys.readouterr().err


class _CannotExclude(MemoryFileSystem):
    """A file system that cannot tell whether it was the first to make a file."""

    protocol = "careless"
    store, pseudo_dirs = {}, [""]

    def pipe_file(self, path, value, mode="overwrite", **options):
        if mode == "create":
            raise NotImplementedError("no exclusive creation")
        super().pipe_file(path, value, **options)


class _Far(LocalFileSystem):
    """A file system whose answers travel for a while."""

    protocol = "far"

    def exists(self, path, **options):
        found = super().exists(path, **options)
        time.sleep(0.02)
        return found


def test_of_two_who_come_at_once_one_writes(tmp_path):
    fsspec.register_implementation("far", _Far, clobber=True)
    for turn in range(10):
        inside, both_came = [], threading.Barrier(2)

        def write(place, inside=inside, both_came=both_came):
            both_came.wait(10)
            with suppress(StoreError), place.lock():
                inside.append(place)
                time.sleep(0.05)

        places = [UrlPlace(f"far://{tmp_path}/{turn}") for _ in range(2)]
        threads = [threading.Thread(target=write, args=(place,)) for place in places]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(inside) == 1


def test_who_ends_leaves_the_lock_that_another_took_after_it_was_deleted(url):
    first, second, third = (UrlPlace(url) for _ in range(3))
    with first.lock():
        first.remove("0/.writer.url.lock")
        ours = second.lock()
        ours.__enter__()
    with pytest.raises(StoreError, match="is being written by process"), third.lock():
        pass
    ours.__exit__(None, None, None)
    with third.lock():
        pass


def test_who_cannot_see_whose_lock_it_is_leaves_it(url, asked, monkeypatch):
    place, other = UrlPlace(url), UrlPlace(url)
    with place.lock():
        place.remove("0/.writer.url.lock")
        ours = other.lock()
        ours.__enter__()
        monkeypatch.setattr(asked, "cat_file", _timed_out)
    monkeypatch.undo()
    assert other.exists("0/.writer.url.lock")
    ours.__exit__(None, None, None)
    assert not other.exists("0/.writer.url.lock")


def test_a_file_system_that_nobody_tried_is_not_written_to(job, monkeypatch):
    monkeypatch.setattr("napari_msgan.pyramid._url._CREATES_ALONE", ("s3fs.",))
    with pytest.raises(StoreError, match=r"memory, not tried\) is not known to keep two writers"):
        jobs.generate(picture(2), f"memory://{uuid.uuid4().hex}/a.ome.zarr", job[0], device="cpu")


def test_where_two_writers_cannot_be_kept_apart_nobody_writes(job):
    fsspec.register_implementation("careless", _CannotExclude, clobber=True)
    with pytest.raises(StoreError, match="not known to keep two writers apart"):
        jobs.generate(picture(2), "careless://a.ome.zarr", job[0], device="cpu")


def test_a_copy_of_a_folder_is_not_locked_by_the_lock_that_came_along(job, url):
    with open_pyramid(job[1].path, writable=True).writing():
        pass
    assert (job[1].path / "0/.writer.lock").exists()
    files, root = fsspec.core.url_to_fs(url)
    files.makedirs(root, exist_ok=True)
    files.put(f"{job[1].path}/", f"{root}/", recursive=True)
    with open_pyramid(url, writable=True).writing():
        pass


@pytest.mark.parametrize(
    "url",
    [
        *("file://a.ome.zarr", "file://host/a", "file:///a#1", "file:///a?b", "file://", "file:a"),
        *("file://[", "file://[x]/a"),
    ],
)
def test_file_url_that_names_no_folder_here_is_refused(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = "no folder of this computer" if url.startswith("file://") else "there is no store"
    with pytest.raises(StoreError, match=said):
        jobs.verify(url)
