"""Every kind of damage is found, named and, where the store can make it again, mended."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys

import numpy as np
import pytest
import zarr

from napari_msgan import jobs
from napari_msgan.computing import machine_name
from napari_msgan.errors import MsganError, StoreError
from napari_msgan.geometry import Affine, Box
from napari_msgan.model import load_folder
from napari_msgan.pyramid import open_pyramid
from napari_msgan.tiling import Tile
from napari_msgan.verifying import run, tiles
from napari_msgan.verifying.tiles import excuse_of
from napari_msgan.volume import Volume
from tests.models import write_model

SHAPES = {2: (90, 110), 3: (30, 40, 44)}


def make_original(folder, ndim):
    model = load_folder(write_model(folder / "model", ndim=ndim, tile=32 // (ndim - 1), chunk=16))
    rng = np.random.default_rng(1)
    pixels = np.cumsum(rng.standard_normal(SHAPES[ndim]), -1).astype(np.float32) * 60
    unit = "millimeter" if ndim == 3 else "pixel"
    source = Volume(pixels, Affine.of_spacing((1.0,) * ndim), unit)
    return jobs.generate(source, folder / "a.ome.zarr", model, device="cpu", workers=1).path


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """The folder of a store with every tile; its model lies where the store says."""
    return make_original(tmp_path_factory.mktemp("original"), 2)


@pytest.fixture
def path(original, tmp_path):
    return shutil.copytree(original, tmp_path / "copy.ome.zarr")


def voxels(path):
    store = open_pyramid(path)
    return [np.asarray(store.array(s)[...]) for s in range(store.n_scales)]


def a_chunk(path, level):
    """Return the first chunk file in the middle of a level; "sketch/0" is a level too."""
    files = sorted(p for p in (path / level / "c").rglob("*") if p.is_file())
    return files[len(files) // 2]


def check_mended(path, original):
    """The repaired store is sound, and refining makes the same voxels again."""
    assert jobs.verify(path, sample=0).problems == ()
    jobs.refine(path, device="cpu", workers=1)
    for mended, before in zip(voxels(path), voxels(original), strict=True):
        np.testing.assert_array_equal(mended, before)


def test_untouched_store_is_sound_and_every_tile_is_made_again_bit_by_bit(original):
    steps = []
    found = jobs.verify(original, sample="all", progress=steps.append)
    assert (found.problems, found.notes, found.removed) == ((), (), None)
    store = open_pyramid(original)
    shapes = [store.geometry.shape_at(s) for s in range(store.n_scales)]
    n_tiles = sum(len(store.tiling.tiles(s, Box.of_shape(n))) for s, n in enumerate(shapes))
    chunks = [store.refined_chunks(s).size for s in range(store.n_scales)]
    assert (found.compared, found.chunks) == (n_tiles, 2 * sum(chunks))
    assert [s.done for s in steps if s.stage == "compare"] == list(range(1, n_tiles + 1))
    last = [s for s in steps if s.stage == "verify"][-1]
    assert last.done == last.total == found.chunks
    assert {s.total for s in steps if s.stage == "compare"} == {n_tiles}


def test_verifying_changes_nothing(path):
    def state():
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in path.rglob("*")}

    (path / "0" / "zarr.1234.partial").write_bytes(b"torn")
    before = state()
    jobs.verify(path)
    assert state() == before


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content[: len(content) // 2], id="torn"),
        pytest.param(lambda content: bytes(len(content)), id="zeros"),
        pytest.param(lambda c: c[:-9] + bytes([c[-9] ^ 1]) + c[-8:], id="one bit"),
        pytest.param(lambda content: os.urandom(300), id="garbage"),
    ],
)
def test_broken_chunk_is_found(path, damage):
    file = a_chunk(path, "0")
    file.write_bytes(damage(file.read_bytes()))
    (problem,) = jobs.verify(path, sample=0).problems
    index = "/".join(file.relative_to(path / "0" / "c").parts)
    assert problem.where == f"level 0 (scale 2), chunk {index}"
    assert "cannot be read" in problem.seen
    assert problem.can_be_repaired


@pytest.mark.parametrize("level", ["0", "1", "2"])
def test_broken_chunk_is_mended(path, original, level):
    file = a_chunk(path, level)
    file.write_bytes(file.read_bytes()[:-1])
    found = jobs.verify(path, sample=0, repair=True)
    assert found.is_sound
    assert min(found.removed) == 2 - int(level)
    check_mended(path, original)


def test_volume_is_sound_and_mended_too(tmp_path):
    path = make_original(tmp_path, 3)
    assert jobs.verify(path).is_sound
    kept = shutil.copytree(path, tmp_path / "kept.ome.zarr")
    a_chunk(path, "1").write_bytes(b"torn")
    assert jobs.verify(path, sample=0, repair=True).is_sound
    check_mended(path, kept)


def test_repair_removes_exactly_what_was_made_from_a_broken_tile(path):
    store = open_pyramid(path)
    index = (1,) * store.geometry.ndim
    file = path.joinpath("1", "c", *"2" * store.geometry.ndim)  # tile 1 has the chunks 2 and 3
    file.write_bytes(b"broken")
    found = jobs.verify(path, sample=0, repair=True)
    doomed = [Tile(1, index), *store.tiling.dependents(Tile(1, index))]
    assert sum(map(len, found.removed.values())) == len(doomed)
    store.reload()
    for scale in range(3):
        grid = store.tiling.grid(scale)
        for cell in grid.cells(Box.of_shape(grid.shape)).indices():
            is_there = store.is_refined(scale, grid.core(cell))
            assert is_there != (Tile(scale, cell) in doomed)


def test_chunk_of_another_shape_is_found(path, original):
    array = zarr.create_array(
        path.parent / "other",
        shape=(4,) * open_pyramid(path).geometry.ndim,
        dtype="int16",
        compressors=zarr.codecs.ZstdCodec(level=1, checksum=True),
    )
    array[...] = 7
    other = next(p for p in (path.parent / "other" / "c").rglob("*") if p.is_file())
    shutil.copy(other, a_chunk(path, "0"))
    (problem,) = jobs.verify(path, sample=0).problems
    assert "cannot be read" in problem.seen
    jobs.verify(path, sample=0, repair=True)
    check_mended(path, original)


def test_changed_voxel_is_found_by_making_the_tile_again(path, original):
    store = open_pyramid(path, writable=True)
    box = Box((0,) * store.geometry.ndim, store.info.chunk_shape)
    changed = store.read(2, box).copy()
    changed.flat[3] ^= 64
    with store.writing():
        store.write(2, box, changed)
    assert jobs.verify(path, sample=0).is_sound  # the file is as good as any
    (problem,) = jobs.verify(path, sample="all").problems
    assert "1 of " in problem.seen
    assert "by up to 64" in problem.seen
    found = jobs.verify(path, sample="all", repair=True)
    assert list(found.removed) == [2]
    check_mended(path, original)


def test_difference_of_one_step_is_told_but_not_removed(path):
    store = open_pyramid(path, writable=True)
    box = Box((0,) * store.geometry.ndim, store.info.chunk_shape)
    changed = store.read(2, box).copy()
    changed.flat[3] ^= 1
    with store.writing():
        store.write(2, box, changed)
    found = jobs.verify(path, sample="all", repair=True)
    (problem,) = found.remaining
    assert "another kind of processor" in problem.advice
    assert found.removed == {}


def test_changed_coarse_tile_does_not_accuse_the_finer_ones_of_what_it_is(path, original):
    """A wrong coarse tile makes those that read it differ too; repair takes them all."""
    store = open_pyramid(path, writable=True)
    box = Box((0,) * store.geometry.ndim, store.info.chunk_shape)
    with store.writing():
        store.write(1, box, np.full(box.shape, store.info.window[1], store.info.dtype))
    found = jobs.verify(path, sample="all", repair=True)
    assert min(found.removed) == 1
    check_mended(path, original)


def test_tile_without_its_source_is_found_and_mended(path, original):
    a_chunk(path, "1").unlink()
    found = jobs.verify(path, sample=0)
    assert found.problems
    assert all("made from is not" in p.seen for p in found.problems)
    assert jobs.verify(path, sample=0, repair=True).is_sound
    check_mended(path, original)


def test_tiles_that_come_in_meanwhile_are_no_damage(path, monkeypatch):
    writer = open_pyramid(path, writable=True)
    with writer.writing():
        writer.clear(1, Box((0, 0), (9, 9)))
    place_type, steps = type(writer.place), jobs.iter_refine(writer, device="cpu", workers=1)
    list_chunks, scale_1 = place_type.scan, writer.level(1).key

    def list_while_tiles_come_in(place, key, grid):
        found = list_chunks(place, key, grid)
        if place is not writer.place and key == scale_1:  # scale 2 is listed next
            assert [step.report.tile.scale for step in steps][-1] == 2
        return found

    monkeypatch.setattr(place_type, "scan", list_while_tiles_come_in)
    assert jobs.verify(path, sample=0).problems == ()
    assert writer.refined_chunks(2).all()


def test_cleared_and_interrupted_tiles_are_no_damage(path):
    store = open_pyramid(path, writable=True)
    with store.writing():
        store.clear(1, Box((0,) * store.geometry.ndim, (9,) * store.geometry.ndim))
    a_chunk(path, "0").unlink()
    found = jobs.verify(path)
    assert found.is_sound
    assert found.notes == ("1 tile(s) were interrupted halfway; refining makes them again.",)
    assert found.compared == 6  # all that are whole


def test_leftovers_and_false_chunks_are_found_and_removed(path, original):
    chunk = a_chunk(path, "0")
    strays = [
        chunk.with_name(f"{chunk.name}.0123abcd.partial"),
        path / "zarr.0123abcd.partial",
        path / ".zarr.json.partial",
        chunk.with_name("999"),
        chunk.with_name("007"),
        path / "sketch" / "0" / "c" / "999",
    ]
    for stray in strays:
        stray.write_bytes(b"x")
    problems = jobs.verify(path, sample=0).problems
    assert sorted(p.where for p in problems) == sorted(str(s.relative_to(path)) for s in strays)
    assert jobs.verify(path, sample=0, repair=True).is_sound
    assert not any(stray.exists() for stray in strays)
    check_mended(path, original)


def test_file_where_a_folder_of_chunks_belongs_is_removed_before_the_store_is_opened(
    path, original
):
    folder = a_chunk(path, "0").parent
    shutil.rmtree(folder)
    folder.write_bytes(b"junk")
    seen = jobs.verify(path, sample=0)
    assert folder.relative_to(path).as_posix() in {p.where for p in seen.problems}
    assert not seen.is_sound
    mended = jobs.verify(path, sample=0, repair=True)
    assert mended.is_sound
    assert not folder.exists()
    check_mended(path, original)


def test_nothing_is_called_removed_where_a_store_cannot_be_opened(path):
    (path / "sketch" / "1" / "zarr.json").write_text("{}")
    a_chunk(path, "0").write_bytes(b"torn")
    found = jobs.verify(path, sample=0, repair=True)
    assert not found.is_sound
    assert found.removed is None
    assert a_chunk(path, "0").read_bytes() == b"torn"


def test_tiles_that_are_cleared_while_they_are_made_again_are_no_damage(path, monkeypatch):
    run = tiles._run

    def clear(context, tile):
        made = run(context, tile)
        with open_pyramid(path, writable=True).writing() as other:
            other.discard([tile])
        return made

    monkeypatch.setattr(tiles, "_run", clear)
    found = jobs.verify(path, sample=1)
    assert found.problems == ()
    assert any("was removed meanwhile" in note for note in found.notes)


def test_a_store_without_tiles_is_begun_with_any_precision(path):
    with open_pyramid(path, writable=True).writing() as store:
        store.discard(Tile(0, index) for index in [(0, 0)])
    assert not open_pyramid(path).refined_chunks(0).any()
    jobs.refine(path, scale=0, device="cpu")  # what was begun, and maybe killed, stays as it was
    assert open_pyramid(path).info.fingerprint.precision == "fp32"
    with open_pyramid(path, writable=True).writing() as store:
        store.discard(Tile(0, index) for index in [(0, 0)])
    jobs.refine(path, precision="bf16", scale=0, device="cpu")
    assert open_pyramid(path).info.fingerprint.precision == "bf16"
    with open_pyramid(path, writable=True).writing() as store:
        store.discard(Tile(0, index) for index in [(0, 0)])
    jobs.refine(path, scale=0, device="cpu")
    assert open_pyramid(path).info.fingerprint.precision == "bf16"
    with pytest.raises(StoreError, match="precision bf16, now it would be fp32"):
        jobs.refine(path, precision="fp32", device="cpu")


def test_a_store_that_was_left_before_its_first_tile_is_refined_in_float32(path):
    for level in range(3):
        shutil.rmtree(path / f"{level}/c")
    file = path / "zarr.json"
    metadata = json.loads(file.read_text())
    assert metadata["attributes"]["napari_msgan"].pop("fingerprint")
    file.write_text(json.dumps(metadata))
    jobs.refine(path, scale=0, device="cpu")
    assert open_pyramid(path).info.fingerprint.precision == "fp32"


def test_link_in_the_place_of_a_chunk_is_named_and_left_to_the_user(path, original):
    chunk = a_chunk(path, "0")
    target = path.parent / "elsewhere"
    chunk.rename(target)
    chunk.symlink_to(target)
    (problem,) = jobs.verify(path, sample=0, repair=True).remaining
    assert "a link" in problem.seen
    assert problem.advice == "Delete it, and check again."
    assert target.is_file()
    chunk.unlink()
    check_mended(path, original)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
def test_pipe_named_as_a_chunk_is_left_to_the_user(path):
    (path / "0/c/0/99").parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path / "0/c/0/99")
    (problem,) = jobs.verify(path, sample=0, repair=True).remaining
    assert "a special file" in problem.seen
    assert problem.advice == "Delete it, and check again."
    assert (path / "0/c/0/99").exists()


def test_strangers_are_mentioned_and_left_alone(path):
    names = ["notes.txt", "sketch/notes.txt", "1/notes.txt", "sketch/0/notes.txt", "0/c/notes.txt"]
    for name in names:
        (path / name).write_text("mine")
    found = jobs.verify(path, sample=0, repair=True)
    assert found.is_sound
    assert sorted(found.notes) == sorted(
        f"{name}: it is a file that does not belong to the store; it does no harm."
        for name in names
    )
    assert {(path / name).read_text() for name in names} == {"mine"}


def test_folder_in_the_place_of_metadata_is_named_and_left_to_the_user(path):
    file = path / "sketch/2/zarr.json"
    file.unlink()
    file.mkdir()
    for repair in (False, True):
        problems = {p.seen: p for p in jobs.verify(path, sample=0, repair=repair).remaining}
        problem = problems["it is a folder, where a file of the store belongs"]
        assert (problem.where, problem.can_be_repaired) == ("sketch/2/zarr.json", False)
    assert file.is_dir()


def test_folder_of_chunks_of_the_sketch_that_is_a_link_outside_is_left_alone(path, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("precious.partial", "99999", "notes"):
        (outside / name).write_bytes(b"precious")
    chunks = path / "sketch/0/c"
    shutil.rmtree(chunks)
    chunks.symlink_to(outside)
    found = jobs.verify(path, repair=True)
    assert (
        "sketch/0/c: it is a link that does not belong to the store; it does no harm."
        in found.notes
    )
    assert {problem.where.split(",")[0] for problem in found.remaining} == {
        "sketch of level 0 (scale 2)"
    }
    assert sorted(p.name for p in outside.iterdir()) == ["99999", "notes", "precious.partial"]
    with pytest.raises(MsganError, match="leads out of"):
        open_pyramid(path).place.remove("sketch/0/c/99999")


def test_folder_named_as_a_leftover_stops_nobody(path, original):
    for folder in ("x.partial", "0/c/x.partial"):
        (path / folder).mkdir()
    found = jobs.verify(path, sample=0)
    assert [p.where for p in found.problems] == []
    assert "x.partial: it is a folder that does not belong to the store" in "\n".join(found.notes)
    with open_pyramid(path, writable=True).writing() as store:
        store.clear(1, Box.of_shape(store.geometry.shape_at(1)))
    check_mended(path, original)


def test_damage_elsewhere_is_mended_where_the_sketch_is_damaged_too(path):
    for level in ("sketch/0", "0"):
        a_chunk(path, level).write_bytes(b"")
    found = jobs.verify(path, repair=True)
    (left,) = found.remaining
    assert "the sketch" in left.where or "sketch of" in left.where
    assert sum(map(len, found.removed.values())) == 1


def test_wrong_voxels_are_found_where_the_sketch_of_another_scale_is_damaged(path):
    a_chunk(path, "sketch/0").write_bytes(b"")
    array = zarr.open(path / "1", mode="r+")
    array[(0,) * array.ndim] += 100
    found = jobs.verify(path, sample="all", repair=True)
    assert sorted(s for s, boxes in found.removed.items() if boxes) == [1, 2]


@pytest.mark.parametrize("kind", ["folder", "link"])
@pytest.mark.parametrize("name", [".writer.lock", ".writer.pid", ".writer.unsynced"])
def test_what_is_no_file_where_ours_belong_stops_writers_before_they_begin(path, name, kind):
    file = path / "0" / name
    file.unlink(missing_ok=True)
    if kind == "folder":
        file.mkdir()
    else:
        file.symlink_to(path.parent)
    (problem,) = jobs.verify(path, sample=0).problems
    assert (problem.where, problem.can_be_repaired) == (f"0/{name}", False)
    before = sorted(path.rglob("*"))
    with pytest.raises(MsganError, match=r"is a folder, where|leads out of"):
        jobs.verify(path, sample=0, repair=True)
    assert sorted(path.rglob("*")) == before


@pytest.mark.parametrize("text", ["9" * 10, "9" * 19, "9" * 20, "-1", "0", "x"])
def test_nobody_writes_where_the_process_id_is_none(path, text):
    (path / "0" / ".writer.pid").write_text(text)
    assert not [n for n in jobs.verify(path, sample=0).notes if "being written" in n]


@pytest.mark.parametrize("how", ["broken", "missing", "changed"])
def test_damaged_sketch_is_found_and_cannot_be_mended(path, how):
    chunk = a_chunk(path, "sketch/0")
    if how == "broken":
        chunk.write_bytes(chunk.read_bytes()[:-3])
    elif how == "missing":
        chunk.unlink()
    else:
        array = zarr.open(path / "sketch" / "0", mode="r+")
        array[(0,) * array.ndim] ^= 255
    found = jobs.verify(path, repair=True)
    (problem,) = found.remaining
    scales = "0, 1, 2" if how == "changed" else "2"
    assert found.notes[0].endswith(f"made from is damaged: {scales}.")
    assert (found.compared > 0) == (how != "changed")
    assert ("the sketch" if how == "changed" else "sketch of level 0") in problem.where
    assert "generate the image anew from its source" in problem.advice
    assert found.removed == {}


def test_a_sketch_that_is_gone_is_told_in_few_lines(path):
    for file in (path / "sketch" / "0" / "c").rglob("*"):
        if file.is_file():
            file.unlink()
    problems = jobs.verify(path, sample=0).problems
    count = Box.of_shape(SHAPES[2]).cover((16, 16)).size
    assert len(problems) == 21
    assert problems[-1].where == "sketch of level 0 (scale 2)"
    assert problems[-1].seen == f"{count - 20} more chunks cannot be read"


@pytest.mark.parametrize(
    ("name", "other"),
    [("halos", [[0, 0], [5, 5], [5, 5]]), ("window", [0, 1000.0]), ("exact", False)],
)
def test_metadata_that_the_model_contradicts_are_told_and_nothing_is_made(path, name, other):
    content = json.loads((path / "zarr.json").read_text())
    content["attributes"]["napari_msgan"][name] = other
    (path / "zarr.json").write_text(json.dumps(content))
    found = jobs.verify(path)
    (problem,) = found.problems
    assert problem.where == "the metadata"
    assert f"its metadata give {name}" in problem.seen
    assert found.compared == 0
    with pytest.raises(StoreError, match=f"its metadata give {name}"):
        jobs.refine(path, device="cpu")


def test_a_negative_sample_is_refused(path):
    with pytest.raises(MsganError, match="sample -1"):
        jobs.verify(path, sample=-1)


@pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: p.write_bytes(b"torn")])
def test_tiles_of_a_damaged_sketch_are_kept_also_those_of_scale_0(path, original, damage):
    damage(a_chunk(path, "sketch/1"))  # scale 0 reads the sketch of scale 1
    found = jobs.verify(path, sample="all", repair=True)
    assert found.notes[0].endswith("made from is damaged: 0, 1.")
    assert found.removed == {}
    assert found.compared > 0
    for kept, before in zip(voxels(path), voxels(original), strict=True):
        np.testing.assert_array_equal(kept, before)


def test_sketch_that_goes_while_tiles_are_made_again_accuses_no_tile(path, monkeypatch):
    from napari_msgan.verifying.tiles import TileCheck

    look = TileCheck.find_orphans

    def look_and_lose(check):
        look(check)
        shutil.rmtree(path / "sketch/1/c")

    monkeypatch.setattr(TileCheck, "find_orphans", look_and_lose)
    found = jobs.verify(path, sample="all", repair=True)
    assert found.removed == {}
    assert any("was not made again" in note and "is missing" in note for note in found.notes)


@pytest.mark.parametrize("scale", [0, 1, 2])
def test_tiles_of_an_interpolated_sketch_are_made_from_the_finest(path, scale):
    info = open_pyramid(path).info
    assert info.sketch_scale(scale) == max(scale, 1)
    settings = info.sketch.settings.model_copy(update={"given": "interpolated"})
    sketch = info.sketch.model_copy(update={"given": True, "settings": settings})
    assert info.model_copy(update={"sketch": sketch}).sketch_scale(scale) == 2


@pytest.mark.parametrize("name", ["zarr.json", "1/zarr.json", "sketch/2/zarr.json"])
def test_metadata_that_are_a_link_are_followed_inside_the_store_only(path, tmp_path, name):
    inside = path / "kept" / "description"
    inside.parent.mkdir()
    (path / name).rename(inside)
    (path / name).symlink_to(inside)
    assert jobs.verify(path, sample=0).is_sound
    outside = inside.rename(tmp_path / "outside")
    (path / name).unlink()
    (path / name).symlink_to(outside)
    assert not jobs.verify(path, sample=0).is_sound


@pytest.mark.parametrize(
    ("file", "change", "seen"),
    [
        pytest.param("zarr.json", lambda j: j.clear(), "damaged", id="root"),
        pytest.param(
            "zarr.json",
            lambda j: j["attributes"]["napari_msgan"].update(window=[5, 1]),
            "window",
            id="our attributes",
        ),
        pytest.param(
            "zarr.json",
            lambda j: j["attributes"]["ome"]["multiscales"][0]["datasets"].reverse(),
            "do not describe this image",
            id="OME of the image",
        ),
        pytest.param(
            "sketch/zarr.json",
            lambda j: j["attributes"].clear(),
            "do not describe this image",
            id="OME of the sketch",
        ),
        pytest.param("1/zarr.json", lambda j: j["shape"].reverse(), "has shape", id="shape"),
        pytest.param("1/zarr.json", lambda j: j.update(data_type="int32"), "dtype", id="type"),
        pytest.param("sketch/1/zarr.json", lambda j: j.clear(), "damaged", id="sketch level"),
    ],
)
def test_damaged_metadata_are_found(path, file, change, seen):
    content = json.loads((path / file).read_text())
    change(content)
    (path / file).write_text(json.dumps(content))
    (problem,) = jobs.verify(path, sample=0, repair=True).remaining
    assert problem.where == file
    assert seen in problem.seen
    assert "generate the image again" in problem.advice


def test_words_about_an_image_are_nobodys_damage(path):
    """A version before said of every given sketch that it was thinned."""
    for file in ("zarr.json", "sketch/zarr.json"):
        content = json.loads((path / file).read_text())
        content["attributes"]["ome"]["multiscales"][0].update(name="renamed", type="other words")
        (path / file).write_text(json.dumps(content))
    assert jobs.verify(path, sample=0).is_sound


def test_every_damaged_level_is_named(path):
    for file in ("0/zarr.json", "sketch/2/zarr.json"):
        (path / file).write_text("{}")
    found = jobs.verify(path)
    assert [p.where for p in found.problems] == ["0/zarr.json", "sketch/2/zarr.json"]
    assert "No chunk was read" in found.notes[0]


def test_missing_model_skips_the_comparison_and_says_so(original, path, monkeypatch):
    def forget(content):
        content["attributes"]["napari_msgan"]["model_path"] = None

    content = json.loads((path / "zarr.json").read_text())
    forget(content)
    (path / "zarr.json").write_text(json.dumps(content))
    found = jobs.verify(path)
    assert found.is_sound
    assert found.compared == 0
    assert "No tile was made again" in found.notes[0]
    assert jobs.verify(path, model=original.parent / "model").compared == 8


def test_another_torch_is_told_and_its_differences_are_kept(path):
    content = json.loads((path / "zarr.json").read_text())
    content["attributes"]["napari_msgan"]["fingerprint"]["torch"] = "1.0"
    (path / "zarr.json").write_text(json.dumps(content))
    found = jobs.verify(path)
    assert found.is_sound
    assert "made with torch 1.0" in found.notes[0]


def test_tiles_of_another_kind_of_machine_are_not_removed(path, monkeypatch):
    """In bfloat16 good ones differ by more than the last bit of the stored type."""
    store = open_pyramid(path, writable=True)
    box = Box.of_shape(store.geometry.shape_at(0))
    changed = store.read(0, box) + np.asarray(40, store.info.dtype)
    with store.writing():
        store.write(0, box, changed)
    assert any(problem.can_be_repaired for problem in jobs.verify(path).problems)  # here it is none
    here = machine_name()
    monkeypatch.setattr("platform.machine", lambda: "PDP-11")
    found = jobs.verify(path, repair=True)
    assert f"made on {here}, this is {platform.system()} pdp-11" in found.notes[0]
    assert found.problems
    assert not any(problem.can_be_repaired for problem in found.problems)
    np.testing.assert_array_equal(open_pyramid(path).read(0, box), changed)


@pytest.mark.parametrize(
    ("system", "processor", "name"),
    [
        ("Linux", "x86_64", "Linux x86-64"),
        ("Windows", "AMD64", "Windows x86-64"),
        ("Darwin", "arm64", "Darwin arm64"),
        ("Linux", "aarch64", "Linux arm64"),
    ],
)
def test_a_machine_has_one_name_wherever_it_is_asked(monkeypatch, system, processor, name):
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: processor)
    assert machine_name() == name


def test_tiles_of_an_earlier_arithmetic_are_neither_damaged_nor_gone_on_with(path, original):
    """As stores in bfloat16 that were begun before more layers stayed in float32."""
    content = json.loads((path / "zarr.json").read_text())
    content["attributes"]["napari_msgan"]["fingerprint"]["precision"] = "bf16"
    (path / "zarr.json").write_text(json.dumps(content))
    assert "arithmetic" not in content["attributes"]["napari_msgan"]["fingerprint"]
    found = jobs.verify(path)
    assert "another version of this program, which computes bf16 differently" in found.notes[0]
    assert not any(problem.can_be_repaired for problem in found.problems)
    with pytest.raises(StoreError, match="computes bf16 in another way"):
        jobs.refine(path, model=original.parent / "model", scale=1)


def test_gpu_tiles_are_not_compared_without_one(path):
    content = json.loads((path / "zarr.json").read_text())
    content["attributes"]["napari_msgan"]["fingerprint"]["device"] = "cuda"
    (path / "zarr.json").write_text(json.dumps(content))
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    found = jobs.verify(path)
    assert found.compared == 0
    assert "made on a GPU" in found.notes[0]


def test_another_gpu_is_an_excuse(path, monkeypatch):
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "B")
    cpu = open_pyramid(path).info.fingerprint
    on_a, on_b, unknown = (
        cpu.model_copy(update={"device": "cuda", "gpu": gpu}) for gpu in ("A", "B", None)
    )
    assert excuse_of(cpu) == excuse_of(on_b) == ""
    assert excuse_of(on_a) == "made on A, this is B"
    assert excuse_of(unknown) == "made on an unknown GPU, this is B"


def test_sample_is_spread_over_the_scales_and_always_the_same(path):
    store = open_pyramid(path)
    from napari_msgan.verifying.findings import Findings
    from napari_msgan.verifying.tiles import TileCheck

    samples = [TileCheck(store, Findings())._sample(8) for _ in range(2)]
    assert samples[0] == samples[1]
    assert {tile.scale for tile in samples[0]} == {0, 1, 2}
    assert len(set(samples[0])) == 8


def test_closing_stops(path):
    steps = jobs.iter_verify(path, repair=True)
    next(steps)
    steps.close()
    with open_pyramid(path, writable=True).writing():  # the lock is free again
        pass


def test_missing_store_is_refused(tmp_path):
    with pytest.raises(StoreError, match="there is no store at"):
        jobs.verify(tmp_path / "nowhere")


WRITER = """
import sys
from napari_msgan.pyramid import open_pyramid
with open_pyramid(sys.argv[1], writable=True).writing():
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_repair_is_refused_while_another_process_writes_and_checking_is_not(path):
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "writing\n"
        leftover = path / "0" / "c" / "9.0123.partial"
        leftover.write_bytes(b"in the middle")
        with pytest.raises(StoreError, match=f"being written by process {process.pid}"):
            jobs.verify(path, repair=True)
        found = jobs.verify(path, sample=0)
        assert found.is_sound
        assert f"written by process {process.pid}:" in found.notes[0]
        process.kill()
    # the killed writer left its lock, its process id and the torn file
    assert not jobs.verify(path, sample=0).is_sound
    assert jobs.verify(path, sample=0, repair=True).is_sound
    assert not leftover.exists()


@pytest.mark.parametrize("event", ["ends", "begins"])
def test_a_job_that_ends_or_begins_while_the_files_are_listed_leaves_nothing_to_accuse(
    path, monkeypatch, event
):
    writing = open_pyramid(path, writable=True).writing()
    half = path / "0/c/0.abc.partial"
    half.parent.mkdir(parents=True, exist_ok=True)
    listed = run.iter_strays

    def begin():
        writing.__enter__()
        half.touch()

    def end():
        half.unlink()
        writing.__exit__(None, None, None)

    def meanwhile(*arguments):
        if event == "begins":
            begin()
        yield from listed(*arguments)
        if event == "ends":
            end()

    if event == "ends":
        begin()
    monkeypatch.setattr(run, "iter_strays", meanwhile)
    found = jobs.verify(path, sample=0)
    assert found.problems == ()
    assert any("being written by" in note for note in found.notes)
    if event == "begins":
        end()


def test_a_store_without_its_scale_0_is_noted_and_refining_makes_it(path):
    assert not [note for note in jobs.verify(path, sample=0).notes if "scale 0" in note]
    for level in range(3):  # as after a kill before the first tile
        shutil.rmtree(path / f"{level}/c")
    assert [note for note in jobs.verify(path, sample=0).notes if "scale 0" in note]
    jobs.refine(path, device="cpu")
    found = jobs.verify(path, sample=0)
    assert (found.problems, [note for note in found.notes if "scale 0" in note]) == ((), [])
