"""Tools for testing durable code: kill points, a clock that a test moves.

Invariant: nothing here is used unless a test asks for it; a kill is a real
SIGKILL of the calling process, before or after a real commit, or while a large
value is being written.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import signal
import threading
from typing import TYPE_CHECKING, Literal

from nbdurable.api import configuration
from nbdurable.store import journal, objects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Moment = Literal["before", "after"]


def kill_at(moment: Moment, commit: int, linger: float = 0.03) -> None:
    """Kill this process with SIGKILL before or after its `commit`-th commit, counted from now.

    It lives on for `linger` seconds with that commit held back, so that whatever
    was let out too early has time to do its harm.
    """
    left = commit

    def hook(now: Moment, _: int) -> None:
        nonlocal left
        if now == moment:
            left -= 1
            if left == 0:
                threading.Event().wait(linger)
                os.kill(os.getpid(), signal.SIGKILL)

    journal.commit_hook = hook


def kill_while_writing(size: int) -> None:
    """Kill this process with SIGKILL once `size` bytes of a large value are in its file."""

    def hook(written: int) -> None:
        if written >= size:
            os.kill(os.getpid(), signal.SIGKILL)

    objects.write_hook = hook


@contextlib.contextmanager
def counted_commits() -> Iterator[list[int]]:
    """Yield a list that gets an entry for each commit of this process inside the block."""
    commits: list[int] = []

    def hook(now: Moment, number: int) -> None:
        if now == "after":
            commits.append(number)

    journal.commit_hook = hook
    try:
        yield commits
    finally:
        journal.commit_hook = None


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, start: float = 1_000_000_000.0) -> None:
        self._now = self._until = start
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0
        self._cancelled: set[int] = set()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    def time(self) -> float:
        """Return the time in seconds since the epoch."""
        return self._now

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` in `advance`, once so many seconds have passed; give what cancels it."""
        with self._changed:
            self._count += 1
            number = self._count
            heapq.heappush(self._timers, (self._now + max(0.0, seconds), number, callback))
            self._changed.notify_all()

        def cancel() -> None:
            self._cancelled.add(number)

        return cancel

    def wait_for_timers(self, count: int, timeout: float = 10.0) -> None:
        """Wait until `count` timers are pending, for code on other threads to set them.

        Raises:
            TimeoutError: They were not set within `timeout` real seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._pending()) >= count, timeout):
                raise TimeoutError(f"{len(self._pending())} timers pending instead of {count}")

    def advance(self, seconds: float) -> None:
        """Move the time, calling what falls due on the way, in its order.

        Moves add up, also those of other threads and of what is called on the way.
        """
        with self._lock:
            self._until += seconds
            until = self._until
        while True:
            with self._lock:
                if not self._timers or self._timers[0][0] > until:
                    self._now = max(self._now, until)
                    return
                due, number, callback = heapq.heappop(self._timers)
                self._now = max(self._now, due)
            if number not in self._cancelled:
                callback()

    def _pending(self) -> list[int]:
        return [number for _, number, _ in self._timers if number not in self._cancelled]


@contextlib.contextmanager
def clock_of_runs(clock: ManualClock) -> Iterator[ManualClock]:
    """Let runs that begin inside the block go by `clock`."""
    with configuration.replaced_clock(clock):
        yield clock
