"""Models, checkpoints of other programs, and training settings."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.fuzz.mutate import change_folder, changed_bytes, changed_json
from benchmarks.fuzz.targets.base import Target

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.fuzz.choices import Choices


class ModelJson(Target):
    """``model.json`` with arbitrary content."""

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
    """Weights, card, links and odd files in a model folder whose hashes match."""

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


class Checkpoints(Target):
    """Checkpoints of the method's authors: archives, pickles, odd tensors."""

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
    """``--config`` with arbitrary content, up to the plan that is shown."""

    def make(self, folder: Path) -> None:
        from napari_msgan.training import survey
        from tests.training.made import blobs, config_of, write_image

        (folder / "images").mkdir()
        write_image(folder / "images/a.tif", blobs((150, 160), 0))
        write_image(folder / "images/b.tif", blobs((170, 128), 1))
        self.content = json.loads(config_of(2).model_dump_json())
        self.files = survey(folder / "images", None)

    def harm(self, choices: Choices, folder: Path) -> None:
        (folder / "plan.json").write_bytes(changed_json(choices, self.content))

    def use(self, choices: Choices, folder: Path) -> None:
        from napari_msgan.cli._train_plan import read_config
        from napari_msgan.training import check_run, disk_of, plan_table, survey

        config = read_config(str(folder / "plan.json"))
        files = survey(folder / "images", config)
        check_run(files, folder / "out", config)
        plan_table(config)
        disk_of(config, files)
