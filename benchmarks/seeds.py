"""How much the image of a stochastic model changes with the seed, by scale.

    python -m benchmarks.seeds MODEL IMAGE [IMAGE ...] [--scale S] [--seeds 4] [--csv seeds.csv]

Each image is generated with every seed. *Change* is the mean absolute difference between two seeds
and *largest* the largest one, in grey levels of 255 over the output window; *low-pass* is the
change of means over blocks of 8 voxels, the part that is more than texture. All are over pairs of
seeds.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.per_image import parser_of, report, scales_made
from napari_msgan import generate, load_model
from napari_msgan.resampling import reduce_mean

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("image", "scale", "change", "low_pass", "largest")
_BLOCK = 8
Row = tuple[str, int, float, float, float]


def measure(model: str, image: Path, seeds: int, scale: int | None = None) -> list[Row]:
    """Return one row per scale of an image."""
    rows = []
    with tempfile.TemporaryDirectory() as work:
        stores = [
            generate(image, f"{work}/{seed}.ome.zarr", load_model(model), scale=scale, seed=seed)
            for seed in range(seeds)
        ]
        low, high = stores[0].info.window
        for level in scales_made(stores[0]):
            made = [
                np.asarray(s.array(level)[...], np.float32) * (255 / (high - low)) for s in stores
            ]
            rows.append((image.name, level, *compare(made)))
    return rows


def compare(images: list[np.ndarray]) -> tuple[float, float, float]:
    """Return the mean, low-pass and largest difference over all pairs."""
    found = []
    for one, other in combinations(images, 2):
        difference = one - other
        even = difference[tuple(slice(n // _BLOCK * _BLOCK) for n in difference.shape)]
        means = reduce_mean(even, (_BLOCK,) * even.ndim)
        found.append((np.abs(difference).mean(), np.abs(means).mean(), np.abs(difference).max()))
    mean, low_pass, largest = np.array(found).T
    return float(mean.mean()), float(low_pass.mean()), float(largest.max())


def table(rows: list[Row]) -> str:
    """Return the mean over images as a Markdown table, one line per scale."""
    scales = defaultdict(list)
    for row in rows:
        scales[row[1]].append(row[2:])
    lines = ["| scale | images | change | low-pass | largest |", "|---|---|---|---|---|"]
    for scale, found in sorted(scales.items()):
        change, low_pass, largest = np.array(found).T
        lines.append(
            f"| {scale} | {len(found)} | {change.mean():.2f} | {low_pass.mean():.2f} "
            f"| {largest.max():.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure the given images and print the table."""
    parser = parser_of("seeds", __doc__)
    parser.add_argument("--seeds", type=int, default=4, help="how many")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds: two at least are compared")
    report(
        options,
        NAMES,
        lambda image: measure(options.model, image, options.seeds, options.scale),
        table,
    )


if __name__ == "__main__":
    main()
