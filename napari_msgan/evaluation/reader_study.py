"""A page on which a reader tells real from generated regions, blinded; it needs no network."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

import numpy as np

from napari_msgan.errors import VolumeError
from napari_msgan.evaluation.pictures import to_picture, to_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_msgan.evaluation.case import Case
    from napari_msgan.evaluation.regions import BoolArray
    from napari_msgan.geometry import Ints
    from napari_msgan.intensity import Float32Array

#: Pixels on a side of a region, smaller where the image is.
_SIZE = {2: 384, 3: 192}
#: Regions of a volume: more would be of slices so near each other that a reader compares them.
_MOST_SLICES = 20


@dataclass(frozen=True)
class Region:
    """The same place of the generated and of the true image; grey in [0, 1]."""

    made: Float32Array
    true: Float32Array


def draw_regions(case: Case, body: BoolArray, count: int, seed: int = 0) -> list[Region]:
    """Return random regions of the finest scale that do not overlap.

    Of volumes axial ones, at least a twentieth of the volume's depth apart. The middle of each lies
    in the body. There are fewer than `count` where they do not fit.
    """
    random = np.random.default_rng(seed)
    scale = case.finest_scale
    shape = body.shape
    size = np.minimum(_SIZE[body.ndim], shape[-2:])
    # one region per cell of a grid, so that none overlap; of volumes at most one per slice
    cells = [np.arange(0, n - s + 1, s) for n, s in zip(shape[-2:], size, strict=True)]
    apart = _apart(shape)
    depths = range(1) if body.ndim == 2 else range(int(random.integers(apart)), shape[0], apart)
    places = [(z, int(y), int(x)) for z in depths for y in cells[0] for x in cells[1]]
    regions: list[Region] = []
    used: set[int] = set()
    for place in random.permutation(np.array(places)):
        z, y, x = place.tolist()
        plane = () if body.ndim == 2 else (z,)
        if len(regions) == count or not body[(*plane, y + size[0] // 2, x + size[1] // 2)]:
            continue
        if body.ndim == 3 and z in used:
            continue
        used.add(z)
        key = tuple(slice(a, a + s) for a, s in zip((y, x), size, strict=True))
        stored = case.store.array(scale)[(*plane, *key)], case.truth[scale][(*plane, *key)]
        made, true = (to_unit(np.asarray(part), case.window) for part in stored)
        regions.append(Region(made, true))
    return regions


def most_regions(shape: Ints) -> int:
    """Return how many regions an image has room for, wherever its body is."""
    if len(shape) == 3:
        return shape[0] // _apart(shape)
    return math.prod(n // min(_SIZE[2], n) for n in shape)


def _apart(shape: Ints) -> int:
    return -(-shape[0] // _MOST_SLICES)


def check_regions(count: int) -> None:
    """Refuse a page of fewer than two regions.

    Raises
    ------
    VolumeError
        If there are fewer.
    """
    if count < 2:
        raise VolumeError(
            "a reader study needs at least two regions: the images are too few or too small"
        )


def reader_study_page(regions: Sequence[Region], title: str, n_images: int = 1) -> str:
    """Return an HTML page with every region once, half as it is and half generated.

    The order, and which are generated, follow from the regions: who has seen another page does not
    know those of this one. All pictures have the same format and depth. The page reports accuracy
    with its Wilson 95 % interval [1]_ at the end.

    n_images : from which the regions are; the page says so.

    Raises
    ------
    VolumeError
        If there are fewer than two regions.

    References
    ----------
    .. [1] Wilson, "Probable inference, the law of succession, and statistical inference",
       JASA 22, 1927.
    """
    check_regions(len(regions))
    random = np.random.default_rng(_seed_of(regions))
    synthetic = random.permutation(np.arange(len(regions)) % 2 == 0)
    order = random.permutation(len(regions))
    pictures = [_data_uri(regions[i].made if synthetic[i] else regions[i].true) for i in order]
    # base64, so that a glance at the source does not unblind the reader
    key = base64.b64encode(json.dumps([bool(synthetic[i]) for i in order]).encode()).decode()
    template = files("napari_msgan.resources") / "evaluation" / "reader_study.html"
    return Template(template.read_text(encoding="utf-8")).substitute(
        title=escape(title), pictures=json.dumps(pictures), key=json.dumps(key), images=n_images
    )


def _seed_of(regions: Sequence[Region]) -> int:
    digest = hashlib.sha256()
    for region in regions:
        digest.update(region.made.tobytes() + region.true.tobytes())
    return int.from_bytes(digest.digest())


def _data_uri(grey: Float32Array) -> str:
    content = io.BytesIO()
    to_picture(grey).save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
