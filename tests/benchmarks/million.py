"""A run of a million small checkpoints: its size, opened, resumed, and gone on with.

It is made as people make one: by steps mapped in executions of one run. Then it is
opened and its index loaded, and one new step resumes it, each in a new process. What a
step costs is measured in two processes that take turns every few steps: one goes on with
this run, the other with a run of a thousand.

``NBDURABLE_CHECKPOINTS=20000`` makes a smaller one. A million takes four minutes.
"""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from statistics import median, quantiles

from .measure import ROOT, Figure, at_most, expect, in_new_process, ratios, turns

NAME = "million"
CHECKPOINTS = int(os.environ.get("NBDURABLE_CHECKPOINTS", "1000000"))
FEW = 1_000
IN_AN_EXECUTION = 100_000
STEPS = 400
IN_A_TURN = 10
MIB = 1 << 20


def missing():
    """Say why it can't be measured here; nothing if it can."""
    if sys.platform != "linux":
        return f"benchmark {NAME!r} measures memory by Linux's /proc"
    return ""


def run(settings):
    """Measure, and give the figures."""
    many, few, none = (
        filled(settings.new_folder(NAME) / "store.duckdb", count) for count in (CHECKPOINTS, FEW, 0)
    )
    size = sum(one.stat().st_size for one in many.parent.rglob("*") if one.is_file())
    opened, resumed, empty, costs = [], [], [], []
    for turn in turns(settings.rounds, f"{CHECKPOINTS:,} checkpoints, {FEW:,}, none"):
        with copied(settings, many) as store:
            empty.append(in_new_process("many", "open", none))
            opened.append(in_new_process("many", "open", store))
            expect(opened[-1]["saved"], CHECKPOINTS, "checkpoints in the index")
            resumed.append(in_new_process("many", "resume", store, CHECKPOINTS))
            with copied(settings, few) as small:
                costs.append(taking_turns(small, store, turn))
    return list(figures(size, opened, resumed, empty, costs))


def filled(store, count):
    """Make a store with so many checkpoints in one run."""
    in_new_process("many", "open", store)
    for first in range(0, count, IN_AN_EXECUTION):
        in_new_process("many", "add", store, first, min(IN_AN_EXECUTION, count - first))
    return store


@contextmanager
def copied(settings, store):
    """Yield a copy, so that no round finds what the one before it has added."""
    folder = settings.new_folder("copy")
    try:
        copy = shutil.copy(store, folder)
        os.sync()  # what the copy left to the disk is no step's cost
        yield copy
    finally:
        shutil.rmtree(folder)


def taking_turns(few, many, turn):
    """Return the seconds of each step in either run."""
    found = ([], [])
    with going_on(few) as one, going_on(many) as other:
        asks = [(one, found[0]), (other, found[1])]
        for at in range(STEPS // IN_A_TURN):
            for ask, seconds in asks if (turn + at) % 2 else reversed(asks):
                seconds.extend(ask(IN_A_TURN))
    return found


@contextmanager
def going_on(store):
    """Yield what runs new steps in a process that goes on with the run of `store`."""
    command = [sys.executable, "-m", "tests.benchmarks.many", "step", store, "2000000"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        expect(process.stdout.readline(), "ready\n", "what it says when the run has begun")

        def ask(count):
            process.stdin.write(f"{count}\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()
        expect(process.wait(), 0, "its end")


def figures(size, opened, resumed, empty, costs):
    """Yield the figures, of each round a sample."""

    def of(rounds, name, scale=1):
        return tuple(one[name] / scale for one in rounds)

    def each(average):
        return [tuple(average(one[which]) for one in costs) for which in (0, 1)]

    def last_twentieth(seconds):
        return quantiles(seconds, n=20)[-1]

    memory = of(opened, "peak", MIB)
    beyond = tuple(one - other for one, other in zip(memory, of(empty, "peak", MIB), strict=True))
    at_few, at_many = f"a step after {FEW:,}", f"a step after {CHECKPOINTS:,}"
    yield Figure(NAME, f"{CHECKPOINTS:,} checkpoints: file, for each", "B", (size / CHECKPOINTS,))
    yield Figure(NAME, "opening, loading the index", "s", of(opened, "seconds"), at_most(10))
    yield Figure(NAME, "peak memory of that process", "MiB", memory, at_most(1024))
    yield Figure(NAME, "beyond one that opens an empty store", "MiB", beyond)
    yield Figure(NAME, "resuming, up to one new step's result", "s", of(resumed, "seconds"))
    yield Figure(
        NAME,
        "peak memory of that process, to its end",
        "MiB",
        of(resumed, "peak", MIB),
        at_most(1024),
    )
    for name, average, bound in (
        ("", median, at_most(1.3)),
        (", 95th of 100", last_twentieth, None),
    ):
        one, other = each(average)
        yield Figure(NAME, f"{at_few}{name}", "s", one)
        yield Figure(NAME, f"{at_many}{name}", "s", other)
        yield Figure(NAME, f"their ratio{name}", "x", ratios(other, one), bound)
