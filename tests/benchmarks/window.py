"""What the live view costs: a cell of 10,000 concurrent steps with it and with ``--quiet``.

Measured as the person waits: from sending the cell to a real kernel until it is idle
again, the summary included.
"""

from time import perf_counter

from tests.kernel_harness import Kernel

from .measure import Figure, at_least, expect, interleaved, ratios

NAME = "window"
STEPS = 10_000
SETUP = """
%load_ext nbdurable
from nbdurable import gather, go, step
@step
def f(n):
    return n
"""
CELL = """%%durable {name} --new {quiet}
total = sum(f.map(range({steps})).result())
"""


def run(settings):
    """Measure, and give the figures."""
    kernel = Kernel(settings.new_folder("window"))
    try:
        kernel.run(SETUP)

        def rate(name, quiet):
            started = perf_counter()
            shown = kernel.run(CELL.format(name=name, quiet=quiet, steps=STEPS), cell_id=name)
            seconds = perf_counter() - started
            expect(shown.errors, [], "the cell's errors")
            expect(kernel.run("total").value, str(sum(range(STEPS))), "the cell's result")
            if not quiet:
                expect(f"{STEPS:,} ran" in shown.displays[0]["text/html"], True, "what it shows")
            return STEPS / seconds

        for name, quiet in (("warm", ""), ("warm", "--quiet")):
            rate(name, quiet)
        rates = interleaved(
            settings.rounds,
            {"shown": lambda: rate("shown", ""), "quiet": lambda: rate("quiet", "--quiet")},
        )
    finally:
        kernel.close()
    return [
        Figure(NAME, "with the live view", "/s", tuple(rates["shown"])),
        Figure(NAME, "with --quiet", "/s", tuple(rates["quiet"])),
        Figure(
            NAME,
            "shown / quiet",
            "x",
            ratios(rates["shown"], rates["quiet"]),
            at_least(0.95),
        ),
    ]
