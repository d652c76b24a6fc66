"""What all targets of the fuzzer have in common."""

from __future__ import annotations

import shutil
import warnings
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.guard import examine

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.fuzz.guard import Finding, Limits


class Target(ABC):
    """One kind of input: `make` writes a valid one, `harm` changes a copy, `use` reads it."""

    def __init__(self, folder: Path) -> None:
        self.outside = folder / "outside"
        self.outside.mkdir(parents=True)
        (self.outside / "secret").write_bytes(b"{}")
        self.sandbox = folder / "sandbox"
        self.sandbox.mkdir()
        self.pristine = self.sandbox / "pristine"
        self.pristine.mkdir()
        self.case, self._count = self.sandbox / "case", 0
        self.make(self.pristine)

    @abstractmethod
    def make(self, folder: Path) -> None: ...

    def chosen(self, choices: Choices) -> str:
        """Return the name of the folder in `pristine` to copy; "" for all of it."""
        return ""

    @abstractmethod
    def harm(self, choices: Choices, folder: Path) -> None: ...

    @abstractmethod
    def use(self, choices: Choices, folder: Path) -> None: ...

    def check(self, data: bytes, limits: Limits | None = None) -> Finding | None:
        """Return what is wrong with how the package treats this input, or None."""
        choices = Choices(data)
        if self.case.exists():
            shutil.rmtree(self.case)
        # Another name each time: threads that still read for the last input find nothing.
        self._count += 1
        self.case = self.sandbox / f"case-{self._count}"
        shutil.copytree(self.pristine / self.chosen(choices), self.case)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # quantised tensors are going out of use
            self.harm(choices, self.case)

        def run() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.use(choices, self.case)

        return examine(run, self.sandbox, self.outside, limits)
