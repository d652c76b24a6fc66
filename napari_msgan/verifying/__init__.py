"""Whether a store can be trusted: its metadata, its files, and a sample of tiles made again."""

from napari_msgan.verifying.findings import Verification, VerifyStep
from napari_msgan.verifying.run import iter_verify_store

__all__ = ["Verification", "VerifyStep", "iter_verify_store"]
