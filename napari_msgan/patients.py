"""Tell from the names of images which patient each belongs to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from napari_msgan.errors import VolumeError

if TYPE_CHECKING:
    from collections.abc import Iterable


def patients_in(names: Iterable[str], pattern: str) -> dict[str, str]:
    """Return the patient of each name, found by a regular expression.

    The patient is its first group, or its whole match if it has no group.

    Raises
    ------
    VolumeError
        If the regular expression is not valid, or finds nothing in a name.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise VolumeError(f"{pattern!r} is not a regular expression: {error}") from error
    found = {}
    for name in names:
        match = expression.search(name)
        patient = match[1 if expression.groups else 0] if match else None
        if not patient:
            raise VolumeError(f"{pattern!r} finds no patient in the name {name}")
        found[name] = patient
    return found
