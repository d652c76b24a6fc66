"""How files come about: streamed, complete or not at all, never over another one unasked."""

from __future__ import annotations

import numpy as np
import pytest

from napari_msgan.errors import MsganError, VolumeError
from napari_msgan.geometry import Affine
from napari_msgan.io import WRITABLE, _arrays, read_description, read_volume, write_volume
from napari_msgan.volume import Volume
from tests.io.helpers import RecordingArray, difference, make_volume, names_in

FORMATS = [".ome.tif", ".nii", ".nii.gz", ".ome.zarr"]
MIB = 2**20


def lazy_volume(shape: tuple[int, ...], **options) -> tuple[Volume, RecordingArray]:
    data = RecordingArray(shape, **options)
    return Volume(data, Affine(np.eye(len(shape) + 1)), "millimeter"), data


@pytest.mark.parametrize("suffix", FORMATS)
def test_no_request_exceeds_some_planes(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(_arrays, "SLAB_BYTES", MIB)
    volume, data = lazy_volume((150, 200, 300))  # 18 MB; a plane has 0.12 MB
    write_volume(tmp_path / f"a{suffix}", [volume], description={})
    assert max(np.prod(request) * 2 for request in data.requests) <= MIB
    assert sum(np.prod(request) for request in data.requests) == np.prod(data.shape)
    back = read_volume(tmp_path / f"a{suffix}")
    whole = data[(slice(None),) * 3]
    np.testing.assert_array_equal(np.asarray(back.data), whole)


@pytest.mark.parametrize("suffix", FORMATS)
def test_plane_larger_than_a_slab_is_read_in_bands_of_rows(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(_arrays, "SLAB_BYTES", MIB)
    volume, data = lazy_volume((1500, 900))  # 2.7 MB
    write_volume(tmp_path / f"a{suffix}", [volume], description={})
    assert max(np.prod(request) * 2 for request in data.requests) <= MIB
    assert sum(np.prod(request) for request in data.requests) == np.prod(data.shape)
    np.testing.assert_array_equal(np.asarray(read_volume(tmp_path / f"a{suffix}").data), data[:, :])


def test_recording_array_notices_a_request_of_the_whole():
    _, data = lazy_volume((150, 200, 300))
    assert data[(slice(None),) * 3].shape == data.shape
    assert np.prod(data.requests[0]) * 2 > MIB


def test_slabs_of_a_volume_have_the_depth_of_whole_chunks(monkeypatch):
    monkeypatch.setattr(_arrays, "SLAB_BYTES", 50 * 200)
    slabs = list(_arrays.iter_slabs(RecordingArray((70, 10, 10), "int16")))
    assert [len(slab) for slab in slabs] == [32, 32, 6]


@pytest.mark.parametrize("suffix", WRITABLE)
def test_progress_grows_to_one(rng, tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(_arrays, "SLAB_BYTES", 20_000)
    fractions: list[float] = []
    levels = [make_volume(rng, 3), make_volume(rng, 3)]
    write_volume(tmp_path / f"a{suffix}", levels, description={}, progress=fractions.append)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert 0 < fractions[0] < 1


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("error", [ArithmeticError, KeyboardInterrupt, GeneratorExit])
def test_nothing_is_left_after_whatever_stops_the_writing(tmp_path, monkeypatch, suffix, error):
    monkeypatch.setattr(_arrays, "SLAB_BYTES", 2**14)
    volume, data = lazy_volume((70, 64, 128))

    def stop(fraction: float) -> None:
        assert names_in(tmp_path) != []
        assert not (tmp_path / f"a{suffix}").exists()
        raise error

    with pytest.raises(error):
        write_volume(tmp_path / f"a{suffix}", [volume], description={}, progress=stop)
    assert 0 < len(data.requests) < 70
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("suffix", FORMATS)
def test_error_of_the_source_comes_through_and_leaves_nothing(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(_arrays, "SLAB_BYTES", 2**14)
    volume, _ = lazy_volume((70, 64, 128), fail_at=2)
    with pytest.raises(ArithmeticError, match="the source broke"):
        write_volume(tmp_path / f"a{suffix}", [volume], description={})
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("suffix", FORMATS)
def test_existing_name_is_refused_and_kept(rng, tmp_path, suffix):
    path, first, second = tmp_path / f"a{suffix}", make_volume(rng, 2), make_volume(rng, 3)
    write_volume(path, [first], description={"n": 1})
    with pytest.raises(VolumeError, match="exists already: choose another name, delete it"):
        write_volume(path, [second], description={"n": 2})
    assert difference(read_volume(path), first) == ""
    write_volume(path, [second], description={"n": 2}, overwrite=True)
    assert difference(read_volume(path), second) == ""
    assert read_description(path) == {"n": 2}
    assert names_in(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", FORMATS)
def test_interrupted_overwrite_keeps_the_old_image(rng, tmp_path, suffix):
    path, first = tmp_path / f"a{suffix}", make_volume(rng, 2)
    write_volume(path, [first], description={})
    broken, _ = lazy_volume((20, 30), fail_at=0)
    with pytest.raises(ArithmeticError):
        write_volume(path, [broken], description={}, overwrite=True)
    assert difference(read_volume(path), first) == ""
    assert names_in(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", [".nii", ".ome.zarr"])
def test_image_can_be_written_over_the_file_it_is_read_from(rng, tmp_path, suffix):
    path, volume = tmp_path / f"a{suffix}", make_volume(rng, 3)
    write_volume(path, [volume], description={})
    write_volume(path, [read_volume(path)], description={}, overwrite=True)
    assert difference(read_volume(path), volume) == ""


def test_name_that_was_taken_meanwhile_is_not_replaced(rng, tmp_path):
    path = tmp_path / "a.nii"

    def take_the_name(fraction: float) -> None:
        path.write_text("mine")

    with pytest.raises(VolumeError, match="exists already"):
        write_volume(path, [make_volume(rng, 2)], description={}, progress=take_the_name)
    assert path.read_text() == "mine"
    assert names_in(tmp_path) == ["a.nii"]


@pytest.mark.parametrize("suffix", [".nii", ".ome.zarr"])
def test_folder_that_is_no_zarr_store_is_never_replaced(rng, tmp_path, suffix):
    folder = tmp_path / f"a{suffix}"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(VolumeError, match="not one Zarr image"):
        write_volume(folder, [make_volume(rng, 2)], description={}, overwrite=True)
    assert names_in(folder) == ["thesis.txt"]


@pytest.mark.parametrize("name", ["a.jpg", "a.zarr", "a.dcm", "a", ".nii.gz"])
def test_other_suffixes_are_refused_with_the_list_of_those_that_work(rng, tmp_path, name):
    with pytest.raises(VolumeError, match=r"must end in \.ome\.tif, .*\.nii\.gz, \.ome\.zarr"):
        write_volume(tmp_path / name, [make_volume(rng, 2)], description={})


def test_missing_folder_and_missing_image_are_refused(rng, tmp_path):
    with pytest.raises(VolumeError, match=r"folder .*b does not exist"):
        write_volume(tmp_path / "b" / "a.nii", [make_volume(rng, 2)], description={})
    (tmp_path / "file").touch()
    with pytest.raises(VolumeError, match=r"file is a file, where a folder is needed"):
        write_volume(tmp_path / "file" / "a.nii", [make_volume(rng, 2)], description={})
    with pytest.raises(VolumeError, match="there is no image to write"):
        write_volume(tmp_path / "a.nii", [], description={})


@pytest.mark.parametrize("suffix", FORMATS)
def test_full_disk_is_told_in_one_line(rng, tmp_path, suffix):
    def full(fraction: float) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(
        VolumeError, match=r"cannot be written: the disk is full .*up to .* needed"
    ) as caught:
        write_volume(tmp_path / f"a{suffix}", [make_volume(rng, 3)], description={}, progress=full)
    assert isinstance(caught.value, MsganError)
    assert "\n" not in str(caught.value)
    assert names_in(tmp_path) == []


def test_path_may_be_text(rng, tmp_path):
    write_volume(str(tmp_path / "a.nii"), [make_volume(rng, 2)], description={})
    assert read_volume(str(tmp_path / "a.nii")).axes == ("y", "x")
