"""Where parts work, and where their results are published."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from datetime import date
from pathlib import Path


@dataclass(frozen=True)
class Places:
    """Folders of a reproduction.

    work : for trained networks and everything unfinished; not part of the repository.
    results : for tables, one folder per part.
    docs : for ``results.md`` and its pictures.
    """

    work: Path
    results: Path
    docs: Path

    def part(self, name):
        """Return the folder with the tables of a part."""
        folder = self.results / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def picture(self, name):
        """Return the path of a picture on the page."""
        folder = self.docs / "images" / "results"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    @property
    def page(self):
        self.docs.mkdir(parents=True, exist_ok=True)
        return self.docs / "results.md"

    @property
    def introduction(self):
        """Return the introduction of the page."""
        return Path(__file__).with_name("introduction.md").read_text(encoding="utf-8")

    def command(self, part):
        """Return the command that a part was run with, or None if it was not run."""
        path = self.results / part / "about.json"
        return json.loads(path.read_text())["command"] if path.exists() else None

    def sign(self, part, command):
        """Record the command that a part was run with."""
        about = {"command": command, "date": str(date.today()), "machine": _machine()}
        (self.part(part) / "about.json").write_text(json.dumps(about, indent=2) + "\n")


def _machine():
    import torch

    name = platform.processor() or platform.machine()
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            name = line.split(":")[1].strip()
            break
    gpu = "no GPU used"
    threads = torch.get_num_threads()
    return f"{name}, {threads} of {os.cpu_count()} cores, {gpu}, torch {torch.__version__}"


def _lines(path):
    return path.read_text().splitlines() if path.exists() else []
