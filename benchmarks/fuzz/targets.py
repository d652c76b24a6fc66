"""What is fuzzed: each target harms a small valid input, and uses it as the program would."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.guard import examine
from benchmarks.fuzz.mutate import change_folder, changed_bytes, changed_json

if TYPE_CHECKING:
    from benchmarks.fuzz.guard import Finding, Limits


class Target(ABC):
    """One kind of input. `make` writes a valid one, `harm` changes a copy, `use` reads it."""

    def __init__(self, folder: Path) -> None:
        self.outside = folder / "outside"
        self.outside.mkdir(parents=True)
        (self.outside / "secret").write_bytes(b"{}")
        self.sandbox = folder / "sandbox"
        self.sandbox.mkdir()
        self.pristine = self.sandbox / "pristine"
        self.pristine.mkdir()
        self.case, self._count = self.sandbox / "case", 0
        self.make(self.pristine)

    @abstractmethod
    def make(self, folder: Path) -> None: ...

    def chosen(self, choices: Choices) -> str:
        """Return which folder in `pristine` is copied; all of it if empty."""
        return ""

    @abstractmethod
    def harm(self, choices: Choices, folder: Path) -> None: ...

    @abstractmethod
    def use(self, choices: Choices, folder: Path) -> None: ...

    def check(self, data: bytes, limits: Limits | None = None) -> Finding | None:
        """Return what is wrong with what the package does with this input."""
        choices = Choices(data)
        if self.case.exists():
            shutil.rmtree(self.case)
        # Another name each time: threads that still read for the last input find nothing.
        self._count += 1
        self.case = self.sandbox / f"case-{self._count}"
        shutil.copytree(self.pristine / self.chosen(choices), self.case)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # quantised tensors are going out of use
            self.harm(choices, self.case)

        def run() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.use(choices, self.case)

        return examine(run, self.sandbox, self.outside, limits)


class ModelJson(Target):
    """``model.json`` of any content."""

    def make(self, folder: Path) -> None:
        from tests.models import write_model

        write_model(folder / "small", ndim=3)
        self.content = json.loads((folder / "small/model.json").read_text())

    def harm(self, choices: Choices, folder: Path) -> None:
        (folder / "small/model.json").write_bytes(changed_json(choices, self.content))

    def use(self, choices: Choices, folder: Path) -> None:
        import torch

        from napari_msgan.model import read_spec
        from napari_msgan.networks import build_generator

        spec = read_spec(folder / "small")
        assert len(spec.identity) == 64
        with torch.device("meta"):
            for scale in spec.scales:
                build_generator(scale.network, scale.factor)


class ModelFolder(Target):
    """Weights, card, links and odd files of a model whose hashes fit."""

    names: ClassVar[tuple[str, ...]] = (
        "model.json", "README.md", "scale_0.safetensors", "scale_1.safetensors", "LICENSE",
    )  # fmt: skip

    def make(self, folder: Path) -> None:
        from tests.models import write_model

        write_model(folder / "small", ndim=2, n_scales=2)
        (folder / "small/README.md").write_text("# A card\n")

    def harm(self, choices: Choices, folder: Path) -> None:
        model = folder / "small"
        if choices.below(3) == 2:
            change_folder(choices, model, self.names, self.outside)
            return
        spec = json.loads((model / "model.json").read_text())
        index = choices.below(2)
        path = model / f"scale_{index}.safetensors"
        whole = path.read_bytes()
        size = int.from_bytes(whole[:8], "little")
        if choices.below(2):
            header = changed_json(choices, json.loads(whole[8 : 8 + size]))
            weights = len(header).to_bytes(8, "little") + header + whole[8 + size :]
        else:
            weights = changed_bytes(choices, whole, head=size + 16)
        path.write_bytes(weights)
        spec["scales"][index]["sha256"] = hashlib.sha256(weights).hexdigest()
        (model / "model.json").write_text(json.dumps(spec))

    def use(self, choices: Choices, folder: Path) -> None:
        from benchmarks.fuzz.terminal import run_terminal
        from napari_msgan.model import load_model

        if choices.below(4) == 3:
            run_terminal(["models", str(folder / "small")])
        else:
            load_model(folder / "small")


class Store(Target):
    """A pyramid store: root and level metadata, chunk files, links."""

    def make(self, folder: Path) -> None:
        from napari_msgan.jobs import generate
        from tests.models import write_model
        from tests.training.made import blobs, write_image

        self.model = write_model(self.sandbox / "model", ndim=2, n_scales=2, base_size=16)
        image = write_image(folder / "image.tif", blobs((30, 40), 0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            generate(image, folder / "a.ome.zarr", self.model, region="0:16,0:16", device="cpu")
        image.unlink()
        found = sorted((folder / "a.ome.zarr").rglob("*"))
        self.files = [str(p.relative_to(folder / "a.ome.zarr")) for p in found]
        self.metadata = [name for name in self.files if name.endswith("zarr.json")]
        self.chunks = [
            n for n in self.files if "/c/" in n and (folder / "a.ome.zarr" / n).is_file()
        ]

    def harm(self, choices: Choices, folder: Path) -> None:
        store = folder / "a.ome.zarr"
        match choices.below(4):
            case 0 | 1:
                path = store / choices.pick(("zarr.json", "zarr.json", *self.metadata))
                content = json.loads(path.read_text())
                path.write_bytes(changed_json(choices, content))
            case 2:
                path = store / choices.pick(self.chunks)
                path.write_bytes(changed_bytes(choices, path.read_bytes(), head=24))
            case 3:
                odd = ("0/.writer.lock", "0/.writer.pid", "0/.writer.unsynced", "0/c/0/0.x.partial")
                change_folder(choices, store, (*self.files, *odd, ".zgroup"), self.outside)

    def use(self, choices: Choices, folder: Path) -> None:
        from benchmarks.fuzz.terminal import run_terminal
        from napari_msgan.exporting import provenance
        from napari_msgan.geometry import Box
        from napari_msgan.pyramid import open_pyramid, view_volume

        path = folder / "a.ome.zarr"
        match choices.below(6):
            case 0:
                store = open_pyramid(path)
                for scale in range(store.n_scales):
                    whole = Box.of_shape(store.geometry.shape_at(scale))
                    part = whole.intersect(Box.of_shape((32,) * whole.ndim))
                    store.read_sketch(scale, part)
                    np.asarray(view_volume(store, scale).data[part.slices])
                    store.refined_fraction(scale)
                provenance(store, store.n_scales - 1, whole, "store")
            case 1:
                run_terminal(["info", str(path)])
            case 2:
                run_terminal(["export", str(path), str(folder / "b.tif"), "-q", "--overwrite"])
            case 3:
                region = ["--region", "0:30,0:40", "--workers", "1", "--device", "cpu", "-q"]
                run_terminal(["refine", str(path), "--model", str(self.model), *region])
            case 4:
                run_terminal(["verify", str(path), "-q", "--model", str(self.model)])
            case 5:
                sample = ["--sample", choices.pick(("0", "2", "all"))]
                run_terminal(["verify", str(path), "--repair", "--model", str(self.model), *sample])


class Reader(Target):
    """A file of one image format."""

    suffix: ClassVar[str]

    def make(self, folder: Path) -> None:
        from napari_msgan.geometry import Affine
        from napari_msgan.io import write_volume
        from napari_msgan.volume import Volume

        values = np.random.default_rng(5).integers(0, 250, (3, 17, 21)).astype(np.int16)
        volume = Volume(values, Affine.of_spacing((2.5, 0.7, 0.6)), "millimeter")
        write_volume(folder / f"a{self.suffix}", [volume], description={"content": "made"})

    def harm(self, choices: Choices, folder: Path) -> None:
        path = folder / f"a{self.suffix}"
        path.write_bytes(changed_bytes(choices, path.read_bytes()))

    def use(self, choices: Choices, folder: Path) -> None:
        from napari_msgan.io import read_description, read_volume

        path = folder / f"a{self.suffix}"
        data = read_volume(path).data
        np.asarray(data[tuple(slice(0, 64) for _ in data.shape)])
        read_description(path)


class Nifti(Reader):
    """NIfTI, with pieces of the header and the comment changed."""

    suffix = ".nii"


class NiftiGz(Reader):
    """Compressed NIfTI: the header inside changed, or the compressed file."""

    suffix = ".nii.gz"

    def harm(self, choices: Choices, folder: Path) -> None:
        import gzip

        path = folder / f"a{self.suffix}"
        if choices.below(4) == 3:
            super().harm(choices, folder)
        else:
            content = changed_bytes(choices, gzip.decompress(path.read_bytes()))
            path.write_bytes(gzip.compress(content, 1, mtime=0))


class OmeTiff(Reader):
    """OME-TIFF as the package writes it."""

    suffix = ".ome.tif"


class Tiff(Reader):
    """TIFF of other programs: strips or tiles, compressions, colours, ImageJ."""

    suffix = ".tif"

    def make(self, folder: Path) -> None:
        import tifffile

        values = np.random.default_rng(5).integers(0, 250, (3, 32, 48)).astype(np.uint8)
        variants: tuple[dict[str, Any], ...] = (
            {},
            {"imagej": True, "resolution": (2.0, 2.0), "metadata": {"unit": "mm", "spacing": 3.0}},
            {"tile": (16, 16), "compression": "lzw"},
            {"rowsperstrip": 8, "compression": "packbits", "photometric": "miniswhite"},
            {"tile": (16, 16), "compression": "jpeg"},
            {"rowsperstrip": 8, "compression": "zstd", "bigtiff": True},
            {"photometric": "rgb", "planarconfig": "separate", "compression": "zlib"},
        )
        for index, options in enumerate(variants):
            options = {"photometric": "minisblack", **options}
            tifffile.imwrite(folder / f"{index}.tif", values, **options)
        self.contents = [(folder / f"{i}.tif").read_bytes() for i in range(len(variants))]

    def harm(self, choices: Choices, folder: Path) -> None:
        content = choices.pick(self.contents)
        # The tags stand behind the pixels where tifffile compresses.
        where = int.from_bytes(content[4:8], "little")
        if choices.below(2) and 8 < where < len(content):
            content = content[:where] + changed_bytes(choices, content[where:], head=256)
        else:
            content = changed_bytes(choices, content)
        (folder / "a.tif").write_bytes(content)


class Picture(Reader):
    """PNG and JPEG of several kinds of pixels."""

    suffix = ".png"

    def make(self, folder: Path) -> None:
        from PIL import Image

        grey = np.random.default_rng(5).integers(0, 250, (23, 31)).astype(np.uint8)
        kinds = {
            "a.png": Image.fromarray(grey),
            "b.png": Image.fromarray(grey.astype(np.uint16) * 200),
            "c.png": Image.fromarray(grey).convert("P"),
            "a.jpg": Image.fromarray(grey),
            "b.jpg": Image.fromarray(grey).convert("CMYK"),
        }
        for name, picture in kinds.items():
            exif = Image.Exif()
            exif[0x0112] = 6
            picture.save(folder / name, exif=exif)
        self.contents = {name: (folder / name).read_bytes() for name in kinds}

    def harm(self, choices: Choices, folder: Path) -> None:
        self.name = choices.pick(sorted(self.contents))
        content = changed_bytes(choices, self.contents[self.name], head=128)
        if self.name.endswith("png") and choices.below(2):
            content = _with_checksums(content)
        (folder / self.name).write_bytes(content)

    def use(self, choices: Choices, folder: Path) -> None:
        from napari_msgan.io import read_volume

        read_volume(folder / self.name)


def _with_checksums(png: bytes) -> bytes:
    """Return a PNG whose chunks have the checksums that their content needs."""
    import zlib

    data, at = bytearray(png), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(data)


class OmeZarr(Target):
    """OME-Zarr of other programs, versions 0.4 and 0.5, with several codecs and shards."""

    def make(self, folder: Path) -> None:
        import zarr
        from numcodecs import Blosc
        from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

        values = np.random.default_rng(5).integers(0, 250, (4, 20, 24)).astype(np.int16)
        axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
        scale = {"type": "scale", "scale": [2.0, 0.5, 0.5]}
        datasets = [{"path": "0", "coordinateTransformations": [scale]}]
        image = {"axes": axes, "datasets": datasets, "name": "a"}
        new = {"ome": {"version": "0.5", "multiscales": [image]}}
        old = {"multiscales": [{**image, "version": "0.4"}]}
        kinds: dict[str, tuple[Any, dict[str, Any]]] = {
            "blosc": (3, {"compressors": BloscCodec()}),
            "gzip": (3, {"compressors": GzipCodec()}),
            "shards": (3, {"compressors": ZstdCodec(), "shards": (4, 20, 24)}),
            "blosc-shards": (3, {"compressors": BloscCodec(), "shards": (8, 20, 24)}),
            "v2": (2, {}),
            "v2-blosc": (2, {"compressors": Blosc()}),
            "float": (3, {"compressors": None}),
        }
        for name, (version, options) in kinds.items():
            attributes: Any = new if version == 3 else old
            group = zarr.create_group(
                folder / name / "a.zarr", zarr_format=version, attributes=attributes
            )
            data = values.astype(np.float32) if name == "float" else values
            group.create_array("0", data=data, chunks=(4, 10, 12), **options)
        self.kinds = sorted(kinds)
        self.files = {
            name: sorted(
                str(p.relative_to(folder / name / "a.zarr"))
                for p in (folder / name / "a.zarr").rglob("*")
            )
            for name in kinds
        }

    def chosen(self, choices: Choices) -> str:
        self.kind = choices.pick(self.kinds)
        return self.kind

    def harm(self, choices: Choices, folder: Path) -> None:
        store, names = folder / "a.zarr", self.files[self.kind]
        metadata = [n for n in names if Path(n).name in ("zarr.json", ".zarray", ".zattrs")]
        chunks = [n for n in names if (store / n).is_file() and n not in metadata]
        match choices.below(4):
            case 0 | 1:
                path = store / choices.pick(metadata)
                path.write_bytes(changed_json(choices, json.loads(path.read_text())))
            case 2:
                path = store / choices.pick(chunks)
                path.write_bytes(changed_bytes(choices, path.read_bytes(), head=24))
            case 3:
                change_folder(choices, store, names, self.outside)

    def use(self, choices: Choices, folder: Path) -> None:
        from napari_msgan.io import read_description, read_volume

        path = folder / "a.zarr"
        if choices.below(4) == 3:
            path = path / "0"  # a plain array
        data = read_volume(path).data
        np.asarray(data[tuple(slice(0, 64) for _ in data.shape)])
        read_description(path)


class Checkpoints(Target):
    """Checkpoints of the method's authors: archives, pickles, tensors of odd kinds."""

    def make(self, folder: Path) -> None:
        import torch

        from tests.megan import random_weights

        part = folder / "Toy_LR"
        part.mkdir()
        self.weights = random_weights(1, low_res=True, seed=0)
        torch.save(self.weights, part / "NETG_best.pth")
        self.zipped = (part / "NETG_best.pth").read_bytes()
        torch.save(self.weights, folder / "old", _use_new_zipfile_serialization=False)
        self.old = (folder / "old").read_bytes()

    def harm(self, choices: Choices, folder: Path) -> None:
        path = folder / "Toy_LR/NETG_best.pth"
        match choices.below(4):
            case 0:
                path.write_bytes(changed_bytes(choices, self.zipped, head=4096))
            case 1:
                content = self.zipped
                tail = len(content) - 6000  # the directory of the archive
                path.write_bytes(content[:tail] + changed_bytes(choices, content[tail:], head=6000))
            case 2:
                path.write_bytes(changed_bytes(choices, self.old, head=4096))
            case 3:
                self._save_odd(choices, path)

    def _save_odd(self, choices: Choices, path: Path) -> None:
        import collections

        import torch

        weights: dict[Any, Any] = dict(self.weights)
        key = choices.pick(sorted(weights))
        odd: tuple[Any, ...] = (
            torch.empty(weights[key].shape, device="meta"),
            torch.zeros(1).expand(2**40),
            torch.zeros(1).expand(weights[key].shape),
            torch.zeros(weights[key].shape, dtype=torch.complex64),
            torch.zeros(weights[key].shape, dtype=torch.bool),
            torch.zeros(weights[key].shape).to_sparse(),
            torch.quantize_per_tensor(torch.ones(weights[key].shape), 0.1, 0, torch.qint8),
            torch.full(weights[key].shape, torch.nan),
            torch.nn.Parameter(weights[key]),
            weights[key].to(torch.float8_e4m3fn),
            collections.OrderedDict(a=1), [weights[key]], "text", None, 10**30, b"\0" * 9,
        )  # fmt: skip
        name = choices.pick((key, key, key, 3, "", ("a",), "../x"))
        weights[name] = choices.pick(odd)
        torch.save(choices.pick((weights, weights, weights, weights[name])), path)

    def use(self, choices: Choices, folder: Path) -> None:
        from napari_msgan.megan_import import read_checkpoint

        read_checkpoint(folder / "Toy_LR/NETG_best.pth", low_res=True)


class TrainingSettings(Target):
    """``--config`` of any content, up to the plan that is shown."""

    def make(self, folder: Path) -> None:
        from napari_msgan.training import survey
        from tests.training.made import blobs, config_of, write_image

        (folder / "images").mkdir()
        write_image(folder / "images/a.tif", blobs((70, 80), 0))
        write_image(folder / "images/b.tif", blobs((90, 64), 1))
        self.content = json.loads(config_of(2).model_dump_json())
        self.files = survey(folder / "images", None)

    def harm(self, choices: Choices, folder: Path) -> None:
        (folder / "plan.json").write_bytes(changed_json(choices, self.content))

    def use(self, choices: Choices, folder: Path) -> None:
        from napari_msgan.cli._train import read_config
        from napari_msgan.training import check_run, disk_of, plan_table, survey

        config = read_config(str(folder / "plan.json"))
        files = survey(folder / "images", config)
        check_run(files, folder / "out", config)
        plan_table(config)
        disk_of(config, files)


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
    """Arguments of any kind for every command, with valid files at hand."""

    WORDS = (
        "models", "sketch", "generate", "refine", "info", "export", "train", "evaluate",
        "import-megan", "verify", "estimate", "--help", "--version", "-q", "--quiet", "--json",
        "--model", "--scale", "--region",
        "--seed", "--precision", "--device", "--workers", "--grid", "--overwrite", "--config",
        "--plan-only", "--sketches", "--name", "--title", "--modality", "--window", "--include",
        "--limit", "--training", "--reader-study", "--input-is-sketch", "--keep-name", "--", "-",
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


TARGETS: dict[str, type[Target]] = {
    "model-json": ModelJson,
    "model-folder": ModelFolder,
    "store": Store,
    "nifti": Nifti,
    "nifti-gz": NiftiGz,
    "ome-tiff": OmeTiff,
    "tiff": Tiff,
    "picture": Picture,
    "ome-zarr": OmeZarr,
    "checkpoints": Checkpoints,
    "training": TrainingSettings,
    "regions": Regions,
    "command-lines": CommandLines,
}
