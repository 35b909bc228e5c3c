"""The digest of a large notebook's step: 200 functions reached, and data beside them.

Each sample is one look of a new fingerprinter, as each execution has one, at a namespace
that is made anew; then another look of the same one, as at each further call.
"""

import linecache
from time import perf_counter

from nbdurable.fingerprint import Fingerprinter

from .measure import Figure, expect, turns

NAME = "digest"
FUNCTIONS = 200
AGAIN = 20


def run(settings):
    """Measure, and give the figures."""
    rounds = [one_round(number) for number in turns(settings.rounds + 1, "digests")][1:]
    named = f"a step that reaches {FUNCTIONS} functions"
    return [
        Figure(NAME, f"{named}: new code", "s", tuple(one["new"] for one in rounds)),
        Figure(NAME, f"{named}: known code, new run", "s", tuple(one["run"] for one in rounds)),
        Figure(NAME, f"{named}: the next call", "s", tuple(one["call"] for one in rounds)),
    ]


def one_round(number):
    """Define the notebook anew, and give the seconds of each look at its step."""
    space = notebook(number)
    step = space["f0"]
    started = perf_counter()
    first = Fingerprinter().code(step)
    new = perf_counter() - started
    fingerprinter = Fingerprinter()
    started = perf_counter()
    second = fingerprinter.code(step)
    run_seconds = perf_counter() - started
    started = perf_counter()
    for _ in range(AGAIN):
        fingerprinter.code(step)
    call = (perf_counter() - started) / AGAIN
    expect(second.digest, first.digest, "digest of the same code")
    return {"new": new, "run": run_seconds, "call": call}


def notebook(number):
    """Run a cell with many functions that call each other, constants and a table."""
    lines = ["import json", "import math", "CONFIG = {'rate': 0.5, 'names': ['a', 'b']}"]
    for at in range(FUNCTIONS):
        lines += [
            f"K{at} = {at}",
            f"def f{at}(x, scale={at}):",
            f'    """Return step {at} of many."""',
            f"    total = [math.sqrt(value + K{at}) for value in range(x)]",
            "    shown = json.dumps(total) + str(CONFIG['rate'] * scale)",
            "    for place, value in enumerate(total):",
            "        if value > place:",
            "            shown += f'{place}: {value}'",
            f"    return shown + f{at + 1}(x)" if at + 1 < FUNCTIONS else "    return shown",
        ]
    text = "\n".join(lines) + "\n"
    path = f"/nowhere/ipykernel_1/{number}.py"
    linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
    space = {"__name__": "__main__"}
    exec(compile(text, path, "exec"), space)
    return space
