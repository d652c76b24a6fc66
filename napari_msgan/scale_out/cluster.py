"""A Dask cluster, started for one job or already running."""

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
#: How long past its timeout a connection that ignores it is waited for.
_LATE_S = 3.0
#: Ctrl-C reaches all processes of a terminal; workers must end only when this process says so.
_IGNORE_CTRL_C = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
_SAFE_PATH = "PYTHONSAFEPATH"
#: What new processes find the script of this one by.
_OF_SCRIPT: tuple[str, ...] = ("__file__", "__spec__")


@contextmanager
def open_cluster(text: str) -> Iterator[Cluster]:
    """Provide a cluster; whatever was started for it is ended afterwards.

    Parameters
    ----------
    text : "local:4" for four single-threaded processes on this computer, which listen on the
        loopback interface only; or the address of a running scheduler, "tcp://host:port" or
        "tls://...".

    Raises
    ------
    JobError
        If the text is neither, Dask is not installed, nobody answers, or there are no workers.
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
        # Workers may still hold files open as they end, which Windows cannot delete.
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
            silence_logs=logging.CRITICAL,  # problems are raised instead
        )
    except RuntimeError as error:
        raise JobError(
            f"{n_workers} workers could not be started on this computer: {error}"
        ) from error


@contextmanager
def joined_cluster(cluster: Cluster | str | None) -> Iterator[Cluster | None]:
    """Provide the cluster of a text, as `open_cluster` does, or a cluster that is already open."""
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
    """Keep new processes from running files; return a function that lifts this again.

    Modules in the current folder may be anybody's. The script of this process would start its work
    over, such as opening a window, and workers need nothing from it.
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


#: Held while a cluster is open, because workers also start later, to replace one that died.
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
    """Connect to a scheduler.

    Raises
    ------
    JobError
        If there is none in time; something else at that address may answer anything, or never.
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

    # A daemon thread, because a server that accepts and then stays silent is waited for forever.
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
    address : as given by the user.
    """

    client: Client
    address: str

    @property
    def workers(self) -> dict[str, int]:
        """The number of threads of each worker, by its address."""
        threads: dict[str, int] = self.client.nthreads()
        return threads

    def device(self, wanted: str) -> tuple[str, str | None, str]:
        """Choose "cpu" or "cuda": what is wanted, or for "auto" what all workers have.

        The second item is the name of the GPU if all workers have the same one, else None; the
        third is the kind of machine of the workers, or several kinds joined by "and".

        Raises
        ------
        JobError
            If a worker cannot run napari-msgan or lacks the GPU, or if workers differ.
        """
        seen = dict(self.ask_all(machine.describe))
        kinds = {kind for kind, _, _ in seen.values()} if wanted == "auto" else {wanted}
        if len(kinds) > 1:
            raise JobError(
                f"some workers of {self.address} have a GPU and some have none. Choose the device "
                "(cpu or cuda): a store keeps to one kind."
            )
        (kind,) = kinds
        lacking = [at for at, (has, _, _) in seen.items() if (kind, has) == ("cuda", "cpu")]
        if lacking:
            raise JobError(f"device 'cuda' was asked for, but worker {lacking[0]} sees no GPU")
        hardware = {text for has, text, _ in seen.values() if has == kind}
        if len(hardware) > 1:
            warnings.warn(
                f"the workers of {self.address} compute with {' and '.join(sorted(hardware))}: "
                "tiles of different ones may differ in the last bit, of GPUs in bfloat16 by more",
                stacklevel=2,
            )
        (gpu,) = hardware if kind == "cuda" and len(hardware) == 1 else (None,)
        return kind, gpu, " and ".join(sorted({name for _, _, name in seen.values()}))

    def ask_all(self, function: Callable[..., Any], *arguments: Any) -> Iterator[tuple[str, Any]]:
        """Call a function on every worker; yield each worker's address and result.

        Workers that die meanwhile are left out; their successors prepare at their first call.

        Raises
        ------
        JobError
            If the function raised, or all workers died.
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
        """Send a worker the files of a model, unless it is gone; it checks their hashes."""
        for name in ("model.json", *(scale.file for scale in model.spec.scales)):
            content = (model.folder / name).read_bytes()
            take = machine.take_file, model.spec.identity, name, content
            try:
                self.client.run(*take, workers=[address])
            except OSError:  # of the connection, or of the worker's disk
                if address in self.workers:
                    raise
                return
