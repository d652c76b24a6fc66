import json
import shutil

import tifffile

from napari_msgan.cli._info import _recipe
from napari_msgan.pyramid import Fingerprint, open_pyramid
from tests.cli.helpers import picture, pixels


def test_gpu_that_made_a_store_is_named():
    made = Fingerprint(device="cuda", precision="bf16", torch="2.13", tile_shape=(8, 8), gpu="A")
    assert _recipe(made) == "bf16 on A, torch 2.13"
    assert _recipe(made.model_copy(update={"gpu": None})) == "bf16 on cuda, torch 2.13"
    on_mac = made.model_copy(update={"gpu": None, "machine": "Darwin arm64"})
    assert _recipe(on_mac) == "bf16 on cuda, torch 2.13, Darwin arm64"


def test_tables_say_what_is_in_the_store(cli, finished):
    ended = cli("info", finished)
    assert ended.code == 0
    info = open_pyramid(finished).info
    for text in (
        str(finished),
        f"small, hash {info.model_sha256[:12]}",
        "image of 90 x 110, no voxel size",
        "0 (no random part)",
        "fp32 on cpu, torch",
        "not for diagnosis",
    ):
        assert text in ended.out
    assert "image.tif" not in ended.out
    rows = [line.split() for line in ended.out.splitlines()[-3:]]
    assert [row[:2] for row in rows] == [["0", "2"], ["1", "1"], ["2", "0"]]
    assert [" ".join(row[2:5]) for row in rows] == ["23 x 28", "45 x 55", "90 x 110"]
    assert all("100.0" in row for row in rows)


def test_voxel_sizes_are_in_mm(cli, originals, tmp_path):
    source, out = tmp_path / "v.tif", tmp_path / "a.ome.zarr"
    tifffile.imwrite(source, picture((8, 20, 24), seed=0))
    generate = ("generate", source, out, "--model", originals / "solid", "--scale", "0")
    assert cli(*generate, "--spacing", "1.3").code == 0
    lines = cli("info", out).out.splitlines()
    assert any("image of 8 x 20 x 24, 1.3 mm" in line for line in lines)
    assert any("scale 1 (1 mm); finer detail is invented" in line for line in lines)
    assert [" ".join(line.split()[7:9]) for line in lines[-2:]] == ["2 mm", "1 mm"]


def test_json_counts_the_chunks_that_are_there(cli, finished, store):
    whole = json.loads(cli("info", finished, "--json").out)
    assert whole["model_name"] == "small"
    assert [s["chunks"] for s in whole["scales"]] == [4, 12, 42]
    assert [s["chunks_refined"] for s in whole["scales"]] == [4, 12, 42]
    (store / "0" / "c" / "0" / "0").unlink()
    less = json.loads(cli("info", store, "--json").out)["scales"]
    assert [s["chunks_refined"] for s in less] == [4, 12, 41]
    assert less[2]["refined_fraction"] == (90 * 110 - 256) / (90 * 110)
    assert 0.05 < less[2]["sketch_density"] < 0.1


def test_store_without_tiles_or_model_can_be_shown(cli, image, model, tmp_path):
    out = tmp_path / "a.ome.zarr"
    assert cli("generate", image, out, "--model", model, "--scale", "0", "--keep-name").code == 0
    ended = cli("info", out)
    assert "image.tif" in ended.out
    assert ended.out.splitlines()[-1].split()[-4] == "0.0"
    assert pixels(out)[2].max() == 0


def test_what_is_no_store_is_refused(cli, image, tmp_path):
    cli("info", tmp_path / "no.ome.zarr").check_refused("there is no store at")
    cli("info", image).check_refused("there is no store at")
    cli("info", tmp_path).check_refused("is not an OME-Zarr 0.5 group")


def test_an_export_is_told_from_a_store(cli, finished, tmp_path):
    out = tmp_path / "e.ome.zarr"
    assert cli("export", finished, out).code == 0
    cli("info", out).check_refused("an exported image, not a store")


def test_stores_that_were_made_in_napari_are_listed(cli, finished, tmp_path, monkeypatch):
    folder = tmp_path / "stores"
    monkeypatch.setenv("NAPARI_MSGAN_STORES", str(folder))
    assert f"There are no stores in {folder}" in cli("info").out
    shutil.copytree(finished, folder / "b.ome.zarr")
    broken = shutil.copytree(finished, folder / "a.ome.zarr")
    (broken / "0" / "zarr.json").unlink()
    (folder / "c.ome.zarr").mkdir()  # no store
    ended = cli("info")
    assert ended.code == 0
    _head, first, second, problem, _, end = ended.out.splitlines()
    assert first.split()[:4] == ["a.ome.zarr", "cannot", "be", "used"]
    assert problem.startswith("problem with a.ome.zarr")
    assert second.split()[:5] == ["b.ome.zarr", "small", "90", "x", "110"]
    assert "100 %, 100 %, 100 %" in second
    assert f"in {folder}. Delete" in end
    listed = json.loads(cli("info", "--json").out)
    sizes = [sum(f.stat().st_size for f in p.rglob("*") if f.is_file()) for p in (broken, finished)]
    assert [store["bytes"] for store in listed["stores"]] == sizes
    assert listed["stores"][1]["problem"] is None
