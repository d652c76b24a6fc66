"""Whether a model gives back its training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_msgan.errors import VolumeError
from napari_msgan.evaluation.accuracy import LOW_PASS_SIGMA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_msgan.evaluation.regions import BoolArray
    from napari_msgan.intensity import Float32Array

Float64Array = npt.NDArray[np.float64]

#: Voxels on a side of the compared patches, by the number of axes.
PATCH_SIZE = {2: 32, 3: 16}
#: Windows whose detail deviates by less (reported units) are flat: nothing to remember there.
_FLAT = 1e-3


@dataclass(frozen=True, slots=True)
class PatchPair:
    """The same place of a generated and of the true image, details only, as `unit_patch` has it."""

    made: Float32Array
    true: Float32Array


@dataclass(frozen=True, slots=True)
class Memorisation:
    """Distances to training images, of `n_patches` generated patches.

    median, percentile_1 : of the distance from a generated patch to its nearest training patch
        over the distance from the true patch of the same place to that training patch. About 1:
        the result is no nearer to the training data than the truth is; near 0: a copy.
    n_images : training images that were searched.
    """

    median: float
    percentile_1: float
    n_patches: int
    n_images: int


def draw_patches(
    made: Float32Array, true: Float32Array, body: BoolArray, count: int, seed: int = 0
) -> list[PatchPair]:
    """Return patches of random places in the body; none where the image is smaller than one."""
    size = PATCH_SIZE[made.ndim]
    half = size // 2
    inside = tuple(slice(half, n - half + 1) for n in body.shape)
    places = np.argwhere(body[inside])
    if min(made.shape) < size or not len(places):
        return []
    details = [high_pass(image) for image in (made, true)]
    pairs = []
    for place in np.random.default_rng(seed).permutation(places):
        key = tuple(slice(a, a + size) for a in place)
        patches = [unit_patch(image[key]) for image in details]
        if all(patch.any() for patch in patches):
            pairs.append(PatchPair(*patches))
        if len(pairs) == count:
            break
    return pairs


def high_pass(image: Float32Array) -> Float32Array:
    """Return an image without what a Gaussian of sigma 6 voxels leaves of it."""
    details: Float32Array = image - ndimage.gaussian_filter(image, LOW_PASS_SIGMA, mode="nearest")
    return details


def unit_patch(patch: Float32Array) -> Float32Array:
    """Return a patch of mean 0 and norm 1; zeros for a flat one."""
    centred: Float32Array = patch - patch.mean()
    norm = float(np.linalg.norm(centred))
    if norm <= _FLAT * patch.size**0.5:
        return np.zeros_like(centred)
    centred /= np.float32(norm)
    return centred


class TrainingSearch:
    """Finds the training patch nearest to each generated one.

    Every window of every training image is compared, and of its mirror image. The distance is
    that of details of mean 0 and norm 1: brightness and contrast do not count.

    Raises
    ------
    VolumeError
        If there is no patch.
    """

    def __init__(self, pairs: Sequence[PatchPair], device: str = "cpu") -> None:
        if not pairs:
            raise VolumeError("memorisation cannot be measured: no image is as large as a patch")
        self._made = np.stack([pair.made for pair in pairs])
        self._true = np.stack([pair.true for pair in pairs])
        self._device = device
        self._best = np.full(len(pairs), -2.0)
        self._nearest = np.zeros_like(self._made)
        self._n_images = 0

    def search(self, image: Float32Array) -> None:
        """Compare the patches with a training image of their scale; a too small one is left out."""
        size = self._made.shape[-1]
        if min(image.shape) < size:
            return
        self._n_images += 1
        details = high_pass(image)
        for view in (details, details[..., ::-1]):
            scores, starts = _best_matches(np.ascontiguousarray(view), self._made, self._device)
            for i in np.flatnonzero(scores > self._best):
                key = tuple(slice(a, a + size) for a in starts[i])
                self._best[i], self._nearest[i] = scores[i], unit_patch(view[key])

    def result(self) -> Memorisation:
        """Return how much nearer generated patches are to the training images than true ones.

        Raises
        ------
        VolumeError
            If no training image was as large as a patch.
        """
        if not self._n_images:
            raise VolumeError("memorisation cannot be measured: no training image is large enough")
        axes = tuple(range(1, self._made.ndim))
        nearest = self._nearest.astype(np.float64)
        from_made, from_true = (
            np.sqrt(np.square(patches - nearest).sum(axis=axes))
            for patches in (self._made, self._true)
        )
        # where the truth itself is the training patch, nothing more than the truth was given
        ratios = np.divide(
            from_made, from_true, out=np.ones_like(from_made), where=from_true > 1e-6
        )
        median, percentile_1 = np.percentile(ratios, (50, 1))
        return Memorisation(float(median), float(percentile_1), len(ratios), self._n_images)


def _best_matches(
    image: Float32Array, patches: Float32Array, device: str
) -> tuple[Float64Array, npt.NDArray[np.intp]]:
    """Return the highest normalised cross-correlation of each patch, and where its window starts.

    patches : array, shape (N, ...), each of mean 0 and norm 1.
    """
    import torch
    from torch.nn import functional

    convolve, pool = {
        2: (functional.conv2d, functional.avg_pool2d),
        3: (functional.conv3d, functional.avg_pool3d),
    }[image.ndim]
    size = patches.shape[-1]
    with torch.inference_mode():
        tensor = torch.from_numpy(image)[None, None].to(device)
        weights = torch.from_numpy(patches)[:, None].to(device)
        mean = pool(tensor, size, stride=1)
        variance = (pool(tensor.square(), size, stride=1) - mean.square()).clamp(min=0)
        norm = (variance * size**image.ndim).sqrt()
        textured = variance.sqrt() > _FLAT
        highest, where = [], []
        for weight in torch.split(weights, 8):
            scores = convolve(tensor, weight)[0] / norm[0]
            scores = torch.where(textured[0], scores, -2.0).flatten(1)
            value, position = scores.max(dim=1)
            highest.append(value.cpu().numpy())
            where.append(position.cpu().numpy())
        grid = tuple(variance.shape[2:])
    starts = np.stack(np.unravel_index(np.concatenate(where), grid), axis=1)
    return np.concatenate(highest).astype(np.float64), starts
