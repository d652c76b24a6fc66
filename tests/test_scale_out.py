"""Workers of a real cluster make the bits that one process makes, whatever happens to them."""

import itertools
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace

import dask
import distributed
import numpy as np
import pytest

from napari_msgan import jobs
from napari_msgan.errors import JobError, StoreError
from napari_msgan.geometry import Box
from napari_msgan.io import ome_zarr, read_volume
from napari_msgan.model import find_by_identity, load_folder
from napari_msgan.pyramid import PyramidStore, open_pyramid
from napari_msgan.scale_out import blocks, open_cluster, worker
from napari_msgan.scale_out.calls import Calls
from napari_msgan.scale_out.machine import own_device
from tests.models import write_model
from tests.test_refiner import assert_equal_stores, picture


@pytest.fixture(scope="module")
def cluster():
    with open_cluster("local:2") as opened:
        yield opened


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A model, and a store that one process refined with one thread, and its beginning."""
    folder = tmp_path_factory.mktemp("job")
    model = load_folder(write_model(folder / "model"))
    whole = jobs.generate(picture(2), folder / "whole.ome.zarr", model, device="cpu", workers=1)
    start = jobs.generate(picture(2), folder / "start.ome.zarr", model, device="cpu", scale=0)
    return model, whole, start


@pytest.fixture
def fresh(job, tmp_path):
    return Path(shutil.copytree(job[2].path, tmp_path / "copy.ome.zarr"))


def leftovers(store):
    return [path for path in store.rglob("*") if "partial" in path.name]


def test_two_workers_make_the_bits_of_one_process(job, fresh, cluster):
    steps = list(jobs.iter_refine(fresh, model=job[0], cluster=cluster))
    assert [step.done for step in steps] == list(range(1, len(steps) + 1))
    assert all(steps[-1].store.refined_fraction(s) == 1 for s in range(3))
    assert_equal_stores(open_pyramid(fresh), job[1])
    assert leftovers(fresh) == []


def test_comparison_notices_another_model(job, fresh, cluster, tmp_path):
    other = load_folder(write_model(tmp_path / "other", strength=3.001))
    store = jobs.generate(picture(2), tmp_path / "o.ome.zarr", other, cluster=cluster)
    with pytest.raises(AssertionError):
        assert_equal_stores(store, job[1])


def test_worker_takes_a_model_that_it_does_not_have(job, tmp_path, cluster, monkeypatch):
    folder = write_model(tmp_path / "there", seed=7)
    store = jobs.generate(
        picture(2), tmp_path / "s.ome.zarr", load_folder(folder), device="cpu", scale=0
    )
    folder.rename(tmp_path / "elsewhere")
    model = load_folder(tmp_path / "elsewhere")
    identity = model.spec.identity
    with pytest.raises(Exception, match="is neither bundled"):
        find_by_identity(identity, store.info.model_path)
    store = jobs.refine(store.path, model=model, cluster=cluster)
    assert store.refined_fraction(2) == 1
    alone = jobs.generate(picture(2), tmp_path / "a.ome.zarr", model, device="cpu", workers=1)
    assert_equal_stores(store, alone)


def test_killed_worker_costs_only_its_unfinished_tiles(job, fresh, cluster):
    steps = jobs.iter_refine(fresh, model=job[0], cluster=cluster)
    made = [next(steps).report.tile for _ in range(3)]
    victim = next(iter(cluster.client.run(os.getpid).values()))
    os.kill(victim, signal.SIGKILL)
    made += [step.report.tile for step in steps]
    assert len(made) == len(set(made))  # none that was finished is made again
    assert victim not in cluster.client.run(os.getpid).values()
    assert_equal_stores(open_pyramid(fresh), job[1])
    assert leftovers(fresh) == []


def _die_in_a_chunk(flag):
    """Let the first chunk of this process that is half written be its last."""
    import zarr.storage._local as local

    replace, write = Path.replace, local._atomic_write

    def die():
        with suppress(FileExistsError):
            Path(flag).touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)

    def replace_or_die(path, target):
        if "/c/" in str(target):
            die()
        return replace(path, target)

    @contextmanager
    def write_or_die(path, mode, exclusive=False):
        with write(path, mode, exclusive) as file:
            if path.name != "zarr.json":
                file.write(b"half")
                file.flush()
                die()
                file.seek(0)
            yield file

    Path.replace, local._atomic_write = replace_or_die, write_or_die


@pytest.mark.skipif(os.name == "nt", reason="Windows kills in another way")
def test_what_a_killed_worker_left_half_written_is_gone_at_the_end(job, fresh, tmp_path):
    boxes = Box((0, 0), (32, 32)), Box((64, 48), (101, 83))
    with open_cluster("local:2") as own:
        own.client.run(_die_in_a_chunk, str(tmp_path / "refined"))
        store = open_pyramid(fresh, writable=True)
        with store.writing():  # as from napari, for several rectangles
            for box in boxes:
                jobs.refine(store, region=box, model=job[0], cluster=own)
        assert (tmp_path / "refined").exists()
        assert [*fresh.rglob("*.partial")] == []
        assert jobs.verify(fresh, sample=0).problems == ()
        own.client.run(_die_in_a_chunk, str(tmp_path / "exported"))
        out = jobs.export(store, tmp_path / "out.ome.zarr", cluster=own)
    assert (tmp_path / "exported").exists()
    assert [*out.rglob("*partial*")] == []


def test_worker_that_had_looked_for_the_mark_does_not_write_for_the_next_owner(
    job, fresh, monkeypatch
):
    store = jobs.refine(fresh, model=job[0], device="cpu")
    helper, owner = (open_pyramid(fresh, writable=True) for _ in range(2))
    mark = store.put_mark()
    helper.assist(mark)
    core = store.tiling.core(store.tiling.tiles(2, Box((0, 0), (32, 32)))[0])
    values, codec = store.read(2, core), type(helper.level(2).codec)
    encode, taken = codec.encode, []

    def encode_slowly(self, chunk):
        if not taken:  # meanwhile the coordinator dies, and somebody else takes the lock
            taken.append(owner.writing())
            taken[0].__enter__()
            owner.clear(1, Box.of_shape(owner.geometry.shape_at(1)))
        return encode(self, chunk)

    monkeypatch.setattr(codec, "encode", encode_slowly)
    with pytest.raises(StoreError, match="is no longer written to"):
        helper.write(2, core, values)
    taken[0].__exit__(None, None, None)
    assert not owner.look(2, core)


def test_closed_job_leaves_a_store_that_is_gone_on_with(job, fresh, cluster):
    steps = jobs.iter_refine(fresh, model=job[0], cluster=cluster)
    list(itertools.islice(steps, 4))
    steps.close()
    half = open_pyramid(fresh, writable=True)
    before = [half.refined_chunks(s).copy() for s in range(3)]
    assert not before[2].all()
    with half.writing():  # the lock is free, and no worker writes any more
        half.reload()
        assert all((half.refined_chunks(s) == before[s]).all() for s in range(3))
    assert leftovers(fresh) == []
    assert_equal_stores(jobs.refine(fresh, model=job[0], device="cpu"), job[1])


def test_workers_write_nothing_more_once_somebody_else_may_be_writing(job, fresh, cluster):
    steps = jobs.iter_refine(fresh, model=job[0], cluster=cluster)
    store = next(steps).store
    (mark,) = store.place.marks()
    store.place.remove(mark)  # as who takes the lock of a killed coordinator does
    with pytest.raises(JobError, match="is no longer written to"):
        deque(steps, maxlen=0)
    assert leftovers(fresh) == []
    assert_equal_stores(jobs.refine(fresh, model=job[0], device="cpu"), job[1])


def test_tile_that_fails_is_named(job, fresh, cluster):
    store = open_pyramid(fresh)
    (chunk,) = (fresh / "sketch" / "0" / "c").glob("0/0")
    chunk.write_bytes(b"no chunk")
    with pytest.raises(JobError) as caught:
        jobs.refine(fresh, model=job[0], cluster=cluster)
    notes = " ".join(caught.value.__notes__)
    assert "while generating tile 0:" in notes
    assert f"of scale {store.geometry.finest_scale} of {fresh}" in notes


def test_export_by_workers_is_that_of_one_process(job, tmp_path, cluster):
    for grid in ("store", "source"):
        ours, theirs = tmp_path / f"{grid}-1.ome.zarr", tmp_path / f"{grid}-2.ome.zarr"
        jobs.export(job[2], ours, grid=grid)
        seen = []
        jobs.export(job[2], theirs, grid=grid, cluster=cluster, progress=seen.append)
        assert seen[-1].done == 1
        files = [sorted(p.relative_to(f) for p in f.rglob("*")) for f in (ours, theirs)]
        assert files[0] == files[1]
        for name in files[0]:
            if (ours / name).is_file():
                assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
        assert np.ptp(np.asarray(read_volume(theirs).data)) > 0


def test_export_goes_on_where_workers_leave(job, tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(ome_zarr, "_CHUNKS", {2: (16, 16)})
    monkeypatch.setattr(blocks, "_CHUNKS_PER_BLOCK", {2: 1})
    room = itertools.chain([20], itertools.repeat(1))  # for 20 calls, of which some run, then for 1
    monkeypatch.setattr(Calls, "capacity", property(lambda calls: next(room)))
    out = tmp_path / "out.ome.zarr"
    jobs.export(job[1], out, cluster=cluster)
    np.testing.assert_array_equal(np.asarray(read_volume(out).data), job[1].array(2)[:])


def test_export_of_a_store_that_was_begun_meanwhile(job, tmp_path, cluster):
    store = open_pyramid(shutil.copytree(job[2].path, tmp_path / "s.ome.zarr"))
    described = store.path / "zarr.json"
    text = described.read_text()
    content = json.loads(text)
    content["attributes"]["napari_msgan"]["fingerprint"] = None
    described.write_text(json.dumps(content))
    begun = open_pyramid(store.path)  # by a process that does not see what comes
    described.write_text(text)
    jobs.export(begun, tmp_path / "a.ome.zarr", cluster=cluster)
    jobs.export(store, tmp_path / "b.ome.zarr")
    a, b = (read_volume(tmp_path / name).data[:, :] for name in ("a.ome.zarr", "b.ome.zarr"))
    np.testing.assert_array_equal(a, b)


def test_cancelled_export_leaves_nothing(job, tmp_path, cluster):
    def cancel(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jobs.export(job[1], tmp_path / "out.ome.zarr", cluster=cluster, progress=cancel)
    assert list(tmp_path.iterdir()) == []


def test_worker_that_sees_another_folder_is_refused(job, fresh, cluster, monkeypatch):
    monkeypatch.setattr(PyramidStore, "put_mark", lambda store: ".absent.partial")
    with pytest.raises(JobError, match="sees another store"):
        jobs.refine(fresh, model=job[0], cluster=cluster)


@pytest.mark.parametrize("name", ["__version__", "torch"])
def test_worker_of_another_version_is_refused(job, fresh, cluster, monkeypatch, name):
    import torch

    if name == "torch":
        monkeypatch.setattr(torch, "__version__", "1.2.3")
    else:
        monkeypatch.setattr("napari_msgan.scale_out.tiles.__version__", "9.9")
    with pytest.raises(JobError, match=r"the job was started by .*Install the same versions"):
        jobs.refine(fresh, model=job[0], cluster=cluster)


def test_gpu_that_no_worker_has_is_refused(job, fresh, cluster):
    with pytest.raises(JobError, match=r"worker tcp://127\.0\.0\.1:[0-9]+ sees no GPU"):
        jobs.refine(fresh, model=job[0], cluster=cluster, device="cuda")


def _be(kind):
    import platform

    platform.machine = lambda: kind


def test_a_store_says_which_kind_of_machine_its_workers_are(job, tmp_path, cluster):
    """Else `verify --repair` removes good tiles in bfloat16 where the coordinator is."""
    here, one = platform.machine(), sorted(cluster.workers)[0]
    try:
        cluster.client.run(_be, "aarch64")
        store = jobs.generate(picture(2), tmp_path / "a.ome.zarr", job[0], scale=0, cluster=cluster)
        assert store.info.fingerprint.machine == f"{platform.system()} arm64"
        cluster.client.run(_be, "x86_64", workers=[one])
        both = "{0} arm64 and {0} x86-64".format(platform.system())
        with pytest.warns(UserWarning, match=f"on {platform.system()} arm64, this is {both}"):
            jobs.refine(store, model=job[0], scale=1, cluster=cluster)
    finally:
        cluster.client.run(_be, here)


@pytest.mark.parametrize(
    ("name", "count", "device"),
    [
        ("gpu-0", 4, "cuda:0"),
        ("gpu-3", 4, "cuda:3"),
        (2, 4, "cuda:2"),  # of local:4
        ("node-b-5", 4, "cuda:1"),
        ("gpu-3", 1, "cuda:0"),  # it sees its own alone
        ("tcp://10.0.0.1:40003", 4, "cuda:0"),  # a name that nobody gave
        ("worker", 4, "cuda:0"),
    ],
)
def test_worker_takes_the_gpu_of_its_number(monkeypatch, name, count, device):
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.setattr("distributed.get_worker", lambda: SimpleNamespace(name=name))
    assert own_device("cuda") == device
    assert own_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("workers", "capacity"), [({"a": 1}, 6), ({"a": 1, "b": 4}, 15), ({}, 6)], ids=str
)
def test_calls_in_flight(workers, capacity):
    """Three for each thread; more for one thread alone, and some that wait for a worker to come."""
    assert Calls(SimpleNamespace(workers=workers), str).capacity == capacity


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
def test_of_calls_that_wait_the_lowest_rank_is_next(cluster, tmp_path):
    address = next(iter(cluster.workers))
    os.mkfifo(tmp_path / "gate")
    calls = Calls(cluster, str)
    # Keeps the only thread of the worker busy until somebody writes into the pipe.
    calls.begin(0, Path.read_bytes, tmp_path / "gate", at=address)

    def held(dask_worker):
        return len(dask_worker.state.executing), len(dask_worker.state.ready)

    while cluster.client.run(held, workers=[address])[address] != (1, 0):
        time.sleep(0.02)
    for rank in (3, 1, 4, 2):
        calls.begin(rank, os.getpid, rank=rank, at=address)
    while cluster.client.run(held, workers=[address])[address] != (1, 4):
        time.sleep(0.02)
    (tmp_path / "gate").write_bytes(b"go")
    ended = []
    while calls:
        ended += [name for name, _ in calls.finished()]
    assert ended == [0, 1, 2, 3, 4]


def _fail_at(number, bad):
    if number == bad:
        raise MemoryError(str(number))


def test_job_can_be_abandoned_after_a_failed_call(cluster):
    calls = Calls(cluster, "call {}".format)
    for number in range(12):
        calls.begin(number, _fail_at, number, 5)
    while calls._ended.qsize() < 12:
        time.sleep(0.01)
    with pytest.raises(JobError, match="MemoryError: 5"):
        calls.finished()
    calls.abandon("no job")
    assert not calls


@worker._call_of_job
def _write_two(job, first, second):
    Path(first).touch()
    time.sleep(1)
    Path(second).touch()


def test_abandoned_job_has_no_call_that_runs_or_begins(cluster, tmp_path):
    """Not even one that Ctrl-C kept from being noted: here other objects began it."""
    first, second, third = (str(tmp_path / name) for name in "abc")
    cluster.client.wait_for_workers(2, timeout=60)  # one was killed above
    forgetful, late = Calls(cluster, str), Calls(cluster, str)
    forgetful.begin("a call", _write_two, ("a token",), first, second)
    _wait_for(first)
    Calls(cluster, str).abandon("a token")
    assert Path(second).exists()
    late.begin("a late call", _write_two, ("a token",), third, third)
    assert late.finished() == [("a late call", (worker.STOPPED,))]
    assert not Path(third).exists()


def test_worker_that_could_not_be_asked_to_stop_is_asked_again(cluster, tmp_path, monkeypatch):
    first, second = (str(tmp_path / name) for name in "ab")
    calls, run, asked = Calls(cluster, str), cluster.client.run, []

    def run_when_reached(function, *arguments, workers, on_error):
        asked.append(sorted(workers))
        if len(asked) == 1:
            return {at: OSError("timed out") for at in workers}
        return run(function, *arguments, workers=workers, on_error=on_error)

    monkeypatch.setattr(cluster.client, "run", run_when_reached)
    calls.begin("a call", _write_two, ("another token",), first, second)
    _wait_for(first)
    calls.abandon("another token")
    assert Path(second).exists()
    assert asked == [sorted(cluster.workers)] * 2


def _wait_for(path):
    until = time.monotonic() + 60
    while not Path(path).exists():
        assert time.monotonic() < until
        time.sleep(0.01)


def _die(marks):
    """End this process with the first of these marks; False where it went on."""
    for mark in marks:
        try:
            Path(mark).touch(exist_ok=False)
        except FileExistsError:
            continue
        os._exit(9)
    return False


def test_files_that_ending_workers_have_open_spoil_no_result(monkeypatch):
    """As on Windows, which deletes none of them."""
    from napari_msgan.scale_out import cluster as module

    def started(n_workers, scratch):
        return nullcontext(SimpleNamespace(scheduler_address=scratch))

    def refuse(path, **more):
        raise PermissionError(f"{path} is used by another process")

    monkeypatch.setattr(module, "_started", started)
    monkeypatch.setattr(module, "_connected", nullcontext)
    with monkeypatch.context() as patched, open_cluster("local:1") as opened:
        Path(opened.client, "log").touch()
        patched.setattr(os, "unlink", refuse)
    shutil.rmtree(opened.client)


def test_workers_run_nothing_in_the_current_folder(tmp_path, monkeypatch):
    sprung = tmp_path / "sprung"
    (tmp_path / "multiprocessing.py").write_text(
        f"import pathlib\npathlib.Path({str(sprung)!r}).touch()\n"
    )
    monkeypatch.chdir(tmp_path)
    without = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}  # of other clusters
    subprocess.run([sys.executable, "-c", "import multiprocessing"], env=without, check=True)
    sprung.unlink()  # the trap works
    with open_cluster("local:1") as own:
        assert len(own.workers) == 1
    assert not sprung.exists()


UNGUARDED = """
import pathlib, sys
with pathlib.Path(sys.argv[1]).open("a") as log:
    log.write(__name__ + " ")
from napari_msgan.scale_out import open_cluster
with open_cluster("local:1") as first, open_cluster("local:1") as second:
    print(len(first.workers), len(second.workers))
print(__spec__, __file__)
"""


def test_workers_do_not_run_the_script_that_started_them(tmp_path):
    """Scripts of napari users have no guard: a worker would have opened a second window."""
    script, log = tmp_path / "script.py", tmp_path / "log"
    script.write_text(UNGUARDED)
    ended = subprocess.run(
        [sys.executable, str(script), str(log)],
        env={k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
        | {"PYTHONPATH": os.pathsep.join([str(Path(jobs.__file__).parents[2]), *sys.path])},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert ended.stdout.splitlines() == ["1 1", f"None {script}"]
    assert log.read_text() == "__main__ "


def test_job_without_workers_can_be_stopped(job, fresh, monkeypatch):
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    ) as own:
        (nanny,) = own.workers.values()
        begin = Calls.begin

        def halt_before_tiles(self, name, function, *arguments, **options):
            if function is worker.run_tile:
                os.kill(nanny.pid, signal.SIGSTOP)
            begin(self, name, function, *arguments, **options)

        monkeypatch.setattr("napari_msgan.scale_out.calls._WAIT_S", 0.05)
        monkeypatch.setattr(Calls, "begin", halt_before_tiles)
        try:
            steps = jobs.iter_refine(fresh, model=job[0], cluster=own.scheduler_address)
            before = next(steps)
            assert (before.report, before.done, before.total > 0) == (None, 0, True)
        finally:
            os.kill(nanny.pid, signal.SIGCONT)
        monkeypatch.undo()
        first = next(step for step in steps if step.report is not None)
        own.scale(0)
        while own.scheduler.workers:
            time.sleep(0.05)
        waiting = next(step for step in steps if step.report is None)
        assert (waiting.stage, waiting.total) == ("tiles", first.total)
        assert waiting.done >= 1
        steps.close()
    assert 0 < open_pyramid(fresh).refined_fraction(1) <= 1
    assert leftovers(fresh) == []
    assert_equal_stores(jobs.refine(fresh, model=job[0], device="cpu"), job[1])


def test_what_was_done_counts_though_its_worker_left():
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
        ) as own,
        open_cluster(own.scheduler_address) as joined,
    ):
        calls: Calls[str] = Calls(joined, str)
        calls.begin("none", print)
        calls.begin("text", str, "x")
        futures = [future for _, future, _ in calls._running.values()]
        while {future.status for future in futures} != {"finished"}:
            time.sleep(0.05)
        joined.client.run_on_scheduler(_forget_workers)
        while {future.status for future in futures} != {"lost"}:
            time.sleep(0.05)
        with pytest.raises(JobError, match="the worker that did it left") as told:
            list(iter(calls.finished, None))
        assert told.value.__notes__ == ["text"]


def _forget_workers(dask_scheduler):
    """Let what the workers have be gone, as where their computers are."""
    for key in list(dask_scheduler.tasks):
        dask_scheduler.report({"op": "lost-data", "key": key})


def test_a_client_in_the_place_of_a_cluster_is_told_what_is_taken(job, fresh, cluster):
    with pytest.raises(JobError, match=r"cluster is a Client\. Give the address of its scheduler"):
        jobs.refine(fresh, model=job[0], cluster=cluster.client)


def test_job_with_another_number_of_fields_is_of_another_version(cluster):
    calls: Calls[str] = Calls(cluster, str)
    calls.begin("x", worker.check_tiles, ("token", "one field more"))
    with pytest.raises(JobError, match="Install the same version of napari-msgan"):
        list(iter(lambda: calls.finished(), None))


def test_worker_that_dies_while_it_gets_ready_is_left_out(job, fresh, tmp_path):
    with open_cluster("local:2") as own:
        before = set(own.workers)
        answers = dict(own.ask_all(_die, [str(tmp_path / "one")]))
        assert [*answers.values()] == [False]
        assert answers.keys() < before
        both = [str(tmp_path / name) for name in ("two", "three")]
        own.client.wait_for_workers(2, timeout=60)
        with pytest.raises(JobError, match=r"all workers of local:2 died while they started"):
            list(own.ask_all(_die, both))
        own.client.wait_for_workers(1, timeout=60)
        with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
            own.send_model(job[0], "tcp://127.0.0.1:1")  # nobody is there (any more)
        store = jobs.refine(fresh, model=job[0], cluster=own)
    assert_equal_stores(store, job[1])


def test_ports_are_bound_to_the_loopback(cluster):
    import psutil

    own = psutil.Process()
    listening = {
        connection.laddr.ip
        for process in (own, *own.children(recursive=True))
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


@pytest.mark.parametrize("text", ["local:0", "local", "8", "tcp://host", "http://host:80", ""])
def test_text_that_is_no_cluster_is_refused(text):
    with pytest.raises(JobError, match="neither local:N"), open_cluster(text):
        pass


def _say_nothing(connection):
    connection.recv(1)


def _say_something_else(connection):
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 20)


@pytest.mark.parametrize("answer", [_say_nothing, _say_something_else])
def test_what_takes_a_connection_but_is_no_scheduler_is_named(answer, monkeypatch):
    monkeypatch.setattr("napari_msgan.scale_out.cluster._CONNECT_S", 0.5)
    monkeypatch.setattr("napari_msgan.scale_out.cluster._LATE_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections = []

        def serve():
            with suppress(OSError):  # it is closed at the end
                while True:
                    connections.append(server.accept()[0])
                    answer(connections[-1])

        threading.Thread(target=serve, daemon=True).start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        before = time.monotonic()
        with (
            pytest.raises(JobError, match=f"no Dask scheduler answers at {address}"),
            open_cluster(address),
        ):
            pass
        assert time.monotonic() - before < 20
        for connection in connections:
            connection.close()


def test_scheduler_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr("napari_msgan.scale_out.cluster._CONNECT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (
        pytest.raises(JobError, match=f"no Dask scheduler answers at tcp://127.0.0.1:{port}"),
        open_cluster(f"tcp://127.0.0.1:{port}"),
    ):
        pass


def test_missing_dask_is_told_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(JobError, match=r'pip install "napari-msgan\[dask\]"'):
        open_cluster("local:2").__enter__()


def test_single_files_are_not_written_by_a_cluster(job, tmp_path):
    with pytest.raises(JobError, match=r"leave the cluster out, or export to \.ome\.zarr"):
        jobs.export(job[2], tmp_path / "out.nii.gz", cluster="local:2")


def test_workers_share_a_store_at_a_url(job, fresh, cluster):
    url = f"local://{fresh}"  # file:// would be the folder
    store = jobs.refine(url, model=job[0], cluster=cluster)
    assert store.address == url
    assert_equal_stores(store, job[1])
    assert leftovers(fresh) == []
