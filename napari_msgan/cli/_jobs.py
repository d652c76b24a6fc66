"""``napari-msgan sketch``, ``generate``, ``refine`` and ``export``."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_msgan.cli._parser import UsageError
from napari_msgan.cli._progress import duration, progress_shown
from napari_msgan.cli._tables import percent, quoted, shape_text
from napari_msgan.geometry import Box
from napari_msgan.io import read_description
from napari_msgan.jobs import export as export_store
from napari_msgan.jobs import iter_generate, iter_refine, make_sketch
from napari_msgan.pyramid import is_store, open_pyramid
from napari_msgan.steps import run_to_end

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Generator

    from napari_msgan.jobs import Progress
    from napari_msgan.pyramid import PyramidStore


def sketch(arguments: Namespace) -> None:
    """Write the sketch (edge map) of an image."""
    with progress_shown(quiet=arguments.quiet) as show:
        make_sketch(
            arguments.source,
            arguments.out,
            progress=lambda step: show(step.stage, step.done, step.total),
            spacing=arguments.spacing,
            overwrite=arguments.overwrite,
        )
    if not arguments.quiet:
        out = quoted(arguments.out)
        print(f"{arguments.out} is written. Draw on it, or use it as it is:")
        model, way = "MODEL", "--input-is-sketch"
        store = Path(arguments.source).parent
        if Path(arguments.source).name == "sketch" and is_store(store):
            # edited, this one changes the image of that store; any other gives an image of its own
            model = open_pyramid(store).info.model_name
            way = f"--edited-from {quoted(store)}"
        print(f"  napari-msgan generate {out} NAME.ome.zarr --model {model} {way}")


def generate(arguments: Namespace) -> None:
    """Make a store, or continue one."""
    _check_store_name(arguments.out)
    steps = iter_generate(
        arguments.source,
        arguments.out,
        arguments.model,
        scale=arguments.scale,
        region=arguments.region,
        seed=arguments.seed,
        device=arguments.device,
        precision=arguments.precision,
        input_is_sketch=arguments.input_is_sketch,
        edited_from=arguments.edited_from,
        spacing=arguments.spacing,
        name=arguments.source.name if arguments.keep_name else None,
        workers=arguments.workers,
        cluster=arguments.cluster,
    )
    _finish(steps, arguments.out, quiet=arguments.quiet)


def refine(arguments: Namespace) -> None:
    """Compute more tiles of a store."""
    steps = iter_refine(
        arguments.store,
        region=arguments.region,
        scale=arguments.scale,
        model=arguments.model,
        device=arguments.device,
        precision=arguments.precision,
        workers=arguments.workers,
        cluster=arguments.cluster,
    )
    _finish(steps, arguments.store, quiet=arguments.quiet)


def export(arguments: Namespace) -> None:
    """Export an image of a store."""
    with progress_shown(quiet=arguments.quiet) as show:
        export_store(
            arguments.store,
            arguments.out,
            progress=lambda step: show(step.stage, step.done, step.total),
            scale=arguments.scale,
            region=arguments.region,
            grid=arguments.grid,
            overwrite=arguments.overwrite,
            cluster=arguments.cluster,
        )
    if not arguments.quiet:
        said = read_description(arguments.out)
        assert said is not None
        print(
            f"{arguments.out}: scale {said['scale']} (0 to {said['n_scales'] - 1}), "
            f"region {said['region']}, {percent(said['refined_fraction'])} refined"
            + ("" if said["refined_fraction"] == 1 else ", the rest from coarser scales")
        )


def _check_store_name(out: Path | str) -> None:
    name = Path(out).name
    if not name.lower().endswith(".zarr"):
        better = f"{_without_suffix(name)}.ome.zarr"
        raise UsageError(
            f"{out} is not a name for a store: it must end in .ome.zarr, e.g. {better}. "
            "Other formats come from napari-msgan export, afterwards"
        )


def _without_suffix(name: str) -> str:
    """Return a name up to ``.ome.zarr`` or ``.nii.gz``; other dots stay, as in ``ct_1.5mm``."""
    return re.sub(r"(\.ome)?\.[a-z]\w*(\.gz)?$", "", name, flags=re.IGNORECASE)


def _finish(
    steps: Generator[Progress, None, PyramidStore], path: Path | str, *, quiet: bool
) -> None:
    """Run a job to its end; print what it made, and what can be done next."""
    begun = time.monotonic()
    made: Counter[int] = Counter()
    first_s: dict[int, float] = {}
    with progress_shown(quiet=quiet) as show:

        def each(step: Progress) -> None:
            show(step.stage, step.done, step.total)
            if step.report is not None:
                scale = step.report.tile.scale
                made[scale] += 1
                first_s.setdefault(scale, time.monotonic() - begun)

        store = run_to_end(steps, each)
    elapsed = duration(time.monotonic() - begun)
    if quiet:
        return
    shape = shape_text(store.geometry.shape)
    print(f"{path}: {store.n_scales} scales, the finest has {shape} voxels")
    if made:
        finest = max(made)
        counts = ", ".join(f"{n} of scale {scale}" for scale, n in sorted(made.items()))
        print(f"Tiles made: {counts}.")
        first = duration(first_s[finest])
        print(f"First tile of scale {finest} after {first}, all after {elapsed}.")
    else:
        print("Everything that you asked for was there already: no tile was made.")
    print("\n".join(_advice(store, path)))


def _advice(store: PyramidStore, path: Path | str) -> list[str]:
    name = quoted(path)
    stem = _without_suffix(Path(path).name) + "-synthetic"  # never the name of the source
    lines = ["Next:"]
    if not store.refined_chunks(store.geometry.finest_scale).all():
        lines.append(f"  napari-msgan refine {name} --region {_next_region(store)}")
    nifti = store.geometry.unit == "millimeter" and store.geometry.ndim == 3
    export = quoted(f"{stem}{'.nii.gz' if nifti else '.ome.tif'}")
    lines.append(f"  napari-msgan export {name} {export}")
    return [*lines, f"  napari-msgan info {name}"]


def _next_region(store: PyramidStore) -> Box:
    """Return the tile of the finest scale that is nearest to the middle of what is not refined."""
    scale, chunk_shape = store.geometry.finest_scale, store.info.chunk_shape
    missing = np.argwhere(~store.refined_chunks(scale))
    nearest = missing[np.abs(missing - missing.mean(0)).sum(1).argmin()].tolist()
    (tile,) = store.tiling.tiles(scale, Box.of_cell(nearest, chunk_shape))
    return store.tiling.core(tile)
