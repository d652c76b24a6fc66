"""Make variants of an image for augmentation: bend it, leave out edges of its sketch, generate.

    python examples/variants.py IMAGE FOLDER [LABELS [MODEL]]

LABELS, a label map on the voxel grid of IMAGE, is bent in the same way. MODEL is chest-xray unless
given. Look at the variants: where edges of a lung are left out, it may turn opaque, as in disease.
"""

import sys
from pathlib import Path

import numpy as np
from scipy import ndimage

import napari_msgan as msgan
from napari_msgan import Volume
from napari_msgan.io import write_volume

BEND = 0.04  # largest displacement, as a share of the longest side
CONTROL_POINTS = 4  # per axis; fewer bend the image more smoothly
LEFT_OUT = 0.2  # share of the edges to leave out, each as a whole


def bent_grid(shape: tuple[int, ...], rng: np.random.Generator) -> list[np.ndarray]:
    """Return the index in the image that each voxel of a variant comes from, per axis."""
    moves = rng.normal(size=(len(shape), *(CONTROL_POINTS,) * len(shape)))
    zoom = np.array(shape) / CONTROL_POINTS
    smooth = [ndimage.zoom(move, zoom, order=3) for move in moves]
    far = max(float(np.abs(s).max()) for s in smooth)
    return [
        place + s * (BEND * max(shape) / far)
        for place, s in zip(np.indices(shape), smooth, strict=True)
    ]


def bent(volume: Volume, grid: list[np.ndarray], order: int) -> Volume:
    """Return an image (order 1) or a label map (order 0) bent by a grid of `bent_grid`."""
    moved = ndimage.map_coordinates(np.asarray(volume.data), grid, order=order, mode="nearest")
    return Volume(moved, volume.affine, volume.unit)


def without_edges(store: msgan.PyramidStore, rng: np.random.Generator) -> Volume:
    """Return the sketch of a store without some of its edges; the longest, an outline, is kept."""
    geometry = store.geometry
    sketch = np.asarray(store.sketch_array(geometry.finest_scale)[...])
    edges, n_edges = ndimage.label(sketch, np.ones((3,) * sketch.ndim))
    kept = rng.random(n_edges + 1) > LEFT_OUT
    kept[np.bincount(edges[edges > 0]).argmax()] = True
    return Volume(sketch * kept[edges], geometry.affine, geometry.unit)


def main(image: Path, folder: Path, labels: Path | None, model: str, count: int = 5) -> None:
    """Write ``variant_<n>.ome.tif`` and, if there are labels, ``labels_<n>.ome.tif``."""
    folder.mkdir(parents=True, exist_ok=True)
    source = msgan.read_volume(image)
    painted = None if labels is None else msgan.read_volume(labels)
    for number in range(count):
        rng = np.random.default_rng(number)
        grid = bent_grid(source.shape, rng)
        moved = bent(source, grid, 1)
        base = msgan.generate(moved, folder / f"bent_{number}.ome.zarr", model, scale=0)
        store = msgan.generate(
            without_edges(base, rng),
            folder / f"variant_{number}.ome.zarr",
            model,
            edited_from=base,
        )
        saved = folder / f"variant_{number}.ome.tif"
        msgan.export(store, saved, grid="source", overwrite=True)
        if painted is not None:
            on_source = Volume(np.asarray(painted.data), source.affine, source.unit)
            labelled = folder / f"labels_{number}.ome.tif"
            saved_as = {"content": "labels", "synthetic": True}
            moved = bent(on_source, grid, 0)
            write_volume(labelled, [moved], description=saved_as, overwrite=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    given = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    chosen = sys.argv[4] if len(sys.argv) > 4 else "chest-xray"
    main(Path(sys.argv[1]), Path(sys.argv[2]), given, chosen)
