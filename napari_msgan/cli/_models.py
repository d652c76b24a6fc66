"""``napari-msgan models``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from napari_msgan.cli._tables import lengths, megabytes, one_line, print_table, printable
from napari_msgan.config import INEXACT_NOTE
from napari_msgan.folders import read_inside
from napari_msgan.model import ModelEntry, find_model, list_models, read_spec, user_folder

if TYPE_CHECKING:
    from argparse import Namespace
    from pathlib import Path

    from napari_msgan.config import ModelSpec


def models(arguments: Namespace) -> None:
    """Print the catalogue, or the card of one model."""
    if arguments.model is not None:
        _print_card(find_model(arguments.model), as_json=arguments.json)
        return
    entries = list_models()
    if arguments.json:
        print(json.dumps([_as_json(entry) for entry in entries], indent=2))
        return
    if entries:
        columns = ("name", "origin", "modality", "axes", "scales", "size")
        print_table(columns, [_row(entry) for entry in entries], numbers="size")
    else:
        print("There are no models yet.")
    for entry in entries:
        if entry.problem is not None:
            print(one_line(f"problem with {entry.name}: {entry.problem}"))
        elif entry.spec is not None and not entry.spec.exact:
            print(f"note on {entry.name}: {INEXACT_NOTE}")
    print(f"\nYour own models belong in {user_folder()}; --model also takes a folder.")
    if entries:
        print(f"The card of a model: napari-msgan models {entries[0].name}")


def _row(entry: ModelEntry) -> tuple[str, ...]:
    size = megabytes(_size(entry.folder))
    if entry.spec is None:
        return (entry.name, entry.origin, "-", "-", "cannot be used", size)
    spec = entry.spec
    return (spec.name, entry.origin, spec.modality, " ".join(spec.axes), scales_text(spec), size)


def scales_text(spec: ModelSpec) -> str:
    """Return the voxel sizes of a physical model, or the longest sides of a relative one."""
    if spec.kind == "physical":
        spacings = [scale.spacing_mm for scale in spec.scales if scale.spacing_mm]
        return ", ".join(lengths(mm, "").strip() for mm in spacings) + " mm"
    return ", ".join(map(str, spec.longest_sides)) + " px"


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def _as_json(entry: ModelEntry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "origin": entry.origin,
        "folder": str(entry.folder),
        "size_bytes": _size(entry.folder),
        "problem": entry.problem,
        "identity": entry.spec.identity if entry.spec else None,
        "spec": entry.spec.model_dump(mode="json") if entry.spec else None,
    }


def _print_card(folder: Path, *, as_json: bool) -> None:
    spec = read_spec(folder)
    if as_json:
        print(json.dumps(_as_json(ModelEntry(spec.name, folder, "given", spec)), indent=2))
        return
    text = ""
    if (folder / "README.md").is_file():
        text = read_inside(folder, "README.md").decode("utf-8-sig", "replace")
        text = printable(text.replace("\r\n", "\n").expandtabs(4)).strip()
    if not text:
        print(f"{spec.name}: {spec.modality}, {' '.join(spec.axes)}, {scales_text(spec)}")
        print(f"{folder} has no card (README.md).")
        if not spec.exact:
            print(INEXACT_NOTE)
    elif sys.stdout.isatty():
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(text))
    else:
        print(text)
    print(f"\nFolder: {folder}")
