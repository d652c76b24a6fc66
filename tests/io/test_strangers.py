"""OME-Zarr of strangers: codecs that run code, links, bombs; and pipes in the place of files."""

import json
import os
import pickle

import google_crc32c
import numcodecs
import numpy as np
import pytest
import zarr

from napari_msgan.errors import VolumeError
from napari_msgan.io import read_volume


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, sprung):
        self.sprung = sprung

    def __reduce__(self):
        return os.mkdir, (self.sprung,)


@pytest.fixture
def old(tmp_path):
    """A Zarr 2 array of one chunk."""
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=np.ones((8, 8), np.int16), zarr_format=2, chunks=(8, 8))
    return path


def change(path, **fields):
    metadata = path / ".zarray"
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | fields))


@pytest.mark.parametrize("field", ["compressor", "filters"])
def test_pickle_codec_is_refused_and_runs_nothing(old, field):
    codec = {"id": "pickle", "protocol": 5}
    change(old, **{"compressor": None, field: [codec] if field == "filters" else codec})
    (old / "0.0").write_bytes(pickle.dumps(Trap(str(old.parent / "sprung"))))
    with pytest.raises(VolumeError, match="pickle"):
        np.asarray(read_volume(old).data)
    assert not (old.parent / "sprung").exists()


@pytest.mark.parametrize("name", [".zarray", "0.0"])
def test_link_outside_is_refused(old, name):
    (old / name).rename(old.parent / "elsewhere")
    (old / name).symlink_to(old.parent / "elsewhere")
    with pytest.raises(VolumeError, match="leads out of"):
        np.asarray(read_volume(old).data)


@pytest.mark.parametrize("codec", [numcodecs.Zstd(), numcodecs.GZip(9), numcodecs.Blosc("zstd")])
def test_chunk_that_unpacks_to_more_than_its_voxels_is_refused(old, codec):
    change(old, compressor=codec.get_config())
    (old / "0.0").write_bytes(bytes(codec.encode(np.zeros(20_000_000, np.uint8))))
    with pytest.raises(VolumeError, match=r"unpacks to more than|more than the .* it can need"):
        np.asarray(read_volume(old).data)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"shape": [2**30, 2**30], "chunks": [2**20, 2**20]}, "chunks of|memory"),
        ({"shape": [2**20, 2**20], "chunks": [1, 1]}, "would take days"),
    ],
    ids=["huge", "tiny"],
)
def test_chunks_of_absurd_size_are_refused(old, fields, said):
    change(old, **fields)
    with pytest.raises(VolumeError, match=said):
        read_volume(old)


@pytest.mark.parametrize("suffix", [".nii", ".tif", ".png", ".nii.gz", ".zarr"])
def test_pipe_is_refused_and_does_not_hang(tmp_path, suffix):
    os.mkfifo(tmp_path / f"a{suffix}")
    with pytest.raises(VolumeError, match="is a pipe or a device"):
        read_volume(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("shards", [None, (8, 8)], ids=["chunks", "shards"])
@pytest.mark.parametrize("part", [slice(0, 8), slice(0, 4)], ids=["all", "part"])
def test_blosc_that_would_read_behind_its_end_is_refused(tmp_path, shards, part):
    """C-Blosc ended the process (segmentation fault) before."""
    path = tmp_path / "a.zarr"
    compressors = zarr.codecs.BloscCodec()
    options = {"chunks": (4, 4), "shards": shards, "compressors": compressors}
    zarr.create_array(path, data=np.arange(64, dtype=np.int16).reshape(8, 8), **options)
    whole = np.asarray(read_volume(path).data)
    assert whole[7, 7] == 63
    for file in [file for file in path.rglob("c/*/*") if file.is_file()]:
        content = bytearray(file.read_bytes())
        content[12:16] = (2**31 - 1).to_bytes(4, "little")  # of the first chunk
        file.write_bytes(content)
    with pytest.raises(VolumeError, match="shorter than its header says"):
        np.asarray(read_volume(path).data[part, part])


@pytest.mark.parametrize("part", [slice(0, 8), slice(0, 4)], ids=["all", "part"])
def test_bomb_in_a_shard_is_refused(tmp_path, part):
    path = tmp_path / "a.zarr"
    options = {"chunks": (4, 4), "shards": (8, 8), "compressors": zarr.codecs.ZstdCodec()}
    zarr.create_array(path, data=np.arange(64, dtype=np.int16).reshape(8, 8), **options)
    (file,) = (file for file in path.rglob("c/*/*") if file.is_file())
    bomb = bytes(numcodecs.Zstd().encode(np.zeros(10**7, np.uint8)))
    index = np.array([[0, len(bomb)]] * 4, "<u8").tobytes()
    file.write_bytes(bomb + index + google_crc32c.value(index).to_bytes(4, "little"))
    with pytest.raises(VolumeError, match="unpacks to more than"):
        np.asarray(read_volume(path).data[part, part])
