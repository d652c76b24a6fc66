"""One held-out image: its true pyramid, and what a model makes from its sketch."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_msgan.computing import TileContext
from napari_msgan.creating import describe_store, iter_make_sketch
from napari_msgan.durable import create_array_file
from napari_msgan.geometry import Box
from napari_msgan.intensity import Window
from napari_msgan.io import read_volume
from napari_msgan.pyramid import create_pyramid, open_pyramid
from napari_msgan.refiner import in_threads, iter_refine_tiles
from napari_msgan.source import image_pyramid, plan_source
from napari_msgan.steps import cpu_threads, run_to_end

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    import numpy.typing as npt

    from napari_msgan.config import ModelSpec, Precision
    from napari_msgan.model import Model
    from napari_msgan.pyramid import PyramidStore
    from napari_msgan.source import SourcePlan
    from napari_msgan.volume import Volume


@dataclass(frozen=True, slots=True)
class Computing:
    """Where and how images are generated; `device` is "cpu" or "cuda"."""

    device: str = "cpu"
    precision: Precision = "fp32"
    workers: int = 1

    @property
    def cpu_threads(self) -> int:
        """Number of threads for the work that is always done on the CPU."""
        return cpu_threads(self.device, self.workers)


@dataclass(frozen=True, slots=True)
class TrueImages:
    """A true image at every scale, in files that are mapped only while an array is in use.

    Windows cannot delete a mapped file, and a case outlives the folder with its files.
    """

    files: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, scale: int) -> npt.NDArray[Any]:
        image: npt.NDArray[Any] = np.load(self.files[scale], mmap_mode="r")
        return image


@dataclass(frozen=True)
class Case:
    """An image under evaluation; its files lie in a folder that the caller deletes.

    store : the sketch, and every scale made from the coarser scale.
    by_true : the same sketch; its images are overwritten scale by scale, see `iter_from_true`.
    truth : the true image at every scale that is measured, in the stored type of the model.
    """

    name: str
    model: Model
    store: PyramidStore
    by_true: PyramidStore
    truth: TrueImages
    computing: Computing

    @property
    def window(self) -> Window:
        spec = self.model.spec
        return Window(*spec.window, np.dtype(spec.dtype))

    @property
    def finest_scale(self) -> int:
        """The finest scale that is measured; the stores may have finer ones."""
        return len(self.truth) - 1

    def made(self, scale: int) -> npt.NDArray[Any]:
        """Return the generated image at a scale, in the stored type of the model."""
        return self.store.read(scale, Box.of_shape(self.store.geometry.shape_at(scale)))


def iter_open_case(
    path: Path, model: Model, folder: Path, computing: Computing, scale: int | None = None
) -> Generator[float, None, Case]:
    """Generate an image from its own sketch; yield the share of tiles made so far.

    Parameters
    ----------
    folder : an empty folder; the stores and the true pyramid are made in it.
    scale : finest scale to make, even beyond what the image supports; None for the finest that
        it supports. A store has at least two scales, but the second is not made if the image
        supports only the first.

    Raises
    ------
    MsganError
        The subclass says what does not fit.
    """
    volume = read_volume(path)
    with warnings.catch_warnings():
        if scale is None and model.spec.kind == "physical":
            warnings.simplefilter("ignore", UserWarning)  # about a second scale, which is not made
        plan = plan_source(volume, model.spec, scale)
    finest = measured_scale(plan, scale)
    truth = save_truth(plan, model.spec, folder, computing.cpu_threads, finest)
    store = _store_with_sketch(plan, volume, model, folder / "generated.ome.zarr", computing)
    shutil.copytree(store.path, folder / "by-true.ome.zarr")
    by_true = open_pyramid(folder / "by-true.ome.zarr", writable=True)
    case = Case(path.name, model, store, by_true, truth, computing)
    context = TileContext(store, model, computing.device, computing.precision)
    whole, drive = Box.of_shape(store.geometry.shape), in_threads(computing.workers)
    for report in iter_refine_tiles(context, [whole], case.finest_scale, drive=drive):
        yield report.done / report.total
    return case


def measured_scale(plan: SourcePlan, scale: int | None) -> int:
    """Return the finest scale to measure: the requested one, or the finest supported one."""
    return plan.honest_scale if scale is None else scale


def save_truth(
    plan: SourcePlan, spec: ModelSpec, folder: Path, workers: int, finest: int
) -> TrueImages:
    """Write the source at every scale, in the stored type of a model, to files in `folder`.

    finest : the finest scale to write.

    The window of the source is that of its sketch, as in training: a fixed one for HU, otherwise
    its own 0.5th to 99.5th percentile.
    """
    window = Window(*spec.window, np.dtype(spec.dtype))
    files = tuple(folder / f"truth_{scale}.npy" for scale in range(finest + 1))
    with image_pyramid(plan, spec.sketch, workers) as images:
        for file, image in zip(files, images[: finest + 1], strict=True):
            array = create_array_file(file, window.dtype, tuple(image.shape))
            for box in Box.of_shape(array.shape).blocks(plan.block_shape):
                array[box.slices] = window.to_stored(2 * image[box.slices] - 1)
    return TrueImages(files)


def _store_with_sketch(
    plan: SourcePlan, volume: Volume, model: Model, path: Path, computing: Computing
) -> PyramidStore:
    info = describe_store(plan, volume, model, 0, input_is_sketch=False, name=None)
    with create_pyramid(path, info) as builder:
        return builder.finish(run_to_end(iter_make_sketch(plan, builder, computing.cpu_threads)))


def iter_from_true(case: Case, scale: int) -> Generator[float, None, npt.NDArray[Any]]:
    """Make a scale from the true coarser scale and return it; yield the share of tiles made."""
    store, computing = case.by_true, case.computing
    context = TileContext(store, case.model, computing.device, computing.precision)
    coarse = case.truth[scale - 1]
    with store.writing():
        for box in Box.of_shape(coarse.shape).blocks(store.info.chunk_shape):
            store.write(scale - 1, box, coarse[box.slices])
        whole = Box.of_shape(store.geometry.shape)
        drive = in_threads(computing.workers)
        for report in iter_refine_tiles(context, [whole], scale, drive=drive):
            yield report.done / report.total
    return store.read(scale, Box.of_shape(store.geometry.shape_at(scale)))
