import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_msgan.geometry import Affine, Box, PyramidGeometry
from napari_msgan.scheduling import plan_tiles, run_in_order
from napari_msgan.tiling import Tile, TileGrid, Tiling


def make_tiling(shape, factors, tile_shape, halo):
    axes = ("z", "y", "x")[-len(shape) :]
    geometry = PyramidGeometry(axes, shape, factors, Affine.of_spacing((1,) * len(shape)), "pixel")
    none = (0,) * len(shape)
    return Tiling(geometry, tile_shape, (none, *[(halo,) * len(shape)] * len(factors)))


def voxels_needed(tiling, scale, box):
    """Mark, voxel by voxel, what each scale must have so that a box of `scale` can be computed."""
    needed = [np.zeros(tiling.geometry.shape_at(s), bool) for s in range(tiling.geometry.n_scales)]
    needed[scale][box.slices] = True
    for s in range(scale, 0, -1):
        grid = tiling.grid(s)
        for index in np.ndindex(*Box.of_shape(grid.shape).cover(grid.tile_shape).shape):
            core = grid.core(index)
            if not needed[s][core.slices].any():
                continue
            factor, halo = tiling.geometry.factor(s), tiling.halos[s]
            start = [
                i * t // f - h
                for i, t, f, h in zip(index, grid.tile_shape, factor, halo, strict=True)
            ]
            stop = [
                (i + 1) * t // f + h
                for i, t, f, h in zip(index, grid.tile_shape, factor, halo, strict=True)
            ]
            places = [
                np.unique(np.clip(np.arange(a, b), 0, n - 1))
                for a, b, n in zip(start, stop, needed[s - 1].shape, strict=True)
            ]
            needed[s - 1][np.ix_(*places)] = True
    return needed


def tiles_by_brute_force(tiling, scale, box):
    tiles = set()
    for s, needed in enumerate(voxels_needed(tiling, scale, box)):
        grid = tiling.grid(s)
        for index in np.ndindex(*Box.of_shape(grid.shape).cover(grid.tile_shape).shape):
            if needed[grid.core(index).slices].any():
                tiles.add(Tile(s, index))
    return tiles


@settings(max_examples=60)
@given(
    st.tuples(st.integers(5, 90), st.integers(5, 90)),
    st.lists(st.sampled_from([(2, 2), (1, 2), (2, 1)]), min_size=1, max_size=3),
    st.sampled_from([(8, 8), (16, 8), (24, 32)]),
    st.integers(1, 5),
    st.data(),
)
def test_plan_is_exactly_what_the_region_depends_on(shape, factors, tile_shape, halo, data):
    tiling = make_tiling(shape, tuple(factors), tile_shape, halo)
    start = [data.draw(st.integers(0, n - 1)) for n in shape]
    stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)]
    region = Box(tuple(start), tuple(stop))
    scale = data.draw(st.integers(0, len(factors)))
    plan = plan_tiles(tiling, [region], scale, lambda tile: False, region)
    assert len(plan) == len(set(plan))
    assert set(plan) == tiles_by_brute_force(tiling, scale, tiling.geometry.box_at(scale, region))
    done = set()
    for tile in plan:
        assert set(tiling.dependencies(tile)) <= done
        done.add(tile)


def test_brute_force_notices_a_halo_that_is_one_voxel_larger():
    region = Box((30, 30), (40, 40))
    counts = []
    for halo in (4, 5):
        tiling = make_tiling((96, 96), ((2, 2), (2, 2)), (8, 8), halo)
        counts.append(len(tiles_by_brute_force(tiling, 2, region)))
    assert counts[0] < counts[1]


def test_refined_tiles_are_not_planned_again():
    tiling = make_tiling((64, 64), ((2, 2), (2, 2)), (16, 16), 3)
    region = Box((0, 0), (32, 32))
    first = plan_tiles(tiling, [region], 2, lambda tile: False)
    there = set(first)
    rest = plan_tiles(tiling, [Box.of_shape((64, 64))], 2, lambda tile: tile in there)
    assert not there & set(rest)
    assert there | set(rest) == tiles_by_brute_force(tiling, 2, Box.of_shape((64, 64)))


def test_tiles_near_the_focus_come_first():
    tiling = make_tiling((128, 128), ((2, 2),), (16, 16), 3)
    focus = Box((96, 96), (112, 112))
    plan = plan_tiles(tiling, [Box.of_shape((128, 128))], 1, lambda tile: False, focus)
    finest = [tile for tile in plan if tile.scale == 1]
    assert finest[0] == Tile(1, (6, 6))
    assert finest[-1] == Tile(1, (0, 0))


def test_the_focus_lies_in_voxels_of_the_finest_scale_whatever_scale_is_made():
    tiling = make_tiling((128, 128), ((2, 2), (2, 2)), (16, 16), 3)
    focus = Box((32, 80), (36, 84))  # at scale 1: 16 to 18, 40 to 42
    plan = plan_tiles(tiling, [Box.of_shape((128, 128))], 1, lambda tile: False, focus)
    assert next(tile for tile in plan if tile.scale == 1) == Tile(1, (1, 2))


@pytest.mark.parametrize("shape", [(40, 33), (17, 64)], ids=str)
def test_dependents_are_the_inverse_of_dependencies(shape):
    tiling = make_tiling(shape, ((2, 2), (1, 2)), (8, 8), 3)
    every = [
        tile
        for s in range(3)
        for tile in tiling.tiles(s, Box.of_shape(tiling.geometry.shape_at(s)))
    ]
    for tile in every:
        readers = {other for other in every if tile in tiling.dependencies(other)}
        assert readers <= set(tiling.dependents(tile))
        assert len(set(tiling.dependents(tile)) - readers) <= 4


def test_with_dependents_are_all_finer_tiles_made_from_the_given_ones():
    tiling = make_tiling((64, 64), ((2, 2), (1, 2)), (8, 8), 1)
    given = [Tile(1, (0, 3)), Tile(2, (7, 7))]
    readers = {Tile(1, (0, 3)), *tiling.dependents(given[0])}
    assert len(readers) > 1
    finest = {tile for tile in readers if tile.scale == 2}
    assert tiling.with_dependents(given) == [set(), {given[0]}, finest | {given[1]}]
    whole = tiling.with_dependents([Tile(0, (0, 0))])
    for scale, tiles in enumerate(whole):
        assert tiles == set(tiling.tiles(scale, Box.of_shape(tiling.geometry.shape_at(scale))))


def test_grid_cells_write_every_voxel_once():
    grid = TileGrid((37, 50), (16, 16))
    count = np.zeros(grid.shape, int)
    cells = grid.cells(Box.of_shape(grid.shape))
    for index in cells.indices():
        count[grid.core(index).slices] += 1
    assert cells.size == 12
    assert (count == 1).all()


def test_windows_of_tiles_are_those_computed_by_hand():
    tiling = make_tiling((50, 70), ((2, 2), (1, 2)), (16, 16), 3)
    whole = tiling.windows(Tile(0, (0, 0)))  # one tile of any size, at twice the resolution
    assert (whole.image, whole.core) == ((25, 18), Box.of_shape((25, 18)))
    assert (whole.sketch, whole.coarse) == (Box.of_shape((50, 36)), None)
    corner = tiling.windows(Tile(2, (3, 4)))
    assert (corner.image, corner.core) == ((50, 70), Box((48, 64), (50, 70)))
    assert corner.coarse == Box((48 - 3, 32 - 3), (64 + 3, 40 + 3))
    assert corner.sketch == Box((45, 58), (67, 86))
    assert corner.coarse_image((1, 2)) == (50, 35)


def test_several_regions_are_one_plan_each_tile_once():
    tiling = make_tiling((128, 128), ((2, 2),), (16, 16), 3)
    near, far = Box((0, 0), (40, 40)), Box((30, 30), (128, 60))
    for focus in (None, Box((96, 40), (112, 56))):
        plan = plan_tiles(tiling, [near, far], 1, lambda tile: False, focus)
        assert len(plan) == len(set(plan))
        assert set(plan) == {
            tile for region in (near, far) for tile in tiles_by_brute_force(tiling, 1, region)
        }
        for number, tile in enumerate(plan):
            assert set(tiling.dependencies(tile)) <= set(plan[:number])
        first = next(tile for tile in plan if tile.scale == 1)
        assert first == Tile(1, (0, 0) if focus is None else (6, 2))


def test_of_several_regions_what_is_seen_comes_first():
    tiling = make_tiling((18, 23, 18), ((1, 1, 1),), (16, 16, 16), 0)
    regions = [Box((0, 0, 0), (18, 18, 18)), Box((0, 14, 0), (18, 23, 18))]
    plan = plan_tiles(tiling, regions, 1, lambda tile: False, Box((17, 22, 17), (18, 23, 18)))
    assert next(tile for tile in plan if tile.scale == 1) == Tile(1, (1, 1, 1))  # of the second


class Driver:
    """Makes tiles one after the other, the last one first, and lets its caller wait in between."""

    def __init__(self, tiling, plan, capacity):
        self.tiling, self.plan, self.capacity = tiling, plan, capacity
        self.begun, self.running, self.done, self.most = [], [], set(), 0

    def begin(self, tile):
        assert self.done >= set(self.tiling.dependencies(tile)) & set(self.plan)
        self.begun.append(tile)
        self.running.append(tile)
        self.most = max(self.most, len(self.running))
        self.is_waiting = True

    def finished(self):
        if self.is_waiting:
            self.is_waiting = False
            return []
        tile = self.running.pop()
        self.done.add(tile)
        return [tile]


@pytest.mark.parametrize("capacity", [1, 3])
def test_tiles_are_begun_in_order_as_many_as_fit_and_never_before_what_they_read(capacity):
    tiling = make_tiling((96, 80), ((2, 2), (1, 2)), (16, 16), 3)
    whole, refined = Box.of_shape((96, 80)), tiling.tiles(1, Box((0, 0), (20, 20)))
    refined = [Tile(0, (0, 0)), *refined]  # is there already
    plan = plan_tiles(tiling, [whole], 2, lambda tile: tile in refined)
    driver = Driver(tiling, plan, capacity)
    yielded = list(run_in_order(tiling, plan, driver))
    assert [tile for tile in yielded if tile is None]
    assert {tile for tile in yielded if tile} == set(plan)
    assert len(driver.begun) == len(plan)
    assert driver.most == capacity
    if capacity == 1:
        assert driver.begun == plan
