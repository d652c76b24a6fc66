"""The command line of benchmarks that take images one by one: rows as CSV, a table printed."""

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
    """Return a parser of what all of them take: model, images, last scale and CSV file."""
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
    """Return the scales that were generated; a store also declares what it can be refined to."""
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
    measure : returns the rows of an image.
    """
    rows = []
    for image in options.images:
        rows += measure(image)
        print(*rows[-1], flush=True)
    with options.csv.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([names, *rows])
    print(f"\n{options.model}, {date.today()}, {platform.machine()}\n\n{table(rows)}")
