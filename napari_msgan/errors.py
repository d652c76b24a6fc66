"""The errors that callers can act on; each also subclasses the builtin that fits."""


class MsganError(Exception):
    """Base of every error that this package raises on purpose."""


class FolderError(MsganError, OSError):
    """A folder that reaches outside itself, or holds something else than files of their kind."""


class GeometryError(MsganError, ValueError):
    """A shape, region, spacing or axis that does not fit."""


class VolumeError(MsganError, ValueError):
    """An image file that cannot be read, or is not the kind of image that is needed."""


class ModelError(MsganError, ValueError):
    """A model folder that is incomplete, altered or of another version."""


class StoreError(MsganError, ValueError):
    """A pyramid store that is damaged, locked or belongs to another job."""


class NoStoreError(StoreError):
    """Nothing, or an image that was exported, where a store is needed."""


class TrainingError(MsganError, ValueError):
    """Training data or settings that cannot be used."""


class UnusableFilesError(TrainingError):
    """Files that cannot be trained on.

    Attributes
    ----------
    summary : how many, and what to do.
    problems : a line for each file.
    """

    def __init__(self, summary: str, problems: list[str]) -> None:
        super().__init__("\n  ".join([f"{summary}:", *problems]))
        self.summary, self.problems = summary, problems

    def __reduce__(self) -> tuple[type, tuple[str, list[str]]]:
        return type(self), (self.summary, self.problems)


class JobError(MsganError):
    """A job that stopped; never a RuntimeError, which napari's generator workers swallow."""
