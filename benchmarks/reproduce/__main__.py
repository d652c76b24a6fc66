"""Compare methods, part by part, and write docs/results.md.

    make reproduce PARTS="xray-time memory" MINUTES=90

Each part resumes where it stopped, with the settings it was begun with.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.reproduce.ablations import ABLATIONS, LOSSES, UNCHANGED
from benchmarks.reproduce.budgets import Budget
from benchmarks.reproduce.compare import iter_compare
from benchmarks.reproduce.data import ct, xray
from benchmarks.reproduce.figures import read_csv
from benchmarks.reproduce.memory import SIZES, measure_memory
from benchmarks.reproduce.methods import METHODS, TRAINED_BY
from benchmarks.reproduce.places import Places
from benchmarks.reproduce.report import write_report
from benchmarks.reproduce.translation import translate_all
from benchmarks.reproduce.yardstick import published_steps

ROOT = Path(__file__).parents[2]
PARTS = {
    "xray-time": "X-rays, every method trained for --minutes",
    "xray-patches": "X-rays, every method trained on --patches patches",
    "ct-time": "the same of thorax CT",
    "ct-patches": "the same of thorax CT",
    "ablations": "our settings on X-rays, one changed at a time, --minutes for the unchanged one",
    "losses": "what patches learn from generated coarse images, with the steps of ablations",
    "memory": "peak memory against the size of the image",
    "translation": "images of other domains through the bundled models",
    "report": "nothing but docs/results.md, from the tables that there are",
}
#: Which methods, and where data and results lie: nothing that decides what a method becomes.
_NO_SETTINGS = ("--methods", "--data", "--work", "--results", "--docs")


def run_part(part, options, places):
    """Run one part, then rewrite the page."""
    if part == "memory":
        measure_memory(places, {2: options.longest_2d, 3: options.longest_3d})
    elif part == "translation":
        translate_all(options.data, places)
    elif part != "report":
        _refuse_other_settings(part, places)
        for _ in _iter_compare(part, options, places):
            places.sign(part, _command(part, places))
            write_report(places)
    if part in ("memory", "translation") and any(places.part(part).iterdir()):
        places.sign(part, _command(part, places))
    write_report(places)


def _iter_compare(part, options, places):
    is_ct = part.startswith("ct")
    data = (
        ct(options.data, options.ct_scales)
        if is_ct
        else xray(options.data, places.work, options.xray_size)
    )
    known = {"ablations": ABLATIONS, "losses": LOSSES}.get(part, METHODS)
    chosen = set(options.methods or known)
    chosen |= {TRAINED_BY[name] for name in chosen & set(TRAINED_BY)}
    if options.pool:
        config = data.config.model_copy(update={"pool": options.pool})
        data = replace(data, config=config)
    budget = _budget(part, options, places)
    same = UNCHANGED if part == "ablations" else None
    return iter_compare(part, data, known, chosen, budget, places, same_steps_as=same)


def _budget(part, options, places):
    if part == "losses":
        steps = published_steps(places.part("ablations") / "runs.csv", UNCHANGED)
        if not steps:
            raise SystemExit("losses takes the numbers of steps of ablations: run that part first")
        return Budget(steps=steps)
    if part.endswith("-patches"):
        return Budget(patches=options.patches)
    return Budget(minutes=options.minutes)


def _command(part, places):
    """Return what makes all that is published of a part, also what was run elsewhere."""
    settings, methods = _settings(sys.argv[1:]), []
    if "--methods" in sys.argv:
        rows = read_csv(places.part(part) / "figures.csv")
        methods = ["--methods", *dict.fromkeys(row["method"] for row in rows)]
    return shlex.join(["python", "-m", "benchmarks.reproduce", part, *methods, *settings])


def _settings(arguments):
    """Return the arguments that decide what methods become: not which, and not where."""
    kept, name = [], None
    for argument in (a for a in arguments if a not in PARTS):
        name = argument if argument.startswith("--") else name
        if name is not None and name not in _NO_SETTINGS:
            kept.append(argument)
    return kept


def _refuse_other_settings(part, places):
    """Keep methods of one table from being trained in different ways."""
    published = places.command(part)
    if published and _settings(shlex.split(published)[4:]) != _settings(sys.argv[1:]):
        raise SystemExit(
            f"{places.part(part)} holds what was made by\n    {published}\nGive the same settings, "
            "choose another folder with --results, or remove it."
        )


def main():
    """Run the requested parts."""
    epilog = "parts:\n" + "\n".join(f"  {name:<13} {what}" for name, what in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reproduce",
        description=__doc__,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    environment = os.environ.get
    data = Path(environment("REPRODUCE_DATA", ROOT.parent / "shared" / "data"))
    work = Path(environment("REPRODUCE_DIR", ROOT / "reproduce-output"))
    parser.add_argument("parts", nargs="+", choices=PARTS, metavar="PART")
    parser.add_argument("--data", type=Path, default=data, help="folder of train/ and heldout/")
    parser.add_argument("--work", type=Path, default=work, help="folder of unfinished work")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--minutes", type=float, default=90, help="of training per method")
    parser.add_argument("--patches", type=float, default=30000, help="seen by each method")
    parser.add_argument("--methods", nargs="+", help="some only: " + ", ".join(METHODS))
    parser.add_argument("--xray-size", type=int, default=512, help="pixels, longest side")
    parser.add_argument("--pool", type=int, help="changed images of scale 0; as our models have")
    parser.add_argument("--ct-scales", type=int, default=4, help="3: to 3 mm, 4: to 1.5 mm")
    parser.add_argument("--longest-2d", type=int, default=SIZES[2][-1], help="of memory")
    parser.add_argument("--longest-3d", type=int, default=SIZES[3][-1], help="of memory")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        handlers=[logging.StreamHandler(), logging.FileHandler(options.work / "log.txt")],
    )
    places = Places(options.work, options.results, options.docs)
    for part in options.parts:
        run_part(part, options, places)


if __name__ == "__main__":
    main()
