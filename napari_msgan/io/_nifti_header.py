"""NIfTI headers: (x, y, z) in RAS+ there, (z, y, x) in SPL+ (LPS+, reversed) here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Extension, Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError

from napari_msgan.errors import GeometryError, VolumeError
from napari_msgan.geometry import Affine, Unit
from napari_msgan.io import _note
from napari_msgan.io._checks import is_spacing, warn

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_msgan.volume import Volume

_MM_PER_UNIT = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}  # unknown, m, mm, micrometre
_COMMENT = 6  # extension code for plain text
_LONGEST_NIFTI1_AXIS = 32767


def to_world(ras: npt.NDArray[np.float64]) -> Affine:
    """Convert an affine from (x, y, z) to (R, A, S) into ours, from (z, y, x) to (S, P, L)."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ ras
    swap = [2, 1, 0, 3]
    return Affine(lps[np.ix_(swap, swap)])


def to_ras(affine: Affine) -> npt.NDArray[np.float64]:
    """Invert `to_world`; a 2-D image is placed in the plane S = 0."""
    matrix = np.eye(4)
    matrix[-affine.ndim - 1 :, -affine.ndim - 1 :] = affine.matrix
    swap = [2, 1, 0, 3]
    ras: npt.NDArray[np.float64] = np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix[np.ix_(swap, swap)]
    return ras


def header_of(volume: Volume, description: Mapping[str, Any]) -> Any:
    """Return a header with the affine, and our note (with the exact one) in a comment extension."""
    text = _note.to_text(_note.make_note(volume, description))
    kind: Any = Nifti2Header if max(volume.shape) > _LONGEST_NIFTI1_AXIS else Nifti1Header
    header = kind()
    try:
        header.set_data_dtype(volume.data.dtype.newbyteorder("="))
    except HeaderDataError as error:
        raise VolumeError(
            f"NIfTI cannot store voxels of type {volume.data.dtype}: convert them to one of "
            "uint8, int16, uint16, float32"
        ) from error
    ras = to_ras(volume.affine)
    header.set_data_shape((1, *volume.shape)[:-4:-1])
    header.set_zooms(np.linalg.norm(ras[:3, :3], axis=0))
    header.set_sform(ras, code=1)
    header.set_qform(ras, code=1, strip_shears=True)
    if not np.allclose(header.get_qform(), ras, rtol=1e-4, atol=1e-4 * min(volume.spacing)):
        header.set_qform(None, code=0)  # a quaternion cannot hold shear
    header.set_slope_inter(1, 0)
    header.set_xyzt_units("mm" if volume.unit == "millimeter" else "unknown")
    header["descrip"] = _note.label(description).encode()
    header.extensions.append(Nifti1Extension(_COMMENT, text.encode()))
    header["vox_offset"] = header.single_vox_offset + header.extensions.get_sizeondisk()
    return header


def read_note(header: Any) -> dict[str, Any] | None:
    """Return the note that `header_of` stored, or None."""
    comments = [e.content for e in header.extensions if e.get_code() == _COMMENT]
    texts = [c.rstrip(b"\0").decode("utf-8", "replace") for c in comments]
    return next((note for text in texts if (note := _note.from_text(text))), None)


def geometry_of(path: Path, header: Any) -> tuple[Affine, Unit]:
    """Return the affine and unit; 2-D for a single slice that was not written from a volume."""
    note = read_note(header)
    exact = _note.noted_affine(note)
    affine, unit = _header_geometry(path, header)
    if (*header.get_data_shape(), 1)[2] == 1 and (exact is None or exact.ndim == 2):
        affine = _in_plane(path, affine)
    if exact is not None and _note.is_same_grid(exact, affine):
        return exact, "pixel" if _note.noted_unit(note) == "pixel" else unit
    return affine, unit


def _header_geometry(path: Path, header: Any) -> tuple[Affine, Unit]:
    mm = _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    to_mm = np.diag([mm, mm, mm, 1.0])
    problem = "no orientation is stored"
    for form in ("sform", "qform"):
        if header[f"{form}_code"] > 0:
            try:
                return to_world(to_mm @ getattr(header, f"get_{form}")()), "millimeter"
            except (GeometryError, HeaderDataError) as error:
                problem = f"the orientation is wrong ({form}: {error})"
    zooms = tuple(float(v) * mm for v in (*header.get_zooms(), 1.0)[:3])
    if not is_spacing(zooms):
        warn(path, f"{problem}, and no voxel size ({zooms}): the unit is the voxel")
        return Affine(np.eye(4)), "pixel"
    warn(path, f"{problem}: only the voxel size {zooms[::-1]} mm (z, y, x) is used")
    return to_world(to_mm @ header.get_base_affine()), "millimeter"


def _in_plane(path: Path, affine: Affine) -> Affine:
    """Return the 2-D affine of a single slice; only its spacing if the slice is not axial."""
    inner = affine.matrix[1:, 1:]
    lengths = np.linalg.norm(inner[:-1, :-1], axis=0)
    if np.allclose(lengths, affine.spacing[1:], rtol=1e-5):
        return Affine(inner)
    warn(path, "the slice is not axial: of its place and direction only the pixel size is kept")
    return Affine.of_spacing(affine.spacing[1:])
