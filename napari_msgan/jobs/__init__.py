"""Jobs shared by the terminal, the plugin and Python: generate, refine, export, verify, sketch.

The ``iter_`` functions are generators of `Progress`: close one to cancel its job; finished work is
kept. The plain verbs run to completion.
"""

from napari_msgan.jobs._common import (
    OnProgress,
    Progress,
    Stage,
    default_workers,
    region_box,
    resolve_device,
)
from napari_msgan.jobs._generating import generate, iter_generate, iter_refine, refine
from napari_msgan.jobs._saving import export, make_sketch
from napari_msgan.jobs._verifying import iter_verify, verify

__all__ = [
    "OnProgress",
    "Progress",
    "Stage",
    "default_workers",
    "export",
    "generate",
    "iter_generate",
    "iter_refine",
    "iter_verify",
    "make_sketch",
    "refine",
    "region_box",
    "resolve_device",
    "verify",
]
