"""Arguments that several commands share, and the types of their values."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_msgan.folders import is_url

if TYPE_CHECKING:
    from collections.abc import Callable

    #: Adds a command, given its name, module, summary, example and the text shown on Ctrl-C.
    AddCommand = Callable[..., argparse.ArgumentParser]

LEAVES_NOTHING = "Nothing was written."
_REGION = (
    "z0:z1,y0:y1,x0:x1 (2-D: y0:y1,x0:x1), start included and stop excluded, "
    "in voxels of the finest scale"
)


def add_paths(
    command: argparse.ArgumentParser, first: str, first_help: str, second: str, second_help: str
) -> None:
    command.add_argument("source", type=local, metavar=first, help=first_help)
    command.add_argument("out", type=local, metavar=second, help=second_help)


def address(text: str) -> Path | str:
    """Convert the address of a store: a folder to a Path; a URL stays as it is.

    Examples
    --------
    >>> address("s3://bucket/a.ome.zarr")
    's3://bucket/a.ome.zarr'
    """
    return text if is_url(text) else Path(text)


def local(text: str) -> Path:
    """Convert a path on this computer; refuse URLs."""
    if is_url(text):
        raise argparse.ArgumentTypeError(
            f"{text} is a URL, and only stores can be at a URL: give a path on this computer"
        )
    return Path(text)


def add_store(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "store", type=address, metavar="STORE", help="store made by generate: a folder or a URL"
    )


def add_scale(command: argparse.ArgumentParser, text: str) -> None:
    command.add_argument("--scale", type=natural, metavar="S", help=f"0 is the coarsest; {text}")


def add_region(command: argparse.ArgumentParser, text: str, *, required: bool = False) -> None:
    command.add_argument("--region", required=required, metavar="R", help=f"{text}: {_REGION}")


def add_spacing(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--spacing",
        type=millimetres,
        metavar="Z,Y,X",
        help="voxel size of IN in mm along its axes as they are read (slices first; for NIfTI the "
        "last axis first), or one number for all axes, if the file has no voxel size or a wrong "
        "one",
    )


def add_precision(command: argparse.ArgumentParser, default: str | None, text: str) -> None:
    command.add_argument("--precision", choices=("fp32", "bf16"), default=default, help=text)


def add_computing(command: argparse.ArgumentParser) -> None:
    add_device(command)
    command.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="tiles computed at the same time (default: one per core; 2 on a GPU)",
    )


def add_cluster(command: argparse.ArgumentParser, text: str) -> None:
    command.add_argument(
        "--cluster",
        metavar="C",
        help=f"{text}: local:N for N processes on this computer, or the address of a Dask "
        "scheduler, tcp://host:8786 (docs/cluster.md)",
    )


def add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where to compute (default: auto, a GPU if there is one)",
    )


def add_overwrite(command: argparse.ArgumentParser) -> None:
    command.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def add_quiet(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "-q", "--quiet", action="store_true", help="show no progress and no summary"
    )


def millimetres(text: str) -> tuple[float, ...]:
    """Convert a voxel size: numbers separated by commas.

    Examples
    --------
    >>> millimetres("2.5,0.7,0.7")
    (2.5, 0.7, 0.7)
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a voxel size such as 2.5,0.7,0.7 or 1.5"
        ) from None


def natural(text: str) -> int:
    return whole(text, 0)


def natural_or_all(text: str) -> int | Literal["all"]:
    """Convert an integer of 0 or more, or "all"."""
    return "all" if text == "all" else natural(text)


def positive(text: str) -> int:
    return whole(text, 1)


def whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
    return value
