"""Seeing which code runs: ``python -m tests.benchmarks.dynamic``, Python 3.12 or later.

Times bodies inside a step against the same calls outside of any run in a process that has
seen no run, and prints the ratios: a million calls of a project function alone; the same
beside a step that does not know the function; ``fib(27)``.
"""

import json
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter

from nbdurable import gather, go, workflow

CALLS = 1_000_000
ROUNDS = 5
TARGETS = {"alone": 1.05, "beside": 1.15, "fib": 1.10}


def line(x):
    """Do three lines of work."""
    y = x + 1
    z = y * 2
    return z - x


def fib(n):
    """Call itself."""
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def calls(name):
    """Call a function that only its name leads to a million times; return the seconds."""
    function = globals()[name[:2] + name[2:]]
    began = perf_counter()
    for number in range(CALLS):
        function(number)
    return perf_counter() - began


def fibs(name):
    """Compute a Fibonacci number by a function that only its name leads to."""
    function = globals()[name[:2] + name[2:]]
    began = perf_counter()
    function(27)
    return perf_counter() - began


def once(kind):
    """Measure one kind in this process: ``plain ...`` outside of any run, else inside."""
    plain, _, what = kind.rpartition(" ")
    body, name = (fibs, "fib") if what == "fib" else (calls, "line")
    if plain:
        with ThreadPoolExecutor(1) as pool:  # a step's body runs on a thread, too
            return pool.submit(body, name).result()
    with tempfile.TemporaryDirectory() as folder, workflow("w", store=f"{folder}/s.duckdb"):
        if what != "beside":
            return go(body, name).result()
        done = threading.Event()
        other = go(done.wait, 60)
        seconds = go(body, name).result()
        done.set()
        gather(other).result()
        return seconds


def measured(kind):
    """Measure one kind in a process of its own."""
    found = subprocess.run(
        [sys.executable, "-m", __spec__.name, kind],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(found.stdout)


def main():
    """Interleave the kinds, and print the ratio of the medians of each."""
    kinds = ["plain alone", "alone", "beside", "plain fib", "fib"]
    seconds = {kind: [] for kind in kinds}
    for _ in range(ROUNDS):
        for kind in kinds:
            seconds[kind].append(measured(kind))
    for what, target in TARGETS.items():
        plain = median(seconds["plain fib" if what == "fib" else "plain alone"])
        ratio = median(seconds[what]) / plain
        print(f"{what:8} {ratio:5.2f}   target {target:4.2f} at most")


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(once(sys.argv[1])))
    else:
        main()
