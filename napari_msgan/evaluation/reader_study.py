"""A page on which a reader tells real from generated regions, blinded; it needs no network."""

from __future__ import annotations

import base64
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


@dataclass(frozen=True)
class Region:
    """The same place of the generated and of the true image; grey in [0, 1]."""

    made: Float32Array
    true: Float32Array


def draw_regions(case: Case, body: BoolArray, count: int, seed: int = 0) -> list[Region]:
    """Return random regions of the finest scale that do not overlap; of volumes axial ones.

    The middle of each lies in the body. There are fewer than `count` where they do not fit.
    """
    scale = case.finest_scale
    shape = body.shape
    size = np.minimum(_SIZE[body.ndim], shape[-2:])
    # one region per cell of a grid, so that none overlap; of volumes at most one per slice
    cells = [np.arange(0, n - s + 1, s) for n, s in zip(shape[-2:], size, strict=True)]
    depths = range(1) if body.ndim == 2 else range(shape[0])
    places = [(z, int(y), int(x)) for z in depths for y in cells[0] for x in cells[1]]
    regions: list[Region] = []
    used: set[int] = set()
    for place in np.random.default_rng(seed).permutation(np.array(places)):
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
        return shape[0]  # one of each slice
    return math.prod(n // min(_SIZE[2], n) for n in shape)


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


def reader_study_page(regions: Sequence[Region], title: str, seed: int = 0) -> str:
    """Return an HTML page with every region once, half as it is and half generated.

    The order, and which are generated, follow the seed. All pictures have the same format and
    depth. The page reports accuracy with its Wilson 95 % interval [1]_ at the end.

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
    random = np.random.default_rng(seed)
    synthetic = random.permutation(np.arange(len(regions)) % 2 == 0)
    order = random.permutation(len(regions))
    pictures = [_data_uri(regions[i].made if synthetic[i] else regions[i].true) for i in order]
    # base64, so that a look at the source does not unblind the reader
    key = base64.b64encode(json.dumps([bool(synthetic[i]) for i in order]).encode()).decode()
    template = files("napari_msgan.resources") / "evaluation" / "reader_study.html"
    return Template(template.read_text(encoding="utf-8")).substitute(
        title=escape(title), pictures=json.dumps(pictures), key=json.dumps(key)
    )


def _data_uri(grey: Float32Array) -> str:
    content = io.BytesIO()
    to_picture(grey).save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
