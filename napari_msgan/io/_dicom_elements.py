"""Elements of a DICOM header, read as they are stored and parsed here.

pydicom's own conversion warns and validates according to settings of the whole process, which other
threads and plugins share.
"""

from __future__ import annotations

import io
import logging
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.charset import default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_file_meta_info, read_sequence_item
from pydicom.uid import DeflatedExplicitVRLittleEndian

from napari_msgan.errors import VolumeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from pydicom import Dataset

    Vector = npt.NDArray[np.float64]

logging.getLogger("pydicom").addHandler(logging.NullHandler())  # or it would print to the terminal

CONVERT = "convert it to NIfTI first, for instance with dcm2niix"
#: Most reads for one header; that of 1000 frames takes a fifth of them.
_MOST_READS = 1_000_000


def open_header(path: Path, names: Sequence[str]) -> tuple[str, Header]:
    """Return the transfer syntax of a file, and the named elements of its header.

    Raises
    ------
    VolumeError
        If it names no transfer syntax, or is compressed together with its header.
    """
    syntax = Header([read_file_meta_info(path)]).text("TransferSyntaxUID")
    if not syntax:
        raise VolumeError("it does not say how it is stored (TransferSyntaxUID): it is damaged")
    if syntax == DeflatedExplicitVRLittleEndian:  # could unpack to any size
        raise VolumeError(f"{path} is compressed with its header (deflated): {CONVERT}")
    return syntax, Header([read_elements(path, names, stop_before_pixels=True)])


def read_elements(path: Path, names: Sequence[str], *, stop_before_pixels: bool = False) -> Dataset:
    """Return the named elements of a file, not converted."""
    with _Guarded(io.FileIO(path)) as file:
        return dcmread(file, specific_tags=list(names), stop_before_pixels=stop_before_pixels)


class _Guarded(io.BufferedReader):
    """A file that limits the size of each read to its own size, and the number of reads.

    Otherwise memory would be allocated for whatever an element declares, up to 4 GB; and each
    element takes a kilobyte or more.
    """

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self._reads, self._size = 0, os.fstat(raw.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads > _MOST_READS:
            raise VolumeError("its header has too many elements: it is damaged")
        return super().read(-1 if size is None else min(size, self._size))


class Header:
    """Elements of a header, parsed into the types that the standard gives them.

    layers : data sets in which an element is looked up, in this order.
    """

    def __init__(self, layers: Sequence[Dataset]) -> None:
        self._layers = list(layers)

    def __contains__(self, name: str) -> bool:
        return any(name in layer for layer in self._layers)

    def under(self, others: Iterable[Header]) -> Header:
        """Return a header in which elements are looked up in the others first, then in this one."""
        return Header([layer for one in (*others, self) for layer in one._layers])

    def items(self, name: str, most: int) -> list[Header]:
        """Return the items of a sequence: at most one more than `most`, to show that there are.

        Raises
        ------
        VolumeError
            If the element is not a sequence.
        """
        for layer in self._layers:
            if name in layer:
                found: Any = layer.get_item(name)  # `layer[name]` would convert other elements too
                if isinstance(found, RawDataElement):
                    return [Header([item]) for item in _parsed(name, found, most)]
                return [Header([item]) for item in found.value[: most + 1]]
        return []

    def _stored(self, name: str) -> tuple[bytes, bool]:
        """Return the bytes of an element, and whether they are little-endian."""
        for layer in self._layers:
            if name in layer:
                raw: Any = layer.get_item(name)
                return raw.value or b"", bool(getattr(raw, "is_little_endian", True))
        return b"", True

    def whole(self, name: str, *, signed: bool = False) -> int | None:
        """Return the integer in an element of two bytes; None if it is missing or empty."""
        content, is_little = self._stored(name)
        order = "little" if is_little else "big"
        return int.from_bytes(content[:2], order, signed=signed) if content else None  # type: ignore[arg-type]

    def text(self, name: str) -> str:
        return self._stored(name)[0].decode("latin-1").strip(" \0")

    def numbers(self, name: str, count: int) -> Vector | None:
        """Return the numbers of an element written as decimal text; None if missing or empty."""
        if not (text := self.text(name)):
            return None
        parts = text.split("\\")
        try:
            numbers = np.array([float(part) for part in parts], np.float64)
        except ValueError:
            numbers = np.empty(0)
        if len(numbers) != count or not np.isfinite(numbers).all():
            raise VolumeError(f"{name} is {text[:80]!r}, where {count} number(s) should be")
        return numbers

    def number(self, name: str) -> float | None:
        found = self.numbers(name, 1)
        return None if found is None else float(found[0])


def _parsed(name: str, found: RawDataElement, most: int) -> list[Dataset]:
    if found.VR not in (None, "SQ", "UN"):  # UN: written by an archive that did not know it
        raise VolumeError(f"{name} is {found.VR}, not a sequence: it is damaged")
    content, items = io.BytesIO(found.value or b""), list[Any]()
    is_implicit = found.is_implicit_VR or found.VR == "UN"
    while content.tell() < len(content.getbuffer()) and len(items) <= most:
        item = read_sequence_item(content, is_implicit, found.is_little_endian, default_encoding)
        if item is None:
            break
        items.append(item)
    return items
