"""`%load_ext nbdurable` in a new process whose IPython shell is already made.

Measured twice: inside the process, around the magic; and from outside, as the
difference between whole processes with it and without it. The files are in the
operating system's cache, for one process of each kind has run before.
"""

from .measure import Figure, at_most, in_new_process, interleaved

NAME = "load"


def run(settings):
    """Measure, and give the figures."""
    nothing = settings.new_folder("load") / "none.duckdb"
    unfinished = settings.new_folder("load") / "0.duckdb"
    in_new_process("steps", "die", unfinished.parent, ending=9)
    contenders = {
        "with": lambda: loading("with", nothing),
        "without": lambda: loading("without", nothing),
        "unfinished": lambda: loading("with", unfinished),
    }
    interleaved(1, contenders)
    found = interleaved(settings.rounds, contenders)
    inside = tuple(one["load"] for one in found["with"])
    outside = tuple(
        one["process"] - other["process"]
        for one, other in zip(found["with"], found["without"], strict=True)
    )
    told = tuple(one["load"] for one in found["unfinished"])
    alone = tuple(one["process"] for one in found["without"])
    return [
        Figure(NAME, "%load_ext nbdurable", "s", inside, at_most(0.3)),
        Figure(NAME, "process with it - process without", "s", outside, at_most(0.3)),
        Figure(NAME, "process without it", "s", alone),
        Figure(NAME, "%load_ext where a run is unfinished", "s", told),
    ]


def loading(how, store):
    """Run the program with `store` as the notebook's; the user's IPython is left alone."""
    return in_new_process(
        "loading", how, NBDURABLE_STORE=store, IPYTHONDIR=store.parent / "ipython"
    )
