"""Text that must not stop the work it tells of, whether or not anybody reads it."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A pipe without reader (Windows says EINVAL), and a terminal that was closed.
_GONE = (errno.EPIPE, errno.EIO, errno.EINVAL)


def tell(text: str, out: TextIO | None = None) -> None:
    """Print to standard error, or to `out`; if its reader is gone, the work goes on in silence."""
    stream = sys.stderr if out is None else out
    if stream is not None:  # a process may have been started without
        with unhindered(stream):
            print(text, file=stream, flush=True)


@contextmanager
def unhindered(stream: TextIO) -> Iterator[None]:
    """Print to a stream; what cannot be printed, and all after it if nobody reads it, is lost."""
    try:
        yield
    except OSError as error:
        if error.errno in _GONE or isinstance(error, BrokenPipeError):
            drop_output(stream)


def drop_output(stream: TextIO) -> None:
    """Let a stream go nowhere, or Python would write at exit what it holds, and complain."""
    with suppress(OSError, ValueError):  # it has no descriptor, or is closed
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
