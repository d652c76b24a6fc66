import numpy as np
import pytest

from napari_msgan import __version__, jobs
from napari_msgan.config import INEXACT_NOTE
from napari_msgan.exporting import grid_volumes, provenance
from napari_msgan.geometry import Affine, Box
from napari_msgan.model import load_folder
from napari_msgan.pyramid import open_pyramid
from napari_msgan.source import hash_pixels
from napari_msgan.volume import Orientation, Volume, turn
from tests.models import write_model


def body(shape=(30, 44, 37), spacing=(1.4, 1.0, 1.0)):
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    values = np.where(grid[0] ** 2 + grid[1] ** 2 + (grid[2] - 0.3) ** 2 < 0.5, 300, -900)
    return Volume(values.astype(np.int16), Affine.of_spacing(spacing, (11, 22, 33)), "millimeter")


@pytest.fixture(scope="module", params=["lps", "turned"])
def ramps(request, tmp_path_factory):
    """A store whose voxels say where they lie: 100 times the place along an axis, per axis."""
    folder = tmp_path_factory.mktemp("r")
    model = load_folder(write_model(folder / "solid", ndim=3))
    source = body()
    if request.param == "turned":
        source = turn(source, Orientation((2, 0, 1), (True, False, True)))
    path = jobs.generate(source, folder / "a.ome.zarr", model, device="cpu", scale=0).path
    store = open_pyramid(path, writable=True)

    def write(axis):
        with store.writing():
            for scale in range(store.n_scales):
                affine, shape = store.geometry.affine_at(scale), store.geometry.shape_at(scale)
                ramp = affine.origin[axis] + affine.spacing[axis] * np.indices(shape)[axis]
                store.write(scale, Box.of_shape(shape), np.rint(100 * ramp).astype(np.int16))
        return store

    return write


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("part", [None, Box((9, 14, 11), (30, 38, 31))], ids=["whole", "part"])
def test_every_scale_lies_where_it_is_on_the_source_grid(ramps, axis, part):
    store = ramps(axis)
    region = part or Box.of_shape(store.geometry.shape)
    for scale in range(store.n_scales):
        (volume,) = grid_volumes(store, scale, region, "source")
        values = np.asarray(volume.data[(slice(None),) * 3])
        index = np.indices(volume.shape).reshape(3, -1)
        world = volume.affine.matrix[:3, :3] @ index + volume.affine.matrix[:3, 3:]
        start, end = (
            store.geometry.affine.at(c) for c in ((4,) * 3, np.array(store.geometry.shape) - 5)
        )
        inside = ((world > start[:, None]) & (world < end[:, None])).all(axis=0)
        assert inside.sum() > 500
        np.testing.assert_allclose(values.ravel()[inside], 100 * world[axis][inside], atol=3)
        if part is not None:  # no more than the voxels that the region touches
            first = np.min(
                np.array([volume.affine.at(c) for c in ((0,) * 3, np.array(volume.shape) - 1)]),
                axis=0,
            )
            apart = first - store.geometry.affine.at(region.start)
            assert (np.abs(apart) < 1.5).all()


def test_what_is_exported_says_how_it_was_made(tmp_path):
    model = load_folder(write_model(tmp_path / "solid", ndim=3))
    store = jobs.generate(body(), tmp_path / "a.ome.zarr", model, device="cpu", scale=0, name="b")
    shape = store.geometry.shape_at(1)
    said = provenance(store, 1, Box((1, 2, 3), shape), "store")
    thresholds, made = store.info.sketch.thresholds, store.info.fingerprint
    assert "not for diagnosis" in said.pop("notice")
    assert said == {
        "synthetic": True,
        "software": f"napari-msgan {__version__}",
        "model": "small",
        "model_sha256": model.spec.identity,
        "modality": "CT",
        "exact": True,
        "tiles": "equal to the whole image",
        "seed": 0,
        "scale": 1,
        "n_scales": store.n_scales,
        "region": str(Box((2, 4, 6), store.geometry.shape)),
        "grid": "store",
        "refined_fraction": 0,
        "honest_scale": store.info.source.honest_scale,
        "source_sha256": hash_pixels(body()),
        "source_name": "b",
        "sketch_sha256": store.info.sketch.sha256,
        "sketch_edited": False,
        "sketch_density": thresholds[1].density,
        "fingerprint": made.model_dump(mode="json"),
    }
    whole = Box.of_shape(store.geometry.shape_at(0))
    assert provenance(store, 0, whole, "source")["refined_fraction"] == 1
    assert len({threshold.density for threshold in thresholds}) > 1
    store.info = store.info.model_copy(
        update={
            "fingerprint": None,
            "exact": False,
            "sketch": store.info.sketch.model_copy(update={"thresholds": None, "edited": "a" * 64}),
        }
    )
    said = provenance(store, 0, whole, "source")
    assert (said["fingerprint"], said["sketch_density"], said["sketch_edited"]) == (
        None,
        None,
        True,
    )
    assert said["tiles"] == INEXACT_NOTE
