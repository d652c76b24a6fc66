"""The terminal program in this process, and how every run of it must end."""

from __future__ import annotations

import contextlib
import io
from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING

from napari_msgan.cli import main

if TYPE_CHECKING:
    from collections.abc import Sequence


class BadEnding(Exception):
    """The program ended neither with success nor with a single line that says why."""


def run_terminal(arguments: Sequence[str], cwd: Path | None = None) -> int:
    """Run the program and return its exit code: 0, or 2 after one line on standard error.

    Raises
    ------
    BadEnding
        If the code or the message is anything else.
    """
    # As strict as a terminal in UTF-8: what it cannot encode is an error.
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=e) for e in _ERRORS)
    with chdir(cwd or Path.cwd()), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(list(arguments))
        except SystemExit as stop:  # --help and --version
            code = stop.code if isinstance(stop.code, int) else 1
    said = _text(err)
    lines = [line for line in said.split("\n") if line and not line.startswith("warning: ")]
    shown = [part for part in lines if part.startswith("error: ")]
    if code not in (0, 2):
        raise BadEnding(f"exit code {code}: {said[-200:]!r}")
    if code == 2 and (len(shown) != 1 or lines[-1] != shown[0]):
        raise BadEnding(f"not one line: {said[-300:]!r}")
    if any(not (c.isprintable() or c in "\n\t\r") for c in said + _text(out)):
        raise BadEnding(f"control characters: {(said + _text(out))[-300:]!r}")
    return code


_ERRORS = ("strict", "backslashreplace")


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()
