"""Random programs of asyncio's own waits and of threads, as data, and their text.

A program is a list of operations; an operation is a list whose first item says what it
does. Numbers name steps, each of which is called once; a time is in seconds.
"""

import random

TIMES = (0.002, 0.006, 0.012)
"""What timeouts wait: bodies take 0 to 8 ms, so that either may win."""

BLOCKS = {"gather", "group", "timeout", "cancel"}


class Drawing:
    """Draws one program."""

    def __init__(self, seed):
        self._random = random.Random(seed)
        self._number = 0

    def program(self):
        """Return a program of a few operations."""
        return self._operations(self._random.randint(2, 3), depth=0)

    def kills(self):
        """Return the commits at which processes are killed, each before or after it."""
        moments = ("before", "after")
        return [
            (self._random.choice(moments), self._random.randint(1, 14))
            for _ in range(self._random.choice((0, 1)))
        ]

    def _operations(self, count, depth):
        return [self._operation(depth) for _ in range(count)]

    def _operation(self, depth):
        leaves = [self._step, self._step, self._later, self._equal, self._wait_for, self._fails,
                  self._first, self._ended, self._queue, self._threads]  # fmt: skip
        blocks = [self._gather, self._gather, self._timeout, self._cancel]
        return self._random.choice(leaves if depth > 1 else leaves + blocks)(depth + 1)

    def _next(self):
        self._number += 1
        return self._number

    def _some(self, most=3):
        return [self._next() for _ in range(self._random.randint(2, most))]

    def _time(self):
        return self._random.choice(TIMES)

    def _step(self, _):
        return ["step", self._next()]

    def _later(self, depth):
        number = self._next()
        return ["later", number, self._operations(1, depth + 1)]

    def _equal(self, _):
        return ["equal"]

    def _fails(self, _):
        return ["fails", self._next()]

    def _wait_for(self, _):
        return ["wait_for", self._next(), self._time()]

    def _first(self, _):
        return ["first", self._some(), self._time()]

    def _ended(self, _):
        return ["ended", self._some()]

    def _queue(self, _):
        return ["queue", [self._some(2) for _ in range(2)], self._time()]

    def _threads(self, _):
        how = ("map", "submit", "inner", "executor", "to_thread", "thread", "equal")
        return ["threads", self._random.choice(how), self._some()]

    def _gather(self, depth):
        kind = self._random.choice(("gather", "gather", "group"))
        count = self._random.randint(2, 3)
        return [kind, [self._operations(1, depth) for _ in range(count)]]

    def _timeout(self, depth):
        return ["timeout", self._time(), self._operations(2, depth)]

    def _cancel(self, depth):
        return ["cancel", self._next(), self._operations(1, depth)]


def words(program):
    """Return what the operations of a program do, and how."""
    found = set()
    for one in program:
        found.add(f"threads {one[1]}" if one[0] == "threads" else one[0])
        if one[0] in {"gather", "group"}:
            found.update(*map(words, one[1]))
        elif one[0] in {"timeout", "cancel", "later"}:
            found |= words(one[2])
    return found
