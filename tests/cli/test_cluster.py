"""``--cluster`` of generate, refine and export: a real scheduler, Ctrl-C, errors in one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile

from napari_msgan.geometry import Box
from napari_msgan.pyramid import open_pyramid
from tests.cli.helpers import command, picture, pixels


def dask(*arguments):
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    loopback = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
    return subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments, *loopback],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _whole(store):
    return Box.of_shape(store.geometry.shape)


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """A scheduler and a worker, started as the how-to page says."""
    folder = tmp_path_factory.mktemp("dask")
    file = folder / "scheduler.json"
    both = [dask("scheduler", "--port", "0", "--scheduler-file", str(file))]
    both.append(
        dask(
            *("worker", "--scheduler-file", str(file), "--nthreads", "1", "--memory-limit", "0"),
            *("--local-directory", str(folder)),
        )
    )
    until = time.monotonic() + 120
    while not file.exists():
        assert time.monotonic() < until
        time.sleep(0.1)
    yield json.loads(file.read_text())["address"]
    for process in reversed(both):
        process.terminate()
        process.wait(60)


def test_existing_scheduler_refines_and_exports(cli, scheduler, image, model, finished, tmp_path):
    store, out = tmp_path / "a.ome.zarr", tmp_path / "b.ome.zarr"
    ended = cli("generate", image, store, "--model", model, "--cluster", scheduler)
    assert ended.code == 0, ended
    for ours, theirs in zip(pixels(store), pixels(finished), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert cli("export", store, out, "--cluster", scheduler, "-q").code == 0
    again = cli("refine", store, "--region", "0:9,0:9", "--cluster", scheduler)
    assert "no tile was made" in again.out


def test_ctrl_c_ends_with_130_and_leaves_a_usable_store(cli, model, tmp_path):
    store = tmp_path / "large.ome.zarr"
    tifffile.imwrite(tmp_path / "large.tif", picture((1200, 1200), seed=0))
    ended = cli("generate", tmp_path / "large.tif", store, "--model", model, "--scale", "0")
    assert ended.code == 0, ended
    opened = open_pyramid(store)
    # Ctrl-C of a terminal reaches the processes of its group: here the command and its workers.
    process = subprocess.Popen(
        command("refine", store, "--region", str(_whole(opened)), "--cluster", "local:1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 200
    while not open_pyramid(store).refined_chunks(1).any():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 130, err
    assert "stopped. What is finished stays" in err
    assert "Traceback" not in err
    assert not open_pyramid(store).refined_chunks(2).all()
    assert [path for path in store.rglob("*") if "partial" in path.name] == []
    with open_pyramid(store, writable=True).writing():  # nobody holds the lock
        pass


def test_cluster_that_is_none_is_refused_in_one_line(cli, store, monkeypatch):
    cli("refine", store, "--region", "0:9,0:9", "--cluster", "four").check_refused("local:N")
    monkeypatch.setattr("napari_msgan.scale_out.cluster._CONNECT_S", 0.5)
    ended = cli("refine", store, "--region", "0:9,0:9", "--cluster", "tcp://127.0.0.1:9")
    ended.check_refused("no Dask scheduler answers at tcp://127.0.0.1:9")


def test_export_of_one_file_by_a_cluster_is_refused(cli, store, tmp_path):
    ended = cli("export", store, tmp_path / "a.ome.tif", "--cluster", "local:2")
    ended.check_refused("which one process has to write")
