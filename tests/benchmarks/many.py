"""A program: a store of very many checkpoints, made and used; in a process of its own.

``python -m tests.benchmarks.many add STORE FIRST COUNT`` runs that many new steps, in one
more execution of the store's one run. ``open STORE`` opens it and loads the run's index,
``resume STORE NUMBER`` goes on with the run and runs one new step; both print seconds,
and the most memory that the process had by then. ``step STORE FIRST`` goes on with the
run, too; then it reads how many new steps it is to run, one after the other, and prints
the seconds of each, line by line until there are no more.
"""

import json
import sys
from pathlib import Path
from time import perf_counter

from nbdurable import step, workflow
from nbdurable.api.open_stores import close_stores
from nbdurable.store import Store, load_index

from .measure import any_body_ran, expect, memory

RUN = "million"


@step
def double(number):
    """Do next to nothing."""
    return 2 * number


def add(store, first, count):
    """Run many new steps at once."""
    numbers = range(first, first + count)
    with workflow(RUN, store=store):
        results = double.map(numbers).result()
    expect(results, [2 * number for number in numbers], "results")
    close_stores()
    return {}


def load(store):
    """Open the store and load what the run has saved; a store without the run loads nothing."""
    began = perf_counter()
    opened = Store.open(store)
    runs = opened.rows("SELECT id FROM nbdurable.run_log")
    index = load_index(opened, runs[0][0]) if runs else None
    seconds = perf_counter() - began
    peak = memory("VmHWM")
    saved = 0 if index is None else len(index.checkpoints)
    opened.close()
    return {"seconds": seconds, "peak": peak, "saved": saved}


def resume(store, number):
    """Go on with the run and run one new step; the end of the run is in the memory, too."""
    began = perf_counter()
    with workflow(RUN, store=store) as run:
        expect(double(number), 2 * number, "the result")
        seconds = perf_counter() - began
        expect(any_body_ran(run), True, "the step is a new one")
    close_stores()
    return {"seconds": seconds, "peak": memory("VmHWM")}


def steps(store, number):
    """Run new steps, as many as each line asks for; the first is no other's cost."""
    with workflow(RUN, store=store):
        expect(double(number), 2 * number, "the first result")
        print("ready", flush=True)
        for line in sys.stdin:
            seconds = []
            for _ in range(int(line)):
                number += 1
                began = perf_counter()
                result = double(number)
                seconds.append(perf_counter() - began)
                expect(result, 2 * number, "the result")
            print(json.dumps(seconds), flush=True)
    close_stores()


if __name__ == "__main__":
    action, place, given = sys.argv[1], Path(sys.argv[2]), list(map(int, sys.argv[3:]))
    if action == "step":
        steps(place, *given)
    else:
        print(json.dumps({"add": add, "open": load, "resume": resume}[action](place, *given)))
