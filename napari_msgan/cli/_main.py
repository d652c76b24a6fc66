"""Run a command; errors become one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from contextlib import contextmanager
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING, TextIO

from napari_msgan.buffers import share_one_arena
from napari_msgan.cli._parser import build_parser
from napari_msgan.cli._tables import one_line
from napari_msgan.cli._telling import drop_output, tell
from napari_msgan.durable import disk_full_text, is_disk_full
from napari_msgan.errors import MsganError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DONE, BAD_INPUT, INTERRUPTED = 0, 2, 130
_LESS_MEMORY = (
    "Use fewer --workers, or a smaller image; to train, a smaller batch in the settings, and above "
    "scale 0 a smaller patch_shape"
)
#: torch's message for lack of memory, for which it raises no MemoryError.
_NOT_ALLOCATED = "DefaultCPUAllocator: can't allocate memory"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 2 bad input or failure, 130 after Ctrl-C.

    Parameters
    ----------
    argv : arguments without the program's name; None for those of the process.
    """
    advice, out = "", None
    if isinstance(sys.stdout, TextIOWrapper):  # file names need not be valid UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _plain_warnings():
            arguments = build_parser().parse_args(argv)
            advice, out = arguments.when_stopped, getattr(arguments, "out", out)
            share_one_arena()  # before numpy and torch start threads
            getattr(import_module(arguments.module), arguments.function)(arguments)
            sys.stdout.flush()
    except MsganError as error:
        return _fail("; ".join([str(error), *getattr(error, "__notes__", ())]))
    except OSError as error:
        if _is_reader_gone(error):
            # `napari-msgan models | head`: the reader has all that it wanted. Without this, Python
            # would complain when it flushes at exit.
            drop_output(sys.stdout)
            return DONE
        if is_disk_full(error):
            where = error.filename or out
            if where is None:
                return _fail("the output cannot be written: the disk of its file is full")
            return _fail(disk_full_text(error, where))
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or _NOT_ALLOCATED in str(error):
            return _fail(f"there is not enough memory. {_LESS_MEMORY}")
        if not _is_gpu_full(error):
            raise
        return _fail(
            f"the memory of the GPU is used up. Let other programs free some. {_LESS_MEMORY}"
        )
    except KeyboardInterrupt:
        tell(f"\nstopped. {advice}".rstrip())
        return INTERRUPTED
    return DONE


def _is_reader_gone(error: OSError) -> bool:
    """Return whether the reader of our pipe is gone.

    Windows reports that as EINVAL, like many other errors, such as an unplugged disk. Output that
    could not be written is kept, so if the reader is gone, writing it fails again.
    """
    if isinstance(error, BrokenPipeError):
        return True
    if os.name != "nt" or error.errno != errno.EINVAL or error.filename is not None:
        return False
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False


def _is_gpu_full(error: RuntimeError) -> bool:
    torch = sys.modules.get("torch")  # importing takes seconds; if not loaded, it did not raise
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def _fail(message: str) -> int:
    tell(f"error: {one_line(message)}")
    return BAD_INPUT


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show our own warnings as one line each, and none that are meant for programmers.

    A text is shown once, however many images it applies to. The action "once" would forget that
    whenever any library uses `warnings.catch_warnings`.
    """
    told: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = one_line(message)
        if text not in told:
            told.add(text)
            tell(f"warning: {text}")

    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
            warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield
