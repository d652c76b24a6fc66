"""What can be typed. Nothing heavy is imported here: ``--help`` answers at once."""

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

_GOES_ON = "What is finished stays; the same command goes on from there."


class UsageError(MsganError):
    """Arguments that no command understands."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see: {self.prog} --help)")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; each command names the module and function that run it."""
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
    command.add_argument("model", nargs="?", help="name or folder of a model: show its card")
    command.add_argument("--json", action="store_true", help="for programs")


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
        "image, or STORE/sketch, which is written as it is",
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
    command.add_argument("source", type=Path, metavar="IN", help="image, or sketch")
    command.add_argument(
        "out",
        type=address,
        metavar="OUT",
        help="store to make or go on with: .ome.zarr, in a folder or at a URL (s3://...)",
    )
    command.add_argument("--model", required=True, metavar="M", help="name or folder of a model")
    add_scale(command, "last scale to compute (default: the finest that the image supports)")
    add_region(command, "what to compute (default: everything)")
    command.add_argument(
        "--seed",
        type=natural,
        metavar="N",
        help="of models with a random part (chest-xray): another one makes other textures "
        "(default: that of --edited-from, else 0)",
    )
    command.add_argument(
        "--input-is-sketch",
        action="store_true",
        help="IN is a sketch: whole numbers (the type's maximum is the strongest edge) or 0 to 1",
    )
    command.add_argument(
        "--edited-from",
        type=address,
        metavar="STORE",
        help="IN is the sketch of this store after somebody drew on it: what was not touched keeps "
        "the edges that it has there at every scale (napari-msgan sketch STORE/sketch FILE)",
    )
    add_spacing(command)
    command.add_argument(
        "--keep-name",
        action="store_true",
        help="record the file name of IN; by default it is not, as it may name a patient",
    )
    add_precision(command, None, "default: that of --edited-from, else fp32")
    add_computing(command)
    add_cluster(command, "workers that make the tiles")
    add_quiet(command)


def _add_estimate(add: AddCommand) -> None:
    command = add(
        "estimate",
        "_estimate",
        "say how long generate would take, and how much memory and disk",
        "estimate thorax.nii.gz --model thorax-ct --precision bf16",
    )
    command.add_argument("source", type=Path, metavar="IN", help="image, or sketch; not unpacked")
    command.add_argument("--model", required=True, metavar="M", help="name or folder of a model")
    command.add_argument(
        "--out",
        type=Path,
        default=Path(),
        metavar="OUT",
        help="where the store would be: its disk is looked at (default: this folder)",
    )
    add_scale(command, "last scale to compute (default: the finest that the image supports)")
    add_region(command, "what to compute (default: everything)")
    add_spacing(command)
    command.add_argument(
        "--again",
        action="store_true",
        help="measure this machine anew; what was measured before is kept otherwise",
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
        "info", "_info", "show what is in a store, or list those of napari", "info chest.ome.zarr"
    )
    command.add_argument(
        "store",
        type=address,
        nargs="?",
        metavar="STORE",
        help="what generate made: a folder or a URL (default: list what was made in napari)",
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
    add_store(command, "source")
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
    add_cluster(command, "workers that write the blocks, for .ome.zarr")
    add_quiet(command)


def _add_verify(add: AddCommand) -> None:
    command = add(
        "verify",
        "_verify",
        "check that a store can be trusted: files, sketch, and a sample of tiles made again",
        "verify thorax.ome.zarr --repair",
        "Nothing was changed, or what was named before; the same command starts again.",
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
        help="tiles to make again and compare bit for bit, or all (default: 8, spread over scales)",
    )
    command.add_argument(
        "--model", metavar="M", help="name or folder (default: found by the hash in the store)"
    )
    add_quiet(command)


def _add_demo(add: AddCommand) -> None:
    command = add("demo", "_demo", "open napari with a sample and the panel", "demo")
    command.add_argument(
        "--output",
        type=Path,
        default=Path("demo-output"),
        metavar="DIR",
        help="where the store lies (default: demo-output)",
    )
    command.add_argument(
        "--unattended",
        action="store_true",
        help="refine a region, save, leave pictures of the window in DIR, and close",
    )
