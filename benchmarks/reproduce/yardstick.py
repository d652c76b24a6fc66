"""Equal time for methods that are trained on another day than `ours`.

The speed of a machine changes from day to day by a third or more. So a method that joins a
published table gets the processor time that the published steps of `ours` take here and now.
"""

from __future__ import annotations

import json
import logging
from functools import partial

from benchmarks.reproduce.budgets import Budget
from benchmarks.reproduce.figures import read_csv
from benchmarks.reproduce.train import seconds_per_step
from napari_msgan.durable import write_atomically

OURS = "ours"
_LOG = logging.getLogger("reproduce")


def on_this_machine(budget, methods, data, files, base, work, published):
    """Convert a budget in minutes to minutes of this machine; return any other budget as it is.

    The time is measured once for all methods of a part, and kept in ``yardstick.json``.

    Parameters
    ----------
    base : folder of the images that all methods share.
    work : folder of trained networks; `ours` is the yardstick only if it was trained elsewhere.
    published : path of the table of published runs, which need not exist.
    """
    steps = published_steps(published, OURS)
    if budget.minutes is None or not steps or (work / OURS).exists():
        return budget
    path = work / "yardstick.json"
    if not path.exists():
        seconds = partial(seconds_per_step, methods[OURS].run(data), data, files, base)
        minutes = minutes_of(steps, seconds)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"minutes": minutes}).encode())
    minutes = json.loads(path.read_text())["minutes"]
    _LOG.info("the steps of ours take %.1f instead of %g minutes here", minutes, budget.minutes)
    return Budget(minutes=minutes)


def minutes_of(steps, seconds):
    """Return the minutes that the steps of all scales take.

    Parameters
    ----------
    steps : by scale.
    seconds : function from a scale to the seconds of one step.
    """
    return sum(count * seconds(scale) for scale, count in steps.items()) / 60


def published_steps(path, method):
    """Return a method's steps per scale from a table of runs, which need not exist."""
    rows = read_csv(path) if path.exists() else ()
    return {int(row["scale"]): int(row["steps"]) for row in rows if row["method"] == method}
