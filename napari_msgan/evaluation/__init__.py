"""How good a model is on held-out images, and how its figures are measured."""

from napari_msgan.evaluation.accuracy import (
    matched_errors,
    mean_absolute_error,
    multiscale_structural_similarity,
    peak_signal_to_noise,
    structural_similarity,
)
from napari_msgan.evaluation.case import Computing, iter_open_case
from napari_msgan.evaluation.checks import iter_check_pixels
from napari_msgan.evaluation.columns import COLUMNS
from napari_msgan.evaluation.fidelity import (
    coarse_inconsistency,
    compare_sketches,
    edges_of,
)
from napari_msgan.evaluation.figures import ScaleFigures, iter_measure
from napari_msgan.evaluation.memorisation import (
    Memorisation,
    PatchPair,
    TrainingSearch,
    draw_patches,
)
from napari_msgan.evaluation.pictures import overview
from napari_msgan.evaluation.places import (
    check_held_out,
    check_out,
    find_images,
    patients_of,
)
from napari_msgan.evaluation.reader_study import Region, draw_regions, reader_study_page
from napari_msgan.evaluation.regions import body_mask, tissue_masks
from napari_msgan.evaluation.run import (
    Evaluation,
    evaluate,
    iter_evaluate,
    iter_evaluate_image,
)
from napari_msgan.evaluation.seams import (
    certify_patches,
    certify_seams,
    tile_maker,
    tile_phase_share,
)
from napari_msgan.evaluation.summary import bootstrap_interval, summarise
from napari_msgan.evaluation.tables import figures_csv, report_markdown, summary_csv
from napari_msgan.evaluation.textures import (
    checkerboard_index,
    compare_spectra,
    radial_power_spectrum,
    sliced_wasserstein,
)
from napari_msgan.evaluation.units import ReportUnits, units_of

__all__ = [
    "COLUMNS",
    "Computing",
    "Evaluation",
    "Memorisation",
    "PatchPair",
    "Region",
    "ReportUnits",
    "ScaleFigures",
    "TrainingSearch",
    "body_mask",
    "bootstrap_interval",
    "certify_patches",
    "certify_seams",
    "check_held_out",
    "check_out",
    "checkerboard_index",
    "coarse_inconsistency",
    "compare_sketches",
    "compare_spectra",
    "draw_patches",
    "draw_regions",
    "edges_of",
    "evaluate",
    "figures_csv",
    "find_images",
    "iter_check_pixels",
    "iter_evaluate",
    "iter_evaluate_image",
    "iter_measure",
    "iter_open_case",
    "matched_errors",
    "mean_absolute_error",
    "multiscale_structural_similarity",
    "overview",
    "patients_of",
    "peak_signal_to_noise",
    "radial_power_spectrum",
    "reader_study_page",
    "report_markdown",
    "sliced_wasserstein",
    "structural_similarity",
    "summarise",
    "summary_csv",
    "tile_maker",
    "tile_phase_share",
    "tissue_masks",
    "units_of",
]
