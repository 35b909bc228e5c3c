"""Steps in processes and on Dask, against bare loky, bare Dask and a plain file.

Each contender runs in a new process, whose workers have done a little before: starting
them is not measured. CPU-bound bodies are also run one after the other in the process
itself, which is what two processes are to halve.
"""

from .measure import Figure, at_least, at_most, in_new_process, interleaved, ratios

NAME = "outside"
BODIES = 2_000
ON_DASK = 10_000
LARGE_MIB = 512


def run(settings):
    """Measure, and give the figures."""

    def one(action, count):
        return lambda: in_new_process(
            "outside_steps", action, settings.new_folder("outside"), count
        )

    found = interleaved(
        settings.rounds,
        {
            "busy": one("busy", BODIES),
            "process": one("process", BODIES),
            "dask": one("dask", ON_DASK),
            "large": one("large", LARGE_MIB),
        },
    )

    def each(name, part):
        return tuple(one[part] for one in found[name])

    faster = ratios(each("busy", "here"), each("busy", "steps"))
    process = ratios(each("process", "steps"), each("process", "bare"))
    dask = ratios(each("dask", "bare"), each("dask", "steps"))
    large = ratios(each("large", "plain"), each("large", "steps"))
    return [
        Figure(NAME, f"{BODIES:,} bodies of 5 ms: one process / two", "x", faster, at_least(1.5)),
        Figure(NAME, f"{BODIES:,} trivial steps, processes", "s", each("process", "steps")),
        Figure(NAME, "the same / bare loky, call by call", "x", process, at_most(1.5)),
        Figure(NAME, f"{ON_DASK:,} trivial steps on Dask", "s", each("dask", "steps")),
        Figure(NAME, "rate / that of client.map", "x", dask, at_least(0.6)),
        Figure(NAME, f"{LARGE_MIB} MiB from a worker", "s", each("large", "steps")),
        Figure(NAME, "rate / that of a plain file", "x", large, at_least(0.8)),
    ]
