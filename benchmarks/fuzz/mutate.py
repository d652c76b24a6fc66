"""Changes to bytes, JSON and folders, such as damage and malice cause."""

from __future__ import annotations

import copy
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.fuzz.choices import Choices

_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
_WORDS = (
    "", "../../outside/secret", "/etc/passwd", "..", ".", "a/b", "\x00", "\x1b[31mred\n2", "nan",
    "x" * 70_000, "pickle", "int16", "float64", "|O", ">i4", "z", "t", "zstd", "blosc", "gzip",
    "crc32c", "transpose", "millimeter", "pixel", "\udcff",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 8, 64, 255, 65536, 2**31 - 1, 2**31, 2**63, 2**64, 10**40,
    0.5, -0.0, 1e-320, 1e300, float("nan"), float("inf"), float("-inf"), [], {}, [[]], [0, 0],
    [1, 1], [1, 1, 1], [-1, 2], [2**31 - 1, 2**31 - 1], [2**40, 2**40, 2**40], [1e300, 1e300],
    {"name": "zstd", "configuration": {"level": 99}}, {"id": "pickle"},
    {"name": "numcodecs.pickle"}, {"name": "bytes"}, *_WORDS,
)  # fmt: skip


def changed_bytes(choices: Choices, content: bytes, *, head: int = 512) -> bytes:
    """Return content with one to four changes, most of them near its start, where headers are."""
    data = bytearray(content)
    for _ in range(1 + choices.below(4)):
        near = min(head, len(data)) if choices.below(4) else len(data)
        at = choices.below(near + 1)
        match choices.below(7):
            case 0:
                data[at : at + 1] = bytes([choices.below(256)])
            case 1:
                if at < len(data):
                    data[at] ^= 1 << choices.below(8)
            case 2:
                del data[at:]
            case 3:
                size = choices.pick((1, 2, 4, 8))
                number = choices.pick(_NUMBERS) & (2 ** (8 * size) - 1)
                order: Any = choices.pick(("little", "big"))
                data[at : at + size] = number.to_bytes(size, order)
            case 4:
                data[at:at] = choices.bytes(16)
            case 5:
                del data[at : at + 1 + choices.below(64)]
            case 6:
                data[at:at] = data[at : at + 1 + choices.below(256)]
    return bytes(data)


def changed_json(choices: Choices, content: Any) -> bytes:
    """Return JSON text with one to three changed places: values, names, depth, duplicate names."""
    content = copy.deepcopy(content)
    for _ in range(1 + choices.below(3)):
        _change_a_place(choices, content)
    text = json.dumps(content)
    match choices.below(24):
        case 20:
            text = text[: choices.below(len(text) + 1)]
        case 21:
            text = text.replace('": ', f'": {"[" * 100_000}', 1)
        case 22:
            text = "[" * choices.pick((150, 5_000, 100_000)) + text
        case 23:
            return changed_bytes(choices, text.encode("utf-8", "surrogatepass"), head=len(text))
        case 19:
            text = text.replace("{", '{"shape": 1, "shape": [2, 2], "zarr_format": 3, ', 1)
    return text.encode("utf-8", "surrogatepass")


def _places(node: Any) -> list[tuple[Any, Any]]:
    keys = list(node) if isinstance(node, dict) else range(len(node))
    found = [(node, key) for key in keys]
    for key in keys:
        if isinstance(node[key], dict | list):
            found += _places(node[key])
    return found


def _change_a_place(choices: Choices, content: Any) -> None:
    places = _places(content)
    if not places:
        return
    parent, key = choices.pick(places)
    value = parent[key]
    match choices.below(8):
        case 0:
            del parent[key]
        case 1 if isinstance(value, int | float) and not isinstance(value, bool):
            parent[key] = choices.pick((-value, value + 1, value - 1, value * 2, value * 1000, 0))
        case 2 if isinstance(value, list) and value:
            parent[key] = choices.pick((value[:-1], [*value, value[0]], value[::-1], value * 1000))
        case 3 if isinstance(parent, dict):
            parent[choices.pick((*_WORDS, "extra"))] = value
        case 4:
            other, name = choices.pick(places)
            parent[key] = copy.deepcopy(other[name]) if other is not parent else value
        case 5:
            parent[key] = choices.pick(_WORDS)
        case _:
            parent[key] = copy.deepcopy(choices.pick(_VALUES))


def change_folder(choices: Choices, folder: Path, names: Sequence[str], outside: Path) -> None:
    """Replace a file or folder in `folder` with something unexpected, or with a link outside."""
    path = folder / choices.pick(names)
    content = path.read_bytes() if path.is_file() else b""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    target = choices.pick((outside / "secret", outside))
    match choices.below(9):
        case 0:
            path.symlink_to(target)
        case 1:
            path.symlink_to(os.path.relpath(target, path.parent))
        case 2:
            path.symlink_to(path.name)  # a link to itself
        case 3:
            path.mkdir()
        case 4:
            os.mkfifo(path)
        case 5:
            path.write_bytes(b"")
        case 6:
            path.parent.rmdir() if not any(path.parent.iterdir()) else None
        case 7:
            path.write_bytes(content + bytes(choices.pick((1, 10_000, 3_000_000))))
        case 8:
            path.write_bytes(b"9" * choices.pick((1, 10, 20, 5000)))
