"""Whether a model reproduces its training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage, signal

from napari_msgan.errors import VolumeError
from napari_msgan.evaluation.accuracy import LOW_PASS_SIGMA

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from napari_msgan.evaluation.regions import BoolArray
    from napari_msgan.intensity import Float32Array

Float64Array = npt.NDArray[np.float64]

#: Side of the compared patches in voxels, by number of axes.
PATCH_SIZE = {2: 32, 3: 16}
#: Windows whose detail deviates by less (in reported units) are flat: nothing to remember there.
_FLAT = 1e-3
#: Voxels compared at once: number of patches, at least one, times voxels of a training image.
_BATCH_VOXELS = 1 << 24


@dataclass(frozen=True, slots=True)
class PatchPair:
    """The same place in a generated and a true image: details only, as `unit_patch` makes them."""

    made: Float32Array
    true: Float32Array


@dataclass(frozen=True, slots=True)
class Memorisation:
    """Distances to training images, over `n_patches` generated patches.

    median, percentile_1 : of the distance from a generated patch to its nearest training patch,
        divided by the distance of the true patch at the same place to that training patch. Near 0
        is a copy.
    reference : the median with true and generated patches exchanged. What is nearest to one patch
        is less near to the other, so without any memorisation both medians are alike, below 1.
        Blur lowers only the first: a smooth patch is nearer to everything.
    n_images : number of training images that were searched.
    zooms : factors by which each was resampled for the search, in addition to its own size.
    """

    median: float
    percentile_1: float
    reference: float
    n_patches: int
    n_images: int
    zooms: tuple[float, ...] = ()


def draw_patches(
    made: Float32Array, true: Float32Array, body: BoolArray, count: int, seed: int = 0
) -> list[PatchPair]:
    """Return patches at random places in the body; none if the image is smaller than a patch."""
    size = PATCH_SIZE[made.ndim]
    half = size // 2
    inside = tuple(slice(half, n - half + 1) for n in body.shape)
    there = body[inside]
    places = np.flatnonzero(there)
    details = [high_pass(image) for image in (made, true)]
    pairs = []
    for place in np.random.default_rng(seed).permutation(places):
        key = tuple(slice(a, a + size) for a in np.unravel_index(place, there.shape))
        patches = [unit_patch(image[key]) for image in details]
        if all(patch.any() for patch in patches):
            pairs.append(PatchPair(*patches))
        if len(pairs) == count:
            break
    return pairs


def high_pass(image: Float32Array) -> Float32Array:
    """Subtract from an image its blur by a Gaussian with a sigma of 6 voxels."""
    details: Float32Array = image - ndimage.gaussian_filter(image, LOW_PASS_SIGMA, mode="nearest")
    return details


def unit_patch(patch: Float32Array) -> Float32Array:
    """Scale a patch to mean 0 and norm 1; a flat patch becomes zeros."""
    centred: Float32Array = patch - patch.mean()
    norm = float(np.linalg.norm(centred))
    if norm <= _FLAT * patch.size**0.5:
        return np.zeros_like(centred)
    centred /= np.float32(norm)
    return centred


class TrainingSearch:
    """Finds the training patch nearest to each patch.

    Every window of every training image and of its mirror images is compared; as in training, left
    and right are mirrored, in volumes also front and back. The distance is between details with
    mean 0 and norm 1: brightness and contrast do not count, size does.

    Raises
    ------
    VolumeError
        If there are no patches.
    """

    def __init__(self, pairs: Sequence[PatchPair]) -> None:
        if not pairs:
            raise VolumeError("memorisation cannot be measured: no image is as large as a patch")
        self._queries = np.stack([p.made for p in pairs] + [p.true for p in pairs])
        self._best = np.full(len(self._queries), -2.0)
        self._nearest = np.zeros_like(self._queries)
        self._searched: set[Hashable] = set()

    def search(self, image: Float32Array, name: Hashable) -> None:
        """Compare the patches with a training image at their scale; skip it if it is too small.

        Parameters
        ----------
        name : of the image, the same for all its sizes.
        """
        size = self._queries.shape[-1]
        if min(image.shape) < size:
            return
        self._searched.add(name)
        details = high_pass(image)
        left_right, front_back = -1, -2
        axes = (left_right,) if image.ndim == 2 else (left_right, front_back)
        views = [details, *(np.flip(details, axis) for axis in axes)]
        if image.ndim == 3:
            views.append(np.flip(details, axes))
        for view in views:
            scores, starts = _best_matches(np.ascontiguousarray(view), self._queries)
            for i in np.flatnonzero(scores > self._best):
                key = tuple(slice(a, a + size) for a in starts[i])
                self._best[i], self._nearest[i] = scores[i], unit_patch(view[key])

    def result(self, zooms: Sequence[float] = ()) -> Memorisation:
        """Return how much nearer generated patches are to the training images than true ones.

        Parameters
        ----------
        zooms : see `Memorisation`.

        Raises
        ------
        VolumeError
            If no training image was as large as a patch.
        """
        if not self._searched:
            raise VolumeError("memorisation cannot be measured: no training image is large enough")
        made, true = np.split(self._queries, 2)
        near_made, near_true = np.split(self._nearest, 2)
        ratios = _distances(made, near_made) / _distances(true, near_made)
        exchanged = _distances(true, near_true) / _distances(made, near_true)
        median, percentile_1 = np.percentile(ratios, (50, 1))
        reference = float(np.median(exchanged))
        return Memorisation(
            float(median),
            float(percentile_1),
            reference,
            len(made),
            len(self._searched),
            tuple(zooms),
        )


def _distances(a: Float32Array, b: Float32Array) -> Float64Array:
    """Return the distance between each pair of patches; at least 1e-6, so that 0 / 0 becomes 1."""
    difference = (a.astype(np.float64) - b).reshape(len(a), -1)
    distances: Float64Array = np.maximum(np.linalg.norm(difference, axis=1), 1e-6)
    return distances


def _best_matches(
    image: Float32Array, patches: Float32Array
) -> tuple[Float64Array, npt.NDArray[np.intp]]:
    """Return each patch's highest normalised cross-correlation, and where that window starts.

    patches : array, shape (N, ...), each with mean 0 and norm 1.
    """
    size, axes = patches.shape[-1], tuple(range(1, patches.ndim))
    grid = tuple(n - size + 1 for n in image.shape)
    # Output i of the filter is for the window that starts at i - size // 2.
    valid = tuple(slice(size // 2, size // 2 + n) for n in grid)
    mean, square = (ndimage.uniform_filter(a, size)[valid] for a in (image, np.square(image)))
    deviation = np.sqrt(np.maximum(square - np.square(mean), 0))
    norm = np.where(deviation > _FLAT, deviation * size ** (image.ndim / 2), np.inf)
    highest, positions = [], []
    at_once = max(1, _BATCH_VOXELS // image.size)
    for batch in np.array_split(patches, -(-len(patches) // at_once)):
        mirrored = np.flip(batch, axes)  # convolving with it is correlation
        scores = signal.fftconvolve(image[None], mirrored, mode="valid", axes=axes) / norm
        flat = scores.reshape(len(batch), -1)
        positions.append(flat.argmax(axis=1))
        highest.append(flat.max(axis=1))
    starts = np.stack(np.unravel_index(np.concatenate(positions), grid), axis=1)
    return np.concatenate(highest).astype(np.float64), starts
