"""Does a step cost the same, however many there are? Maps in a gather, and a chain.

Printed is the time of a step in a small shape and in a large one, each in a new process,
and the ratio: 1 is linear. Python's garbage collector is left as it is: it looks at
everything that lives again and again, so a step among a hundred thousand takes a little
longer.
"""

from .measure import Figure, at_most, in_new_process, interleaved, ratios

NAME = "linear"
MAPS = (10, 100)
EACH = 1_000
CHAINS = (500, 1_000)
ROUNDS = 3
"""Enough of a hundred thousand steps, which take a quarter of a minute."""


def run(settings):
    """Measure, and give the figures."""

    def seconds(*arguments):
        shape, *numbers = arguments
        return in_new_process("shapes", shape, settings.new_folder(shape), *numbers)["seconds"]

    maps = interleaved(
        min(settings.rounds, ROUNDS),
        {count: lambda count=count: seconds("maps", count, EACH) for count in MAPS},
    )
    chains = interleaved(
        settings.rounds,
        {length: lambda length=length: seconds("chain", length) for length in CHAINS},
    )
    return [
        *_figures("a step, {} maps of " + f"{EACH:,}", maps),
        *_figures("a step in a chain of {}", chains),
    ]


def _figures(what, found):
    """Return the times of both sizes, and what the larger one takes of the smaller one's."""
    (few, of_few), (many, of_many) = found.items()
    return [
        Figure(NAME, what.format(f"{few:,}"), "s", tuple(of_few)),
        Figure(NAME, what.format(f"{many:,}"), "s", tuple(of_many)),
        Figure(
            NAME, f"{many:,} / {few:,}: time of a step", "x", ratios(of_many, of_few), at_most(1.5)
        ),
    ]
