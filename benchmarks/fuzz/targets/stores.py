"""Stores of this program, and OME-Zarr of other programs."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.fuzz.mutate import change_folder, changed_bytes, changed_json
from benchmarks.fuzz.targets.base import Target

if TYPE_CHECKING:
    from benchmarks.fuzz.choices import Choices


class Store(Target):
    """A pyramid store: metadata of root and levels, chunk files, links."""

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
