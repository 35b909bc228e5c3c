"""A program: start many steps at once and gather them, in a process of its own.

``python -m tests.benchmarks.steps record|replay FOLDER COUNT PASSES`` makes so many
passes, each over a run of its own (`record`) or all over one that is saved already
(`replay`), and prints the seconds of the last, part by part. The step is defined in
``__main__``, as in a notebook. ``die FOLDER`` leaves a run unfinished.
"""

import importlib
import json
import os
import sys
from pathlib import Path
from time import perf_counter

from .measure import expect

BEGAN = perf_counter()

from nbdurable import gather, go, workflow  # noqa: E402 - the time it takes is a figure
from nbdurable.api.open_stores import close_stores  # noqa: E402

importlib.import_module("nbdurable.store.database")  # and DuckDB, which a first run would load
IMPORTED = perf_counter() - BEGAN
KEPT = []


def double(number):
    """Do next to nothing."""
    return 2 * number


def one_pass(store, count, *, replayed):
    """Start, gather, compare; give the seconds of each part."""
    began = perf_counter()
    run = workflow("steps", store=store)
    with run:
        opened = perf_counter()
        handles = [go(double, number) for number in range(count)]
        started = perf_counter()
        results = gather(handles).result()
        gathered = perf_counter()
    ended = perf_counter()
    expect(results, [2 * number for number in range(count)], "results")
    expect(run.steps, count, "steps")
    # A finished run says so when no body of it was started.
    expect(any(note.startswith("replayed") for note in run.notes), replayed, "replayed")
    close_stores()
    KEPT[:] = handles  # a notebook's variables live until the cell has run again
    return {
        "open": opened - began,
        "go": started - opened,
        "gather": gathered - started,
        "end": ended - gathered,
    }


def record(folder, count, passes):
    """Make passes over new runs, after a small one that warms the process up."""
    one_pass(folder / "warm-up.duckdb", 20, replayed=False)
    for turn in range(passes):
        parts = one_pass(folder / f"{turn}.duckdb", count, replayed=False)
    return parts


def replay(folder, count, passes):
    """Make passes over the run that `record` saved first; nothing warms the process up."""
    for _ in range(passes):
        parts = one_pass(folder / "0.duckdb", count, replayed=True)
    return parts


def die(folder):
    """Leave a run unfinished, as a killed kernel does."""
    with workflow("steps", store=folder / "0.duckdb"):
        expect(go(double, 1).result(), 2, "result")
        os._exit(9)


if __name__ == "__main__":
    action, place, numbers = sys.argv[1], Path(sys.argv[2]), map(int, sys.argv[3:])
    found = {"record": record, "replay": replay, "die": die}[action](place, *numbers)
    print(json.dumps({"import": IMPORTED, **found}))
