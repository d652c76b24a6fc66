"""Whether a generated image looks like a true one, regardless of where its structures are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import fft, ndimage

from napari_msgan.evaluation.accuracy import spread_slices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_msgan.geometry import Ints
    from napari_msgan.intensity import Float32Array

Float64Array = npt.NDArray[np.float64]

_PATCH = 7
_PATCHES_PER_LEVEL = 4096
_PROJECTIONS = 512
_SMALLEST_LEVEL = 16
_SLICES = 16
_SPECTRUM_BINS = 32
#: Burt and Adelson's binomial filter, 5 taps per axis.
_KERNEL: Float32Array = np.array([1, 4, 6, 4, 1], np.float32) / np.float32(16)


@dataclass(frozen=True, slots=True)
class SlicedWasserstein:
    """Distances times 1000, averaged over the levels of the Laplacian pyramid.

    floor : of the true image to itself, with other random patches; a perfect result reaches this.
    """

    distance: float
    floor: float


def sliced_wasserstein(made: Float32Array, true: Float32Array) -> SlicedWasserstein:
    """Return the sliced Wasserstein distance between patches of Laplacian pyramids [1]_.

    As in the paper: there are levels while the shorter side has 16 pixels, and the last one is the
    low-pass image; patches have 7 x 7 pixels; at each level the patches of each image are
    normalised on their own to mean 0 and deviation 1, so brightness and contrast of a whole level
    do not count; 512 random directions; mean over levels, times 1000.

    Unlike in the paper, one image is compared with one other, not 16384 with as many: 4096 patches
    of each level come from it. Patches of volumes come from up to 16 axial slices, so that few or
    thick slices cost no level. There is one channel.

    NaN if an image is smaller than 16 pixels, or the true one is constant.

    References
    ----------
    .. [1] Karras, Aila, Laine and Lehtinen, "Progressive growing of GANs for improved quality,
       stability, and variation", ICLR 2018, arXiv 1710.10196, section 5 and published code.
    """
    if min(made.shape[-2:]) < _SMALLEST_LEVEL or true.min() == true.max():
        return SlicedWasserstein(float("nan"), float("nan"))
    planes = spread_slices(made, true, _SLICES)
    random = np.random.default_rng(0)
    made_levels = _laplacian_levels([a for a, _ in planes])
    true_levels = _laplacian_levels([b for _, b in planes])
    distances, floors = [], []
    for of_made, of_true in zip(made_levels, true_levels, strict=True):
        first, second = _patches(of_true, random), _patches(of_true, random)
        directions = random.standard_normal((_PATCH * _PATCH, _PROJECTIONS), np.float32)
        directions /= np.linalg.norm(directions, axis=0)
        distances.append(projected_distance(_patches(of_made, random), first, directions))
        floors.append(projected_distance(second, first, directions))
    return SlicedWasserstein(1e3 * float(np.mean(distances)), 1e3 * float(np.mean(floors)))


def projected_distance(a: Float32Array, b: Float32Array, directions: Float32Array) -> float:
    """Return the 1-Wasserstein distance of two point sets, averaged over projections.

    Parameters
    ----------
    a, b : arrays, shape (N, D), with equally many points.
    directions : array of unit vectors, shape (D, P).
    """
    # For equally many points on a line, optimal transport joins them in order.
    lines_a, lines_b = (np.sort((points @ directions).T.copy()) for points in (a, b))
    return float(np.abs(lines_a - lines_b).mean(dtype=np.float64))


def _laplacian_levels(planes: Sequence[Float32Array]) -> list[list[Float32Array]]:
    """Return Laplacian pyramids of images of one shape: for each level, that of every image."""
    pyramids = [laplacian_pyramid(plane) for plane in planes]
    return [list(levels) for levels in zip(*pyramids, strict=True)]


def laplacian_pyramid(image: Float32Array) -> list[Float32Array]:
    """Return what each octave adds to the next coarser one, finest first, then the low-pass [1]_.

    Parameters
    ----------
    image : array, float32, shape (Y, X)

    Returns
    -------
    list of arrays, float32
        Each has half the side of the one before, rounded up, and a shorter side of at least 16
        pixels. The last is the blurred image; for an image too small to halve, it is the only one.

    References
    ----------
    .. [1] Burt and Adelson, "The Laplacian pyramid as a compact image code", IEEE Transactions on
       Communications 31, 1983.
    """
    levels = [image]
    while min(levels[-1].shape) > 2 * (_SMALLEST_LEVEL - 1):  # half of it, rounded up, suffices
        coarse = _blurred(levels[-1], _KERNEL)[::2, ::2]
        levels[-1] = levels[-1] - upsampled(coarse, levels[-1].shape)
        levels.append(coarse)
    return levels


def upsampled(coarse: Float32Array, shape: Ints) -> Float32Array:
    """Return an image with twice the side, or one pixel less.

    It is the transpose of blurring and keeping every second pixel.

    Parameters
    ----------
    shape : of the result.
    """
    spread = np.zeros(shape, np.float32)
    spread[::2, ::2] = coarse
    return _blurred(spread, np.float32(2) * _KERNEL)


def _blurred(image: Float32Array, kernel: Float32Array) -> Float32Array:
    for axis in range(image.ndim):
        image = ndimage.convolve1d(image, kernel, axis, mode="mirror")
    return image


def _patches(planes: Sequence[Float32Array], random: np.random.Generator) -> Float32Array:
    """Return random patches, shape (N, 49), normalised together."""
    count = -(-_PATCHES_PER_LEVEL // len(planes))
    found = []
    for plane in planes:
        windows = np.lib.stride_tricks.sliding_window_view(plane, (_PATCH, _PATCH))
        rows, columns = (random.integers(n, size=count) for n in windows.shape[:2])
        found.append(windows[rows, columns].reshape(count, -1))
    patches: Float32Array = np.concatenate(found).astype(np.float32)
    patches -= patches.mean(dtype=np.float64).astype(np.float32)
    deviation = patches.std(dtype=np.float64).astype(np.float32)
    return patches / deviation if deviation else patches


def radial_power_spectrum(image: Float32Array) -> Float64Array:
    """Return the mean power in 32 rings (shells) from frequency 0 to Nyquist.

    The mean is subtracted and a Hann window applied, so that borders do not count as edges. NaN for
    rings without a frequency (in images of fewer than 64 voxels).
    """
    values = image - image.mean(dtype=np.float64).astype(np.float32)
    radius = np.zeros((1,) * image.ndim, np.float32)
    for axis, size in enumerate(image.shape):
        along = [-1 if i == axis else 1 for i in range(image.ndim)]
        values *= np.hanning(size + 2)[1:-1].astype(np.float32).reshape(along)
        last = axis == image.ndim - 1
        frequency = fft.rfftfreq(size) if last else fft.fftfreq(size)
        radius = radius + np.square(frequency, dtype=np.float32).reshape(along)
    power = np.square(np.abs(fft.rfftn(values)))
    rings = (np.sqrt(radius) * (2 * _SPECTRUM_BINS)).astype(np.intp)
    inside = rings < _SPECTRUM_BINS
    power[..., 1:] *= 2  # for their mirror images, which rfftn leaves out
    counts = 2 * np.bincount(rings[inside], minlength=_SPECTRUM_BINS)
    counts -= np.bincount(rings[..., 0][inside[..., 0]], minlength=_SPECTRUM_BINS)
    sums = np.bincount(rings[inside], power[inside], minlength=_SPECTRUM_BINS)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


@dataclass(frozen=True, slots=True)
class SpectrumDifference:
    """Difference between two radial power spectra.

    distance_db : mean |10 log10(made / true)| over the rings.
    fine_share : power above half of Nyquist, made over true; below 1 is blur, above 1 is noise.
    """

    distance_db: float
    fine_share: float


def compare_spectra(made: Float32Array, true: Float32Array) -> SpectrumDifference:
    """Return how the radial power spectra of two images differ; NaN for constant images."""
    spectra = np.stack([radial_power_spectrum(made), radial_power_spectrum(true)])
    usable = (spectra > 0).all(axis=0)
    if not usable.any():
        return SpectrumDifference(float("nan"), float("nan"))
    decibel = 10 * np.log10(spectra[0, usable] / spectra[1, usable])
    fine = np.nansum(spectra[:, _SPECTRUM_BINS // 2 :], axis=1)
    share = float(fine[0] / fine[1]) if fine[1] > 0 else float("nan")
    return SpectrumDifference(float(np.abs(decibel).mean()), share)


def checkerboard_index(image: Float32Array, factor: Ints) -> float:
    """Return how unequal the gradient energy is between positions inside blocks of `factor`.

    It is (largest - smallest) / mean over the positions, e.g. the four of a 2 x 2 block: 0 without
    any pattern. Compare it with that of the true image. NaN for constant images, and for images
    that lack a position.
    """
    if any(n <= f for n, f in zip(image.shape, factor, strict=True)):
        return float("nan")
    floats = image.astype(np.float32, copy=False)  # integers would wrap around
    inside = tuple(slice(0, n - 1) for n in image.shape)
    energy = np.zeros(tuple(n - 1 for n in image.shape), np.float32)
    for axis in range(image.ndim):
        energy += np.square(np.diff(floats, axis=axis)[inside])
    means = np.array(
        [
            energy[tuple(slice(p, None, f) for p, f in zip(phase, factor, strict=True))].mean(
                dtype=np.float64
            )
            for phase in product(*(range(f) for f in factor))
        ]
    )
    mean = float(means.mean())
    return float(np.ptp(means)) / mean if mean else float("nan")
