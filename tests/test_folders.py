"""Folders of strangers: links that leave them, pipes, and sizes that cannot be."""

import errno
import os
from pathlib import Path

import pytest

from napari_msgan.errors import FolderError
from napari_msgan.folders import check_inside, read_inside


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    inside = tmp_path / "inside"
    (inside / "deep").mkdir(parents=True)
    (inside / "a").write_bytes(b"12345")
    return inside


def test_plain_files_and_links_that_stay_inside_are_read(folder):
    (folder / "deep/link").symlink_to("../a")
    assert check_inside(folder, folder / "a") == 5
    assert read_inside(folder, "deep/link") == b"12345"
    assert check_inside(folder, folder / "missing/file") == 0


def test_folder_itself_may_be_a_link(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert read_inside(tmp_path / "link", "a") == b"12345"


@pytest.mark.parametrize("target", ["../secret", "{absolute}", "..", "../inside-too"])
def test_link_that_leaves_the_folder_is_refused(folder, target):
    (folder.parent / "inside-too").mkdir()  # its name begins with that of the folder
    (folder / "link").symlink_to(target.format(absolute=folder.parent / "secret"))
    with pytest.raises(FolderError, match=r"leads out of .* put a copy"):
        check_inside(folder, folder / "link")


def test_folder_in_between_that_is_a_link_outside_is_refused(folder):
    (folder / "deep").rmdir()
    (folder / "deep").symlink_to("..")
    with pytest.raises(FolderError, match="leads out"):
        read_inside(folder, "deep/secret")


@pytest.mark.parametrize("name", ["../secret", "deep/../../secret"])
def test_name_that_leaves_the_folder_is_refused(folder, name):
    with pytest.raises(FolderError, match="leads out"):
        read_inside(folder, name)


def test_pipe_and_circle_of_links_are_refused(folder):
    os.mkfifo(folder / "pipe")
    (folder / "circle").symlink_to("circle")
    with pytest.raises(FolderError, match="a pipe or a device"):
        read_inside(folder, "pipe")
    with pytest.raises(FolderError, match="cannot be read"):
        read_inside(folder, "circle")


def test_file_larger_than_it_can_be_is_refused_unread(folder):
    with (folder / "a").open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(FolderError, match="1099511627776 bytes, more than"):
        read_inside(folder, "a")


def test_disk_that_does_not_answer_says_nothing_about_a_file(folder, monkeypatch):
    def fail(number):
        def stat(path, **options):
            raise OSError(number, os.strerror(number), str(path))

        return stat

    monkeypatch.setattr(Path, "stat", fail(errno.EIO))
    with pytest.raises(OSError, match="Input/output error") as found:
        check_inside(folder, folder / "a")
    assert not isinstance(found.value, FolderError)
    monkeypatch.setattr(Path, "stat", fail(errno.ENAMETOOLONG))
    with pytest.raises(FolderError, match="cannot be read"):
        check_inside(folder, folder / "a")
