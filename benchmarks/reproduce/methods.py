"""The compared methods.

All share the images, sketch changes, discriminator, losses, optimiser and schedule of
`napari_msgan.training`. They differ in their generators and in what these read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.reproduce import networks
from napari_msgan.config import LowResNetwork
from napari_msgan.networks import build_generator
from napari_msgan.training.config import CoarseMixture, TrainConfig
from napari_msgan.training.sources import SourcePyramid

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.reproduce.data import DataSet

#: Channels of the first layer of the authors' layout; theirs are 64, for a GPU.
MEGAN_WIDTH = 16
_GREY = np.uint16(32768)
#: Steps of the whole-image method see one image.
_WHOLE_BATCH = 1


@dataclass(frozen=True)
class Run:
    """What is trained on some images, one scale after the other.

    scales : the scales of `config` that are trained.
    build : makes their generators.
    view : what is seen of a resampled image.
    for_tiles : turns a trained generator into one that makes tiles.
    tile : side of the tiles that the next scale learns from.
    has_own_pool : whether scale 0 learns from a pool of whole images other than that of `ours`.
    first_is : the scale of the data set at which `scales` begins, if its number differs.
    """

    config: TrainConfig
    scales: tuple[int, ...]
    build: Callable = build_generator
    view: Callable = lambda pyramid: pyramid
    for_tiles: Callable = lambda generator: generator
    tile: int | None = None
    has_own_pool: bool = False
    first_is: int | None = None

    def shown(self, scale):
        """Return which scale of the data set a trained scale corresponds to."""
        return scale if self.first_is is None else self.first_is


@dataclass(frozen=True)
class Method:
    """One row of the tables.

    run : what is trained on a data set; None for a method that uses what another has trained.
    generators : for every scale of the data set, from those that were trained.
    tile : side of the tiles used for figures.
    """

    title: str
    run: Callable[[DataSet], Run] | None
    generators: Callable[[DataSet, dict], list]
    tile: Callable[[DataSet], int]


def _ours(data):
    return Run(data.config, tuple(range(data.finest + 1)))


def _ours_generators(data, trained):
    return [trained[scale] for scale in range(data.finest + 1)]


def _upsampled(data, trained):
    return [trained[0], *_upsampling(data, 1)]


def _upsampling(data, first):
    return [
        networks.Upsampling(data.config.scales[s].factor) for s in range(first, data.finest + 1)
    ]


def _sketch_patches(data):
    """Return our patch network at the finest scale, without a coarse image."""
    return Run(_finest_alone(data, {}), (data.finest,), view=WithoutCoarse.of)


def _megan_patches(data):
    """Return the authors' patch network at the finest scale, without a coarse image."""
    config = _finest_alone(data, _megan_patch_plan(data))
    build = partial(_build_megan, data, reads_coarse=False)
    return Run(config, (data.finest,), build, WithoutCoarse.of, networks.MiddleOfPatch)


def _megan_scales(data):
    """Return the authors' networks at all scales."""
    plans = [data.config.scales[0]]
    plans += [p.model_copy(update=_megan_patch_plan(data)) for p in data.config.scales[1:]]
    build = partial(_build_megan, data, reads_coarse=True)
    config = data.config.model_copy(update={"scales": tuple(plans)})
    tile = networks.MiddleOfPatch(_build_megan(data, plans[1].network, plans[1].factor)).tile_side
    scales = tuple(range(data.finest + 1))
    return Run(config, scales, build, for_tiles=_middle_of_patch, tile=tile)


def _whole(data):
    """Return our U-Net on the whole image at once, as large as it fits."""
    first, fine = data.config.scales[0], data.config.scales[data.whole_scale]
    total = np.prod([s.factor for s in data.config.scales[1 : data.whole_scale + 1]], axis=0)
    one = (1,) * data.ndim
    plan = first.model_copy(
        update={
            "factor": one,
            "spacing_mm": fine.spacing_mm,
            "batch": _WHOLE_BATCH,
            "patch_shape": tuple(int(n) for n in np.multiply(first.patch_shape, total)),
        }
    )
    config = data.config.model_copy(update={"scales": (plan, plan), "pool": data.config.pool // 6})
    view = OneScale.at(data.whole_scale)
    return Run(config, (0,), view=view, has_own_pool=True, first_is=data.whole_scale)


def _whole_generators(data, trained):
    blank = _blank(data, data.whole_scale)
    whole = networks.WholeImage(trained[0], data.ndim)
    return [*blank, whole, *_upsampling(data, data.whole_scale + 1)]


def _finest_generators(data, trained):
    return [*_blank(data, data.finest), trained[data.finest]]


def _blank(data, n_scales):
    factors = [(2,) * data.ndim, *((1,) * data.ndim,) * (n_scales - 1)]
    return [networks.Blank(factor) for factor in factors[:n_scales]]


def _finest_alone(data, plan_changes):
    plans = list(data.config.scales)
    plans[-1] = plans[-1].model_copy(update=plan_changes)
    coarse = CoarseMixture(true=1, generated=0, blurred=0, grey=0, target="truth")
    update = {"scales": tuple(plans), "coarse": coarse, "warm_start": False}
    return data.config.model_copy(update=update)


def _megan_patch_plan(data):
    """Return the settings of a scale that follow from the side of the authors' patches.

    A smaller patch needs a discriminator that judges smaller windows.
    """
    ours = data.config.scales[-1]
    if ours.patch_shape == (data.patch,) * data.ndim:
        return {}
    return {"patch_shape": (data.patch,) * data.ndim, "discriminator_strides": (2, 1)}


def _build_megan(data, network, factor, *, reads_coarse=True):
    if isinstance(network, LowResNetwork):
        return networks.MeganLowRes(len(factor), MEGAN_WIDTH)
    return networks.MeganPatch(len(factor), MEGAN_WIDTH, data.patch, reads_coarse=reads_coarse)


def _middle_of_patch(generator):
    is_patch = isinstance(generator, networks.MeganPatch)
    return networks.MiddleOfPatch(generator) if is_patch else generator


def _tile(data):
    return data.tile


def _megan_tile(data):
    network = networks.MeganPatch(data.ndim, MEGAN_WIDTH, data.patch, reads_coarse=False)
    return networks.MiddleOfPatch(network).tile_side


def _whole_tile(data):
    return data.whole_tile


METHODS = {
    "ours": Method("ours, multi-scale", _ours, _ours_generators, _tile),
    "upsampled": Method("our scale 0, upsampled", None, _upsampled, _tile),
    "patches": Method(
        "our patch network, sketch alone", _sketch_patches, _finest_generators, _tile
    ),
    "megan-patches": Method(
        "patch GAN, authors' layout, sketch alone", _megan_patches, _finest_generators, _megan_tile
    ),
    "megan-scales": Method(
        "authors' layout, multi-scale", _megan_scales, _ours_generators, _megan_tile
    ),
    "whole": Method("whole image at once (pix2pix)", _whole, _whole_generators, _whole_tile),
}
#: Methods that are another view of what `ours` has trained.
TRAINED_BY = {"upsampled": "ours"}


class WithoutCoarse(SourcePyramid):
    """A resampled image of which only the finest scale is seen; the others are grey."""

    @classmethod
    def of(cls, pyramid):
        return cls(pyramid.name, pyramid.folder, pyramid.shapes)

    def image(self, scale):
        if scale == self.n_scales - 1:
            return super().image(scale)
        return np.broadcast_to(_GREY, self.shapes[scale])


@dataclass(frozen=True)
class OneScale(SourcePyramid):
    """A resampled image in which both scales are the same."""

    kept: int = 0

    @classmethod
    def at(cls, scale):
        """Return a function from a resampled image to this view, or to None if it is too coarse."""

        def view(pyramid):
            if pyramid.n_scales <= scale:
                return None
            shape = pyramid.shapes[scale]
            return cls(pyramid.name, pyramid.folder, (shape, shape), scale)

        return view

    def image(self, scale):
        return super().image(self.kept)

    def sketch(self, scale):
        return super().sketch(self.kept)
