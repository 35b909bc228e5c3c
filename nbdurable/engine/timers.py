"""Timers of the cell and of bodies: claimed as calls are, armed, or kept for who asks.

Invariant: a timer's identity is what it was asked for, and its place among its equals; one
that an earlier execution began keeps the time at which it began.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbdurable.errors import UsageError
from nbdurable.interrupts import uninterrupted
from nbdurable.records import TIMER_VERSION, digest_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbdurable.commit.state import State
    from nbdurable.handles.handle import StepHandle
    from nbdurable.handles.scope import Scope
    from nbdurable.records import Checkpoint

    from .scheduler import Scheduler


class Timers:
    """One execution's timers."""

    def __init__(
        self,
        state: State,
        scheduler: Scheduler,
        *,
        claim: Callable[[Scope, str, bytes], tuple[StepHandle[Any], bool]],
        replay: Callable[[StepHandle[Any], Checkpoint], bool],
    ) -> None:
        self._index = state.index
        self._scheduler = scheduler
        self._observers = state.observers
        self._claim = claim
        self._replay = replay

    def after(self, where: Scope, seconds: float, name: str) -> StepHandle[Any]:
        """Make a timer handle: done `seconds` after it was first made.

        Raises:
            UsageError: It is no number of seconds.
        """
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
            raise UsageError(f"{name}({seconds!r}): give a number of seconds, 0 or more")
        return self._timer(where, name, f"{seconds:g}", seconds=float(seconds))

    def at(self, where: Scope, until: float, shown: str) -> StepHandle[Any]:
        """Make a timer handle that is done at a time (seconds since the epoch), never re-armed."""
        return self._timer(where, "sleep", f"until={shown}", until=until)

    def _timer(
        self,
        where: Scope,
        name: str,
        shown: str,
        *,
        seconds: float = 0.0,
        until: float | None = None,
    ) -> StepHandle[Any]:
        kind, due = (b"seconds", seconds) if until is None else (b"until", until)
        handle, again = self._claim(where, name, digest_of(kind, repr(due).encode()))
        if again:
            return handle
        handle.take_version(TIMER_VERSION)
        timer = handle.life.time(seconds, until)
        handle.show_as(f"{name}({shown})")
        found = self._index.checkpoints.get(handle.pair)
        if found is not None and self._replay(handle, found):
            return handle
        self._observers.created(handle)
        if handle.life.cancelled_by_race is not None:
            return handle
        past = self._index.attempts.get(handle.pair)
        if past is not None:
            handle.life.recall(past.last, 0)
        if past is None or self._index.is_redone(handle.pair):
            with uninterrupted():
                self._scheduler.arm(handle, rearm=True)
        else:
            timer.began_at(past.started)
        return handle
