"""A program: steps in a shape that is not flat, in a process of its own.

``python -m tests.benchmarks.shapes maps FOLDER MAPS EACH`` gathers so many `map`s of so
many steps; ``chain FOLDER LENGTH PASSES`` lets each step take the handle of the one
before it, in runs of its own, the last of which counts. Prints the seconds of a step,
from before the first step's start to the result.
"""

import importlib
import json
import sys
from pathlib import Path
from time import perf_counter

from nbdurable import gather, go, step, workflow
from nbdurable.api.open_stores import close_stores

from .measure import expect

importlib.import_module("nbdurable.store.database")  # and DuckDB, which a first run would load


@step
def double(number, of_map):
    """Do next to nothing."""
    return 2 * number


def add_one(number):
    """Do next to nothing to what came before."""
    return number + 1


def maps(store, count, each):
    """Gather maps; give the seconds of a step."""
    with workflow("maps", store=store):
        began = perf_counter()
        results = gather(double.map(range(each), of_map=of_map) for of_map in range(count)).result()
        seconds = perf_counter() - began
    expect(results, [[2 * number for number in range(each)]] * count, "results of the maps")
    close_stores()
    return seconds / (count * each)


def chain(store, length):
    """Ask for the last of a chain; give the seconds of a step."""
    with workflow("chain", store=store):
        began = perf_counter()
        last = go(add_one, 0)
        for _ in range(length - 1):
            last = go(add_one, last)
        result = last.result()
        seconds = perf_counter() - began
    expect(result, length, "the end of the chain")
    close_stores()
    return seconds / length


if __name__ == "__main__":
    action, place, numbers = sys.argv[1], Path(sys.argv[2]), list(map(int, sys.argv[3:]))
    shape, small = {"maps": (maps, (2, 20)), "chain": (chain, (20,))}[action]
    shape(place / "warm-up.duckdb", *small)
    print(json.dumps({"seconds": shape(place / "0.duckdb", *numbers)}))
