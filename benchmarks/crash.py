"""Kill `generate`, `refine`, `export` and `train` at random times, and see what is lost.

    python benchmarks/crash.py [--kills 18] [--seed 0] [--csv crash.csv]

Nine of ten kills strike in one of the command's stages (sketch, tiles, ...), equally often in each;
the others strike while it starts. Exports overwrite an old one, so after a kill the name must stand
for either the old or the new content.

Each kill (SIGKILL to the whole process group) is followed by the same command, which must end with
exactly the result of an undisturbed run: the voxels of every level and the sketch, the bytes of an
export, the weights of a model, and the same files and no others. Stores are also checked by
`verify`, before and after they are completed. At the end of each command one byte of its result is
changed, which the same check must detect: this shows that it can fail.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage

from napari_msgan import open_pyramid, verify

MODEL, IMAGE, LARGE = "model", "image.tif", "large.ome.zarr"
SCALE = {
    "factor": [2, 2],
    "steps": 16,
    "batch": 2,
    "patch_shape": [32, 32],
    "discriminator_width": 4,
    "discriminator_strides": [2],
}
CONFIG = {
    "name": "tiny",
    "kind": "relative",
    "axes": ["y", "x"],
    "modality": "XR",
    "base_size": 32,
    "tile_shape": [32, 32],
    "chunk_shape": [16, 16],
    "window": [0, 65535],
    "dtype": "uint16",
    "precision": "fp32",
    "pool": 16,
    "checkpoint_s": 0.1,
    "scales": [
        SCALE | {"network": {"type": "low_res", "widths": [4, 8]}},
        SCALE | {"network": {"type": "patch", "width": 4, "blocks": 1}},
        SCALE | {"network": {"type": "patch", "width": 4, "blocks": 1}},
    ],
}
#: OME-TIFF has a random one in every file.
_UUID = re.compile(rb"urn:uuid:[0-9a-f-]{36}")
#: Kills that may come too late, for each that does not.
_ATTEMPTS = 20
_NO_STAGE = "start or end"
KEPT_NAMES = ("tensorboard",)  # its file names hold times and process ids


@dataclass(frozen=True)
class Case:
    """One command: `begin` prepares a folder, `result` is what the command makes there."""

    name: str
    result: str
    arguments: tuple[str, ...]

    def begin(self, base: Path, folder: Path) -> None:
        folder.mkdir()
        old = base / ("start.ome.zarr" if self.name == "refine" else f"old-{self.result}")
        if old.exists():
            copy = shutil.copytree if old.is_dir() else shutil.copy
            copy(old, folder / self.result)

    def command(self, base: Path, folder: Path) -> list[str]:
        texts = [a.format(base=base, out=folder / self.result) for a in self.arguments]
        return [sys.executable, "-m", "napari_msgan", *texts, "--quiet"]

    def stage(self, folder: Path) -> str:
        """Return the stage that the command is in, judging by its files."""
        out = folder / self.result
        hidden = [p.name for p in folder.iterdir() if ".partial-" in p.name]
        if self.name == "export":
            return "writing" if hidden else _NO_STAGE
        if self.name == "train":
            done = sorted(p.stem for p in (out / ".training").glob("scale_*.pt"))
            pools = list((out / ".training").glob("*pool/*"))
            return f"after a checkpoint of {done[-1]}" if done else "pool" if pools else _NO_STAGE
        if hidden:
            return "sketch"
        written = (out / "0" / ".writer.pid").exists()
        return "tiles" if written else _NO_STAGE

    def digest(self, folder: Path) -> dict[str, str]:
        """Return the hash of each part of the result that must stay the same."""
        out = folder / self.result
        if self.name in ("generate", "refine"):
            store = open_pyramid(out)
            arrays = {
                f"{what} {scale}": get(scale)
                for scale in range(store.n_scales)
                for what, get in (("image", store.array), ("sketch", store.sketch_array))
            }
            return {name: sha256(np.asarray(a[...]).tobytes()) for name, a in arrays.items()}
        return hashes(out)

    def files(self, folder: Path) -> set[str]:
        """Return the names of all files that the command left."""
        names = (str(p.relative_to(folder)) for p in folder.rglob("*"))
        return {n for n in names if not any(kept in n for kept in KEPT_NAMES)}

    def damage(self, folder: Path) -> None:
        """Change one byte in the middle of the result."""
        out = folder / self.result
        suffixes = ("", ".safetensors", out.suffix)
        files = [out] if out.is_file() else sorted(p for p in out.rglob("*") if p.is_file())
        chosen = [p for p in files if p.suffix in suffixes and not p.name.startswith(".")]
        content = bytearray(chosen[-1].read_bytes())
        content[len(content) // 2] ^= 1
        chosen[-1].write_bytes(content)


CASES = (
    Case(
        "generate",
        "a.ome.zarr",
        ("generate", "{base}/image.tif", "{out}", "--model", "{base}/model"),
    ),
    Case("refine", "a.ome.zarr", ("refine", "{out}", "--region", "0:220,0:250")),
    Case("export", "a.nii.gz", ("export", "{base}/large.ome.zarr", "{out}", "--overwrite")),
    Case("export", "b.ome.tif", ("export", "{base}/large.ome.zarr", "{out}", "--overwrite")),
    Case("export", "c.ome.zarr", ("export", "{base}/large.ome.zarr", "{out}", "--overwrite")),
    Case(
        "train",
        "m",
        ("train", "{base}/images", "{out}", "--config", "{base}/tiny.json", "--device", "cpu"),
    ),
)


def sha256(content: bytes) -> str:
    """Return the SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def hashes(out: Path) -> dict[str, str]:
    """Return the hash of each file of a result, by its name there."""
    files = [out] if out.is_file() else sorted(p for p in out.rglob("*") if p.is_file())
    kept = [p for p in files if ".training" not in p.parts]
    return {str(p.relative_to(out)): sha256(_UUID.sub(b"", p.read_bytes())) for p in kept}


def picture(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Return smooth noise, uint16."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 4)
    return (65535 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint16)


def napari_msgan(*arguments: str | Path) -> None:
    """Run a command that must succeed."""
    subprocess.run([sys.executable, "-m", "napari_msgan", *map(str, arguments), "-q"], check=True)


def prepare(base: Path) -> None:
    """Write the images, models and stores that the commands start from."""
    (base / "images").mkdir()
    for index in range(3):
        tifffile.imwrite(base / "images" / f"{index}.tif", picture((150, 130), index))
    tifffile.imwrite(base / IMAGE, picture((220, 250), 9))
    tifffile.imwrite(base / "large.tif", picture((1700, 1500), 8))
    (base / "tiny.json").write_text(json.dumps(CONFIG))
    train = ("--config", base / "tiny.json", "--device", "cpu")
    napari_msgan("train", base / "images", base / MODEL, *train)
    model = ("--model", base / MODEL, "--scale", 0)
    napari_msgan("generate", base / IMAGE, base / "start.ome.zarr", *model)
    wide = {**CONFIG, "tile_shape": [256, 256], "chunk_shape": [256, 256]}
    (base / "wide.json").write_text(json.dumps(wide))  # larger chunks, for fewer files
    napari_msgan("train", base / "images", base / "wide", "--config", base / "wide.json")
    napari_msgan(
        "generate", base / "large.tif", base / LARGE, "--model", base / "wide", "--scale", 0
    )
    for case in CASES:
        if case.name == "export":
            napari_msgan("export", base / "start.ome.zarr", base / f"old-{case.result}")


def timed(case: Case, base: Path, folder: Path) -> dict[str, float]:
    """Run a command undisturbed; return the seconds spent in each stage."""
    spent: Counter[str] = Counter()
    process = subprocess.Popen(case.command(base, folder), start_new_session=True)
    last = time.monotonic()
    while process.poll() is None:
        stage = case.stage(folder)
        time.sleep(0.002)
        now = time.monotonic()
        spent[stage] += now - last
        last = now
    if process.returncode:
        raise SystemExit(f"{case.name} fails without being killed")
    return dict(spent)


def run_and_kill(
    case: Case, base: Path, folder: Path, random: random.Random, spent: dict[str, float]
) -> str:
    """Run a command and kill it in one of its stages; return which, or "" if it had ended."""
    stages = sorted(set(spent) - {_NO_STAGE})
    aim = _NO_STAGE if random.random() < 0.1 or not stages else random.choice(stages)
    process = subprocess.Popen(case.command(base, folder), start_new_session=True)
    while process.poll() is None and case.stage(folder) != aim:
        time.sleep(0.001)
    time.sleep(random.random() * spent[aim])
    if process.poll() is not None:
        return ""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return case.stage(folder)


def problems(case: Case, folder: Path, expected: dict[str, str], files: set[str]) -> list[str]:
    """Return how the result differs from that of an undisturbed run."""
    found = []
    try:
        seen = case.digest(folder)
    except Exception as error:
        return [f"unreadable: {error}"]
    found += [f"{name} differs" for name in expected if seen.get(name) != expected[name]]
    found += [f"{name} is missing" for name in sorted(files - case.files(folder))]
    found += [f"{name} is left over" for name in sorted(case.files(folder) - files)]
    if case.name in ("generate", "refine"):
        found += [f"{p.where}: {p.seen}" for p in verify(folder / case.result, sample=0).problems]
    return found


def torn(case: Case, base: Path, folder: Path, expected: dict[str, str]) -> list[str]:
    """Return what is wrong with an export, or by `verify` with a store, right after the kill."""
    out = folder / case.result
    if case.name == "export":
        is_complete = hashes(out) in (hashes(base / f"old-{case.result}"), expected)
        return [] if is_complete else ["the name stands for neither the old nor the new content"]
    if case.name not in ("generate", "refine") or not out.exists():
        return []
    found = verify(out, sample=0).problems
    return [f"{p.where}: {p.seen}" for p in found if not p.where.endswith(".partial")]


def run_case(case: Case, base: Path, kills: int, random: random.Random) -> dict[str, str]:
    """Kill one command again and again; return its row of the table."""
    folder = base / "work"
    case.begin(base, folder)
    spent = timed(case, base, folder)
    expected, files = case.digest(folder), case.files(folder)
    stages: Counter[str] = Counter()
    lost: list[str] = []
    for _ in range(_ATTEMPTS * kills):
        if stages.total() == kills:
            break
        shutil.rmtree(folder)
        case.begin(base, folder)
        stage = run_and_kill(case, base, folder, random, spent)
        if not stage:
            continue
        stages[stage] += 1
        found = torn(case, base, folder, expected)
        ended = subprocess.run(case.command(base, folder), capture_output=True, text=True)
        found += [f"exit {ended.returncode}: {ended.stderr}"] if ended.returncode else []
        found += problems(case, folder, expected, files)
        if found:
            lost.append(f"{stage}: {found[0]}")
            print(f"{case.name} {case.result}, killed at {stage}: {found}", file=sys.stderr)
        print(f"{case.name} {case.result}: {stages.total()} kills", file=sys.stderr, flush=True)
    else:
        raise SystemExit(f"{case.name} ends before it can be killed: is it much too fast?")
    case.damage(folder)
    control = problems(case, folder, expected, files)
    shutil.rmtree(folder)
    return {
        "command": f"{case.name} {case.result}",
        "kills": str(kills),
        "hit at": ", ".join(f"{stage} {count}" for stage, count in stages.most_common()),
        "survived": str(kills - len(lost)),
        "one changed byte is found": "yes" if control else "NO",
        "undisturbed run": ", ".join(f"{name} {s:.1f} s" for name, s in sorted(spent.items())),
    }


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    """Write the rows measured so far."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Print the table; exit with 1 if something was lost or the control was not detected."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=18, help="per command (default: 18)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", type=Path, help="also write the table there")
    parser.add_argument("--only", nargs="+", help="commands, or their results such as a.nii.gz")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # sums of floats depend on the number of threads
    chosen = options.only or [case.name for case in CASES]
    cases = [case for case in CASES if case.name in chosen or case.result in chosen]
    generator = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="crash-") as folder:
        prepare(Path(folder))
        rows = []
        for case in cases:
            rows.append(run_case(case, Path(folder), options.kills, generator))
            if options.csv:
                write_csv(options.csv, rows)
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, no GPU used\n")
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(row.values()) + " |")
    bad = [r for r in rows if r["survived"] != r["kills"] or r["one changed byte is found"] == "NO"]
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
