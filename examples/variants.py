"""Make variants of an image for augmentation: bend its sketch, leave out edges, and generate.

    python examples/variants.py IMAGE FOLDER [LABELS]

LABELS, on the voxels of IMAGE, are bent in the same way. Another seed changes textures only:
another anatomy needs another sketch.
"""

import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

import napari_msgan as msgan
from napari_msgan import Volume
from napari_msgan.io import write_volume

BEND = 0.04  # of the longest side, how far the sketch is moved
CONTROL_POINTS = 4  # per axis: fewer bend it more smoothly
LEFT_OUT = 0.2  # share of the edges, each of them whole


def bent_grid(shape: tuple[int, ...], rng: np.random.Generator) -> list[np.ndarray]:
    """Return where each voxel of a variant comes from."""
    moves = rng.normal(size=(len(shape), *(CONTROL_POINTS,) * len(shape)))
    zoom = np.array(shape) / CONTROL_POINTS
    smooth = [ndimage.zoom(move, zoom, order=3) for move in moves]
    far = max(float(np.abs(s).max()) for s in smooth)
    return [
        place + s * (BEND * max(shape) / far)
        for place, s in zip(np.indices(shape), smooth, strict=True)
    ]


def main(image: Path, folder: Path, labels: Path | None, model: str, count: int = 5) -> None:
    """Write ``variant_<n>.ome.tif`` and, where there are labels, ``labels_<n>.ome.tif``."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = msgan.load_model(model).spec.sketch
    file = folder / "sketch.ome.tif"
    msgan.make_sketch(image, file, settings=settings, overwrite=True)
    drawn = msgan.read_volume(file)
    sketch = np.asarray(drawn.data)
    painted = None if labels is None else np.asarray(msgan.read_volume(labels).data)
    edges, n_edges = ndimage.label(sketch, np.ones((3,) * sketch.ndim))
    for number in range(count):
        rng = np.random.default_rng(number)
        grid = bent_grid(sketch.shape, rng)
        kept = rng.random(n_edges + 1) > LEFT_OUT
        kept[np.bincount(edges[edges > 0]).argmax()] = True  # the longest: the outline, mostly
        varied = ndimage.map_coordinates(sketch * kept[edges], grid, order=0)
        variant = Volume(varied, drawn.affine, drawn.unit)
        name = folder / f"variant_{number}.ome.zarr"
        store = msgan.generate(variant, name, model, input_is_sketch=True)
        saved = folder / f"variant_{number}.ome.tif"
        msgan.export(store, saved, grid="source", overwrite=True)
        if painted is not None:
            moved = ndimage.map_coordinates(painted, grid, order=0)
            bent = Volume(moved, drawn.affine, drawn.unit)
            labelled = folder / f"labels_{number}.ome.tif"
            write_volume(labelled, [bent], description={"content": "labels"}, overwrite=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    given = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    main(Path(sys.argv[1]), Path(sys.argv[2]), given, "chest-xray")
