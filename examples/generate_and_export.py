"""Sketch an image, generate it at low resolution, refine one region, and save it.

python examples/generate_and_export.py IMAGE FOLDER
"""

import sys
from pathlib import Path

import napari_msgan as msgan


def main(image: Path, folder: Path, model: str = "chest-xray") -> None:
    """Write ``result.ome.zarr`` and ``region.ome.tif`` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    store = msgan.generate(image, folder / "result.ome.zarr", model, scale=0)

    height, width = store.geometry.shape
    region = f"{height // 4}:{height // 2},{width // 4}:{width // 2}"
    for progress in msgan.iter_refine(store, region=region, model=model):
        print(f"tile {progress.done} of {progress.total}")  # stop here if you like: tiles are kept

    msgan.export(store, folder / "region.ome.tif", region=region, overwrite=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
