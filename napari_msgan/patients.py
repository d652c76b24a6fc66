"""Whose each image is, by its name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from napari_msgan.errors import VolumeError

if TYPE_CHECKING:
    from collections.abc import Iterable


def patients_in(names: Iterable[str], pattern: str) -> dict[str, str]:
    """Return what a regular expression finds in each name.

    That is its first group, or all that it matches where it has none.

    Raises
    ------
    VolumeError
        If the expression is none, or finds nothing in a name.
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
