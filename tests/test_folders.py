"""Folders of strangers: links that leave them, pipes, and sizes that cannot be."""

import os
import zlib

import numcodecs
import numpy as np
import pytest

from napari_msgan.errors import FolderError
from napari_msgan.folders import check_inside, read_inside
from napari_msgan.zarr_folder import ChunkSize, unpacked_bytes


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


CODECS = {
    "zstd": numcodecs.Zstd(),
    "blosc": numcodecs.Blosc(),
    "lz4": numcodecs.LZ4(),
    "gzip": numcodecs.GZip(),
    "zlib": numcodecs.Zlib(),
    "bz2": numcodecs.BZ2(),
}


@pytest.mark.parametrize("n_bytes", [1, 100, 255, 256, 300, 65_536, 70_000, 3_000_000])
@pytest.mark.parametrize("name", CODECS)
def test_unpacked_size_is_known_before_unpacking(name, n_bytes):
    packed = bytes(CODECS[name].encode(np.zeros(n_bytes, np.uint8)))
    assert unpacked_bytes(packed, name, n_bytes) == n_bytes
    ChunkSize(n_bytes, name).check(packed)
    with pytest.raises(FolderError, match="unpacks to more than"):
        ChunkSize(n_bytes - 1, name).check(packed)


def test_bomb_is_not_unpacked_beyond_the_limit():
    bomb = zlib.compress(bytes(50_000_000))
    assert len(bomb) < 50_000
    assert unpacked_bytes(bomb, "zlib", 1000) == 1001


@pytest.mark.parametrize("content", [b"", b"\x28", b"\x28\xb5\x2f\xfd", b"garbage"])
@pytest.mark.parametrize("name", [*CODECS, None])
def test_damaged_content_is_left_to_the_codec(name, content):
    size = unpacked_bytes(content, name, 10)
    assert size is None or size >= 0
