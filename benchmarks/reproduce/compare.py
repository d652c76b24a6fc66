"""A part that trains methods on a data set, measures their figures and publishes them."""

from __future__ import annotations

import logging

from benchmarks.reproduce.budgets import Budget
from benchmarks.reproduce.figures import (
    is_comparable,
    measure_heldout,
    measured,
    model_of,
    read_csv,
    write_csv,
)
from benchmarks.reproduce.methods import TRAINED_BY
from benchmarks.reproduce.pictures import curve_plot, picture_sheet
from benchmarks.reproduce.train import curves, prepare_base, train, training_summary
from benchmarks.reproduce.yardstick import OURS, on_this_machine, published_steps

_LOG = logging.getLogger("reproduce")


def iter_compare(part, data, methods, chosen, budget, places, *, same_steps_as=None):
    """Train and measure methods one after the other; yield the name of each once published.

    Parameters
    ----------
    methods : by name, in the order of the tables; methods that only show another view of a trained
        method come after it.
    chosen : names of those to run.
    same_steps_as : name of the method whose numbers of steps all methods get: as it was trained in
        this work folder, otherwise as it was published.
    """
    if not data.heldout:
        raise SystemExit(f"there are no held-out images for {data.name}: see --data")
    work, base = places.work / data.name / part, places.work / data.name / "images"
    _LOG.info("%s: images of %s", part, data.name)
    files = prepare_base(data, base)
    _refuse_other_measures(data, places.part(part) / "figures.csv", chosen)
    published = places.part(part) / "runs.csv"
    if OURS not in chosen:
        budget = on_this_machine(budget, methods, data, files, base, work, published)
    for name, method in methods.items():
        if name not in chosen:
            continue
        _LOG.info("%s: %s", part, method.title)
        trainer = TRAINED_BY.get(name, name)
        run = methods[trainer].run(data)
        if same_steps_as not in (None, name):
            budget = Budget(steps=_steps_of(same_steps_as, run, work, published))
        trained = train(run, data, files, base, work / trainer, budget)
        folder = work / name
        folder.mkdir(exist_ok=True)
        generators = method.generators(data, trained)
        measure_heldout(data, model_of(data, generators, method.tile(data), folder), folder)
        publish(part, data, methods, work, places)
        yield name


def _refuse_other_measures(data, published, chosen):
    """Keep figures that were taken in two ways out of one table."""
    rows = read_csv(published) if published.exists() else []
    others = {row["method"] for row in rows if not is_comparable(data, row)} - chosen
    if others:
        raise SystemExit(
            f"{published} holds figures of {', '.join(sorted(others))} that were taken in another "
            "way than figures are now: run these methods, too, or choose another folder with "
            "--results"
        )


def _steps_of(method, run, work, published):
    if (work / method / "config.json").exists():
        rows = training_summary(run, work / method, (1,))
        return {row["scale"]: row["steps"] for row in rows}
    steps = published_steps(published, method)
    if not steps:
        raise SystemExit(f"{method} gives all others its number of steps: run it first")
    return steps


def publish(part, data, methods, work, places):
    """Write the tables of the finished methods of a part, its curves and its pictures.

    Published results of other methods stay, since these may have been run elsewhere. Figures that
    were measured in another way are removed.
    """
    figures, runs, points = {}, {}, {}
    finished = {n: m for n, m in methods.items() if _is_finished(work / n, data)}
    for name, method in finished.items():
        folder = work / name
        titled = {"method": name, "title": method.title}
        figures[name] = [titled | row for row in measured(data, folder)]
        if method.run is not None:
            run, shape = method.run(data), data.config.scales[-1].patch_shape
            runs[name] = [titled | row for row in training_summary(run, folder, shape)]
            points[name] = [titled | row for row in curves(run, folder)]
    out = places.part(part)
    tables = {"figures.csv": figures, "runs.csv": runs, "curves.csv": points}
    for name, made in tables.items():
        old = read_csv(out / name) if (out / name).exists() else []
        old = [row for row in old if name != "figures.csv" or is_comparable(data, row)]
        write_csv(out / name, _with_published(made, old, methods))
        tables[name] = read_csv(out / name)
    curve_plot(tables["curves.csv"], places.picture(f"{part}-curves.png"))
    folders = {method.title: work / n for n, method in finished.items()}
    titles = dict.fromkeys(row["title"] for row in tables["figures.csv"])
    picture_sheet(folders, places.picture(f"{part}.png"), titles)


def _with_published(made, published, methods):
    """Return all rows of a table in the order of the methods; new ones replace old ones."""
    rows = {name: list(found) for name, found in made.items()}
    for row in published:
        if row["method"] not in made:
            rows.setdefault(row["method"], []).append(row)
    return [row for name in methods for row in rows.get(name, ())]


def _is_finished(folder, data):
    return len(measured(data, folder)) == len(data.heldout)
