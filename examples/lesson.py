"""A lesson: how an image gets made, scale by scale and tile by tile, with a picture of each step.

    python examples/lesson.py IMAGE FOLDER [MODEL]

Of a volume the middle slice is shown. An X-ray of more than 512 pixels has several tiles. The
pictures show the anatomy of the patient whose image IMAGE is: they are that patient's data.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

import napari_msgan as msgan

SIDE = 512  # of each part of a picture, in pixels


def shown(array, window, caption, tiles=()) -> Image.Image:
    """Return an image, or the middle slice of a volume, with its caption and frames of tiles."""
    middle = array.shape[0] // 2
    plane = np.asarray(array[middle] if len(array.shape) == 3 else array[...], np.float32)
    grey = 255 * np.clip((plane - window[0]) / (window[1] - window[0]), 0, 1)
    enlarged = SIDE / plane.shape[1]
    size = (SIDE, round(enlarged * plane.shape[0]))
    part = Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    # An enlarged voxel stays a square, and a line that is one voxel wide is seen from far.
    part = part.resize(size, Image.Resampling.NEAREST if enlarged > 1 else Image.Resampling.BOX)
    draw = ImageDraw.Draw(part)
    for box in tiles:
        corners = (*box.start[:-3:-1], *(n - 1 for n in box.stop[:-3:-1]))
        draw.rectangle([enlarged * n for n in corners], outline="yellow")
    draw.text((4, 4), caption, "yellow", stroke_width=2, stroke_fill="black")
    return part


def is_shown(box: msgan.Box, array) -> bool:
    """Return whether a tile lies in the middle slice; in a 2-D image all do."""
    return box.ndim == 2 or box.start[0] <= array.shape[0] // 2 < box.stop[0]


def save(parts: list[Image.Image], path: Path) -> None:
    """Write images side by side, into a file that says that they are synthetic."""
    row = Image.new("RGB", (SIDE * len(parts), max(part.height for part in parts)))
    for number, part in enumerate(parts):
        row.paste(part, (SIDE * number, 0))
    said = PngInfo()
    said.add_text("Description", "SYNTHETIC, made by napari-msgan, not for diagnosis")
    row.save(path, pnginfo=said)
    print(path)


def main(image: Path, folder: Path, model: str | Path = "chest-xray") -> None:
    """Write ``scale-<n>.png`` (sketch, what is there before, a tile, all tiles) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        # 1. The image becomes a sketch, of every scale its own. From now on nobody looks at it.
        # 2. Scale 0: one network makes the whole image, small, from its sketch.
        store = msgan.generate(image, f"{scratch}/lesson.ome.zarr", model, scale=0)
        for scale in range(store.n_scales):
            size = " x ".join(map(str, store.geometry.shape_at(scale)))
            sketch = shown(store.sketch_array(scale), (0, 255), f"sketch of scale {scale}: {size}")
            view = msgan.view_volume(store, scale).data
            if scale == 0:
                save([sketch, shown(view, store.info.window, "made of it")], folder / "scale-0.png")
                continue
            # 3. Each further scale has a network of its own. It makes tiles, each from the scale
            #    before it (enlarged: first picture) and the sketch, until the image is full.
            parts = [sketch, shown(view, store.info.window, f"scale {scale - 1}, enlarged")]
            tiles = []
            for progress in msgan.iter_refine(store, scale=scale, model=model, workers=1):
                if progress.report is None or not is_shown(progress.report.box, view):
                    continue
                tiles.append(progress.report.box)
                if len(tiles) == 1:
                    parts.append(shown(view, store.info.window, "one tile", tiles))
            parts.append(shown(view, store.info.window, f"scale {scale}", tiles))
            save(parts, folder / f"scale-{scale}.png")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:4])
