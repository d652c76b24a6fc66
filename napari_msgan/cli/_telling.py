"""Text on standard error, which must not stop the work it tells of."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def tell(text: str, out: TextIO | None = None) -> None:
    """Print to standard error, or to `out`; if its reader is gone, the work goes on in silence."""
    stream = sys.stderr if out is None else out
    try:
        print(text, file=stream, flush=True)
    except OSError:  # a pipe that nobody reads, or a full disk
        drop_output(stream)


def drop_output(stream: TextIO) -> None:
    """Let a stream go nowhere, or Python would write at exit what it holds, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
