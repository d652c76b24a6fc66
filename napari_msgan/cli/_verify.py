"""``napari-msgan verify``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np

from napari_msgan.cli._progress import progress_shown
from napari_msgan.cli._tables import one_line, quoted
from napari_msgan.cli._telling import tell
from napari_msgan.errors import StoreError
from napari_msgan.geometry import Box
from napari_msgan.jobs import iter_verify
from napari_msgan.pyramid import open_pyramid
from napari_msgan.steps import run_to_end

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence
    from pathlib import Path

    from napari_msgan.verifying import Verification

_MOST_LINES = 50
#: Most commands for one scale; if more regions are to be refined, one command covers them all.
_MOST_COMMANDS = 8
_MOST_MERGED = 1000
#: How much larger a merged region may be than the boxes it stands for.
_WASTE = 1.5


def verify(arguments: Namespace) -> None:
    """Check a store, print its problems, and fail if any remain."""
    steps = iter_verify(
        arguments.store,
        repair=arguments.repair,
        sample=arguments.sample,
        model=arguments.model,
    )
    with progress_shown(quiet=arguments.quiet) as show:
        found = run_to_end(steps, lambda step: show(step.stage, step.done, step.total))
    lines = _problems(found)
    if not arguments.quiet:
        lines += [f"note: {note}" for note in found.notes]
        lines += [*_repaired(found), *_summary(found, arguments.store)]
    for line in lines:
        tell(one_line(line), sys.stdout)
    if not found.is_sound:
        raise StoreError(_verdict(found, arguments.store))


def _problems(found: Verification) -> list[str]:
    lines = []
    for problem in found.problems[:_MOST_LINES]:
        advice = problem.advice or (
            "Removed." if found.removed is not None else "--repair removes it."
        )
        lines.append(f"{problem.where}: {problem.seen.rstrip('.')}. {advice}")
    if (more := len(found.problems) - _MOST_LINES) > 0:
        lines.append(f"... and {more} more")
    return lines


def _repaired(found: Verification) -> list[str]:
    if not found.removed:
        return []
    counts = ", ".join(f"{len(boxes)} of scale {s}" for s, boxes in sorted(found.removed.items()))
    return [f"Tiles removed, with those made from them: {counts}."]


def _summary(found: Verification, path: Path) -> list[str]:
    counts = f"{found.chunks} chunks read, {found.compared} tiles made again and compared"
    verdict = "all is well" if not found.problems else f"{len(found.problems)} problem(s)"
    lines = [f"{path}: {verdict} ({counts})."]
    if found.removed:
        lines += ["Make it again:", *_commands(found.removed, path)]
    return lines


def _commands(removed: dict[int, list[Box]], path: Path) -> list[str]:
    """Return a few commands per scale, except where one for a finer scale makes them anyway."""
    geometry = open_pyramid(path).geometry
    regions: list[tuple[int, Box]] = []
    for scale, boxes in sorted(removed.items(), reverse=True):
        for box in merged(boxes):
            region = geometry.region_of(scale, box)
            if not any(finer.contains(region) for _, finer in regions):
                regions.append((scale, region))
    name = quoted(path)
    return [
        f"  napari-msgan refine {name} --scale {scale} --region {region}"
        for scale, region in regions
    ]


def merged(boxes: Sequence[Box]) -> list[Box]:
    """Merge boxes into at most 8 that cover all of them with little excess, else into one."""
    filled: dict[Box, int] = {box: box.size for box in boxes}
    if len(filled) > _MOST_MERGED:
        return [_hull(boxes)]
    n_before = len(filled) + 1
    while len(filled) < n_before:  # rows of boxes first, then rows to blocks
        n_before = len(filled)
        found: dict[Box, int] = {}
        for box, size in sorted(filled.items(), key=lambda item: item[0].start):
            for other in found:
                hull, both = _hull([box, other]), size + found[other]
                if hull.size <= _WASTE * both:
                    del found[other]
                    found[hull] = both
                    break
            else:
                found[box] = size
        filled = found
    return list(filled) if len(filled) <= _MOST_COMMANDS else [_hull(boxes)]


def _hull(boxes: Sequence[Box]) -> Box:
    start = np.min([box.start for box in boxes], axis=0)
    stop = np.max([box.stop for box in boxes], axis=0)
    return Box(tuple(start.tolist()), tuple(stop.tolist()))


def _verdict(found: Verification, path: Path) -> str:
    count = len(found.remaining)
    if repairable := sum(problem.can_be_repaired for problem in found.remaining):
        which = "them" if repairable == count else f"{repairable} of them"
        command = f"napari-msgan verify {quoted(path)} --repair"
        return f"{path} has {count} problem(s): {command} removes {which}"
    return f"{path} has {count} problem(s) that --repair cannot remove: see above what to do"
