"""The sizes that are found before unpacking are those of what comes out."""

import bz2
import gzip
import zlib
from contextlib import suppress

import numcodecs
import numpy as np
import pytest

from napari_msgan.errors import FolderError
from napari_msgan.packed_sizes import unpacked_bytes
from napari_msgan.zarr_folder import ChunkSize

PACK = {
    "zstd": numcodecs.Zstd(1, checksum=True).encode,
    "blosc": numcodecs.Blosc("lz4").encode,
    "lz4": numcodecs.LZ4().encode,
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "bz2": bz2.compress,
}
CONTENTS = {
    "one": b"a",
    "text": b"some text, some text, some text" * 9,
    "256": bytes(256),
    "zeros": bytes(700_000),
    "noise": np.random.default_rng(0).bytes(300_000),
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("codec", PACK)
def test_it_is_the_size_of_what_was_packed(codec, content):
    packed = bytes(PACK[codec](content))
    assert unpacked_bytes(packed, codec, 10**6) == len(content)
    ChunkSize(len(content), codec).check(packed)
    with pytest.raises(FolderError, match="unpacks to more than"):
        ChunkSize(len(content) - 1, codec).check(packed)


@pytest.mark.parametrize("n_bytes", [1, 100, 255, 256, 300, 65_536, 70_000])
def test_every_width_of_a_zstd_size_is_understood(n_bytes):
    assert unpacked_bytes(bytes(PACK["zstd"](bytes(n_bytes))), "zstd", 10**6) == n_bytes


def test_bomb_is_not_unpacked_beyond_the_limit():
    bomb = zlib.compress(bytes(50_000_000))
    assert len(bomb) < 50_000
    assert unpacked_bytes(bomb, "zlib", 1000) == 1001


@pytest.mark.parametrize("content", [b"", b"\x28", b"\x28\xb5\x2f\xfd", b"garbage"])
@pytest.mark.parametrize("codec", PACK)
def test_garbage_is_refused_or_left_to_the_codec(codec, content):
    with suppress(FolderError):
        assert unpacked_bytes(content, codec, 10) >= 0


@pytest.mark.parametrize("codec", ["zstd", "gzip", "bz2"])
def test_all_frames_and_members_count(codec):
    packed = bytes(PACK[codec](bytes(1000)))
    assert unpacked_bytes(packed * 3, codec, 10**6) == 3000
    assert unpacked_bytes(packed * 3, codec, 1500) > 1500


def zstd_frame_without_a_size(n_blocks):
    """Return a frame whose blocks repeat one byte: 4 bytes become 128 KiB."""
    blocks = [((1 << 17) << 3 | 1 << 1 | (i == n_blocks - 1)) for i in range(n_blocks)]
    body = b"".join(block.to_bytes(3, "little") + b"x" for block in blocks)
    return (0xFD2FB528).to_bytes(4, "little") + bytes([0, 0x58]) + body


def test_a_zstd_frame_that_does_not_say_its_size_is_measured_by_its_blocks():
    frame = zstd_frame_without_a_size(3)
    n_bytes = len(numcodecs.Zstd().decode(frame))
    assert n_bytes == 3 << 17  # so the frame is what it should be
    assert n_bytes - (1 << 17) < unpacked_bytes(frame, "zstd", n_bytes) <= n_bytes
    assert unpacked_bytes(zstd_frame_without_a_size(9000), "zstd", 10**6) > 10**9


def test_skippable_frames_are_skipped():
    skipped = (0x184D2A51).to_bytes(4, "little") + (3).to_bytes(4, "little") + b"abc"
    packed = bytes(PACK["zstd"](bytes(100)))
    assert unpacked_bytes(skipped + packed + skipped, "zstd", 1000) == 100


@pytest.mark.parametrize("cut", [1, 4, 5, 7, 11, -1])
def test_cut_zstd_is_refused(cut):
    packed = bytes(PACK["zstd"](CONTENTS["text"]))
    with pytest.raises(FolderError, match="Zstandard"):
        unpacked_bytes(packed[:cut], "zstd", 10**6)


def test_endless_members_are_refused():
    with pytest.raises(FolderError, match="more than 1000 pieces"):
        unpacked_bytes(gzip.compress(b"") * 1001, "gzip", 10**6)
