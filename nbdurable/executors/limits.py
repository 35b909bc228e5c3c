"""How many at a time: limits with a line, and a lock for many or one alone.

Invariant: who waits costs no thread.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Limit:
    """At most so many at a time; the others wait in a line, which costs them no thread.

    One that is ``kept`` counts its bodies also while they wait for steps of their own.
    """

    def __init__(self, most: int, *, kept: bool = False) -> None:
        self._free = most
        self._kept = kept
        self._lock = threading.Lock()
        self._line: deque[Callable[[], object]] = deque()

    def take(self, start: Callable[[], object]) -> None:
        """Call `start` as soon as there is room; it must not raise, and `give` must follow."""
        with self._lock:
            if self._free <= 0:
                self._line.append(start)
                return
            self._free -= 1
        start()

    def give(self) -> None:
        """Make room: for the next in line, if there is one."""
        with self._lock:
            if self._free < 0 or not self._line:
                self._free += 1
                return
            start = self._line.popleft()
        start()

    def lend(self) -> None:
        """Make room while the body waits, until `take_back`; unless it is kept."""
        if not self._kept:
            self.give()

    def take_back(self) -> None:
        """Take the room that was lent meanwhile, even where that is one too many."""
        if not self._kept:
            with self._lock:
                self._free -= 1


class Elastic:
    """As `Limit`, but how many there may be at a time is asked each time."""

    def __init__(self, most: Callable[[], int]) -> None:
        self._most = most
        self._inside = 0
        self._lock = threading.Lock()
        self._line: deque[Callable[[], object]] = deque()

    def take(self, start: Callable[[], object]) -> None:
        """Call `start` as soon as there is room; it must not raise, and `give` must follow."""
        with self._lock:
            if self._inside >= self._most():
                self._line.append(start)
                return
            self._inside += 1
        start()

    def give(self) -> None:
        """Make room: for as many in line as there may be now."""
        with self._lock:
            self._inside -= 1
        while True:
            with self._lock:
                if not self._line or self._inside >= self._most():
                    return
                self._inside += 1
                start = self._line.popleft()
            start()

    def lend(self) -> None:
        """Make room while the body waits, until `take_back`."""
        self.give()

    def take_back(self) -> None:
        """Take the room that was lent meanwhile, even where that is one too many."""
        with self._lock:
            self._inside += 1


class Room(Protocol):
    """What a body needs room in before it runs: a `Limit`, or one side of a `SharedLock`."""

    def take(self, start: Callable[[], object]) -> None:
        """Call `start` as soon as there is room; it must not raise, and `give` must follow."""

    def give(self) -> None:
        """Make room."""

    def lend(self) -> None:
        """Make room while the body waits for others, until `take_back`."""

    def take_back(self) -> None:
        """Take the room that was lent meanwhile, whoever is there."""


class SharedLock:
    """A lock shared by many or held by one alone; those who wait to be alone go first."""

    def __init__(self) -> None:
        self.many: Room = _Side(self, alone=False)
        self.alone: Room = _Side(self, alone=True)
        self._lock = threading.Lock()
        self._inside = 0
        self._taken = False
        self._open = False
        self._lines: dict[bool, deque[Callable[[], object]]] = {True: deque(), False: deque()}

    def enter(self, start: Callable[[], object], *, alone: bool) -> None:
        """Call `start` as soon as the lock can be shared, or held alone."""
        self._lines[alone].append(start)
        self._turn()

    def open(self) -> None:
        """Let everybody in from now on: nobody waits for the lock any more."""
        self._open = True
        self._turn()

    def leave(self, *, alone: bool) -> None:
        """Give the lock back, and let others have it."""
        self.count(-1, alone=alone)
        self._turn()

    def count(self, change: int, *, alone: bool) -> None:
        """Count one more, or one less, that is inside."""
        with self._lock:
            if alone:
                self._taken = change > 0
            else:
                self._inside += change

    def _turn(self) -> None:
        while True:
            with self._lock:
                if self._taken and not self._open:
                    return
                if self._lines[True]:
                    if self._inside and not self._open:
                        return
                    self._taken = True
                    start = self._lines[True].popleft()
                elif self._lines[False]:
                    self._inside += 1
                    start = self._lines[False].popleft()
                else:
                    return
            start()


class _Side:
    """One side of a shared lock, as room that a body needs."""

    def __init__(self, shared: SharedLock, *, alone: bool) -> None:
        self._shared = shared
        self._alone = alone

    def take(self, start: Callable[[], object]) -> None:
        self._shared.enter(start, alone=self._alone)

    def give(self) -> None:
        self._shared.leave(alone=self._alone)

    def lend(self) -> None:
        self.give()

    def take_back(self) -> None:
        self._shared.count(1, alone=self._alone)
