"""Command line of benchmarks that take images one by one: rows as CSV, and a printed table."""

from __future__ import annotations

import argparse
import csv
import platform
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_msgan.pyramid import PyramidStore


def parser_of(name: str, text: str | None) -> argparse.ArgumentParser:
    """Return a parser for the common arguments: model, images, last scale and CSV file."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="name or folder")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--scale", type=int, help="last one (the finest that the image supports)")
    parser.add_argument("--csv", type=Path, default=Path(f"{name}.csv"))
    return parser


def scales_made(store: PyramidStore) -> list[int]:
    """Return the generated scales; a store also declares those it can be refined to."""
    return [scale for scale in range(store.n_scales) if store.refined_fraction(scale) == 1]


def report(
    options: argparse.Namespace,
    names: Sequence[str],
    measure: Callable[[Path], list[Any]],
    table: Callable[[list[Any]], str],
) -> None:
    """Measure every image, write the rows and print the table.

    Parameters
    ----------
    names : of the columns.
    measure : returns the rows of one image.
    """
    rows = []
    for image in options.images:
        rows += measure(image)
        print(*rows[-1], flush=True)
    with options.csv.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([names, *rows])
    print(f"\n{options.model}, {date.today()}, {platform.machine()}\n\n{table(rows)}")
