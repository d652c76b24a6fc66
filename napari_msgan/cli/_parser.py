"""What can be typed. Nothing heavy is imported here: ``--help`` answers at once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from napari_msgan import __version__
from napari_msgan.errors import MsganError

if TYPE_CHECKING:
    from collections.abc import Callable

    AddCommand = Callable[..., argparse.ArgumentParser]

_GOES_ON = "What is finished stays; the same command goes on from there."
_LEAVES_NOTHING = "Nothing was written."
_REGION = (
    "z0:z1,y0:y1,x0:x1 (2-D: y0:y1,x0:x1), start inside and stop outside, "
    "in voxels of the finest scale"
)


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
    _add_refine(add)
    _add_info(add)
    _add_export(add)
    _add_train(add)
    _add_evaluate(add)
    _add_import_megan(add)
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
        _LEAVES_NOTHING,
    )
    _add_paths(command, "IN", "image", "OUT", "file to write: .tif, .ome.tif, .nii.gz, .ome.zarr")
    _add_overwrite(command)
    _add_quiet(command)


def _add_generate(add: AddCommand) -> None:
    command = add(
        "generate",
        "_jobs",
        "turn an image into a sketch, and the sketch into an image of the model's kind",
        "generate chest.png chest.ome.zarr --model chest-xray --region 0:512,0:512",
        _GOES_ON,
    )
    _add_paths(command, "IN", "image, or sketch", "OUT", "store to make or go on with: .ome.zarr")
    command.add_argument("--model", required=True, metavar="M", help="name or folder of a model")
    _add_scale(command, "last scale to compute (default: the finest that the image supports)")
    _add_region(command, "what to compute (default: everything)")
    command.add_argument(
        "--seed", type=_natural, default=0, metavar="N", help="for models with a random part"
    )
    command.add_argument(
        "--input-is-sketch",
        action="store_true",
        help="IN is a sketch: whole numbers (the type's maximum is the strongest edge) or 0 to 1",
    )
    command.add_argument(
        "--keep-name",
        action="store_true",
        help="record the file name of IN; by default it is not, as it may name a patient",
    )
    _add_precision(command, "fp32", "default: fp32")
    _add_computing(command)
    _add_quiet(command)


def _add_refine(add: AddCommand) -> None:
    command = add(
        "refine",
        "_jobs",
        "compute more tiles of a store",
        "refine chest.ome.zarr --region 512:1024,0:512",
        _GOES_ON,
    )
    command.add_argument("store", type=Path, metavar="STORE", help="what generate made")
    _add_region(command, "what to compute", required=True)
    _add_scale(command, "last scale to compute (default: the finest)")
    command.add_argument(
        "--model", metavar="M", help="name or folder (default: found by the hash in the store)"
    )
    _add_precision(command, None, "default: that of the store")
    _add_computing(command)
    _add_quiet(command)


def _add_info(add: AddCommand) -> None:
    command = add("info", "_info", "show what is in a store", "info chest.ome.zarr")
    command.add_argument("store", type=Path, metavar="STORE", help="what generate made")
    command.add_argument("--json", action="store_true", help="for programs")


def _add_export(add: AddCommand) -> None:
    command = add(
        "export",
        "_jobs",
        "write an image of a store as one file",
        "export thorax.ome.zarr thorax.nii.gz --grid source",
        _LEAVES_NOTHING,
    )
    _add_paths(
        command, "STORE", "what generate made", "OUT", ".tif, .ome.tif, .nii, .nii.gz or .ome.zarr"
    )
    _add_scale(command, "scale to write (default: the finest)")
    _add_region(command, "what to write (default: everything)")
    command.add_argument(
        "--grid",
        choices=("store", "source"),
        default="store",
        help="voxels and orientation of the store (default) or of its source",
    )
    _add_overwrite(command)
    _add_quiet(command)


def _add_train(add: AddCommand) -> None:
    command = add(
        "train",
        "_train",
        "train all scales of a model on a folder of images",
        "train x-rays/ my-model/",
        "The same command resumes; at most a minute of training is repeated.",
    )
    _add_paths(command, "DATA", "folder of images", "OUT", "model folder to make or to go on with")
    command.add_argument(
        "--preset",
        choices=("fast", "balanced", "quality"),
        help="size of the networks and number of steps (default: balanced)",
    )
    command.add_argument(
        "--config",
        metavar="FILE",
        help="settings (JSON) instead of those derived from the images: an edited OUT/plan.json, "
        "or the name of bundled ones",
    )
    command.add_argument(
        "--plan-only", action="store_true", help="show and write the settings, and train nothing"
    )
    command.add_argument(
        "--sketches",
        type=Path,
        metavar="DIR",
        help="folder with a sketch or label map for every image, under the same name "
        "(default: sketches are made from the images)",
    )
    command.add_argument(
        "--devices",
        type=_positive,
        default=1,
        metavar="N",
        help="GPUs, or processes without one, that share each batch (default: 1)",
    )
    _add_device(command)
    _add_quiet(command)


def _add_evaluate(add: AddCommand) -> None:
    command = add(
        "evaluate",
        "_evaluate",
        "measure a model on held-out images: tables, pictures, a page for readers",
        "evaluate chest-xray held-out/ figures/ --training x-rays/",
        "figures.csv holds the images that were finished.",
    )
    command.add_argument("model", metavar="MODEL", help="name or folder of a model")
    command.add_argument(
        "source", type=Path, metavar="DATA", help="folder of images, one per patient, or one image"
    )
    command.add_argument(
        "out",
        type=Path,
        nargs="?",
        default=Path("evaluation"),
        metavar="OUT",
        help="folder for tables and pictures (default: evaluation)",
    )
    command.add_argument(
        "--include",
        action="append",
        metavar="PATTERN",
        help="take images of such names only, e.g. 'kermany_*'; may be repeated",
    )
    command.add_argument(
        "--limit", type=_positive, metavar="N", help="take the first N images only"
    )
    _add_scale(command, "finest scale to measure (default: the finest that each image supports)")
    command.add_argument(
        "--training",
        type=Path,
        metavar="DIR",
        help="folder of the training images, to measure memorisation",
    )
    command.add_argument(
        "--reader-study",
        action="store_true",
        help="also write reader-study.html, on which a reader tells real from synthetic",
    )
    command.add_argument(
        "--overwrite", action="store_true", help="write into OUT also if it is not empty"
    )
    _add_precision(command, "fp32", "default: fp32")
    _add_computing(command)
    _add_quiet(command)


def _add_import_megan(add: AddCommand) -> None:
    command = add(
        "import-megan",
        "_import",
        "make a model of checkpoints that the program of the method's authors wrote",
        "import-megan checkpoints/ my-model/ --modality CT --window -1000 600",
        _LEAVES_NOTHING,
    )
    _add_paths(
        command,
        "FOLDER",
        "folder with <experiment>_LR/NETG_best.pth, <experiment>_HR1/NETG_best.pth, ...",
        "OUT",
        "model folder to make",
    )
    command.add_argument("--name", help="short name of the model (default: the experiment's)")
    command.add_argument("--title", help="what people read (default: the experiment's name)")
    command.add_argument("--modality", default="unknown", help="e.g. CT or MR (default: unknown)")
    command.add_argument(
        "--window",
        nargs=2,
        type=float,
        default=(-1.0, 1.0),
        metavar=("LOW", "HIGH"),
        help="intensities that the networks' -1 and 1 stand for (default: -1 1)",
    )
    _add_quiet(command)


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


def _add_paths(
    command: argparse.ArgumentParser, first: str, first_help: str, second: str, second_help: str
) -> None:
    command.add_argument("source", type=Path, metavar=first, help=first_help)
    command.add_argument("out", type=Path, metavar=second, help=second_help)


def _add_scale(command: argparse.ArgumentParser, text: str) -> None:
    command.add_argument("--scale", type=_natural, metavar="S", help=f"0 is the coarsest; {text}")


def _add_region(command: argparse.ArgumentParser, text: str, *, required: bool = False) -> None:
    command.add_argument("--region", required=required, metavar="R", help=f"{text}: {_REGION}")


def _add_precision(command: argparse.ArgumentParser, default: str | None, text: str) -> None:
    command.add_argument("--precision", choices=("fp32", "bf16"), default=default, help=text)


def _add_computing(command: argparse.ArgumentParser) -> None:
    _add_device(command)
    command.add_argument(
        "--workers",
        type=_positive,
        metavar="N",
        help="tiles at the same time (default: one per core; 2 on a GPU)",
    )


def _add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where to compute (default: auto, a GPU if there is one)",
    )


def _add_overwrite(command: argparse.ArgumentParser) -> None:
    command.add_argument("--overwrite", action="store_true", help="replace what is called OUT")


def _add_quiet(command: argparse.ArgumentParser) -> None:
    command.add_argument("-q", "--quiet", action="store_true", help="no progress, no summary")


def _natural(text: str) -> int:
    return _whole(text, 0)


def _positive(text: str) -> int:
    return _whole(text, 1)


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
    return value
