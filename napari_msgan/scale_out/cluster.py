"""A Dask cluster, started for one job or joined."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from napari_msgan.errors import JobError
from napari_msgan.holding import Held
from napari_msgan.scale_out import machine
from napari_msgan.scale_out.calls import Calls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client, LocalCluster

    from napari_msgan.model import Model

_CONNECT_S, _WORKERS_S = 15.0, 60.0
#: How long after its time a connection is given up that keeps no time.
_LATE_S = 3.0
#: Ctrl-C reaches all processes of a terminal; workers end when this process says so.
_IGNORE_CTRL_C = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
_SAFE_PATH = "PYTHONSAFEPATH"
#: By what processes that begin find the script of this one.
_OF_SCRIPT: tuple[str, ...] = ("__file__", "__spec__")


@contextmanager
def open_cluster(text: str) -> Iterator[Cluster]:
    """Give a cluster; what was started for it is ended afterwards.

    Parameters
    ----------
    text : "local:4" for four processes of one thread on this computer, which listen on the
        loopback only; or the address of a scheduler that runs, "tcp://host:port" or "tls://...".

    Raises
    ------
    JobError
        If the text is neither, Dask is not installed, nobody answers, or there is no worker.
    """
    count = re.fullmatch(r"local:([1-9][0-9]{0,3})", text)
    if count is None and re.fullmatch(r"(tcp|tls)://[^\s/]+:[0-9]+", text) is None:
        raise JobError(
            f"cluster {text!r} is neither local:N, with the number of workers, nor the address of "
            "a scheduler like tcp://host:8786"
        )
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise JobError(
            "a cluster needs dask.distributed, which is not installed: "
            'pip install "napari-msgan[dask]"'
        ) from error
    if count is None:
        with _connected(text) as client:
            yield Cluster(client, text)
        return
    with (
        # Workers that are just ending have files open, which Windows does not delete.
        tempfile.TemporaryDirectory(prefix="napari-msgan-", ignore_cleanup_errors=True) as scratch,
        _nothing_run_from_here.held(),
        _started(int(count[1]), scratch) as local,
        _connected(local.scheduler_address) as client,
    ):
        yield Cluster(client, text)


def _started(n_workers: int, scratch: str) -> LocalCluster:
    from distributed import LocalCluster

    try:
        return LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # any free port; None would be 8787
            memory_limit=0,
            local_directory=scratch,
            preload=[_IGNORE_CTRL_C],
            silence_logs=logging.CRITICAL,  # what goes wrong is raised
        )
    except RuntimeError as error:
        raise JobError(
            f"{n_workers} workers could not be started on this computer: {error}"
        ) from error


@contextmanager
def joined_cluster(cluster: Cluster | str | None) -> Iterator[Cluster | None]:
    """Give the cluster that a text stands for, as `open_cluster`, or the one that is open."""
    if isinstance(cluster, str):
        with open_cluster(cluster) as opened:
            yield opened
    elif cluster is None or isinstance(cluster, Cluster):
        yield cluster
    else:
        raise JobError(
            f"cluster is a {type(cluster).__name__}. Give the address of its scheduler "
            "(tcp://host:8786), local:N, or what napari_msgan.scale_out.open_cluster gives."
        )


def _keep_from_files() -> Callable[[], None]:
    """Keep processes that begin from running files; return what lets them again.

    Modules of the current folder may be anybody's. The script of this process would begin its work
    once more, such as to open a window, and nothing that is sent to workers lies in it.
    """
    path = os.environ.get(_SAFE_PATH)
    main = vars(sys.modules["__main__"])
    script = {name: main[name] for name in _OF_SCRIPT if name in main}
    os.environ[_SAFE_PATH] = "1"
    main.pop("__file__", None)
    main["__spec__"] = None

    def put_back() -> None:
        if path is None:
            os.environ.pop(_SAFE_PATH, None)
        else:
            os.environ[_SAFE_PATH] = path
        main.update(script)

    return put_back


#: While a cluster is open: workers begin then, too, in the place of one that died.
_nothing_run_from_here = Held(_keep_from_files)


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    with _joined(address) as client:
        try:
            client.wait_for_workers(1, timeout=_WORKERS_S)
        except TimeoutError as error:
            raise JobError(
                f"the scheduler at {address} has no worker. Start some: "
                f"dask worker {address} --nthreads 1"
            ) from error
        yield client


def _joined(address: str) -> Client:
    """Return a connection to a scheduler.

    Raises
    ------
    JobError
        If there is none in time: what is no scheduler may answer with anything, or never.
    """
    from distributed import Client

    answers: SimpleQueue[Client | Exception] = SimpleQueue()
    given_up = Event()

    def join() -> None:
        answer: Client | Exception
        try:
            answer = Client(address, timeout=_CONNECT_S, set_as_default=False)
        except Exception as error:
            answer = error
        if given_up.is_set() and isinstance(answer, Client):
            answer.close()
        else:
            answers.put(answer)

    # a daemon, because what takes a connection and says nothing is waited for without an end
    Thread(target=join, daemon=True, name="join-dask").start()
    try:
        answer = answers.get(timeout=_CONNECT_S + _LATE_S)
    except Empty:
        given_up.set()
        answer = TimeoutError("no answer came in time")
    if isinstance(answer, Exception):
        raise JobError(
            f"no Dask scheduler answers at {address}. Start one there (dask scheduler), or check "
            "host and port."
        ) from answer
    return answer


@dataclass
class Cluster:
    """Workers that make tiles and write blocks.

    client : connection to their scheduler.
    address : as the user gave it.
    """

    client: Client
    address: str

    @property
    def workers(self) -> dict[str, int]:
        """Return the addresses of the workers, and how many threads each has."""
        threads: dict[str, int] = self.client.nthreads()
        return threads

    def device(self, wanted: str) -> tuple[str, str | None]:
        """Return "cpu" or "cuda": what is wanted, or for "auto" what all workers have.

        With it comes the name of the GPU, if all have the same one.

        Raises
        ------
        JobError
            If a worker cannot run napari-msgan or lacks the GPU, or workers differ.
        """
        seen = dict(self.ask_all(machine.describe))
        kinds = {kind for kind, _ in seen.values()} if wanted == "auto" else {wanted}
        if len(kinds) > 1:
            raise JobError(
                f"some workers of {self.address} have a GPU and some have none. Choose the device "
                "(cpu or cuda): a store keeps to one kind."
            )
        (kind,) = kinds
        lacking = [address for address, (has, _) in seen.items() if (kind, has) == ("cuda", "cpu")]
        if lacking:
            raise JobError(f"device 'cuda' was asked for, but worker {lacking[0]} sees no GPU")
        hardware = {text for has, text in seen.values() if has == kind}
        if len(hardware) > 1:
            warnings.warn(
                f"the workers of {self.address} compute with {' and '.join(sorted(hardware))}: "
                "tiles of different ones may differ in the last bit, of GPUs in bfloat16 by more",
                stacklevel=2,
            )
        (gpu,) = hardware if kind == "cuda" and len(hardware) == 1 else (None,)
        return kind, gpu

    def ask_all(self, function: Callable[..., Any], *arguments: Any) -> Iterator[tuple[str, Any]]:
        """Yield each worker's address and what the function returned there.

        Workers that die meanwhile are left out; their successors get ready at their first call.

        Raises
        ------
        JobError
            If the function raised, or all of them died.
        """
        calls: Calls[str] = Calls(self, "on worker {}".format)
        asked, n_answers = sorted(self.workers), 0
        for address in asked:
            calls.begin(address, function, *arguments, at=address)
        while calls:
            answers = calls.finished()
            n_answers += len(answers)
            yield from answers
        if not n_answers:
            raise JobError(
                f"all workers of {self.address} died while they started: {', '.join(asked)}. Was "
                "their memory used up? Their logs may say why. The same command tries again."
            )

    def send_model(self, model: Model, address: str) -> None:
        """Give a worker the files of a model, unless it is gone; it checks their hashes."""
        for name in ("model.json", *(scale.file for scale in model.spec.scales)):
            content = (model.folder / name).read_bytes()
            take = machine.take_file, model.spec.identity, name, content
            try:
                self.client.run(*take, workers=[address])
            except OSError:  # of the connection, or of its disk
                if address in self.workers:
                    raise
                return
