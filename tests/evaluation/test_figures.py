"""Each figure of a row is that of its measure, of the right images and in the right units."""

import numpy as np
import pytest
from torch.nn import functional

from napari_msgan.computing import TileContext
from napari_msgan.evaluation import (
    Computing,
    body_mask,
    certify_seams,
    checkerboard_index,
    compare_sketches,
    compare_spectra,
    edges_of,
    iter_measure,
    matched_errors,
    sliced_wasserstein,
    structural_similarity,
    tile_maker,
    tile_phase_share,
)
from napari_msgan.evaluation.case import iter_open_case
from napari_msgan.geometry import Affine
from napari_msgan.io import write_volume
from napari_msgan.model import Model, load_folder, read_spec, save_spec
from napari_msgan.networks import PatchGenerator
from napari_msgan.sketch import lazy_unit
from napari_msgan.steps import run_to_end
from napari_msgan.volume import Volume
from tests.evaluation.images import GREY, HU, textured
from tests.models import write_model


class NormalisedTiles(PatchGenerator):
    """Statistics over the tile, so that there are seams to be measured."""

    def tile(self, windows, coarse, sketch):
        return 0.3 * functional.instance_norm(self(coarse, sketch))


@pytest.fixture(scope="module", params=[2, 3], ids=["grey", "HU"])
def case(request, tmp_path_factory):
    folder, ndim = tmp_path_factory.mktemp("case"), request.param
    write_model(folder / "model", ndim=ndim, n_scales=3 if ndim == 2 else 2, tile=32)
    if ndim == 3:
        spec = read_spec(folder / "model")
        windows = {"window": spec.window, "coarse_windows": ((-700, 0),)}  # HU as they are
        sketch = spec.sketch.model_copy(update=windows)
        save_spec(spec.model_copy(update={"sketch": sketch}), folder / "model")
    values = textured((120, 112) if ndim == 2 else (40, 36, 44), 0)
    values = (values * 6 - 1000).astype(np.int16)
    unit = "millimeter" if ndim == 3 else "pixel"
    volume = Volume(values, Affine.of_spacing((1,) * ndim), unit)
    write_volume(folder / "image.ome.tif", [volume], description={})
    model = load_folder(folder / "model")
    first, exact, *others = model.generators
    seen = NormalisedTiles(exact.factor, 6, 1).eval().requires_grad_(False)
    seen.load_state_dict(exact.state_dict())
    model = Model(model.spec, model.folder, (first, seen, *others))
    return run_to_end(iter_open_case(folder / "image.ome.tif", model, folder, Computing()))


def images_of(case, scale):
    """Return the generated and the true image in reported units."""
    low, high = case.model.spec.window
    stored = [np.asarray(a, np.float64) for a in (case.made(scale), case.truth[scale])]
    if case.model.spec.modality == "CT":
        return [a.astype(np.float32) for a in stored]
    return [((a - low) * 255 / (high - low)).astype(np.float32) for a in stored]


@pytest.mark.parametrize("scale", [0, 1])
def test_row_has_the_figures_of_its_measures(case, scale):
    made, true = images_of(case, scale)
    is_ct = case.model.spec.modality == "CT"
    low, width = (-1000, 1600) if is_ct else (0, 255)
    row = run_to_end(iter_measure(case, scale))
    difference = made.astype(np.float64) - true
    matched, spectra = matched_errors(made, true), compare_spectra(made, true)
    wasserstein = sliced_wasserstein(made, true)
    spec, factor = case.model.spec, (2,) * made.ndim
    unit = lazy_unit(case.made(scale), *spec.window)
    edges = edges_of(unit, spec.sketch, scale, (64,) * made.ndim)
    given = case.store.sketch_array(scale)[...] != 0
    fidelity = compare_sketches(edges, given)
    expected = {
        "mae": np.abs(difference).mean(),
        "psnr": 10 * np.log10(width**2 / np.square(difference).mean()),
        "ssim": structural_similarity(
            made, true, body_mask(true, HU if is_ct else GREY), (low, low + width)
        ),
        "correlation": np.corrcoef(made.ravel(), true.ravel())[0, 1],
        "mae_matched": matched.mae,
        "mae_matched_low": matched.mae_low,
        "mae_matched_high": matched.mae_high,
        "swd": wasserstein.distance,
        "swd_floor": wasserstein.floor,
        "spectrum_db": spectra.distance_db,
        "fine_power": spectra.fine_share,
        "checkerboard": checkerboard_index(made, factor),
        "checkerboard_true": checkerboard_index(true, factor),
        "edge_density": given.mean(),
        "sketch_f1": fidelity.f1,
        "sketch_f1_chance": fidelity.chance,
    }
    if is_ct:
        inside = {"soft_tissue": (true >= -50) & (true < 150), "bone": true >= 200}
        for name, mask in inside.items():
            expected[f"mae_{name}"] = np.abs(difference)[mask].mean()
    else:
        assert not any(name in row.values for name in ("mae_lung", "mae_soft_tissue", "mae_bone"))
    if scale:
        coarse = images_of(case, scale - 1)[0]
        blocks = made.reshape([m for n in coarse.shape for m in (n, 2)])
        means = blocks.mean(tuple(range(1, blocks.ndim, 2)), dtype=np.float64)
        expected["coarse_inconsistency"] = np.abs(means - coarse).mean()
        tile = (32,) * made.ndim
        expected["seam_phase"] = tile_phase_share(made, tile, factor)
        expected["seam_phase_true"] = tile_phase_share(true, tile, factor)
    found = {name: row.value(name) for name in expected}
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4, nan_ok=True)
    assert (row.scale, row.shape) == (scale, made.shape)
    assert row.spacing_mm == ((2 / 2**scale,) * 3 if is_ct else None)
    from_true = {name for name in row.values if name.endswith("_from_true")}
    assert from_true == ({"mae_from_true", "psnr_from_true", "ssim_from_true"} if scale else set())


def test_seams_are_in_reported_units(case):
    context = TileContext(case.store, case.model, "cpu", "fp32")
    context.prepare([1])
    shape, tile = case.store.geometry.shape_at(1), case.store.info.tile_shape
    seams = certify_seams(tile_maker(context, 1), shape, tile, case.store.geometry.factor(1))
    width = 1600 if case.model.spec.modality == "CT" else 255  # of 2 in the unit of the tiles
    row = run_to_end(iter_measure(case, 1))
    assert row.value("seam_max_near") > 1
    assert row.value("seam_max_near") == pytest.approx(seams.max_near * width / 2, rel=1e-6)
    assert row.value("seam_mean_off") == pytest.approx(seams.mean_off * width / 2, rel=1e-6)
