"""A program: one timing of one kind of work, by public names alone, printed as seconds.

``python trial.py KIND FOLDER [CLOCK]`` works with whichever nbdurable is found first, so that two
versions can be compared (`against`). KIND is one of `KINDS`, CLOCK a function of `time`.
"""

import sys
import time
from pathlib import Path

now = time.perf_counter
MANY, FEW = 10_000, 400


def double(number):
    """Do next to nothing."""
    return 2 * number


def sequential(folder):
    """Time steps that are called in place, one after the other."""
    from nbdurable import step, workflow

    call = step(double)
    with workflow("sequential", store=folder / "s.duckdb"):
        for number in range(50):
            call(number)  # warms up
        began = now()
        for number in range(50, 50 + FEW):
            call(number)
        return now() - began


def concurrent(folder):
    """Time many steps from their first `go` to their results."""
    return _many(folder / "c.duckdb")


def replay(folder):
    """Time the replay of many steps, with opening; the first call in a folder saves them."""
    store = folder / "r.duckdb"
    if not store.exists():
        _many(store)
        return 0.0
    return _many(store)


def _many(store):
    from nbdurable import gather, go, workflow

    with workflow("warm", store=store.with_name(f"warm-{store.name}")):
        gather([go(double, number) for number in range(20)]).result()
    began = now()
    with workflow("many", store=store):
        results = gather([go(double, number) for number in range(MANY)]).result()
        seconds = now() - began
    if results != [2 * number for number in range(MANY)]:
        raise AssertionError("wrong results have no speed")
    return seconds


def load(folder):
    """Time ``%load_ext nbdurable`` in a shell that is there already."""
    import os

    os.chdir(folder)
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    began = now()
    shell.run_line_magic("load_ext", "nbdurable")
    return now() - began


KINDS = {one.__name__: one for one in (sequential, concurrent, replay, load)}

if __name__ == "__main__":
    now = getattr(time, sys.argv[3]) if sys.argv[3:] else now
    print(KINDS[sys.argv[1]](Path(sys.argv[2])))
