"""Turn the errors of third-party readers into ours, which name the file."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_msgan.errors import VolumeError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def named_errors(path: Path, title: str, unreadable: tuple[type[Exception], ...]) -> Iterator[None]:
    """Turn the errors that a damaged file causes into a VolumeError that names the file.

    title : name of its format, for the message.
    unreadable : exceptions that readers of this format raise for damaged files.
    """
    try:
        yield
    except VolumeError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error  # e.g. from Volume, which knows no file
    except unreadable as error:
        raise VolumeError(
            f"{path} cannot be read as {title}: {str(error) or type(error).__name__}. "
            "The file may be damaged, incomplete or misnamed; fetch or save it again"
        ) from error
