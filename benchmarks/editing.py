"""How much an image changes where its sketch was not edited.

    python -m benchmarks.editing MODEL IMAGE [IMAGE ...] [--scale S] [--csv editing.csv]

From the sketch of each image, the edges in a ball in the middle of the left half are erased; the
ball is a tenth of the longest side wide. The image made from the edited sketch is compared with the
one before: with *edited_from*, which keeps what was not touched, and with *input_is_sketch*, which
treats it as any other sketch. *Inside* and *outside* are mean absolute differences at the finest
scale made, in % of the output window, within half the ball's width of its border and beyond that.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.per_image import parser_of, report, scales_made
from napari_msgan import Volume, generate, load_model

if TYPE_CHECKING:
    from pathlib import Path

    from napari_msgan import PyramidStore

NAMES = ("image", "way", "inside", "outside")
_WIDTH = 0.1
Row = tuple[str, str, float, float]


def measure(model_name: str, image: Path, scale: int | None = None) -> list[Row]:
    """Return one row for each way of passing the edited sketch."""
    model, rows = load_model(model_name), []
    with tempfile.TemporaryDirectory() as work:
        before = generate(image, f"{work}/before.ome.zarr", model, scale=scale)
        finest, geometry = before.geometry.finest_scale, before.geometry
        away = distance(geometry.shape)
        radius = _WIDTH / 2 * max(geometry.shape)
        sketch = np.asarray(before.sketch_array(finest)[...])
        edited = Volume(np.where(away < radius, 0, sketch), geometry.affine, geometry.unit)
        for way, option in (
            ("edited", {"edited_from": before}),
            ("given", {"input_is_sketch": True}),
        ):
            after = generate(edited, f"{work}/{way}.ome.zarr", model, scale=scale, **option)
            rows.append((image.name, way, *compare(before, after, away, 2 * radius)))
    return rows


def distance(shape: tuple[int, ...]) -> np.ndarray:
    """Return the distance of each voxel from the middle of the left half."""
    middle = [n / 2 for n in shape[:-1]] + [shape[-1] / 4]
    squares = ((np.arange(n) - m) ** 2 for n, m in zip(shape, middle, strict=True))
    return np.sqrt(sum(np.ix_(*squares)))


def compare(
    before: PyramidStore, after: PyramidStore, away: np.ndarray, reach: float
) -> tuple[float, float]:
    """Return the mean change nearer than `reach` to the middle of the edit, and beyond."""
    scale = scales_made(before)[-1]
    one, other = (np.asarray(s.array(scale)[...], np.float32) for s in (before, after))
    low, high = before.info.window
    change = np.abs(one - other) * (100 / (high - low))
    factor = before.geometry.total_factor(scale)
    near = away[tuple(slice(f // 2, None, f) for f in factor)] < reach
    change = change[tuple(slice(n) for n in near.shape)]
    return float(change[near].mean()), float(change[~near].mean())


def table(rows: list[Row]) -> str:
    """Return the mean over images as a Markdown table, one line per way."""
    ways = defaultdict(list)
    for row in rows:
        ways[row[1]].append(row[2:])
    lines = ["| sketch | images | inside % | outside % |", "|---|---|---|---|"]
    for way, found in ways.items():
        inside, outside = np.array(found).mean(0)
        lines.append(f"| {way} | {len(found)} | {inside:.2f} | {outside:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure the given images and print the table."""
    options = parser_of("editing", __doc__).parse_args()
    report(options, NAMES, lambda image: measure(options.model, image, options.scale), table)


if __name__ == "__main__":
    main()
