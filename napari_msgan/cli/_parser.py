"""Commands and their arguments. Nothing heavy is imported here, so ``--help`` answers at once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from napari_msgan import __version__
from napari_msgan.cli._arguments import (
    LEAVES_NOTHING,
    add_cluster,
    add_computing,
    add_overwrite,
    add_paths,
    add_precision,
    add_quiet,
    add_region,
    add_scale,
    add_spacing,
    add_store,
    address,
    local,
    natural,
    natural_or_all,
)
from napari_msgan.cli._model_commands import add_evaluate, add_import_megan, add_train
from napari_msgan.errors import MsganError

if TYPE_CHECKING:
    from napari_msgan.cli._arguments import AddCommand

_GOES_ON = "What is finished stays; the same command continues from there."


class UsageError(MsganError):
    """Arguments that are not valid for any command."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see: {self.prog} --help)")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; the result for each command names the module and function that run it."""
    parser = _Parser(
        prog="napari-msgan",
        description="Generate medical images of any size from a sketch, scale by scale.",
        epilog="Start with:  napari-msgan models\n"
        "             napari-msgan generate chest.png chest.ome.zarr --model chest-xray",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str, module: str, summary: str, example: str, when_stopped: str = ""
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"Example:\n  napari-msgan {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(
            module=f"napari_msgan.cli.{module}",
            function=name.replace("-", "_"),
            when_stopped=when_stopped,
        )
        return command

    _add_models(add)
    _add_sketch(add)
    _add_generate(add)
    _add_estimate(add)
    _add_refine(add)
    _add_info(add)
    _add_export(add)
    _add_verify(add)
    add_train(add)
    add_evaluate(add)
    add_import_megan(add)
    _add_demo(add)
    return parser


def _add_models(add: AddCommand) -> None:
    command = add(
        "models", "_models", "list the models, or show the card of one", "models thorax-ct"
    )
    command.add_argument("model", nargs="?", help="name or folder of a model whose card to show")
    command.add_argument("--json", action="store_true", help="print JSON, for programs")


def _add_sketch(add: AddCommand) -> None:
    command = add(
        "sketch",
        "_jobs",
        "write the edge map of an image, e.g. to draw on it",
        "sketch chest.png chest-sketch.tif\n"
        "  napari-msgan generate chest-sketch.tif chest.ome.zarr --model chest-xray "
        "--input-is-sketch",
        LEAVES_NOTHING,
    )
    add_paths(
        command,
        "IN",
        "image, or STORE/sketch, which is written unchanged",
        "OUT",
        "file: .tif, .ome.tif, .nii, .nii.gz, .ome.zarr, .png",
    )
    add_spacing(command)
    add_overwrite(command)
    add_quiet(command)


def _add_generate(add: AddCommand) -> None:
    command = add(
        "generate",
        "_jobs",
        "turn an image into a sketch, and the sketch into an image of the model's kind",
        "generate chest.png chest.ome.zarr --model chest-xray --region 0:512,0:512",
        _GOES_ON,
    )
    command.add_argument("source", type=local, metavar="IN", help="image, or sketch")
    command.add_argument(
        "out",
        type=address,
        metavar="OUT",
        help="store to make or continue: .ome.zarr, in a folder or at a URL (s3://...)",
    )
    command.add_argument("--model", required=True, metavar="M", help="name or folder of a model")
    add_scale(command, "last scale to compute (default: the finest that the image supports)")
    add_region(command, "what to compute (default: everything)")
    command.add_argument(
        "--seed",
        type=natural,
        metavar="N",
        help="for models with a random part (chest-xray): another seed gives other textures "
        "(default: that of --edited-from, else 0)",
    )
    command.add_argument(
        "--input-is-sketch",
        action="store_true",
        help="IN is a sketch: integers (the type's maximum is the strongest edge) or floats from 0 "
        "to 1",
    )
    command.add_argument(
        "--edited-from",
        type=address,
        metavar="STORE",
        help="IN is an edited copy of the sketch of this store (napari-msgan sketch STORE/sketch "
        "FILE): what was not edited keeps its edges at every scale",
    )
    add_spacing(command)
    command.add_argument(
        "--keep-name",
        action="store_true",
        help="record the file name of IN (default: it is not recorded, because it may name a "
        "patient)",
    )
    add_precision(command, None, "default: that of --edited-from, else fp32")
    add_computing(command)
    add_cluster(command, "workers that make the tiles")
    add_quiet(command)


def _add_estimate(add: AddCommand) -> None:
    command = add(
        "estimate",
        "_estimate",
        "predict how long generate would take, and how much memory and disk space",
        "estimate thorax.nii.gz --model thorax-ct --precision bf16",
    )
    command.add_argument("source", type=local, metavar="IN", help="image, or sketch; not unpacked")
    command.add_argument("--model", required=True, metavar="M", help="name or folder of a model")
    command.add_argument(
        "--out",
        type=address,
        default=Path(),
        metavar="OUT",
        help="where the store would be, to check its disk (default: this folder)",
    )
    add_scale(command, "last scale to compute (default: the finest that the image supports)")
    add_region(command, "what to compute (default: everything)")
    add_spacing(command)
    command.add_argument(
        "--again",
        action="store_true",
        help="measure this machine again, instead of using the last measurement",
    )
    add_precision(command, "fp32", "default: fp32")
    add_computing(command)


def _add_refine(add: AddCommand) -> None:
    command = add(
        "refine",
        "_jobs",
        "compute more tiles of a store",
        "refine chest.ome.zarr --region 512:1024,0:512",
        _GOES_ON,
    )
    add_store(command)
    add_region(command, "what to compute", required=True)
    add_scale(command, "last scale to compute (default: the finest)")
    command.add_argument(
        "--model", metavar="M", help="name or folder (default: found by the hash in the store)"
    )
    add_precision(command, None, "default: that of the store")
    add_computing(command)
    add_cluster(command, "workers that make the tiles")
    add_quiet(command)


def _add_info(add: AddCommand) -> None:
    command = add(
        "info",
        "_info",
        "show what is in a store, or list the stores made in napari",
        "info chest.ome.zarr",
    )
    command.add_argument(
        "store",
        type=address,
        nargs="?",
        metavar="STORE",
        help="store made by generate: a folder or a URL (default: list the stores made in napari)",
    )
    command.add_argument("--json", action="store_true", help="for programs")


def _add_export(add: AddCommand) -> None:
    command = add(
        "export",
        "_jobs",
        "write an image of a store as one file",
        "export thorax.ome.zarr thorax.nii.gz --grid source",
        LEAVES_NOTHING,
    )
    add_store(command)
    command.add_argument(
        "out", type=local, metavar="OUT", help=".tif, .ome.tif, .nii, .nii.gz, .ome.zarr; 2-D: .png"
    )
    add_scale(command, "scale to write (default: the finest)")
    add_region(command, "what to write (default: everything)")
    command.add_argument(
        "--grid",
        choices=("store", "source"),
        default="store",
        help="voxels and orientation of the store (default) or of its source",
    )
    add_overwrite(command)
    add_cluster(command, "workers that write the blocks, only for .ome.zarr")
    add_quiet(command)


def _add_verify(add: AddCommand) -> None:
    command = add(
        "verify",
        "_verify",
        "check that a store can be trusted: files, sketch, and a sample of tiles made again",
        "verify thorax.ome.zarr --repair",
        "Nothing was changed, except what was named above; the same command starts again.",
    )
    add_store(command)
    command.add_argument(
        "--repair",
        action="store_true",
        help="remove what cannot be trusted and what was made from it; refine makes it again",
    )
    command.add_argument(
        "--sample",
        type=natural_or_all,
        default=8,
        metavar="N",
        help="number of tiles to make again and compare bit for bit, or all (default: 8, spread "
        "over the scales)",
    )
    command.add_argument(
        "--model", metavar="M", help="name or folder (default: found by the hash in the store)"
    )
    add_quiet(command)


def _add_demo(add: AddCommand) -> None:
    command = add("demo", "_demo", "open napari with a sample and the panel", "demo")
    command.add_argument(
        "--output",
        type=local,
        default=Path("demo-output"),
        metavar="DIR",
        help="folder for the store (default: demo-output)",
    )
    command.add_argument(
        "--unattended",
        action="store_true",
        help="refine a region, save it, write screenshots of the window to DIR, and close",
    )
