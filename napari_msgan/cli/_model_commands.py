"""Arguments of the commands that make and measure models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_msgan.cli._arguments import (
    LEAVES_NOTHING,
    add_computing,
    add_device,
    add_paths,
    add_precision,
    add_quiet,
    add_scale,
    local,
    positive,
)

if TYPE_CHECKING:
    from napari_msgan.cli._arguments import AddCommand


def add_train(add: AddCommand) -> None:
    """Add the command `train`."""
    command = add(
        "train",
        "_train",
        "train all scales of a model on a folder of images",
        "train x-rays/ my-model/",
        "The same command resumes from the last checkpoint.",
    )
    add_paths(command, "DATA", "folder of images", "OUT", "model folder to make or continue")
    command.add_argument(
        "--preset",
        choices=("fast", "balanced", "quality"),
        help="size of the networks and number of steps (default: balanced)",
    )
    command.add_argument(
        "--config",
        metavar="FILE",
        help="settings (JSON) instead of those derived from the images: an edited OUT/plan.json, "
        "or the name of bundled settings",
    )
    command.add_argument(
        "--start-from",
        metavar="MODEL",
        help="train the networks of this model further, instead of new ones, with its settings "
        "unless --config is given",
    )
    command.add_argument(
        "--plan-only", action="store_true", help="show and write the settings, but train nothing"
    )
    command.add_argument(
        "--sketches",
        type=local,
        metavar="DIR",
        help="folder with a sketch or label map for every image, under the same name "
        "(default: sketches are made from the images)",
    )
    command.add_argument(
        "--include",
        action="append",
        metavar="PATTERN",
        help="use only images with such paths below DATA, e.g. 'site_a/*.png' or '**/*_t1.nii.gz'; "
        "may be repeated (default: all)",
    )
    command.add_argument(
        "--patient",
        metavar="REGEX",
        help="the part of a file's path below DATA that names the patient, e.g. '^[^_]+' or "
        "'^[^/]+': all images of a patient are kept out of training, or none (default: each image "
        "is of another patient)",
    )
    command.add_argument(
        "--devices",
        type=positive,
        default=1,
        metavar="N",
        help="number of GPUs, or of processes without a GPU, that share each batch (default: 1)",
    )
    add_device(command)
    add_quiet(command)


def add_evaluate(add: AddCommand) -> None:
    """Add the command `evaluate`."""
    command = add(
        "evaluate",
        "_evaluate",
        "measure a model on held-out images: tables, pictures, a page for readers",
        "evaluate chest-xray held-out/ figures/ --training x-rays/",
        "figures.csv holds the images that were finished.",
    )
    command.add_argument("model", metavar="MODEL", help="name or folder of a model")
    command.add_argument(
        "source", type=local, metavar="DATA", help="folder of images, or one image"
    )
    command.add_argument(
        "out",
        type=local,
        nargs="?",
        default=Path("evaluation"),
        metavar="OUT",
        help="folder for tables and pictures (default: evaluation)",
    )
    command.add_argument(
        "--include",
        action="append",
        metavar="PATTERN",
        help="use only images with such names, e.g. 'kermany_*'; may be repeated",
    )
    command.add_argument(
        "--patient",
        metavar="REGEX",
        help="the part of a file name that names the patient, e.g. '^[^_]+': the images of a "
        "patient are averaged first (default: each image is of another patient)",
    )
    command.add_argument("--limit", type=positive, metavar="N", help="use only the first N images")
    add_scale(command, "finest scale to measure (default: the finest that each image supports)")
    command.add_argument(
        "--training",
        type=local,
        metavar="DIR",
        help="folder of the training images, to measure memorisation",
    )
    command.add_argument(
        "--reader-study",
        action="store_true",
        help="also write reader-study.html, a page on which a reader tells real from synthetic "
        "images",
    )
    command.add_argument(
        "--overwrite", action="store_true", help="write into OUT even if it is not empty"
    )
    add_precision(command, "fp32", "default: fp32")
    add_computing(command)
    add_quiet(command)


def add_import_megan(add: AddCommand) -> None:
    """Add the command `import-megan`."""
    command = add(
        "import-megan",
        "_import",
        "make a model from checkpoints of the program of the method's authors",
        "import-megan checkpoints/ my-model/ --modality CT --window -1000 600",
        LEAVES_NOTHING,
    )
    add_paths(
        command,
        "FOLDER",
        "folder with <experiment>_LR/NETG_best.pth, <experiment>_HR1/NETG_best.pth, ...",
        "OUT",
        "model folder to make",
    )
    command.add_argument("--name", help="short name of the model (default: the experiment's)")
    command.add_argument("--title", help="title of the model (default: the experiment's name)")
    command.add_argument("--modality", default="unknown", help="e.g. CT or MR (default: unknown)")
    command.add_argument(
        "--window",
        nargs=2,
        type=float,
        default=(-1.0, 1.0),
        metavar=("LOW", "HIGH"),
        help="intensities that the networks' -1 and 1 stand for (default: -1 1)",
    )
    add_quiet(command)
