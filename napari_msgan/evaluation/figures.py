"""All figures for one scale of one image."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_msgan.computing import TileContext
from napari_msgan.evaluation.accuracy import (
    matched_errors,
    mean_absolute_error,
    multiscale_structural_similarity,
    peak_signal_to_noise,
    structural_similarity,
)
from napari_msgan.evaluation.case import Case, iter_from_true
from napari_msgan.evaluation.fidelity import coarse_inconsistency, compare_sketches, edges_of
from napari_msgan.evaluation.regions import body_mask, tissue_masks
from napari_msgan.evaluation.seams import (
    certify_patches,
    certify_seams,
    tile_maker,
    tile_phase_share,
)
from napari_msgan.evaluation.textures import (
    checkerboard_index,
    compare_spectra,
    sliced_wasserstein,
)
from napari_msgan.evaluation.units import units_of
from napari_msgan.networks.megan import MeganPatchGenerator
from napari_msgan.networks.patchwork import MARGIN, STRIDE
from napari_msgan.sketch import lazy_unit

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    import numpy.typing as npt

    from napari_msgan.evaluation.regions import BoolArray
    from napari_msgan.evaluation.units import ReportUnits
    from napari_msgan.geometry import Floats, Ints
    from napari_msgan.intensity import Float32Array


@dataclass(frozen=True, slots=True)
class ScaleFigures:
    """One row of the tables: an image at a scale.

    spacing_mm : for volumes with a spacing in mm.
    values : figures by column name; NaN or missing if a figure cannot be measured.
    patient : whose image it is; "" if each image is of a different patient.
    """

    image: str
    scale: int
    shape: Ints
    spacing_mm: Floats | None
    values: Mapping[str, float]
    patient: str = ""

    def value(self, column: str) -> float:
        return self.values.get(column, float("nan"))


def iter_measure(case: Case, scale: int) -> Generator[float, None, ScaleFigures]:
    """Measure all figures of a scale; yield the share of tiles made from the true coarser scale."""
    units = units_of(case.model.spec)
    stored = case.made(scale)
    made, true = units.convert(stored), units.convert(case.truth[scale])
    body = body_mask(true, units)
    values = _accuracy(made, true, body, units) | _texture(case, made, true, scale)
    values |= _fidelity(case, stored, made, scale)
    if scale:
        values |= _seams(case, made, true, scale)
        by_true = units.convert((yield from iter_from_true(case, scale)))
        values |= {
            f"{name}_from_true": value
            for name, value in _similarity(by_true, true, body, units).items()
        }
    geometry = case.store.geometry
    spacing = geometry.spacing_at(scale) if geometry.unit == "millimeter" else None
    return ScaleFigures(case.name, scale, tuple(made.shape), spacing, values)


def _similarity(
    made: Float32Array, true: Float32Array, body: BoolArray, units: ReportUnits
) -> dict[str, float]:
    return {
        "mae": mean_absolute_error(made, true),
        "psnr": peak_signal_to_noise(made, true, units.data_range),
        "ssim": structural_similarity(made, true, body, units.window),
    }


def _accuracy(
    made: Float32Array, true: Float32Array, body: BoolArray, units: ReportUnits
) -> dict[str, float]:
    matched = matched_errors(made, true)
    tissues = tissue_masks(true, body) if units.is_hu else {}
    return {
        **_similarity(made, true, body, units),
        **{f"mae_{name}": mean_absolute_error(made, true, m) for name, m in tissues.items()},
        "ms_ssim": multiscale_structural_similarity(made, true, units.window),
        "correlation": matched.correlation,
        "mae_matched": matched.mae,
        "mae_matched_low": matched.mae_low,
        "mae_matched_high": matched.mae_high,
    }


def _texture(case: Case, made: Float32Array, true: Float32Array, scale: int) -> dict[str, float]:
    wasserstein, spectra = sliced_wasserstein(made, true), compare_spectra(made, true)
    factor = case.model.factor(max(scale, 1))
    return {
        "swd": wasserstein.distance,
        "swd_floor": wasserstein.floor,
        "spectrum_db": spectra.distance_db,
        "fine_power": spectra.fine_share,
        "checkerboard": checkerboard_index(made, factor),
        "checkerboard_true": checkerboard_index(true, factor),
    }


def _fidelity(
    case: Case, stored: npt.NDArray[Any], made: Float32Array, scale: int
) -> dict[str, float]:
    store, spec = case.store, case.model.spec
    edges = edges_of(lazy_unit(stored, *spec.window), spec.sketch, scale, spec.tile_shape)
    given = np.asarray(store.sketch_array(scale)[...]) > 0
    agreement = compare_sketches(edges, given)
    values = {
        "edge_density": float(given.mean()),
        "sketch_f1": agreement.f1,
        "sketch_f1_chance": agreement.chance,
    }
    if scale:
        coarse = units_of(spec).convert(case.made(scale - 1))
        values["coarse_inconsistency"] = coarse_inconsistency(
            made, coarse, store.geometry.factor(scale)
        )
    return values


def _seams(case: Case, made: Float32Array, true: Float32Array, scale: int) -> dict[str, float]:
    store, computing = case.store, case.computing
    tile_shape, factor = store.info.tile_shape, store.geometry.factor(scale)
    context = TileContext(store, case.model, computing.device, computing.precision)
    context.prepare([scale])
    generator, first = context.generator(scale), 0
    if isinstance(generator, MeganPatchGenerator):
        seams = certify_patches(context, scale, generator)
        tile_shape, first = (STRIDE,) * made.ndim, MARGIN
    else:
        make_tile = tile_maker(context, scale)
        seams = certify_seams(make_tile, tuple(made.shape), tile_shape, factor)
    per_network_unit = units_of(case.model.spec).data_range / 2
    return {
        **{f"seam_{name}": value * per_network_unit for name, value in asdict(seams).items()},
        "seam_phase": tile_phase_share(made, tile_shape, factor, first),
        "seam_phase_true": tile_phase_share(true, tile_shape, factor, first),
    }
