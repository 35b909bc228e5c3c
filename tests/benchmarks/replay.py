"""A finished run of many steps, replayed in a new process.

The headline counts opening the store, loading the index, every `go` and the gathered
results. Importing DuckDB and the end of the run are given apart, and the rate with them.
A kernel lives long, so the replay is measured a second time, in a process that has
replayed the run before.
"""

from .measure import Figure, at_least, in_new_process, interleaved

NAME = "replay"
STEPS = 10_000
PASSES = 4
TARGET = at_least(20_000)


def run(settings):
    """Measure, and give the figures."""
    folder = settings.new_folder("replay")
    in_new_process("steps", "record", folder, STEPS, 1)

    def replay(passes):
        return in_new_process("steps", "replay", folder, STEPS, passes)

    found = interleaved(settings.rounds, {"new": lambda: replay(1), "long": lambda: replay(PASSES)})

    def seconds(which, *parts):
        return tuple(sum(one[part] for part in parts) for one in found[which])

    def rates(which, *parts):
        return tuple(STEPS / one for one in seconds(which, *parts))

    counted = ("open", "go", "gather")
    return [
        Figure(NAME, f"{STEPS:,} steps, open and replay", "/s", rates("new", *counted), TARGET),
        Figure(
            NAME,
            "the same, with importing and the end",
            "/s",
            rates("new", "import", *counted, "end"),
        ),
        Figure(
            NAME,
            f"the same, {PASSES}th such run of a process",
            "/s",
            rates("long", *counted),
            TARGET,
        ),
        Figure(NAME, "opening the store, loading the index", "s", seconds("new", "open")),
        Figure(NAME, "replaying", "s", seconds("new", "go", "gather")),
        Figure(NAME, "importing nbdurable and DuckDB", "s", seconds("new", "import")),
        Figure(NAME, "the end of the run", "s", seconds("new", "end")),
    ]
