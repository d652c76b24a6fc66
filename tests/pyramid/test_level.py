"""What a level writes is what zarr would write, byte for byte, and each reads the other's."""

import numpy as np
import pytest
import zarr
from numcodecs import Zstd
from zarr.codecs import ZstdCodec

from napari_msgan.errors import GeometryError, MsganError, StoreError
from napari_msgan.geometry import Box
from napari_msgan.pyramid._level import write_chunks
from tests.pyramid.levels import level_of


def create(root, *, dtype="int16", level=1, checksum=True):
    zarr.create_group(root).create_array(
        "a",
        shape=(30, 21),
        chunks=(8, 8),
        dtype=dtype,
        fill_value=7,
        compressors=ZstdCodec(level=level, checksum=checksum),
        config={"write_empty_chunks": True},
    )


def content(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
@pytest.mark.parametrize(("level", "checksum"), [(1, True), (1, False), (5, False)])
def test_files_are_those_that_zarr_writes(tmp_path, dtype, level, checksum):
    values = np.random.default_rng(0).integers(0, 200, (30, 21)).astype(dtype)
    values[:8, :8] = 7  # equals the fill value
    for name in ("ours", "zarr"):
        create(tmp_path / name, dtype=dtype, level=level, checksum=checksum)
    write_chunks(level_of(tmp_path / "ours", "a"), Box.of_shape(values.shape), values)
    array = zarr.open(tmp_path / "zarr", path="a", mode="r+", config={"write_empty_chunks": True})
    array[...] = values
    assert content(tmp_path / "ours") == content(tmp_path / "zarr")
    assert len(content(tmp_path / "ours")) == 2 + 4 * 3
    # What differs from it in one voxel is another file, so equality above is no accident.
    values[29, 20] += 1
    array[...] = values
    assert content(tmp_path / "ours") != content(tmp_path / "zarr")


def test_boxes_are_those_that_zarr_reads(tmp_path):
    create(tmp_path / "g")
    level = level_of(tmp_path / "g", "a")
    box = Box((8, 8), (24, 21))
    write_chunks(level, box, np.arange(16 * 13, dtype=np.int16).reshape(16, 13))
    array = zarr.open(tmp_path / "g", path="a", mode="r")
    boxes = (
        Box.of_shape((30, 21)),
        box,
        Box((3, 7), (30, 9)),
        Box((23, 20), (24, 21)),
        Box((5, 5), (5, 9)),
    )
    for each in boxes:
        np.testing.assert_array_equal(level.read(each), array[each.slices])
        assert level.read(each).dtype == array.dtype
    assert (level.read(Box((0, 0), (8, 8))) == 7).all()  # no file: the fill value


def test_chunks_at_the_border_are_whole(tmp_path):
    create(tmp_path / "g")
    level = level_of(tmp_path / "g", "a")
    write_chunks(level, Box((24, 16), (30, 21)), np.ones((6, 5), np.int16))
    chunk = level.read_chunk((3, 2))
    assert chunk.shape == (8, 8)
    assert (chunk[:6, :5] == 1).all()
    assert (chunk[6:] == 7).all()


def test_leaving_the_image_and_damage_are_errors_that_say_where(tmp_path):
    create(tmp_path / "g")
    level = level_of(tmp_path / "g", "a")
    with pytest.raises(GeometryError, match="leaves the image, which is 0:30,0:21"):
        level.read(Box((0, 0), (31, 8)))
    write_chunks(level, Box((0, 0), (8, 8)), np.arange(64, dtype=np.int16).reshape(8, 8))
    file = tmp_path / "g/a/c/0/0"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    with pytest.raises(StoreError, match="a/c/0/0 cannot be read"):
        level.read(Box((3, 3), (4, 4)))
    file.write_bytes(whole)
    level.read(Box((3, 3), (4, 4)))


def test_an_interrupted_write_leaves_the_old_chunk_and_nothing_else(tmp_path, monkeypatch):
    create(tmp_path / "g")
    level, box = level_of(tmp_path / "g", "a"), Box((0, 0), (8, 8))
    write_chunks(level, box, np.zeros((8, 8), np.int16))
    before = content(tmp_path / "g")

    def refuse(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", refuse)
    with pytest.raises(OSError, match="No space"):
        write_chunks(level, box, np.ones((8, 8), np.int16))
    assert content(tmp_path / "g") == before


def test_a_bomb_in_the_place_of_a_chunk_is_refused(tmp_path):
    create(tmp_path / "g")
    level = level_of(tmp_path / "g", "a")
    write_chunks(level, Box((0, 0), (8, 8)), np.arange(64, dtype=np.int16).reshape(8, 8))
    file = tmp_path / "g/a/c/0/0"
    packed, bomb = file.read_bytes(), bytes(Zstd(1).encode(bytes(10**7)))
    for content in (packed + bomb, packed * 2, bytes(Zstd(1).encode(bytes(100)))):
        file.write_bytes(content)
        with pytest.raises(StoreError, match="a/c/0/0 cannot be read"):
            level.read(Box((0, 0), (8, 8)))


def test_a_disk_that_refuses_is_not_called_damage(tmp_path, monkeypatch):
    create(tmp_path / "g")
    level = level_of(tmp_path / "g", "a")

    def refuse(*_args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(MsganError, match="Input/output error") as caught:
        level.read(Box((0, 0), (8, 8)))
    assert not isinstance(caught.value, StoreError)
