"""A blinded page on which a reader tells real from generated regions; it works offline."""

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

#: Side of a region in pixels; smaller if the image is.
_SIZE = {2: 384, 3: 192}
#: Most regions of a volume: slices of more would be so close that a reader could compare them.
_MOST_SLICES = 20


@dataclass(frozen=True)
class Region:
    """The same place in the generated and in the true image; grey values in [0, 1]."""

    made: Float32Array
    true: Float32Array


def draw_regions(case: Case, body: BoolArray, count: int, seed: int = 0) -> list[Region]:
    """Return random regions of the finest scale that do not overlap.

    Regions of volumes are axial and at least a twentieth of the volume's depth apart. The middle of
    each lies in the body. There are fewer than `count` if they do not fit.
    """
    random = np.random.default_rng(seed)
    scale = case.finest_scale
    shape = body.shape
    size = np.minimum(_SIZE[body.ndim], shape[-2:])
    # One region per cell of a grid, so that none overlap; in volumes at most one per slice.
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
    """Return how many regions an image has room for, wherever its body lies."""
    if len(shape) == 3:
        return shape[0] // _apart(shape)
    return math.prod(n // min(_SIZE[2], n) for n in shape)


def _apart(shape: Ints) -> int:
    return -(-shape[0] // _MOST_SLICES)


def check_regions(count: int) -> None:
    """Refuse a page with fewer than two regions.

    Raises
    ------
    VolumeError
        If `count` is below 2.
    """
    if count < 2:
        raise VolumeError(
            "a reader study needs at least two regions: the images are too few or too small"
        )


def reader_study_page(regions: Sequence[Region], title: str, n_images: int = 1) -> str:
    """Return an HTML page that shows every region once, half of them true and half generated.

    The order, and which ones are generated, follow from the regions: having seen another page does
    not help with this one. All pictures have the same format and bit depth. At the end the page
    reports the accuracy with its Wilson 95 % interval [1]_.

    n_images : number of images that the regions are from, which the page states.

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
