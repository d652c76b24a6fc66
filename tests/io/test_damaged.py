"""Files that are missing, misnamed or damaged end in a VolumeError that says what to do."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_msgan.errors import VolumeError
from napari_msgan.io import READABLE, format_of, read_description, read_volume, write_volume
from tests.io.helpers import make_volume


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """Return one small file of each kind, by suffix: path of the image and of the file to harm."""
    folder, rng = tmp_path_factory.mktemp("intact"), np.random.default_rng(5)
    files = {}
    for suffix in (".tif", ".nii", ".nii.gz", ".ome.zarr"):
        path = folder / f"a{suffix}"
        write_volume(path, [make_volume(rng, 2, "uint8")], description={})
        files[suffix] = (path, path / "zarr.json" if suffix == ".ome.zarr" else path)
    for suffix in (".png", ".jpg"):
        path = folder / f"a{suffix}"
        Image.fromarray(np.asarray(make_volume(rng, 2, "uint8").data)).save(path)
        files[suffix] = (path, path)
    return files


@pytest.mark.parametrize("name", [f"Scan.1{s}" for s in READABLE] + ["A.NII.GZ", "a.Ome.Tif"])
def test_format_is_told_by_the_suffix_in_any_case(name):
    assert format_of(name) in ("pictures", "tiff", "nifti", "ome_zarr", "dicom")


@pytest.mark.parametrize("name", ["a.gz", "a", "a.mhd"])
def test_unknown_suffix_is_refused_with_the_list_of_those_that_work(tmp_path, name):
    (tmp_path / name).write_bytes(b"1")
    with pytest.raises(VolumeError, match=r"unknown file type; readable are \.png, .*\.zarr"):
        read_volume(tmp_path / name)


@pytest.mark.parametrize("suffix", READABLE)
@pytest.mark.parametrize("read", [read_volume, read_description])
def test_missing_file_is_named(tmp_path, suffix, read):
    with pytest.raises(VolumeError, match=rf"a{suffix} does not exist"):
        read(tmp_path / f"a{suffix}")


def test_folder_and_file_are_told_apart(tmp_path):
    for name in ("a.nii", "series"):
        (tmp_path / name).mkdir()
        with pytest.raises(VolumeError, match="a folder"):
            read_volume(tmp_path / name)
    (tmp_path / "a.ome.zarr").write_bytes(b"1")
    with pytest.raises(VolumeError, match="OME-Zarr is a folder"):
        read_volume(tmp_path / "a.ome.zarr")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".nii", ".nii.gz", ".ome.zarr"])
@pytest.mark.parametrize("content", [b"", b"no image at all" * 50], ids=["empty", "text"])
def test_content_of_another_kind_is_refused_with_advice(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    if suffix == ".ome.zarr":
        path.mkdir()
        (path / "zarr.json").write_bytes(content)
    else:
        path.write_bytes(content)
    with pytest.raises(VolumeError, match=r"cannot be read as .*fetch or save it again"):
        read_volume(path)


@pytest.mark.filterwarnings("ignore:.*entries of the header")  # TIFF, before the pixels are read
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".nii", ".nii.gz", ".ome.zarr"])
def test_truncated_file_is_refused(intact, suffix):
    path, victim = intact[suffix]
    whole = victim.read_bytes()
    try:
        victim.write_bytes(whole[: len(whole) // 3])
        with pytest.raises(VolumeError, match="cannot be read as"):
            read_volume(path)
    finally:
        victim.write_bytes(whole)
    assert read_volume(path).shape == (37, 45)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".nii", ".nii.gz", ".ome.zarr"])
def test_damaged_bytes_give_an_image_or_a_volume_error(intact, suffix):
    path, victim = intact[suffix]
    whole, messages = victim.read_bytes(), []

    @settings(max_examples=25)
    @given(
        st.lists(
            st.tuples(st.integers(0, min(len(whole), 600) - 1), st.integers(0, 255)), max_size=6
        )
    )
    def check(changes):
        harmed = bytearray(whole)
        for position, value in changes:
            harmed[position] = value
        victim.write_bytes(harmed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                data = read_volume(path).data
                np.asarray(data[(slice(0, 1),) * len(data.shape)])
                read_description(path)
            except VolumeError as error:
                messages.append(str(error))

    logging.disable(logging.CRITICAL)
    try:
        check()
    finally:
        logging.disable(logging.NOTSET)
        victim.write_bytes(whole)
    assert messages or path.suffix == ".nii"  # most bytes of which are voxels
    assert all(path.name in message for message in messages)


def test_importing_io_loads_no_format_library():
    heavy = ("nibabel", "tifffile", "zarr", "PIL", "pydicom", "torch", "napari", "qtpy", "pydantic")
    code = f"import sys, napari_msgan.io; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_what_only_begins_as_dicom_is_named(tmp_path):
    series = tmp_path / "series"
    series.mkdir()
    (series / "notes.txt").write_text("of a patient")
    for path in (series, series / "notes.txt"):
        with pytest.raises(VolumeError, match="readable are"):
            read_volume(path)
    (series / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(20))
    for path in (series, series / "IM0001"):
        with pytest.raises(VolumeError, match=r"IM0001: it does not say how it is stored"):
            read_volume(path)


def test_links_out_of_a_folder_are_not_followed_to_look_for_dicom(tmp_path, monkeypatch):
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "IM0001").symlink_to(tmp_path / "IM0001")
    with pytest.raises(VolumeError, match="readable are"):
        read_volume(folder)
    (folder / "IM0001").unlink()
    (folder / "everything").symlink_to(tmp_path)
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    with pytest.raises(VolumeError, match="readable are"):
        read_volume(folder)
    assert {os.fspath(path) for path in listed} == {str(folder)}
