"""OME-Zarr of strangers: codecs that run code, links, bombs; and pipes in the place of files."""

import asyncio
import itertools
import json
import os
import pickle

import google_crc32c
import numcodecs
import numpy as np
import pytest
import zarr
from zarr.abc.store import RangeByteRequest
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import LocalStore

from napari_msgan.errors import FolderError, VolumeError
from napari_msgan.io import read_volume
from napari_msgan.zarr_folder import ChunkSize, ZarrFolder


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
        (
            {"shape": [2**15, 2**15], "chunks": [2**14, 2**14 + 1], "dtype": "|u1"},
            "chunks of .* readable are up to 268435456 voxels",
        ),
        ({"shape": [2**20, 2**20], "chunks": [1, 1]}, "would take days"),
    ],
    ids=["huge", "large", "tiny"],
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


def test_each_of_two_chunks_that_lie_side_by_side_in_a_shard_is_checked(tmp_path):
    """zarr 3.4 would read both in one piece: the second one then ended the process."""
    path = tmp_path / "a.zarr"
    file, chunk = sharded(path)
    places = [[number * len(chunk), len(chunk)] for number in range(4)]
    index = np.array(places, "<u8").tobytes()
    end = index + google_crc32c.value(index).to_bytes(4, "little")
    file.write_bytes(4 * chunk + end)
    assert (np.asarray(read_volume(path).data[0:64, 0:128]) == 1).all()
    file.write_bytes(chunk + careless(chunk) + 2 * chunk + end)
    with pytest.raises(VolumeError, match="shorter than its header says"):
        np.asarray(read_volume(path).data[0:64, 0:128])


def ranges_of(folder, ranges, *, is_sync):
    options = {"prototype": default_buffer_prototype(), "max_gap_bytes": 1 << 20}
    requests = [RangeByteRequest(*ends) for ends in ranges]

    async def collect():
        groups = folder.get_ranges("c", requests, **options)
        return [pair async for group in groups for pair in group]

    found = folder.get_ranges_sync("c", requests, **options) if is_sync else asyncio.run(collect())
    return [(index, content.to_bytes()) for index, content in found]


@pytest.mark.parametrize(
    "is_sync",
    [
        pytest.param(False, id="asynchronous"),
        pytest.param(
            True,
            id="synchronous",
            marks=pytest.mark.skipif(
                not hasattr(LocalStore, "get_sync"), reason="this zarr reads asynchronously only"
            ),
        ),
    ],
)
def test_ranges_of_a_shard_are_read_and_checked_one_by_one(tmp_path, is_sync):
    sound = bytes(numcodecs.Zstd().encode(np.zeros(32, np.uint8)))
    bomb = bytes(numcodecs.Zstd().encode(np.zeros(10**7, np.uint8)))
    (tmp_path / "c").write_bytes(sound + sound + bomb)
    inner = ChunkSize(n_bytes=32, codec="zstd")
    folder = ZarrFolder(tmp_path, chunk=ChunkSize(96, None, inner=inner, n_inner=3))
    ends = np.cumsum([0, len(sound), len(sound), len(bomb)]).tolist()
    ranges = list(itertools.pairwise(ends))
    assert ranges_of(folder, ranges[:2], is_sync=is_sync) == [(0, sound), (1, sound)]
    with pytest.raises(FolderError, match="unpacks to more than"):
        ranges_of(folder, ranges, is_sync=is_sync)


def careless(content):
    """Return a Blosc chunk whose parts would be read 2 GB behind its end."""
    content = bytearray(content)
    content[12:16] = (2**31 - 1).to_bytes(4, "little")
    content[16:20] = (2**31 - 100).to_bytes(4, "little")
    content[2] &= ~0x02  # not stored as it is
    return bytes(content)


def sharded(path, endian="little"):
    """Return the file of an array of one shard of four equal chunks, and one of these."""
    serializer = zarr.codecs.ShardingCodec(
        chunk_shape=(64, 64),
        codecs=[zarr.codecs.BytesCodec(), zarr.codecs.BloscCodec(cname="lz4")],
        index_codecs=[zarr.codecs.BytesCodec(endian=endian), zarr.codecs.Crc32cCodec()],
    )
    data = np.ones((128, 128), np.int16)
    zarr.create_array(path, data=data, chunks=(128, 128), serializer=serializer, compressors=None)
    (file,) = (file for file in path.rglob("c/*/*") if file.is_file())
    chunks = file.read_bytes()[: -16 * 4 - 4]
    return file, chunks[: len(chunks) // 4]


@pytest.mark.filterwarnings("ignore:overflow encountered")  # in zarr, where it adds the two
@pytest.mark.parametrize("part", [slice(0, 128), slice(0, 64)], ids=["all", "part"])
@pytest.mark.parametrize("endian", ["little", "big"])
def test_index_of_a_shard_that_says_something_else_to_zarr_is_refused(tmp_path, endian, part):
    """Both ended the process: zarr takes these places for other ones than a hasty check does."""
    path = tmp_path / "a.zarr"
    file, chunk = sharded(path, endian)
    place = [2**64 - 1, 5] if endian == "little" else [len(chunk), len(chunk)]
    index = np.array([place] * 4, "<u8").tobytes()
    checksum = google_crc32c.value(index).to_bytes(4, "little")
    file.write_bytes(careless(chunk) + 3 * chunk + index + checksum)
    with pytest.raises(VolumeError, match=r"ends before (a|the) chunk|shards of an unusual kind"):
        np.asarray(read_volume(path).data[part, part])


def test_a_shard_with_missing_chunks_is_read(tmp_path):
    path = tmp_path / "a.zarr"
    file, chunk = sharded(path)
    index = np.array([[0, len(chunk)]] + [[2**64 - 1] * 2] * 3, "<u8").tobytes()
    file.write_bytes(chunk + index + google_crc32c.value(index).to_bytes(4, "little"))
    whole = np.asarray(read_volume(path).data)
    assert (whole[:64, :64] == 1).all()
    assert not whole[64:].any()


BLOSC = zarr.codecs.BloscCodec()


@pytest.mark.parametrize(
    "options",
    [
        {"compressors": [BLOSC, zarr.codecs.GzipCodec()]},
        {
            "zarr_format": 2,
            "filters": [numcodecs.Blosc()],
            "compressors": numcodecs.GZip(),
        },
    ],
    ids=["two", "filter"],
)
def test_orders_of_codecs_that_hide_what_is_packed_are_refused(tmp_path, options):
    """In each of them a careless chunk ended the process."""
    zarr.create_array(tmp_path / "a.zarr", data=np.ones((8, 8), np.int16), chunks=(8, 8), **options)
    with pytest.raises(VolumeError, match="an order that is not supported"):
        read_volume(tmp_path / "a.zarr")


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in")
def test_a_checksum_before_what_is_packed_is_refused(tmp_path):
    """A careless chunk behind it ended the process, too."""
    path = tmp_path / "a.zarr"
    options = {"chunks": (8, 8), "compressors": [BLOSC, zarr.codecs.numcodecs.CRC32()]}
    zarr.create_array(path, data=np.ones((8, 8), np.int16), **options)
    with pytest.raises(VolumeError, match="an order that is not supported"):
        read_volume(path)


def test_checksums_that_do_not_hide_what_is_packed_are_read(tmp_path):
    data = np.arange(64, dtype=np.int16).reshape(8, 8)
    after = [BLOSC, zarr.codecs.Crc32cCodec()]
    zarr.create_array(tmp_path / "a.zarr", data=data, chunks=(8, 8), compressors=after)
    np.testing.assert_array_equal(np.asarray(read_volume(tmp_path / "a.zarr").data), data)
    filters = [numcodecs.Delta("<i2"), numcodecs.CRC32()]
    options = {"filters": filters, "compressors": numcodecs.Blosc(), "zarr_format": 2}
    zarr.create_array(tmp_path / "b.zarr", data=data, chunks=(8, 8), **options)
    np.testing.assert_array_equal(np.asarray(read_volume(tmp_path / "b.zarr").data), data)


def test_second_member_of_gzip_that_is_a_bomb_is_refused(old):
    codec = numcodecs.GZip(9)
    change(old, compressor=codec.get_config())
    good = bytes(codec.encode(np.zeros((8, 8), np.int16)))
    (old / "0.0").write_bytes(good + bytes(codec.encode(np.zeros(20_000, np.uint8))))
    with pytest.raises(VolumeError, match="unpacks to more than"):
        np.asarray(read_volume(old).data)


def test_a_store_whose_chunks_are_a_link_outside_is_not_looked_into(tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    outside.mkdir()
    group = zarr.create_group(tmp_path / "a.ome.zarr")
    group.create_array("0", shape=(8, 8), chunks=(8, 8), dtype="u1")
    axes = [{"name": n, "type": "space"} for n in "yx"]
    steps = [{"type": "scale", "scale": [2, 2]}]
    datasets = [{"path": "0", "coordinateTransformations": steps}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    group.attrs["napari_msgan"] = {"model_sha256": "0" * 64}
    (tmp_path / "a.ome.zarr" / "0" / "c").symlink_to(outside)
    looked = []
    scandir = os.scandir
    monkeypatch.setattr(
        os, "scandir", lambda at: looked.append(os.path.realpath(at)) or scandir(at)
    )
    with pytest.raises(VolumeError, match="leads out of"):
        read_volume(tmp_path / "a.ome.zarr")
    assert str(outside) not in looked
