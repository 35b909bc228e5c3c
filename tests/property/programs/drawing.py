"""Hypothesis draws programs, schedules, and where a process is killed."""

import itertools
from dataclasses import dataclass

from hypothesis import strategies as st

import nbdurable
from programs.oracle import Schedule

COMBINATORS = [name for name in ("race", "as_completed") if hasattr(nbdurable, name)]
"""What is drawn only where there is it."""

MOST_NODES = 16
DEEPEST = 2


@dataclass(frozen=True)
class Kill:
    """A kill before or after a commit: the ``commit``-th from a moment on.

    The moment is told in twentieths of the execution's events: the beginning, then when
    the gate of each is about to be opened, then the end. ``pause`` is how many seconds
    pass before the next execution.
    """

    moment: str
    twentieths: int
    commit: int
    pause: int


@dataclass(frozen=True)
class Case:
    """A program, its schedule, and what befalls it.

    ``kills``: one `Kill` for each execution that is to be killed.
    """

    program: tuple
    asynchronous: bool
    schedule: Schedule
    kills: tuple


@st.composite
def cases(draw):
    """Return a case."""
    asynchronous = draw(st.booleans())
    program = _Drawing(draw).program(asynchronous)
    schedule = Schedule(
        ranks=tuple(draw(st.lists(st.integers(0, 9), min_size=1, max_size=8))),
        lazy=draw(st.sampled_from([True, True, False])),
        calm=draw(st.sampled_from([True, True, False])),
        live=draw(st.booleans()),
    )
    kill = st.builds(
        Kill,
        moment=st.sampled_from(["after", "before"]),
        twentieths=st.integers(0, 20),
        commit=st.sampled_from([1, 1, 2, 3]),
        pause=st.sampled_from([0, 1, 3, 1000]),
    )
    most = draw(st.sampled_from([1, 1, 2, 0]))
    kills = draw(st.lists(kill, min_size=most, max_size=most))
    return Case(tuple(program), asynchronous, schedule, tuple(kills))


class _Drawing:
    """One program being drawn."""

    def __init__(self, draw):
        self.draw = draw
        self.left = MOST_NODES
        self.ids = itertools.count(1)
        self.seconds = itertools.count()

    def program(self, asynchronous):
        """Return the cell's operations."""
        names = _Names()
        started = []
        for _ in range(self.draw(st.integers(1, 4))):
            started += self._go(names, asynchronous, 0)
        return started + self.block(names, asynchronous, depth=0, most=10)

    def block(self, names, asynchronous, *, depth, most):
        """Return a list of operations that may use the handles in `names`."""
        found = []
        # Drawn one by one, so that one can be left out of a failing example.
        while self.left > 0 and len(found) < most and (not found or self.draw(st.integers(0, 7))):
            found += self.operation(names, asynchronous, depth)
        return found

    def operation(self, names, asynchronous, depth):
        """Return one operation, or a few that belong together."""
        kinds = ["go", "go", "go", "go", "after", "call"]
        if names.all:
            kinds += ["ask", "ask", "if", "gather", "gather", "select", "select", "select"]
            kinds += ["race"] * 2 * ("race" in COMBINATORS)
            kinds += ["each"] * ("as_completed" in COMBINATORS)
            kinds += ["cancel"] * ("race" in COMBINATORS)
        if depth < DEEPEST:
            kinds += ["try"]
        kinds += ["map"] * hasattr(nbdurable.step(len), "map")
        kinds += ["sleep", "print"]
        if depth < DEEPEST and self.left > 4:
            kinds += ["outage"]
        kind = self.draw(st.sampled_from(kinds))
        return getattr(self, f"_{kind}")(names, asynchronous, depth)

    def _new(self):
        self.left -= 1
        return next(self.ids)

    def _step(self, names, depth, *, asynchronous):
        draw = self.draw
        stumbles = draw(st.sampled_from([0, 0, 0, 0, 1, 2]))
        step = {
            "name": "",
            "fails": draw(st.sampled_from([False, False, True])),
            "stumbles": stumbles,
            "retries": stumbles + draw(st.sampled_from([0, 0, 0, 1])) if stumbles else 0,
            "outage": draw(st.sampled_from([0, 0, 0, 1, 1, 2])),
            "local": draw(st.sampled_from([False, False, False, True])),
            "redirects": draw(st.sampled_from([False, False, False, True])),
            "prints": draw(st.booleans()),
            "asynchronous": asynchronous,
            "takes": [],
            "shape": draw(st.sampled_from(["alone", "list", "keyed"])),
            "body": [],
        }
        if names.all and draw(st.integers(0, 3)) == 3:
            step["takes"] = self._some(names, 2)
        identity = self._new()
        twin = not step["takes"] and draw(st.integers(0, 4)) == 4
        step["name"] = "twin" if twin else f"s{identity}"
        if depth < DEEPEST and self.left > 2 and draw(st.integers(0, 4)) == 4:
            step["body"] = self.block(_Names(), asynchronous, depth=depth + 1, most=4)
        return identity, step

    def _some(self, names, most):
        return self.draw(
            st.lists(st.sampled_from(names.all), min_size=1, max_size=most, unique=True)
        )

    def _go(self, names, asynchronous, depth):
        identity, step = self._step(names, depth, asynchronous=self.draw(st.booleans()))
        names.add(identity)
        return [{"do": "go", "id": identity, "step": step}]

    def _call(self, names, asynchronous, depth):
        identity, step = self._step(names, depth, asynchronous=asynchronous)
        return [{"do": "call", "id": identity, "step": step, "catch": self._caught()}]

    def _outage(self, names, asynchronous, depth):
        """Return sub-workflows whose children fail, and what waits for all of them."""
        started, made = [], []
        for _ in range(self.draw(st.integers(2, 3))):
            identity, step = self._step(_Names(), DEEPEST, asynchronous=asynchronous)
            inner = _Names()
            step["body"] = self._go(inner, asynchronous, depth + 1)
            for child in tuple(inner.all):
                step["body"] += self._ask(inner, asynchronous, depth + 1, child)
            step["body"][0]["step"]["outage"] = 1
            started.append({"do": "go", "id": identity, "step": step})
            made.append(identity)
            names.add(identity)
        gather = {"do": "gather", "id": self._new(), "of": made, "exceptions": False}
        names.add(gather["id"])
        asked = self._ask(names, asynchronous, depth, gather["id"])
        return [*started, {**gather, "keyed": False}, *asked]

    def _caught(self):
        return self.draw(st.sampled_from([True, True, True, False, "wrap"]))

    def _seconds(self):
        # Powers of two: no two sums of them are equal, so no two timers fall due at once.
        return 2 ** next(self.seconds)

    def _after(self, names, asynchronous, depth):
        identity = self._new()
        names.add(identity)
        return [{"do": "after", "id": identity, "seconds": self._seconds()}]

    def _sleep(self, names, asynchronous, depth):
        until = self.draw(st.integers(0, 3)) == 3
        return [{"do": "sleep", "id": self._new(), "seconds": self._seconds(), "until": until}]

    def _map(self, names, asynchronous, depth):
        identity, step = self._step(_Names(), DEEPEST, asynchronous=self.draw(st.booleans()))
        step["name"] = f"s{identity}"
        items = [self._new() for _ in range(self.draw(st.integers(0, 3)))]
        names.add(identity)
        exceptions = self.draw(st.booleans())
        made = {"do": "map", "id": identity, "step": step, "items": items, "exceptions": exceptions}
        return [made, *self._perhaps(names, identity, asynchronous)]

    def _select(self, names, asynchronous, depth, kind="select"):
        identity = self._new()
        of = self._some(names, 4)
        names.add(identity, selects=True)
        made = {"do": kind, "id": identity, "of": of, "success": self.draw(st.booleans())}
        return [made, *self._perhaps(names, identity, asynchronous)]

    def _race(self, names, asynchronous, depth):
        return self._select(names, asynchronous, depth, kind="race")

    def _gather(self, names, asynchronous, depth):
        identity = self._new()
        made = {
            "do": "gather",
            "id": identity,
            "of": self._some(names, 4),
            "exceptions": self.draw(st.booleans()),
            "keyed": self.draw(st.booleans()),
        }
        names.add(identity)
        return [made, *self._perhaps(names, identity, asynchronous)]

    def _perhaps(self, names, of, asynchronous):
        wanted = self.draw(st.sampled_from([True, True, True, False]))
        return self._ask(names, asynchronous, 0, of) if wanted else []

    def _ask(self, names, asynchronous, depth, of=None):
        hows = ["result", "result", "outcome"]
        of = of or self.draw(st.sampled_from(names.all))
        if of in names.selects:
            hows += ["winner", "winner", "index"]
        how = self.draw(st.sampled_from(hows))
        seconds = 0
        if how == "result" and not asynchronous and self.draw(st.integers(0, 4)) == 4:
            seconds = self._seconds()
        identity = self._new() if seconds else of
        return [
            {
                "do": "ask",
                "id": identity,
                "of": of,
                "how": how,
                "seconds": seconds,
                "catch": self._caught(),
            }
        ]

    def _each(self, names, asynchronous, depth):
        of = self._some(names, 4)
        most = self.draw(st.integers(1, len(of)))
        return [{"do": "each", "id": self._new(), "of": of, "most": most}]

    def _cancel(self, names, asynchronous, depth):
        return [{"do": "cancel", "of": self.draw(st.sampled_from(names.all))}]

    def _print(self, names, asynchronous, depth):
        return [{"do": "print", "text": f"line {next(self.ids)}"}]

    def _if(self, names, asynchronous, depth):
        of = self.draw(st.sampled_from(names.all))
        then, otherwise = (
            self.block(names.copy(), asynchronous, depth=depth, most=2) for _ in range(2)
        )
        return [{"do": "if", "of": of, "then": then, "otherwise": otherwise}]

    def _try(self, names, asynchronous, depth):
        body = self.block(names.copy(), asynchronous, depth=depth + 1, most=4)
        handler = self.block(names.copy(), asynchronous, depth=depth + 1, most=2)
        return [{"do": "try", "body": body, "handler": handler}]


class _Names:
    """The handles in reach."""

    def __init__(self, known=(), selects=()):
        self.all = list(known)
        self.selects = set(selects)

    def add(self, identity, *, selects=False):
        """Name one more."""
        self.all.append(identity)
        if selects:
            self.selects.add(identity)

    def copy(self):
        """Return the names that a block begins with."""
        return _Names(self.all, self.selects)
