"""How far a generated image is from the true one, voxel by voxel and window by window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_msgan.errors import GeometryError, JobError
from napari_msgan.geometry import Box

if TYPE_CHECKING:
    from napari_msgan.evaluation.regions import BoolArray
    from napari_msgan.intensity import Float32Array

#: Gaussian of SSIM: sigma of 1.5 voxels, cut at 3.5 sigma, which makes it 11 voxels wide.
_SSIM_SIGMA, _SSIM_RADIUS = 1.5, 5
_BLOCK = {2: 1024, 3: 96}
#: MS-SSIM halves the image four times, after which its 11-pixel window must still fit: 11 x 16.
_MS_SSIM_LEAST = 176
#: torchmetrics takes 370 bytes per pixel of a slice, so 6 GB for the largest one.
_MS_SSIM_MOST_PIXELS = 1 << 24
_MS_SSIM_SLICES = 24
#: In voxels; what varies more slowly is brightness, what varies faster is detail.
LOW_PASS_SIGMA = 6.0


def mean_absolute_error(
    made: Float32Array, true: Float32Array, mask: BoolArray | None = None
) -> float:
    """Return mean |made - true|, inside `mask` if one is given; NaN if the mask is empty.

    Raises
    ------
    GeometryError
        If the images have different shapes.
    """
    if made.shape != true.shape:
        raise GeometryError(f"images of {made.shape} and {true.shape} cannot be compared")
    difference = np.abs(np.subtract(made, true, dtype=np.float32))  # integers would wrap around
    if mask is None:
        return float(difference.mean(dtype=np.float64))
    return float(difference[mask].mean(dtype=np.float64)) if mask.any() else float("nan")


def peak_signal_to_noise(made: Float32Array, true: Float32Array, data_range: float) -> float:
    """Return the PSNR in dB; infinite for equal images."""
    from skimage.metrics import peak_signal_noise_ratio

    with np.errstate(divide="ignore"):
        return float(peak_signal_noise_ratio(true, made, data_range=data_range))


def structural_similarity(
    made: Float32Array, true: Float32Array, mask: BoolArray, window: tuple[float, float]
) -> float:
    """Return the mean SSIM [1]_ inside a mask, with 3-D windows for volumes.

    Windows are Gaussian with a sigma of 1.5 (11 voxels); the computation runs block by block. NaN
    if the image is smaller than a window or the mask is empty.

    Parameters
    ----------
    window : lowest and highest value that images can have. SSIM takes means as brightness and
        compares their ratio, so values are counted from the lowest. Taken as HU, soft tissue around
        0 would be as dark as can be, and an error of 40 HU there would be far overrated.

    References
    ----------
    .. [1] Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility
       to structural similarity", IEEE TIP 13(4), 2004.
    """
    from skimage.metrics import structural_similarity as scikit_image_ssim

    whole = Box.of_shape(made.shape)
    low, high = window
    if min(made.shape) < 2 * _SSIM_RADIUS + 1 or not mask.any():
        return float("nan")
    total = 0.0
    for block in whole.blocks((_BLOCK[made.ndim],) * made.ndim):
        inside = mask[block.slices]
        if not inside.any():
            continue
        around = _at_least(block.grow(_SSIM_RADIUS).intersect(whole), 2 * _SSIM_RADIUS + 1)
        _, full = scikit_image_ssim(
            true[around.slices] - np.float32(low),
            made[around.slices] - np.float32(low),
            data_range=high - low,
            gaussian_weights=True,
            sigma=_SSIM_SIGMA,
            use_sample_covariance=False,
            full=True,
        )
        values = full[block.relative_to(around.start).slices]
        total += float(values[inside].sum(dtype=np.float64))
    return total / int(mask.sum())


def _at_least(box: Box, size: int) -> Box:
    """Extend a box towards smaller indices until every side has at least `size` voxels."""
    start = tuple(min(a, b - size) for a, b in zip(box.start, box.stop, strict=True))
    return Box(start, box.stop)


def multiscale_structural_similarity(
    made: Float32Array, true: Float32Array, window: tuple[float, float]
) -> float:
    """Return MS-SSIM [1]_ over five octaves; for volumes the mean over up to 24 axial slices.

    NaN if a slice is too small for five octaves (less than 176 pixels on a side), or would take too
    much memory (more pixels than 4096 x 4096). Gaussian and `window` are those of SSIM.

    Raises
    ------
    JobError
        If torchmetrics is not installed.

    References
    ----------
    .. [1] Wang, Simoncelli and Bovik, "Multiscale structural similarity for image quality
       assessment", Asilomar 2003.
    """
    check_torchmetrics()
    import torch
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    height, width = made.shape[-2:]
    if min(height, width) < _MS_SSIM_LEAST or height * width > _MS_SSIM_MOST_PIXELS:
        return float("nan")
    values = []
    low, high = window
    for planes in spread_slices(made, true, _MS_SSIM_SLICES):
        plane_made, plane_true = (torch.from_numpy(p - np.float32(low))[None, None] for p in planes)
        value = multiscale_structural_similarity_index_measure(
            plane_made, plane_true, sigma=_SSIM_SIGMA, data_range=high - low
        )
        values.append(float(value))
    return float(np.mean(values))


def check_torchmetrics() -> None:
    """Refuse to begin if torchmetrics is missing.

    Raises
    ------
    JobError
        If it is; the message says how to install it.
    """
    try:
        import torchmetrics  # noqa: F401
    except ImportError as error:
        raise JobError(
            'evaluation needs torchmetrics: install it with pip install "napari-msgan[train]"'
        ) from error


def spread_slices(
    made: Float32Array, true: Float32Array, count: int
) -> list[tuple[Float32Array, Float32Array]]:
    """Return up to `count` evenly spread pairs of axial slices; for 2-D images the pair itself."""
    if made.ndim == 2:
        return [(made, true)]
    chosen = np.unique(np.linspace(0, len(made) - 1, min(count, len(made))).round().astype(int))
    return [(made[i], true[i]) for i in chosen]


@dataclass(frozen=True, slots=True)
class MatchedErrors:
    """Errors that remain after the grey values of a result were matched to the truth.

    gain, offset : least-squares fit of ``gain * made + offset`` to the truth.
    correlation : Pearson's, between made and true.
    mae, mae_low, mae_high : mean absolute residual, and that of its parts below and above the
        cut-off of a Gaussian with a sigma of 6 voxels.
    """

    gain: float
    offset: float
    correlation: float
    mae: float
    mae_low: float
    mae_high: float


def matched_errors(made: Float32Array, true: Float32Array) -> MatchedErrors:
    """Return the errors that no change of brightness and contrast can remove.

    For a constant result the gain is 0 and the correlation NaN; for a constant truth, which any
    result matches, all are NaN.
    """
    if true.min() == true.max():
        return MatchedErrors(*[float("nan")] * 6)
    mean_made, mean_true = (float(a.mean(dtype=np.float64)) for a in (made, true))
    cross = var_made = var_true = 0.0
    for a, b in zip(made, true, strict=True):  # row by row, as float64 copies of a volume are large
        x, y = a.astype(np.float64) - mean_made, b.astype(np.float64) - mean_true
        cross += float((x * y).sum())
        var_made += float((x * x).sum())
        var_true += float((y * y).sum())
    gain = cross / var_made if var_made else 0.0
    product = (var_made * var_true) ** 0.5
    offset = mean_true - gain * mean_made
    residual = made * np.float32(gain)
    residual += np.float32(offset)
    residual -= true
    low = ndimage.gaussian_filter(residual, LOW_PASS_SIGMA, mode="nearest")
    mae, mae_low = (float(np.abs(a).mean(dtype=np.float64)) for a in (residual, low))
    residual -= low
    return MatchedErrors(
        gain=gain,
        offset=offset,
        correlation=cross / product if product else float("nan"),
        mae=mae,
        mae_low=mae_low,
        mae_high=float(np.abs(residual).mean(dtype=np.float64)),
    )
