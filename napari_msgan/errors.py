"""Errors that callers can act on; most also subclass the built-in exception that fits."""


class MsganError(Exception):
    """Base class of all errors that this package raises on purpose."""


class FolderError(MsganError, OSError):
    """A folder with links that lead out of it, or with files other than those expected."""


class GeometryError(MsganError, ValueError):
    """A shape, region, spacing, scale or axis that does not fit."""


class VolumeError(MsganError, ValueError):
    """An image that cannot be read or written, or is not the kind of image that is needed."""


class ModelError(MsganError, ValueError):
    """A model that cannot be found, or is incomplete, altered or of another version."""


class StoreError(MsganError, ValueError):
    """A store that is damaged, being written by another process, or made by another job."""


class NoStoreError(StoreError):
    """There is nothing, or only an exported image, where a store is needed."""


class TrainingError(MsganError, ValueError):
    """Training data or settings that cannot be used."""


class UnusableFilesError(TrainingError):
    """Image files that cannot be used for training.

    Attributes
    ----------
    summary : how many files, and what to do.
    problems : one line for each file.
    """

    def __init__(self, summary: str, problems: list[str]) -> None:
        super().__init__("\n  ".join([f"{summary}:", *problems]))
        self.summary, self.problems = summary, problems

    def __reduce__(self) -> tuple[type, tuple[str, list[str]]]:
        return type(self), (self.summary, self.problems)


class JobError(MsganError):
    """A job that cannot run or had to stop.

    It is not a RuntimeError, because napari's generator workers swallow those.
    """
