"""DICOM (read only): one image, or the volume of a series in a folder or of frames in a file.

Only the pixels and their position are kept; nothing else from the files is.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections import Counter
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom.errors import BytesLengthException, InvalidDicomError

from napari_msgan.errors import VolumeError
from napari_msgan.geometry import Affine
from napari_msgan.io._arrays import integer_type
from napari_msgan.io._checks import check_is_plausible, warn
from napari_msgan.io._dicom_elements import CONVERT
from napari_msgan.io._dicom_files import SLICED, dicom_files
from napari_msgan.io._dicom_header import MOST_FRAMES, OtherKindError, Slice, read_slices
from napari_msgan.io._dicom_pixels import read_frames, values_of
from napari_msgan.io._errors import named_errors
from napari_msgan.io._unpacked import empty_image
from napari_msgan.steps import run_to_end
from napari_msgan.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

    from napari_msgan.geometry import Ints, Unit
    from napari_msgan.io._dicom_pixels import Stored

UNREADABLE: tuple[type[Exception], ...] = (
    BytesLengthException,
    InvalidDicomError,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    EOFError,
    NotImplementedError,
    RuntimeError,  # also raised by codecs
    struct.error,
    zlib.error,
)
#: How far slices may be from evenly spaced places: a share of their distance, or mm, because some
#: programs round positions to a tenth.
_UNEVEN, _ROUNDED_MM = 0.02, 0.06
_SAME_PLACE_MM = 0.005
#: Tilt (degrees between the step from slice to slice and their normal) that nobody would notice.
_TILTED = 0.5
#: Share of the progress that is for reading headers.
_HEADERS = 0.2


def iter_read(path: Path) -> Generator[float, None, Volume]:
    """Read the image or volume in a file or folder; yield the fraction read."""
    slices = yield from _iter_headers(path)
    shape, dtype = _shape(slices), _dtype(slices)
    affine, unit = _place(path, slices)
    _check_total(path, slices)
    target = empty_image(path, shape, dtype)
    planes = target.reshape(len(slices), *slices[0].shape)
    opened: Path | None = None
    frames: Sequence[Stored] = ()
    # file by file, because the slices of several files may be interleaved
    for done, number in enumerate(sorted(range(len(slices)), key=lambda n: slices[n].path), 1):
        one = slices[number]
        with named_errors(one.path, "DICOM", UNREADABLE):
            if opened != one.path:
                frames = ()  # freed before the next ones are read
                opened, frames = one.path, read_frames(one)
            planes[number] = values_of(one, frames[one.frame], dtype)
        yield _HEADERS + (1 - _HEADERS) * done / len(slices)
    return Volume(target, affine, unit)


def read_geometry(path: Path) -> tuple[Volume, int]:
    """Return a volume of zeros with the geometry of the image, and the bytes of the image."""
    slices = run_to_end(_iter_headers(path))
    data = np.broadcast_to(np.zeros((), _dtype(slices)), _shape(slices))  # takes no memory
    return Volume(data, *_place(path, slices)), data.nbytes


def read_description(path: Path) -> dict[str, Any] | None:
    """Return None: we never write DICOM."""
    return None


def _iter_headers(path: Path) -> Generator[float, None, list[Slice]]:
    """Return the slices of a file or folder in order; yield the fraction of the whole work done."""
    if not path.is_dir():
        return _of_file(path)
    files, doubtful = dicom_files(path)
    _check_count(path, len(files))
    if doubtful:
        warn(
            path,
            f"{len(doubtful)} file(s) are left out, such as {doubtful[0].name}: empty, unreadable, "
            "a link to another place, or no DICOM. If they are slices, the volume is incomplete",
        )
    slices: list[Slice] = []
    others: dict[Path, OtherKindError] = {}
    for number, file in enumerate(files, 1):
        try:
            with named_errors(file, "DICOM", UNREADABLE):
                slices += read_slices(file)
        except OtherKindError as error:
            others[file] = error
        _check_count(path, len(slices))
        yield _HEADERS * number / len(files)
    if not slices:
        nothing = VolumeError(f"{path} holds no image: no file has pixels")
        raise next(iter(others.values()), nothing)
    return _in_order(path, _of_volume(path, slices, others))


def _check_count(path: Path, n_images: int) -> None:
    if n_images > MOST_FRAMES:
        raise VolumeError(f"{path} has more than {MOST_FRAMES} images: give one series")


def _of_file(path: Path) -> list[Slice]:
    with named_errors(path, "DICOM", UNREADABLE):
        slices = read_slices(path)
    if not slices:
        raise VolumeError(f"{path} holds no image")
    first = slices[0]
    if first.modality in SLICED and len(slices) == 1:
        warn(path, f"this is one image of a {first.modality}; give the folder for its volume")
    elif first.concatenation and first.n_parts != 1:
        warn(path, "this is a part of a volume in several files; give their folder")
    _check_has_unit(path, slices)
    return _in_order(path, slices)


def _of_volume(
    path: Path, slices: Sequence[Slice], others: Mapping[Path, OtherKindError]
) -> list[Slice]:
    """Return each slice once; other images in the folder are left out with a warning."""
    kept = list({_copy_key(one): one for one in slices}.values())
    told = {file: str(error) for file, error in others.items()}
    if any(one.modality in SLICED for one in kept):
        told |= {o.path: f"{o.path} is not a slice" for o in kept if o.modality not in SLICED}
        kept = [one for one in kept if one.modality in SLICED]
    if not all(one.is_localiser for one in kept):
        told |= {one.path: f"{one.path} is a localiser" for one in kept if one.is_localiser}
        kept = [one for one in kept if not one.is_localiser]
    first = next(iter(told.values()), "")
    if told and not any(one.modality in SLICED for one in kept):
        raise VolumeError(f"{path} holds images of several kinds ({first}): give one of the files")
    if told:
        warn(path, f"{len(told)} file(s) are left out, such as this: {first}")
    _check_has_parts(path, kept)
    _check_has_unit(path, kept)
    return kept


def _check_has_parts(path: Path, slices: Sequence[Slice]) -> None:
    """Warn if files of a volume in several files (a concatenation) are missing."""
    for name in {one.concatenation for one in slices} - {""}:
        parts = [one for one in slices if one.concatenation == name]
        total, there = max(one.n_parts for one in parts), len({one.path for one in parts})
        if total > there:
            warn(path, f"{there} of the {total} files of a volume are there: it is incomplete")


def _check_has_unit(path: Path, slices: Sequence[Slice]) -> None:
    if slices[0].modality == "CT" and not all(one.has_hounsfield for one in slices):
        warn(
            path,
            "it does not say how to get Hounsfield units (RescaleIntercept is missing, or "
            "RescaleType is another)",
        )


def _copy_key(one: Slice) -> object:
    """Return a key that only copies of an image share.

    The identifier alone will not do: some programs give all slices the same one.
    """
    if not one.identifier or one.plane is None:
        return one.path, one.frame
    return one.identifier, one.frame, tuple(one.plane.position.tolist())


def _in_order(path: Path, slices: Sequence[Slice]) -> list[Slice]:
    """Sort slices by their position along their common normal."""
    if len(slices) == 1:
        return list(slices)
    series = Counter((one.series, one.modality) for one in slices)
    if len(series) > 1:
        found = ", ".join(f"{count} images of {kind}" for (_, kind), count in series.items())
        raise VolumeError(
            f"{path} holds {len(series)} series ({found}): put each into a folder of its own"
        )
    first, planes = slices[0], []
    for one in slices:
        if one.plane is None or first.plane is None:
            raise VolumeError(
                f"{path} holds {len(slices)} images that do not all say where they lie: they are "
                "not slices of a volume. Give one of the files"
            )
        if one.shape != first.shape or not one.plane.is_parallel(first.plane):
            raise VolumeError(
                f"{_name(one)} has another size, voxel size or direction than {_name(first)}: they "
                f"are not slices of one volume. {_apart(path)}"
            )
        planes.append((float(np.dot(one.plane.position, first.plane.normal)), one))
    return [one for _, one in sorted(planes, key=itemgetter(0))]


def _name(one: Slice) -> str:
    return f"{one.path}, frame {one.frame + 1}," if one.n_frames > 1 else str(one.path)


def _apart(path: Path) -> str:
    """Return advice for images of several kinds."""
    if path.is_dir():
        return "Put each kind into a folder of its own"
    return f"To split the file, {CONVERT}"


def _place(path: Path, slices: Sequence[Slice]) -> tuple[Affine, Unit]:
    """Return the affine and unit of sorted slices, whose positions give the step between them."""
    if len(slices) == 1:
        spacing = slices[0].spacing
        if spacing is None:
            return Affine(np.eye(3)), "pixel"
        return Affine.of_spacing(spacing), "millimeter"
    planes = [one.plane for one in slices if one.plane is not None]
    first = planes[0]
    positions = np.array([plane.position for plane in planes])
    apart = np.diff(positions @ first.normal)
    if apart.min() < _SAME_PLACE_MM:
        raise VolumeError(
            f"{path} has several images in one place: of several times, echoes or "
            f"reconstructions. {_apart(path)}"
        )
    step = (positions[-1] - positions[0]) / (len(planes) - 1)
    even = positions[0] + np.arange(len(planes))[:, np.newaxis] * step
    if np.linalg.norm(positions - even, axis=1).max() > max(_UNEVEN * apart.mean(), _ROUNDED_MM):
        raise VolumeError(
            f"the slices of {path}, {apart.min():.3g} to {apart.max():.3g} mm apart, do not lie "
            "evenly on one line: some are missing, or they have to be resampled first"
        )
    cosine = float(np.dot(step, first.normal) / np.linalg.norm(step))
    tilt = math.degrees(math.acos(min(1.0, cosine)))
    if tilt > _TILTED:
        warn(path, f"its slices are tilted by {tilt:.1f} degrees, which is kept, not corrected")
    down, across = first.spacing
    matrix = np.eye(4)
    columns = step, first.along_column * down, first.along_row * across
    matrix[:3, :3] = np.stack(columns, axis=1)[::-1]  # the world as (z, y, x)
    matrix[:3, 3] = first.position[::-1]
    return Affine(matrix), "millimeter"


def _check_total(path: Path, slices: Sequence[Slice]) -> None:
    """Check that the files together do not unpack to an absurd size; each was checked alone."""
    declared = sum(one.n_bytes for one in slices)
    stored = sum(path.stat().st_size for path in {one.path for one in slices})
    check_is_plausible(path, declared, stored)


def _shape(slices: Sequence[Slice]) -> Ints:
    shape = slices[0].shape
    return shape if len(slices) == 1 else (len(slices), *shape)


def _dtype(slices: Sequence[Slice]) -> np.dtype[Any]:
    """Return the smallest integer type for all values; float32 if some are fractions or huge."""
    lows, highs = zip(*(one.limits for one in slices), strict=True)
    low, high = min(lows), max(highs)
    if not all(one.is_whole for one in slices) or max(-low, high) > 2**31:
        return np.dtype(np.float32)
    return integer_type(int(low), int(high))
