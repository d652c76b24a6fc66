"""The parts of the engine benchmark that need no peers."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.engine.__main__ import _parser
from benchmarks.engine.fine import FineGrid, FineNetwork
from benchmarks.engine.measure import Meter, difference, measure_process
from benchmarks.engine.rows import ROWS, measure
from benchmarks.engine.scene import Scene, prepare_store, whole_pass
from benchmarks.engine.table import (
    measured_keys,
    ratio_to_limit,
    read_lines,
    text_table,
    write_lines,
)
from napari_msgan import open_pyramid
from napari_msgan.geometry import Box
from napari_msgan.networks import PatchGenerator
from tests.models import write_model


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """An image of 64 pixels with a small model: the finest scale is missing, the answer known.

    The model has a random part, which the benchmark leaves out.
    """
    folder = tmp_path_factory.mktemp("engine")
    model = write_model(folder / "model", n_scales=2, base_size=32, noise=0.2)

    class Small(Scene):
        model_name = str(model)

    scene = Small(folder, 2, 64)
    prepare_store(scene)
    return scene


def _line(row="limit", round_="0", **values):
    key = {"axes": "3", "size": "256", "precision": "fp32", "row": row, "round": round_}
    empty = {"mvoxel_s": "1", "seconds": "2", "start_s": "", "cpu_s": "3", "peak_mb": "4"}
    rest = {"bytes_per_voxel": "5", "largest_difference": "", "equal_share": ""}
    return key | empty | rest | {"coarse_reads": "", "sketch_reads": "", "note": ""} | values


def _row_of(title, text):
    line = next(line for line in text.splitlines() if title in line)
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_ratio_to_the_limit_is_that_of_the_same_round():
    limits = [
        _line(mvoxel_s="10"),
        _line(round_="1", mvoxel_s="1"),
        _line(round_="2", mvoxel_s="4"),
    ]
    ours = [
        _line("refine", mvoxel_s="9"),
        _line("refine", round_="1", mvoxel_s="0.8"),
        _line("refine", round_="2", mvoxel_s="3.8"),
    ]
    assert ratio_to_limit(ours, limits) == pytest.approx(0.9)
    medians = 3.8 / 4  # what it would be if rounds were not paired
    assert ratio_to_limit(ours, limits) != pytest.approx(medians)


def test_limit_is_the_faster_bare_network_of_the_round():
    ours = [_line("refine", mvoxel_s="6")]
    slow, fast = _line(mvoxel_s="8"), _line("limit-kept", mvoxel_s="10")
    assert ratio_to_limit(ours, [slow]) == pytest.approx(0.75)
    assert ratio_to_limit(ours, [slow, fast]) == ratio_to_limit(ours, [fast, slow]) == 0.6
    assert _row_of(ROWS["refine"].title, text_table([*ours, slow, fast]))[3] == "0.60"


def test_ratio_without_a_limit_of_that_round_is_left_out():
    assert ratio_to_limit([_line("refine", round_="7")], [_line()]) is None


def test_table_shows_medians_and_rounds():
    lines = [_line("refine", str(i), cpu_s=cpu) for i, cpu in enumerate(("7", "100", "8"))]
    cells = _row_of(ROWS["refine"].title, text_table(lines))
    assert "8" in cells
    assert cells[-1] == "3"


def test_only_all_voxels_are_100_percent():
    shown = [
        _row_of(ROWS["tiler"].title, text_table([_line("tiler", equal_share=share)]))
        for share in ("1", "0.99999")
    ]
    assert "100 %" in shown[0]
    assert "99.99 %" in shown[1]


def test_failed_row_says_why_and_is_measured_again(tmp_path):
    failed = _line("tiler", mvoxel_s="", note="failed (1): No module named 'tiler'")
    write_lines(tmp_path / "rows.csv", [_line(), failed])
    lines = read_lines(tmp_path / "rows.csv")
    assert "No module named 'tiler'" in _row_of(ROWS["tiler"].title, text_table(lines))[2]
    assert measured_keys(lines) == {("3", "256", "fp32", "limit", "0")}


def test_difference_of_equal_images_is_none():
    whole = np.arange(200 * 3, dtype=np.int16).reshape(200, 3)
    assert difference(lambda rows: whole[rows], whole, span=1600) == (0, 1)


def test_one_wrong_voxel_is_found_in_any_slab():
    whole = np.zeros((200, 3), np.int16)
    for row in (0, 63, 64, 199):
        made = whole.copy()
        made[row, 1] = -16
        largest, equal = difference(lambda rows, made=made: made[rows], whole, span=1600)
        assert largest == pytest.approx(255 / 100)
        assert equal == 599 / 600


def test_images_of_another_type_are_not_compared():
    whole = np.zeros((4, 4), np.uint16)
    with pytest.raises(ValueError, match="cannot be compared"):
        difference(lambda rows: whole[rows].astype(np.float32), whole, span=1)


@pytest.mark.parametrize("factor", [(2, 2), (2, 2, 2), (1, 2, 2)], ids=str)
def test_wrapped_network_is_the_network_itself(factor):
    torch.manual_seed(0)
    network = PatchGenerator(factor, width=4, blocks=1).eval()
    halo = network.halo
    coarse = 2 * torch.rand(1, 1, *(h + 9 for h in halo)) - 1
    fine = coarse
    for axis, f in enumerate(factor, 2):
        fine = fine.repeat_interleave(f, axis)
    sketch = torch.rand_like(fine)
    window = torch.cat([fine, sketch], dim=1)
    with torch.no_grad():
        right = network(coarse, sketch)
        margins = [h * f for h, f in zip(halo, factor, strict=True)]
        inside = (..., *(slice(m, -m) for m in margins))
        for around in ("padded", "in window"):
            made = FineNetwork(network, factor, halo, around)(window)
            assert made.shape == sketch.shape
            torch.testing.assert_close(made[inside], right, rtol=0, atol=1e-5)
        padded = FineNetwork(network, factor, halo, "padded")(window)
    # Windows that start between coarse voxels are not what the wrapper is for.
    shifted = FineNetwork(network, factor, halo, "padded")(window.roll(1, dims=-1))
    assert not torch.allclose(shifted[inside], right, atol=1e-3)
    assert padded[(0, 0, *(0 for _ in factor))] != 0


def test_fine_grid_reads_what_the_network_reads(scene):
    grid = FineGrid(scene.store())
    store, model = scene.store(), scene.model()
    whole = grid.read_all()
    assert whole.shape == grid.shape == (2, 64, 64)
    part = grid[(slice(None), slice(5, 40), slice(7, 64))]
    np.testing.assert_array_equal(part, whole[:, 5:40, 7:64])
    network = FineNetwork(model.generator(1), model.factor(1), model.halo(1), "padded")
    with torch.no_grad():
        made = network(torch.from_numpy(whole)[None])[0, 0].numpy()
    low, high = store.info.window
    right = np.load(scene.whole).astype(np.float64)
    assert np.abs((made + 1) / 2 * (high - low) + low - right).max() <= 0.5 + 0.02


@pytest.mark.parametrize("row", ["refine", "refine-again"])
def test_refine_job_equals_the_whole_pass(row, scene):
    columns = measure(ROWS[row], scene, "fp32")
    assert columns["largest_difference"] <= 255 / 65535  # one stored step
    assert columns["equal_share"] > 0.999
    assert columns["mvoxel_s"] == pytest.approx(64 * 64 / columns["seconds"] / 1e6)
    # 4 tiles of 32 px, with a halo of 3 coarse pixels, read chunks of 16 px
    assert columns["coarse_reads"] >= 1
    assert columns["sketch_reads"] >= 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("row", ["refine-gpu", "refine-gpu-again"])
def test_refine_job_on_a_gpu_is_near_the_whole_pass(row, scene):
    columns = measure(ROWS[row], scene, "fp32")
    assert columns["largest_difference"] <= 1
    assert columns["gpu_mb"] > 0
    assert _row_of(ROWS[row].title, text_table([_line(row, gpu_mb=str(columns["gpu_mb"]))]))[8]


def test_rows_of_a_gpu_are_measured_only_where_there_is_one():
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.engine", "--help"],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert "program-gpu" in ended.stdout
    asked = _parser().parse_args([]).rows
    assert ("program-gpu" in asked) == torch.cuda.is_available()
    assert {"limit", "refine", "tiler"} < {*asked}


def test_memory_of_a_gpu_has_a_column():
    old, new = _line("refine-gpu"), _line("refine-gpu", "1", gpu_mb="1234")
    assert "1234" in _row_of(ROWS["refine-gpu"].title, text_table([old, new]))


def test_whole_pass_of_another_coarse_image_is_told_apart(scene, tmp_path):
    scene.copy_store(tmp_path / "other.ome.zarr")
    model = scene.model()
    store = open_pyramid(tmp_path / "other.ome.zarr", writable=True)
    with store.writing():
        box = Box.of_shape(store.geometry.shape_at(0))
        store.write(0, box, store.read(0, box) // 2)
    made = whole_pass(store, model)
    right = np.load(scene.whole)
    assert difference(lambda rows: made[rows], right, 65535)[0] > 1
    assert np.array_equal(whole_pass(scene.store(), model), right), "the links were written to"


def test_limit_counts_whole_tiles(scene):
    columns = measure(ROWS["limit"], scene, "fp32")
    assert "largest_difference" not in columns
    per_tile = 32 * 32
    assert columns["mvoxel_s"] * columns["seconds"] * 1e6 / per_tile == pytest.approx(
        round(columns["mvoxel_s"] * columns["seconds"] * 1e6 / per_tile)
    )


def test_memory_that_is_used_and_given_back_is_in_the_peak():
    with Meter() as meter:
        block = np.ones(50_000_000, np.uint8)
        last = time.monotonic() + 30  # a busy machine may not look at once
        while meter.peak_bytes < 30_000_000 and time.monotonic() < last:
            time.sleep(0.001)
        del block
    assert meter.peak_bytes > 30_000_000
    with Meter() as idle:
        pass
    assert idle.peak_bytes < 10_000_000


def test_process_that_fails_says_what_it_said():
    with pytest.raises(SystemExit, match="oh no"):
        measure_process([sys.executable, "-c", "raise SystemExit('oh no')"])
    assert measure_process([sys.executable, "-c", "pass"])["seconds"] > 0


FIRST_JOB = """
import sys
from pathlib import Path
from benchmarks.engine.ours import refine_job
from benchmarks.engine.scene import Job, Scene

folder = Path(sys.argv[1])

class Small(Scene):
    model_name = str(folder / "model")

job = folder / "first"
job.mkdir()
run = refine_job(Job(Small(folder, 2, 64), "fp32", job))
before = set(sys.modules)
run()
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before} - {"encodings"}))
"""


def test_first_job_of_a_process_imports_nothing_while_it_is_timed(scene):
    command = [sys.executable, "-c", FIRST_JOB, str(scene.folder.parent)]
    root = Path(__file__).parents[2]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert ended.stdout.strip() == ""
