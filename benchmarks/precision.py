"""How far bfloat16 is from float32: share of voxels within one grey level of 255, by scale.

    python -m benchmarks.precision MODEL IMAGE [IMAGE ...] [--scale S] [--csv precision.csv]

Each image is generated twice, starting from its sketch, so that the rounding of a scale is passed
on to the next. A grey level is 1/255 of the output window. The bar is 99.9 %
(docs/performance.md).
"""

from __future__ import annotations

import tempfile
import warnings
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.per_image import parser_of, report, scales_made
from napari_msgan import generate, load_model
from napari_msgan.geometry import Box

if TYPE_CHECKING:
    from pathlib import Path

    from napari_msgan.pyramid import PyramidStore

NAMES = ("image", "scale", "voxels", "within_one", "largest")
Row = tuple[str, int, int, float, float]


def compare(exact: PyramidStore, rounded: PyramidStore, scale: int) -> tuple[int, float, float]:
    """Return the number of voxels, the share within one grey level, and the largest difference.

    The largest difference is in grey levels of 255 over the output window.
    """
    low, high = exact.info.window
    shape = exact.geometry.shape_at(scale)
    near, largest = 0, 0.0
    for block in Box.of_shape(shape).blocks(exact.info.tile_shape):
        one, other = (store.read(scale, block).astype(np.float64) for store in (exact, rounded))
        levels = np.abs(one - other) * (255 / (high - low))
        near += int(np.count_nonzero(levels <= 1))
        largest = max(largest, float(levels.max()))
    n_voxels = Box.of_shape(shape).size
    return n_voxels, near / n_voxels, largest


def measure(model: str, image: Path, scale: int | None = None) -> list[Row]:
    """Return one row per scale of an image, up to `scale` (None: the finest that it supports)."""
    with tempfile.TemporaryDirectory() as work, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a source is coarse
        stores = [
            generate(
                image, f"{work}/{kind}.ome.zarr", load_model(model), scale=scale, precision=kind
            )
            for kind in ("fp32", "bf16")
        ]
        return [(image.name, s, *compare(*stores, s)) for s in scales_made(stores[0])]


def table(rows: list[Row]) -> str:
    """Return the worst image at each scale as a Markdown table."""
    scales = defaultdict(list)
    for row in rows:
        scales[row[1]].append(row)
    lines = [
        "| scale | images | within one grey level, lowest | mean | largest difference |",
        "|---|---|---|---|---|",
    ]
    for scale, found in sorted(scales.items()):
        lowest, mean = min(r[3] for r in found), np.mean([r[3] for r in found])
        largest = max(r[4] for r in found)
        lines.append(
            f"| {scale} | {len(found)} | {100 * lowest:.3f} % | {100 * mean:.3f} % "
            f"| {largest:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure the given images and print the table."""
    options = parser_of("precision", __doc__).parse_args()
    report(options, NAMES, lambda image: measure(options.model, image, options.scale), table)


if __name__ == "__main__":
    main()
