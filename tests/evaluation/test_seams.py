"""Exact generators pass the certificate; too small a halo and statistics over a tile do not."""

from dataclasses import astuple

import numpy as np
import pytest
from torch.nn import functional

from napari_msgan.computing import TileContext, run_tile
from napari_msgan.evaluation import (
    Computing,
    certify_patches,
    certify_seams,
    iter_measure,
    tile_maker,
    tile_phase_share,
)
from napari_msgan.evaluation.case import iter_open_case
from napari_msgan.evaluation.seams import _patch_borders, middle_tiles
from napari_msgan.geometry import Affine, Box
from napari_msgan.io import write_volume
from napari_msgan.megan_import import import_megan
from napari_msgan.model import Model, load_folder
from napari_msgan.networks import PatchGenerator
from napari_msgan.networks.megan import MeganPatchGenerator
from napari_msgan.networks.patchwork import PATCH
from napari_msgan.steps import run_to_end
from napari_msgan.tiling import Tile
from napari_msgan.volume import Volume
from tests.evaluation.images import smooth, textured
from tests.megan import write_checkpoints
from tests.models import write_model

SHAPES = {2: (88, 70), 3: (64, 40, 36)}


class TooSmallHalo(PatchGenerator):
    """Fills what its halo lacks with the border of the window, as many do."""

    @property
    def halo(self):
        return tuple(h - 2 for h in super().halo)

    def tile(self, windows, coarse, sketch):
        pads = [2, 2] * len(self.factor)
        fine = [p for f in reversed(self.factor) for p in (2 * f, 2 * f)]
        wide = functional.pad(coarse, pads, mode="replicate")
        return self(wide, functional.pad(sketch, fine, mode="replicate"))


class NormalisedTiles(PatchGenerator):
    """Instance normalisation: what a voxel becomes depends on its tile."""

    def tile(self, windows, coarse, sketch):
        return functional.instance_norm(self(coarse, sketch))


def context_for(ndim, folder, kind):
    model = load_folder(write_model(folder / "model", ndim=ndim, n_scales=2, tile=32))
    exact = model.generators[1]
    generator = kind(exact.factor, 6, 1).eval().requires_grad_(False)
    generator.load_state_dict(exact.state_dict())
    model = Model(model.spec, model.folder, (model.generators[0], generator))
    return opened(model, SHAPES[ndim], folder)[1]


def opened(model, shape, folder, precision="fp32"):
    """Return the case of an image, and the context in which its scale 1 is made."""
    spacing = Affine.of_spacing((1,) * len(shape))
    image = Volume(smooth(shape, 0) * 4 - 500, spacing, "millimeter")
    write_volume(folder / "image.ome.tif", [image], description={})
    case = run_to_end(iter_open_case(folder / "image.ome.tif", model, folder, Computing()))
    context = TileContext(case.store, model, "cpu", precision)
    context.prepare([1])
    return case, context


def certificate(context):
    shape, info = context.store.geometry.shape_at(1), context.store.info
    factor = context.store.geometry.factor(1)
    return certify_seams(tile_maker(context, 1), shape, info.tile_shape, factor)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_judged_is_what_refine_makes(precision, tmp_path):
    model = load_folder(write_model(tmp_path / "model", ndim=2, n_scales=2, tile=32))
    _, context = opened(model, SHAPES[2], tmp_path, precision)
    tile = Tile(1, (1, 0))
    core = context.store.tiling.core(tile)
    judged = context.window.to_stored(tile_maker(context, 1)(core))
    np.testing.assert_array_equal(judged, run_tile(context, tile))


@pytest.mark.parametrize("ndim", [2, 3])
def test_exact_generator_has_no_seams(ndim, tmp_path):
    seams = certificate(context_for(ndim, tmp_path, PatchGenerator))
    assert seams.max_near <= 1e-5
    assert seams.max_off <= 1e-5


@pytest.mark.parametrize("ndim", [2, 3])
def test_too_small_halo_shows_near_the_tile_borders(ndim, tmp_path):
    seams = certificate(context_for(ndim, tmp_path, TooSmallHalo))
    assert seams.max_near > 1e-4
    assert seams.mean_near > 5 * seams.mean_off


@pytest.mark.parametrize("ndim", [2, 3])
def test_normalised_tiles_show_everywhere(ndim, tmp_path):
    seams = certificate(context_for(ndim, tmp_path, NormalisedTiles))
    assert seams.mean_near > 1e-3
    assert seams.mean_off > 1e-3


def test_both_grids_are_asked_for_boxes_that_start_inside(tmp_path):
    asked = []

    def make_tile(box):
        asked.append(box)
        return np.zeros(box.shape, np.float32)

    certify_seams(make_tile, (50, 40), (32, 32), (2, 2))
    assert {box.start for box in asked} == {
        *((y, x) for y in (0, 32) for x in (0, 32)),
        *((y, x) for y in (0, 16, 48) for x in (0, 16)),
    }
    assert min(min(box.start) for box in asked) == 0


def shaped(shape, tile):
    """Return the certificate of tiles that differ by the side they were asked for."""
    return certify_seams(
        lambda box: np.full(box.shape, box.shape[0], np.float32), shape, (tile, tile), (2, 2)
    )


def test_image_without_a_tile_border_has_no_certificate():
    assert np.isnan(astuple(shaped((60, 64), 128))).all()
    assert np.isfinite(astuple(shaped((60, 66), 128))).all()  # the shifted grid has one at 64
    assert shaped((100, 40), 128).max_near > 0


def test_tiles_so_small_that_every_voxel_is_near_a_border_have_nothing_off():
    found = shaped((64, 64), 8)
    assert np.isfinite([found.mean_near, found.max_near]).all()
    assert np.isnan([found.mean_off, found.max_off]).all()


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A model in the layout of the authors, and what it makes of an image with three patches."""
    folder = tmp_path_factory.mktemp("imported")
    write_checkpoints(folder / "theirs", widths=(1, 1))
    import_megan(folder / "theirs", folder / "model")
    model = load_folder(folder / "model")
    return model, *opened(model, (64, 64, 64), folder)


def test_patches_of_imported_models_show_where_shifted_tiles_do_not(imported):
    _, case, context = imported
    make_tile, generator = tile_maker(context, 1), context.generator(1)
    tiles = certify_seams(make_tile, (64,) * 3, (32,) * 3, (2,) * 3)
    assert tiles.max_near < 1e-5
    patches = certify_patches(context, 1, generator)
    assert patches.mean_near > 1e-3
    assert patches.mean_off > 1e-3
    row = run_to_end(iter_measure(case, 1))
    assert row.value("seam_mean_near") == pytest.approx(patches.mean_near * 255 / 2)
    assert np.isfinite(row.value("seam_phase"))


def test_patches_that_do_not_depend_on_their_place_pass(imported, monkeypatch):
    """The mean of any patches of a function of the voxel is that function."""
    _, _, context = imported

    def forward(self, coarse, sketch):
        return sketch

    monkeypatch.setattr(MeganPatchGenerator, "forward", forward)
    assert certify_patches(context, 1, context.generator(1)).max_near < 1e-6


@pytest.mark.filterwarnings("ignore:the image has 32 pixels")
def test_image_of_one_patch_has_no_certificate(imported, tmp_path):
    model, _, _ = imported
    _, context = opened(model, (PATCH, PATCH, PATCH), tmp_path)
    assert np.isnan(astuple(certify_patches(context, 1, context.generator(1)))).all()


def test_middle_tiles_are_around_the_border_nearest_the_middle():
    assert middle_tiles((100, 40), (32, 32)) == Box((32, 0), (96, 40))
    assert middle_tiles((20, 20), (32, 32)) == Box((0, 0), (20, 20))


def test_visible_tile_borders_rank_first_among_all_phases():
    image = smooth((200, 180), 0)
    stripes = 8 * (np.indices(image.shape) // 32 % 2).sum(0)
    seams = image + stripes.astype(np.float32)
    first = 2 / 16  # one of 16 phases on each of two axes
    assert tile_phase_share(seams, (32, 32), (2, 2)) == pytest.approx(first)
    shifted = image + np.roll(stripes, 6, axis=(0, 1)).astype(np.float32)
    assert tile_phase_share(shifted, (32, 32), (2, 2)) > first
    assert tile_phase_share(seams, (32, 32), (1, 1)) == pytest.approx(first / 2)
    assert np.isnan(tile_phase_share(image, (256, 256), (2, 2)))
    assert tile_phase_share(shifted, (32, 32), (2, 2), first=6) == pytest.approx(first)


@pytest.mark.parametrize(
    ("shape", "tile", "first"),
    [((200, 180), 32, 0), ((30, 100), 32, 6), ((33, 32), 32, 0), ((40, 50, 66), 20, 6)],
    ids=str,
)
@pytest.mark.parametrize("seed", range(4))
def test_phase_share_is_the_rank_of_the_mean_relative_gradient(shape, tile, first, seed):
    image, shares = textured(shape, seed).astype(np.float64), []
    for axis, size in enumerate(shape):
        if size <= tile:
            continue
        lines = np.moveaxis(image, axis, 0).reshape(size, -1)
        steps = np.abs(lines[1:] - lines[:-1]).mean(1)
        reflected = np.concatenate([steps[7::-1], steps, steps[:-8:-1]])
        relative = [step / reflected[i : i + 16].mean() for i, step in enumerate(steps)]
        phases = {}
        for voxel, value in enumerate(relative, 1):
            if (voxel - first) % 2 == 0:
                phases.setdefault((voxel - first) % tile, []).append(value)
        means = {phase: np.mean(values) for phase, values in phases.items()}
        shares.append(np.mean([mean >= means[0] for mean in means.values()]))
    expected = min(1, len(shares) * min(shares))
    found = tile_phase_share(
        image.astype(np.float32), (tile,) * len(shape), (2,) * len(shape), first
    )
    assert found == pytest.approx(expected)


def test_borders_of_coarse_voxels_are_not_taken_for_those_of_tiles(rng):
    found = []
    for _ in range(20):
        blocks = np.kron(rng.random((50, 50)), np.ones((2, 2))).astype(np.float32)
        found.append([tile_phase_share(blocks, (32, 32), step) for step in ((2, 2), (1, 1))])
    with_coarse, with_all = np.median(found, axis=0)
    assert with_coarse > 0.4
    assert with_all < with_coarse


@pytest.mark.parametrize(("reach", "is_near"), [(4, True), (5, False)])
def test_near_is_within_four_voxels_of_a_border_of_either_grid(reach, is_near):
    def make_tile(box):
        middle = np.zeros(box.shape, np.float32)
        middle[(slice(reach, -reach),) * 2] = 1  # what a halo too small by `reach` would spoil
        return middle

    seams = certify_seams(make_tile, (128, 128), (32, 32), (2, 2))
    assert seams.max_near == 1
    assert (seams.max_off == 0) == is_near


def test_borders_of_patches_are_where_they_begin_and_end_to_count():
    assert _patch_borders(64, (0,)) == {6, 26, 46, 38, 58}  # of those at 0, 20 and 32
    assert _patch_borders(30, (0, 10)) == set()
