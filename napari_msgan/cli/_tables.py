"""Tables, numbers and other values as text for the terminal."""

from __future__ import annotations

import math
import os
import re
import shlex
import sys
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_WIDE = 200


def printable(text: str) -> str:
    r"""Return a text with control characters escaped, because they could control a terminal.

    Examples
    --------
    >>> printable("a\x1b[2Jb\ud800")
    'a\\x1b[2Jb\\ud800'
    """
    return "".join(map(_printable, text))


def _printable(c: str) -> str:
    # spaces of other widths, which Python does not call printable, do no harm
    if c.isprintable() or c == "\n" or unicodedata.category(c) == "Zs":
        return c
    return c.encode("unicode_escape").decode()


def one_line(message: object) -> str:
    r"""Return a text as one line without control characters.

    Examples
    --------
    >>> one_line("a\nb")
    'a b'
    """
    return printable(" ".join(str(message).splitlines()))


def quoted(path: Path | str) -> str:
    """Return a path quoted for a command; Windows prompts know no single quotes."""
    text = str(path)
    if os.name != "nt":
        return shlex.quote(text)
    return text if re.fullmatch(r"[\w.:/\\-]+", text) else f'"{text}"'


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: str = "") -> None:
    """Print a table with bold column names; `numbers` lists the columns to align right."""
    from rich.console import Console
    from rich.table import Table

    class PlainConsole(Console):
        def on_broken_pipe(self) -> None:  # rich would exit with status 1, `main` knows better
            raise BrokenPipeError

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=any(columns))
    for column in columns:
        is_number = column in numbers.split()
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))
    width = None if sys.stdout.isatty() else _WIDE
    PlainConsole(width=width, markup=False, highlight=False, emoji=False).print(table)


def lengths(values: Sequence[float], unit: str) -> str:
    """Return lengths as text, one number if they are the same for all axes.

    Examples
    --------
    >>> lengths((0.75, 0.75), "mm"), lengths((2.5, 0.7, 0.7), "mm")
    ('0.75 mm', '2.5 x 0.7 x 0.7 mm')
    """
    same = all(math.isclose(v, values[0], rel_tol=1e-4) for v in values)
    return " x ".join(f"{v:.4g}" for v in (values[:1] if same else values)) + f" {unit}"


def percent(share: float, digits: int = 1) -> str:
    """Return a share as text; nearly all is not shown as 100 %.

    Examples
    --------
    >>> percent(0.9999), percent(1.0), percent(0.9999, 0), percent(sum([0.1] * 10))
    ('99.9 %', '100.0 %', '99 %', '100.0 %')
    """
    most = 100 if share > 1 - 1e-9 else 100 - 10**-digits  # sums of shares are rounded
    return f"{min(100 * share, most):.{digits}f} %"


def shape_text(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.1f} MB"
