"""Wall time and timers, and a pause that ends once."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from .loops import LoopThread

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Clock(Protocol):
    """Wall time and timers; `nbdurable.testing.ManualClock` is the other one."""

    def time(self) -> float:
        """Return the time in seconds since the epoch."""

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` once, in any thread, after `seconds`; give what cancels it."""


class Pause:
    """A wait before something goes on, which can be cut short, or dropped with what follows.

    However it ends, it ends once: of the clock, `end` and `drop` the first one counts.
    """

    def __init__(
        self,
        clock: Clock,
        seconds: float,
        go_on: Callable[[], object],
        *,
        dropped: Callable[[], object] | None = None,
    ) -> None:
        self.was_dropped = False
        self._once = threading.Lock()
        self._go_on = go_on
        self._dropped = dropped
        self._cancel = clock.call_later(seconds, self._end)

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._once.locked()

    def end(self) -> None:
        """Go on now."""
        self._cancel()
        self._end()

    def drop(self) -> None:
        """Let nothing follow; who waits is told."""
        self._cancel()
        if self._once.acquire(blocking=False):
            self.was_dropped = True
            if self._dropped is not None:
                self._dropped()

    def _end(self) -> None:
        if self._once.acquire(blocking=False):
            self._go_on()


class SystemClock:
    """The real clock; its timers are those of an event loop of its own."""

    def __init__(self) -> None:
        # Not the loop of the async steps: a body that blocks it would hold up every timer.
        self._thread = LoopThread("nbdurable-clock")

    def time(self) -> float:
        """Return the time in seconds since the epoch."""
        return time.time()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Callable[[], None]:
        """Call `callback` on the clock's thread after `seconds`; give what cancels it."""
        loop = self._thread.loop
        due = loop.time() + max(0.0, seconds)
        timers: list[asyncio.TimerHandle] = []
        cancelled = threading.Event()

        def arm() -> None:
            if not cancelled.is_set():
                timers.append(loop.call_at(due, callback))

        def disarm() -> None:
            for timer in timers:
                timer.cancel()

        def cancel() -> None:
            cancelled.set()
            loop.call_soon_threadsafe(disarm)

        loop.call_soon_threadsafe(arm)
        return cancel
