"""What people type: regions and command lines."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, ClassVar

from benchmarks.fuzz.targets.base import Target

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.fuzz.choices import Choices


class Regions(Target):
    """Region strings, on a small and on a huge image."""

    def make(self, folder: Path) -> None: ...

    def harm(self, choices: Choices, folder: Path) -> None:
        pieces = (
            "0", "1", "10", "-1", ":", ":", ":", ",", ",", " ", "\n", "9" * 30, "9" * 5000, "+1",
            "1_0", "٣", "²", "0x1", "1e3", "", "nan", "\x00", "z", "1.5",
        )  # fmt: skip
        whole = ("0:10", "5:7", "0:9999999999999999999", "3:3", "7:2")
        style = choices.below(3)
        if style == 2:  # of the right form
            ends = [(choices.below(100), choices.below(120)) for _ in range(2 + choices.below(2))]
            self.text = ",".join(f"{a}:{a + b}" for a, b in ends)
        elif style == 1:
            self.text = ",".join(choices.pick((*whole, *pieces)) for _ in range(choices.below(5)))
        else:
            self.text = "".join(choices.pick(pieces) for _ in range(choices.below(24)))

    def use(self, choices: Choices, folder: Path) -> None:
        from napari_msgan.geometry import Affine, Box, PyramidGeometry

        shape = choices.pick(((75, 90), (2**30, 2**30), (20, 75, 90)))
        n = len(shape)
        axes = ("z", "y", "x")[-n:]
        geometry = PyramidGeometry(
            axes, shape, ((2,) * n,) * 3, Affine.of_spacing((1.0,) * n), "pixel"
        )
        region = Box.parse(self.text, axes)
        for scale in range(4):
            geometry.box_at(scale, region)


class CommandLines(Target):
    """Arbitrary arguments for every command, with valid files at hand."""

    WORDS = (
        "models", "sketch", "generate", "refine", "info", "export", "train", "evaluate",
        "import-megan", "verify", "estimate", "--help", "--version", "-q", "--quiet", "--json",
        "--model", "--scale", "--region",
        "--seed", "--precision", "--device", "--workers", "--grid", "--overwrite", "--config",
        "--plan-only", "--sketches", "--name", "--title", "--modality", "--window", "--include",
        "--limit", "--training", "--reader-study", "--input-is-sketch", "--keep-name",
        "--spacing", "1.5", "2,1,1", "--", "-",
        "{store}", "{store}", "{model}", "{model}", "{image}", "{image}", "{folder}/out.ome.zarr",
        "{folder}/out.tif", "{folder}/out.nii.gz", "{folder}/out", "{folder}/no/where.tif",
        "{folder}",
        "{folder}/checkpoints", "0", "1", "2", "-1", "99999999999999999999", "nan", "inf", "-5",
        "cpu",
        "cuda", "fp32", "bf16", "source", "store", "0:16,0:16", "0:30,0:40", "fast", "small",
        "chest-xray", "", " ", "\udcff", "\x1b[31m", "two\nlines", "é", "x" * 5000, "1:2:3",
        "../..", "--repair", "--sample", "--again", "--cluster", "all", "local:0", "tcp://", "tcp:",
        "://", "file://[", "file://[x]/a", "file://{store}", "memory://", "memory://a.ome.zarr",
        "s3://[", "nothing://a",
    )  # fmt: skip
    #: Openings that reach the code behind the parser.
    STARTS: ClassVar[tuple[tuple[str, ...], ...]] = (
        (),
        ("info", "{store}"),
        ("models", "{model}"),
        ("refine", "{store}", "--model", "{model}", "--device", "cpu", "--region"),
        ("export", "{store}", "{folder}/out.tif"),
        ("verify", "{store}", "--repair"),
        ("sketch", "{image}", "{folder}/out.tif"),
        ("generate", "{image}", "{folder}/out.ome.zarr", "--model", "{model}", "--device", "cpu"),
        ("generate", "{image}", "{folder}/out.ome.zarr", "--model", "{model}", "--scale"),
        ("import-megan", "{folder}/checkpoints", "{folder}/out", "--name"),
        ("import-megan", "{folder}/checkpoints", "{folder}/out", "--window"),
        ("train", "{folder}/images", "{folder}/out", "--plan-only", "--preset"),
    )

    def make(self, folder: Path) -> None:
        from napari_msgan.jobs import generate
        from tests.megan import write_checkpoints
        from tests.models import write_model
        from tests.training.made import blobs, write_image

        model = write_model(folder / "model", ndim=2, n_scales=2, base_size=16)
        (folder / "images").mkdir()
        image = write_image(folder / "images/a.tif", blobs((30, 40), 0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            generate(image, folder / "a.ome.zarr", model, region="0:16,0:16", device="cpu")
        write_checkpoints(folder / "checkpoints", widths=(1, 1))

    def harm(self, choices: Choices, folder: Path) -> None:
        places = {
            "store": folder / "a.ome.zarr", "model": folder / "model",
            "image": folder / "images/a.tif", "folder": folder,
        }  # fmt: skip
        words = [*choices.pick(self.STARTS)]
        words += [choices.pick(self.WORDS) for _ in range(choices.below(7))]
        if words and choices.below(4) == 3:
            del words[choices.below(len(words))]
        self.words = [word.format(**places) for word in words]

    def use(self, choices: Choices, folder: Path) -> None:
        from benchmarks.fuzz.terminal import run_terminal

        # training and evaluating take longer than an input may: only their plan and checks
        if "train" in self.words and "--plan-only" not in self.words:
            self.words.append("--plan-only")
        if "evaluate" in self.words or "demo" in self.words:
            self.words = ["evaluate", "--limit", "0", *self.words]
        run_terminal(self.words, cwd=folder)
