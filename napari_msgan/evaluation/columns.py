"""What each figure is called, how it is formatted, and what it means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Group = Literal["accuracy", "texture", "fidelity", "seams"]


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of a table; `form` is its format, `meaning` a sentence for the legend."""

    name: str
    group: Group
    title: str
    form: str
    meaning: str

    def write(self, value: float) -> str:
        """Format a figure; NaN becomes an empty text."""
        return "" if math.isnan(value) else format(value, self.form)


COLUMNS = (
    Column("mae", "accuracy", "MAE", ".2f", "mean absolute error"),
    Column("mae_lung", "accuracy", "MAE lung", ".2f", "the same in lung (CT, below -500 HU)"),
    Column("mae_soft_tissue", "accuracy", "MAE soft", ".2f", "soft tissue (CT, -50 to 150 HU)"),
    Column("mae_bone", "accuracy", "MAE bone", ".2f", "bone (CT, 200 HU and more)"),
    Column("psnr", "accuracy", "PSNR", ".2f", "peak signal to noise, dB over the model's window"),
    Column(
        "ssim", "accuracy", "SSIM", ".3f", "structural similarity inside the body; blur flatters it"
    ),
    Column("ms_ssim", "accuracy", "MS-SSIM", ".3f", "the same over five octaves, whole image"),
    Column("correlation", "accuracy", "r", ".3f", "correlation with the truth"),
    Column(
        "mae_matched",
        "accuracy",
        "MAE matched",
        ".2f",
        "MAE after the best change of brightness and contrast",
    ),
    Column(
        "mae_matched_low", "accuracy", "low-pass", ".2f", "its low-pass part (Gaussian of 6 voxels)"
    ),
    Column(
        "mae_matched_high",
        "accuracy",
        "high-pass",
        ".2f",
        "its high-pass part (Gaussian of 6 voxels)",
    ),
    Column("mae_from_true", "accuracy", "MAE from true", ".2f", "MAE from the true previous scale"),
    Column("psnr_from_true", "accuracy", "PSNR from true", ".2f", "PSNR from the same"),
    Column("ssim_from_true", "accuracy", "SSIM from true", ".3f", "SSIM from the same"),
    Column("swd", "texture", "SWD", ".1f", "sliced Wasserstein distance of 7 x 7 patches, x 1000"),
    Column("swd_floor", "texture", "SWD floor", ".1f", "that of the truth against itself"),
    Column(
        "spectrum_db", "texture", "spectrum", ".2f", "mean difference of the power spectra, in dB"
    ),
    Column(
        "fine_power", "texture", "fine power", ".2f", "power above half of Nyquist over the true"
    ),
    Column(
        "checkerboard", "texture", "checkerboard", ".3f", "spread of gradient energy over a block"
    ),
    Column("checkerboard_true", "texture", "checkerboard, truth", ".3f", "that of the truth"),
    Column("edge_density", "fidelity", "edge density", ".3f", "share of voxels that are sketch"),
    Column(
        "sketch_f1", "fidelity", "sketch F1", ".3f", "edges of the result against the given sketch"
    ),
    Column("sketch_f1_chance", "fidelity", "F1 by chance", ".3f", "for edges placed anywhere"),
    Column(
        "coarse_inconsistency",
        "fidelity",
        "off coarse",
        ".2f",
        "mean |block mean - previous scale|",
    ),
    Column(
        "seam_mean_near",
        "seams",
        "mean, near",
        ".2g",
        "|output - output of tiles shifted by half|, of the two middle tiles per axis, within 4 "
        "voxels of a tile border; blank where the image has none (models that are not exact: of "
        "patches)",
    ),
    Column("seam_max_near", "seams", "max, near", ".2g", "its maximum"),
    Column("seam_mean_off", "seams", "mean, off", ".2g", "mean elsewhere"),
    Column("seam_max_off", "seams", "max, off", ".2g", "maximum elsewhere"),
    Column(
        "seam_phase",
        "seams",
        "phase share",
        ".3f",
        "share of tile grids whose gradient is at least that of the real one, times the axes; "
        "axes x factor / tile is the least, that of borders that show most",
    ),
    Column("seam_phase_true", "seams", "phase share, truth", ".3f", "the same of the true image"),
)
