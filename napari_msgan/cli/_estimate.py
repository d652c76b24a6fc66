"""``napari-msgan estimate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_msgan.cli._progress import duration
from napari_msgan.cli._tables import print_table, shape_text
from napari_msgan.cli._telling import tell
from napari_msgan.estimating import estimate as estimate_job

if TYPE_CHECKING:
    from argparse import Namespace

    from napari_msgan.estimating import Space


def estimate(arguments: Namespace) -> None:
    """Print the time, memory and disk space that a job would take."""
    found = estimate_job(
        arguments.source,
        arguments.model,
        out=arguments.out,
        scale=arguments.scale,
        region=arguments.region,
        precision=arguments.precision,
        spacing=arguments.spacing,
        device=arguments.device,
        workers=arguments.workers,
        again=arguments.again,
    )
    tiles = ", ".join(f"{count} of scale {scale}" for scale, count in found.tiles.items())
    rows = [
        ("result", f"{shape_text(found.shape)} voxels"),
        ("tiles", tiles),
        ("time", duration(found.seconds)),
        ("first picture", f"after {duration(found.first_s)}"),
        ("memory", f"{gigabytes(found.memory_bytes)}, {gigabytes(found.memory_free)} are free"),
        ("store", gigabytes(found.store_bytes)),
        ("disk", space_text(found.store)),
    ]
    if found.temporary.needed:
        rows.append(("temporary files", space_text(found.temporary)))
    print_table(("", ""), rows)
    for warning in found.warnings:
        tell(f"warning: {warning}")


def space_text(space: Space) -> str:
    needed, free = gigabytes(space.needed), gigabytes(space.free)
    return f"{needed} at most in {space.folder}, {free} are free"


def gigabytes(n_bytes: int) -> str:
    """Return a size in bytes as text for people.

    Examples
    --------
    >>> gigabytes(2_340_000_000), gigabytes(1_500_000), gigabytes(3 * 10**12), gigabytes(17_400)
    ('2.3 GB', '2 MB', '3.0 TB', '17 kB')
    """
    for unit, factor in (("TB", 1e12), ("GB", 1e9)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:.0f} kB"
