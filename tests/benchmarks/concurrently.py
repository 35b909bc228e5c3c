"""Many steps at once, through `go` and `gather`, against DBOS Python's `asyncio.gather`.

Each contender runs in a new process and into a new file, after a small workflow that
warms the process up. Timed is the same for both: from before the first step's start to
the gathered results, inside the workflow. A kernel lives long, so nbdurable is measured
a second time, in a process that has made such runs before.
"""

import importlib.util

from .measure import Figure, at_least, in_new_process, interleaved, ratios

NAME = "concurrent"
STEPS = 10_000
DBOS_STEPS = 300
PASSES = 4


def run(settings):
    """Measure, and give the figures."""

    def record(passes):
        return in_new_process("steps", "record", settings.new_folder("steps"), STEPS, passes)

    found = interleaved(
        settings.rounds,
        {
            "new": lambda: record(1),
            "dbos": lambda: in_new_process("dbos_steps", settings.new_folder("dbos"), DBOS_STEPS),
            "long": lambda: record(PASSES),
        },
    )
    rates = tuple(STEPS / (one["go"] + one["gather"]) for one in found["new"])
    later = tuple(STEPS / (one["go"] + one["gather"]) for one in found["long"])
    whole = tuple(
        STEPS / sum(one[part] for part in ("open", "go", "gather", "end")) for one in found["new"]
    )
    dbos = tuple(DBOS_STEPS / one["gather"] for one in found["dbos"])
    return [
        Figure(NAME, f"{STEPS:,} steps, go and gather", "/s", rates, at_least(6_000)),
        Figure(NAME, "the same, with opening and the end", "/s", whole),
        Figure(NAME, f"the same, {PASSES}th such run of a process", "/s", later, at_least(6_000)),
        Figure(NAME, f"DBOS, asyncio.gather of {DBOS_STEPS} steps", "/s", dbos),
        Figure(NAME, "nbdurable / DBOS", "x", ratios(rates, dbos), at_least(20)),
    ]


def missing():
    """Say what has to be installed first, or nothing."""
    if importlib.util.find_spec("dbos") is None:
        return (
            f"benchmark {NAME!r} measures DBOS beside nbdurable, and `dbos` is not installed: "
            f"install the extra `bench` (pip install 'nbdurable[bench]')"
        )
    return ""
