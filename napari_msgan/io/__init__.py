"""Read and write image files: one module per format, which also converts axis order and LPS/RAS.

Importing this package is cheap: nibabel, tifffile, zarr, pydicom and Pillow are imported by the
modules of the formats, when a file of that format is read or written.
"""

from napari_msgan.io._dicom_files import is_series
from napari_msgan.io._dispatch import (
    READABLE,
    WRITABLE,
    Fill,
    format_of,
    iter_read_volume,
    read_description,
    read_geometry,
    read_volume,
    readable_text,
    write_volume,
)
from napari_msgan.io._search import images_in
from napari_msgan.io._unpacked import temporary_folder

__all__ = [
    "READABLE",
    "WRITABLE",
    "Fill",
    "format_of",
    "images_in",
    "is_series",
    "iter_read_volume",
    "read_description",
    "read_geometry",
    "read_volume",
    "readable_text",
    "temporary_folder",
    "write_volume",
]
