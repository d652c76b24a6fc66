"""Make an nnU-Net data set (raw layout) of labelled images and of synthetic variants of them.

    python examples/nnunet.py IMAGES LABELS OUT [MODEL [COUNT]]

IMAGES and LABELS hold one file per patient under the same name (the suffixes may differ), of any
kind that `napari-msgan generate` reads. Run again, it continues where it was stopped. What is made
from a patient's image is that patient's data, and its texture is the model's: look at it (see
variants.py), and measure on real images whether training with it helps. Copy ``splits_final.json``
to nnU-Net's folder of preprocessed data: with nnU-Net's own folds, variants of an image would train
the network that is tested on that image.
"""

import json
import sys
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from variants import bent, bent_grid, without_edges

import napari_msgan as msgan
from napari_msgan import Volume
from napari_msgan.io import write_volume


def by_case(folder: Path) -> dict[str, Path]:
    """Return the files (or folders of DICOM series) of a folder by their names without suffix."""
    files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    cases = {path.name.removesuffix(".gz").rpartition(".")[0] or path.name: path for path in files}
    if len(cases) < len(files):
        raise msgan.MsganError(f"{folder} has files that differ in their suffix only: rename them")
    return cases


def read_pair(image: Path, labels: Path) -> tuple[Volume, Volume]:
    """Return an image and its label map, on the same voxels."""
    source, painted = msgan.read_volume(image), msgan.read_volume(labels)
    if source.shape != painted.shape:
        raise msgan.MsganError(f"{labels} has {painted.shape} voxels, its image {source.shape}")
    if not np.allclose(source.affine.matrix, painted.affine.matrix, atol=1e-3):
        raise msgan.MsganError(f"{labels} lies elsewhere than its image: resample it")
    whole = np.asarray(painted.data)
    if not np.array_equal(whole, whole.astype(np.uint8)):
        raise msgan.MsganError(f"{labels} holds no labels: integers from 0 to 255")
    return source, Volume(whole.astype(np.uint8), source.affine, source.unit)


def write_real(pair: tuple[Volume, Volume], name: str, out: Path) -> None:
    """Save an image and its labels as they are."""
    image, labels = out / f"imagesTr/{name}_0000.nii.gz", out / f"labelsTr/{name}.nii.gz"
    drawn = {"content": "labels", "synthetic": False}
    write_volume(labels, [pair[1]], description=drawn, overwrite=True)
    write_volume(image, [pair[0]], description={"content": "image", "synthetic": False})


def write_variant(pair: tuple[Volume, Volume], number: int, model: object, name: str, out: Path):
    """Bend an image and its labels, leave out edges of the sketch, generate, and save both."""
    source, painted = pair
    rng = np.random.default_rng([number, zlib.crc32(name.encode())])
    grid = bent_grid(source.shape, rng)
    saved = {"content": "labels", "synthetic": True}
    write_volume(
        out / f"labelsTr/{name}.nii.gz", [bent(painted, grid, 0)], description=saved, overwrite=True
    )
    with TemporaryDirectory() as scratch:
        base = msgan.generate(bent(source, grid, 1), f"{scratch}/bent.ome.zarr", model, scale=0)
        edited = without_edges(base, rng)
        store = msgan.generate(edited, f"{scratch}/variant.ome.zarr", model, edited_from=base)
        msgan.export(store, out / f"imagesTr/{name}_0000.nii.gz", grid="source")


def main(images: Path, labels: Path, out: Path, model: str | Path, count: int) -> list[str]:
    """Return the images that were left out, and why."""
    for folder in ("imagesTr", "labelsTr"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    loaded, painted = msgan.load_model(model), by_case(labels)
    made: dict[str, list[str]] = {}
    values, left_out = {0}, []
    for case, image in by_case(images).items():
        names = [case, *(f"{case}_synthetic{number}" for number in range(1, count + 1))]
        done: list[str] = []
        try:
            pair = read_pair(image, painted.get(case, labels / f"{case}.nii.gz"))
            for number, name in enumerate(names):
                if not (out / f"imagesTr/{name}_0000.nii.gz").exists():  # else it is complete
                    if number == 0:
                        write_real(pair, name, out)
                    else:
                        write_variant(pair, number, loaded, name, out)
                done.append(name)
        except msgan.MsganError as error:
            left_out.append(f"{image}: {error}")
        if done:  # also where a variant failed: nnU-Net counts the files
            made[case] = done
            values |= set(np.unique(pair[1].data).tolist())
            print(f"{image.name}: {len(done)} cases")
    write_settings(out, made, sorted(values), loaded.spec.modality)
    return left_out


def write_settings(out: Path, made: dict[str, list[str]], values: list[int], channel: str) -> None:
    """Write what nnU-Net wants to know, and folds that keep an image and its variants together."""
    if values != list(range(len(values))):
        print(f"nnU-Net wants labels 0, 1, 2 and so on, these are {values}: renumber them")
    settings = {
        "channel_names": {"0": channel},  # "CT" makes nnU-Net keep HU
        "labels": {"background": 0} | {f"label {v}": v for v in values if v > 0},
        "numTraining": sum(map(len, made.values())),
        "file_ending": ".nii.gz",
        "description": "Images whose names end in _synthetic<n> were made by napari-msgan",
    }
    (out / "dataset.json").write_text(json.dumps(settings, indent=2))
    if len(made) < 2:
        print("Folds need two images: splits_final.json is not written")
        return
    folds = [list(made)[n :: min(5, len(made))] for n in range(min(5, len(made)))]
    splits = [
        {"train": [name for case in made if case not in fold for name in made[case]], "val": fold}
        for fold in folds
    ]
    (out / "splits_final.json").write_text(json.dumps(splits, indent=2))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    given = (
        sys.argv[4] if len(sys.argv) > 4 else "chest-xray",
        int(sys.argv[5]) if len(sys.argv) > 5 else 3,
    )
    missed = main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), *given)
    raise SystemExit("\n".join(["left out:", *missed]) if missed else 0)
