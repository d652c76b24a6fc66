"""Measurements as CSV, and as a table of medians."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.engine.rows import ROWS

if TYPE_CHECKING:
    from pathlib import Path

KEY = ("axes", "size", "precision", "row", "round")
VALUES = (
    "mvoxel_s",
    "seconds",
    "start_s",
    "cpu_s",
    "peak_mb",
    "bytes_per_voxel",
    "largest_difference",
    "equal_share",
    "coarse_reads",
    "sketch_reads",
    "gpu_mb",
)
#: The bare network as glibc has it and with memory that is kept: the faster one is the limit.
LIMITS = ("limit", "limit-kept")
Line = Mapping[str, str]


def read_lines(path: Path) -> list[dict[str, str]]:
    """Return the measurements in a file; none if it does not exist."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_lines(path: Path, lines: Sequence[Line]) -> None:
    """Write measurements so that a reader sees either the old or the new file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, (*KEY, *VALUES, "note"), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    partial.replace(path)


def key_of(line: Line) -> tuple[str, ...]:
    """Return what identifies a measurement."""
    return tuple(line[name] for name in KEY)


def measured_keys(lines: Sequence[Line]) -> set[tuple[str, ...]]:
    """Return the keys that need not be measured again, because they did not fail."""
    return {key_of(line) for line in lines if not line["note"]}


def text_table(lines: Sequence[Line]) -> str:
    """Return a Markdown table for each image and precision.

    Every figure is the median over the rounds. Ratios to the limit are taken within a round,
    because the speed of a machine changes from minute to minute.
    """
    images: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in lines:
        images[line["axes"], line["size"]].append(line)
    return "\n".join(
        part
        for (axes, size), of_image in images.items()
        for part in _image_table(f"{' x '.join([size] * int(axes))} voxels", of_image)
    )


def ratio_to_limit(lines: Sequence[Line], limits: Sequence[Line]) -> float | None:
    """Return the median over rounds of the speed relative to the fastest limit of that round."""
    speeds: dict[str, float] = defaultdict(float)
    for line in limits:
        speeds[line["round"]] = max(speeds[line["round"]], float(line["mvoxel_s"]))
    ratios = [
        float(line["mvoxel_s"]) / speeds[line["round"]] for line in lines if line["round"] in speeds
    ]
    return median(ratios) if ratios else None


def _image_table(title: str, lines: Sequence[Line]) -> list[str]:
    names = ("Mvoxel/s", "of the limit", "s", "of them start-up", "CPU s", "peak MB", "GPU MB")
    more = (
        *("bytes/voxel", "largest difference (grey levels)", "equal voxels"),
        "reads per coarse/sketch chunk",
    )
    head = ("", "precision", *names, *more, "rounds")
    text = [f"**{title}**", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    groups: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in lines:
        groups[line["row"], line["precision"]].append(line)
    for row, precision in sorted(groups, key=lambda group: list(ROWS).index(group[0])):
        every = groups[row, precision]
        good = [line for line in every if not line["note"]]
        limits = [
            line
            for name in LIMITS
            for line in groups.get((name, precision), [])
            if not line["note"]
        ]
        if good:
            cells = [*_cells(good, ratio_to_limit(good, limits)), str(len(good))]
        else:
            cells = [every[-1]["note"], *[""] * (len(head) - 3)]
        text.append(f"| {' | '.join((ROWS[row].title, precision, *cells))} |")
    return [*text, ""]


def _cells(lines: Sequence[Line], ratio: float | None) -> list[str]:
    def middle(name: str) -> float | None:
        values = [float(line[name]) for line in lines if line.get(name)]  # old tables lack some
        return median(values) if values else None

    reads = [_number(middle(name), ".2f") for name in ("coarse_reads", "sketch_reads")]
    return [
        _number(middle("mvoxel_s"), ".3g"),
        _number(ratio, ".2f"),
        _number(middle("seconds"), ".3g"),
        _number(middle("start_s"), ".2f"),
        _number(middle("cpu_s"), ".3g"),
        _number(middle("peak_mb"), ".0f"),
        _number(middle("gpu_mb"), ".0f"),
        _number(middle("bytes_per_voxel"), ".1f"),
        _number(middle("largest_difference"), ".3g"),
        _percent(middle("equal_share")),
        " / ".join(reads) if all(reads) else "",
    ]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _percent(share: float | None) -> str:
    """Return a share rounded down, so that only all voxels are 100 %."""
    if share is None or share == 1:
        return "" if share is None else "100 %"
    return f"{int(share * 1e4) / 1e2:.2f} %"
