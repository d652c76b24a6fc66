"""Estimate the time, memory and disk space of a job before it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil  # type: ignore[import-untyped]

from napari_msgan.computing import COARSE_CACHE_BYTES, SKETCH_CACHE_BYTES, precision_of
from napari_msgan.creating import checked_halos
from napari_msgan.durable import existing, free_bytes
from napari_msgan.errors import JobError
from napari_msgan.estimating._calibration import calibrate
from napari_msgan.folders import is_url
from napari_msgan.geometry import Box
from napari_msgan.io import read_geometry, temporary_folder
from napari_msgan.jobs import default_workers, region_box, resolve_device
from napari_msgan.model import Model, load_model
from napari_msgan.sketch import SAMPLE_SIZE
from napari_msgan.source import plan_source
from napari_msgan.steps import cpu_threads
from napari_msgan.tiling import Tiling, coarse_window
from napari_msgan.volume import Volume, with_spacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_msgan.config import ModelSpec, Precision
    from napari_msgan.estimating._calibration import Calibration
    from napari_msgan.source import SourcePlan

#: Voxels of a large scale that thresholds are measured on, between the usual and the most.
_SAMPLED = 1.25 * SAMPLE_SIZE
#: Copies of the sampled voxels held while percentiles are computed, in the type of the source.
_SAMPLE_COPIES = 4.5
#: Bytes per voxel in the temporary images of every scale.
_PYRAMID_BYTES = 2
#: Bytes per second that gzip unpacks; an assumption, as it is a small part of any job.
_UNPACKED_PER_S = 120e6


@dataclass(frozen=True)
class Space:
    """Space on a disk: a folder there, bytes needed at most, and bytes free."""

    folder: Path
    needed: int
    free: int


@dataclass(frozen=True)
class Estimate:
    """What a job will take.

    shape : of the finest scale of the pyramid.
    tiles : number of tiles to compute, per scale.
    seconds, first_s : until everything, and until scale 0, is done, including program start.
    memory_bytes, memory_free : peak of the whole process, and free memory of this machine.
    store_bytes : size of the finished store.
    store, temporary : the disk of the store when it is fullest, and that of unpacked images.
    """

    shape: tuple[int, ...]
    tiles: Mapping[int, int]
    seconds: float
    first_s: float
    memory_bytes: int
    memory_free: int
    store_bytes: int
    store: Space
    temporary: Space

    @property
    def warnings(self) -> tuple[str, ...]:
        """What does not fit, and what to do about it; one text each."""
        found = []
        if self.memory_bytes > self.memory_free:
            found.append("there is not enough free memory: use fewer --workers")
        if self.store.folder.stat().st_dev == self.temporary.folder.stat().st_dev:
            disks = [
                Space(self.store.folder, self.store.needed + self.temporary.needed, self.store.free)
            ]
        else:
            disks = [self.store, self.temporary]
        found += [
            f"{disk.folder} has {disk.free / 1e9:.1f} GB free, {disk.needed / 1e9:.1f} GB are "
            "needed: choose another disk for the store, or TMPDIR for temporary files"
            for disk in disks
            if disk.needed > disk.free
        ]
        return tuple(found)


def estimate(
    source: Volume | Path | str,
    model: Model | Path | str,
    *,
    out: Path | str = ".",
    scale: int | None = None,
    region: Box | str | None = None,
    precision: Precision = "fp32",
    spacing: float | Sequence[float] | None = None,
    device: str = "auto",
    workers: int | None = None,
    again: bool = False,
) -> Estimate:
    """Estimate what `generate` would take, reading only the header of the image.

    The first call for a model, precision and number of workers measures this machine, which takes
    about half a minute; the result is kept.

    Parameters
    ----------
    out : where the store would be made, or its folder, to check the space on that disk.
    scale, region, precision, spacing, device, workers : as for `napari_msgan.generate`.
    again : measure this machine again, for instance if something else was running before.

    Raises
    ------
    MsganError
        The subclass says what does not fit, as with `generate`.
    """
    if is_url(out):
        raise JobError(
            f"the free space at {out} is not known, because it is a URL: give a folder on this "
            "computer with --out (in Python out=), or leave it out"
        )
    volume, packed = (source, 0) if isinstance(source, Volume) else read_geometry(source)
    volume = with_spacing(volume, spacing)
    model = load_model(model)
    device = resolve_device(device)
    plan = plan_source(volume, model.spec, scale)
    geometry = plan.geometry
    scale = geometry.finest_scale if scale is None else scale
    box = region_box(geometry.shape, geometry.axes, region)
    tiling = Tiling(geometry, model.spec.tile_shape, checked_halos(plan, model))
    cells = needed_cells(tiling, box, scale)
    sketchers, workers = cpu_threads(device, workers), workers or default_workers(device)
    # the finest scale takes most of the time
    known = calibrate(model, device, precision_of(scale, precision), workers, again=again)
    before_s = known.start_s + packed / _UNPACKED_PER_S
    before_s += known.warm_up_s + sketch_seconds(plan, known, sketchers)
    n_tiles = [cells[s].size for s in range(scale + 1)]
    of_sample = tiles_seconds(model, known, known.sample_tiles, workers)
    # what the first tiles of a process cost in addition, the same for any image
    first_s = before_s + known.first_s * math.prod(geometry.shape_at(0))
    first_s += max(0.0, known.sample_first_s - known.first_s * known.sample_first)
    tiles_s = tiles_seconds(model, known, n_tiles, workers)
    tiles_s += max(0.0, known.sample_tiles_s - of_sample) if scale else 0.0
    everything = sum(math.prod(geometry.shape_at(s)) for s in range(geometry.n_scales))
    image = sum(written_box(tiling, s, cells[s]).size for s in cells)
    store_bytes = round(known.stored_sketch * everything + known.stored_image * image)
    sketching = round((known.stored_sketch + _PYRAMID_BYTES) * everything)
    here = existing(Path(out))
    there = temporary_folder()
    return Estimate(
        shape=geometry.shape,
        tiles={s: cells[s].size for s in sorted(cells)},
        seconds=first_s + tiles_s,
        first_s=first_s,
        memory_bytes=memory_bytes(plan, model.spec, known, busy_workers(cells, workers)),
        memory_free=int(psutil.virtual_memory().available),
        store_bytes=store_bytes,
        store=Space(here, max(store_bytes, sketching), free_bytes(here)),
        temporary=Space(there, packed, free_bytes(there)),
    )


def needed_cells(tiling: Tiling, region: Box, scale: int) -> dict[int, Box]:
    """Return the tiles that `plan_tiles` lists for an empty store, as a box of cells per scale.

    Whatever a box of tiles reads is a box again, so nothing needs to be listed, and an image may
    have any size.
    """
    box = tiling.geometry.box_at(scale, region)
    cells = {}
    for s in range(scale, -1, -1):
        grid = tiling.grid(s)
        cells[s] = grid.cells(box)
        if s:
            full = cells[s].multiply(grid.tile_shape)
            box = coarse_window(full, tiling.geometry.factor(s), tiling.halos[s])
    return cells


def written_box(tiling: Tiling, scale: int, cells: Box) -> Box:
    """Return the box of voxels that these tiles write."""
    grid = tiling.grid(scale)
    return cells.multiply(grid.tile_shape).intersect(Box.of_shape(grid.shape))


def sketch_seconds(plan: SourcePlan, known: Calibration, workers: int) -> float:
    """Return the seconds to sketch all scales, including the hash and temporary images.

    workers : number of threads that make the sketch.
    """
    geometry = plan.geometry
    sampled = sum(min(math.prod(geometry.shape_at(s)), _SAMPLED) for s in range(geometry.n_scales))
    voxels = max(math.prod(geometry.shape), math.prod(plan.volume.shape))
    return known.sketch_s * voxels + known.threshold_s * sampled / workers


def tiles_seconds(model: Model, known: Calibration, n_tiles: Sequence[int], workers: int) -> float:
    """Return the seconds for tiles of scales 1 and above.

    A few tiles take as long as one tile per worker.

    Parameters
    ----------
    n_tiles : number of tiles of each scale, from scale 0 on.
    """
    seconds = 0.0
    for scale, count in enumerate(n_tiles[1:], 1):
        rounds = math.ceil(count / workers)
        busy = count if rounds > 2 else rounds * workers
        seconds += known.tile_s * busy * tile_work(model, scale) / tile_work(model, known.scale)
    return seconds


def tile_work(model: Model, scale: int) -> float:
    """Return roughly how many multiplications a tile of a patch generator takes."""
    weights = sum(p.numel() for p in model.generator(scale).parameters())
    factor, halo = model.factor(scale), model.halo(scale)
    coarse = [n / f + h for n, f, h in zip(model.spec.tile_shape, factor, halo, strict=True)]
    return weights * math.prod(coarse)


def busy_workers(cells: Mapping[int, Box], workers: int) -> int:
    """Return how many tiles are made at the same time at most; scale 0 is a single tile."""
    return min(workers, max(box.size for box in cells.values()))


def memory_bytes(plan: SourcePlan, spec: ModelSpec, known: Calibration, workers: int) -> int:
    """Return the peak memory of the process: that of sketch, scale 0 or tiles, if larger."""
    geometry = plan.geometry
    sampled = min(_SAMPLED, math.prod(plan.volume.shape))
    first = known.first_bytes * math.prod(geometry.shape_at(0))
    coarse = math.prod(geometry.shape_at(geometry.finest_scale - 1)) * np.dtype(spec.dtype).itemsize
    cached = min(COARSE_CACHE_BYTES, coarse) + min(SKETCH_CACHE_BYTES, math.prod(geometry.shape))
    stages = (
        _SAMPLE_COPIES * sampled * np.dtype(plan.volume.data.dtype).itemsize,
        known.sketch_bytes,
        first,
        known.tile_bytes * workers + cached,
    )
    return round(known.base_bytes + max(stages))
