"""Timers of the cell and of bodies: claimed as calls are, armed, or kept for who asks.

Invariant: a timer's identity is what it was asked for, and its place among its equals; one
that an earlier execution began keeps the time at which it began.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from nbdurable.codec.values import encode
from nbdurable.commit.entries import Started
from nbdurable.errors import UsageError
from nbdurable.interrupts import uninterrupted
from nbdurable.records import REASONS, TIMER_VERSION, Kind, Why, digest_of
from nbdurable.steps.attempts import Ending, Running

if TYPE_CHECKING:
    from nbdurable.commit.ledger import Ledger
    from nbdurable.commit.state import State
    from nbdurable.handles.handle import StepHandle
    from nbdurable.handles.scope import Scope

    from .claims import Claims
    from .replays import Replays
    from .retries import Retries
    from .suspects import Suspects


class Timers:
    """One execution's timers."""

    def __init__(
        self,
        state: State,
        ledger: Ledger,
        *,
        claims: Claims,
        replays: Replays,
        retries: Retries,
        suspects: Suspects,
    ) -> None:
        self._state = state
        self._journal = ledger.journal
        self._clock = state.observers.clock
        self._index = state.index
        self._claims = claims
        self._replays = replays
        self._retries = retries
        self._suspects = suspects

    def after(self, where: Scope, seconds: float, name: str = "after") -> StepHandle[Any]:
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
        handle, again = self._claims.claim_timer(where, name, digest_of(kind, repr(due).encode()))
        if again:
            return handle
        handle.take_version(TIMER_VERSION)
        timer = handle.life.time(seconds, until)
        handle.show_as(f"{name}({shown})")
        found = self._index.checkpoints.get(handle.identity)
        if found is not None and self._replays.replay(handle, found):
            return handle
        self._state.observers.created(handle)
        if handle.life.cancelled_by_race is not None:
            return handle
        past = self._index.attempts.get(handle.identity)
        if past is not None:
            handle.life.recall(past.last, 0)
        if past is None or self._index.is_redone(handle.identity):
            with uninterrupted():
                self.arm(handle, rearm=True)
        else:
            timer.began_at(past.started)
        return handle

    def arm(self, handle: StepHandle[Any], *, rearm: bool) -> None:
        """Let a timer count: from now, or to the time that was recorded for it."""
        with self._state.lock:
            life, timer = handle.life, handle.life.timer
            if self._state.ended or timer is None or not life.begin():
                return
        self._suspects.hold_nobody_back()
        now = self._clock.time()
        started, anew = timer.arm(now, rearm=rearm)
        running = Running(life.last_attempt + anew, started)
        life.run(running)
        why = Why.NEW if running.number == 1 else Why.UNFINISHED
        life.runs_because(REASONS[Why.REDO if self._index.is_redone(handle.identity) else why])
        self._journal.enqueue(Started(handle, running, self._state.execution))
        self._state.observers.attempt_started(handle, running.number, now)
        assert timer.wake_time is not None
        fire = functools.partial(self._fire, handle, running)
        timer.counts(self._clock.call_later(timer.wake_time - now, fire))

    def _fire(self, handle: StepHandle[Any], running: Running) -> None:
        if not self._state.ended and not handle.number:
            running.finish()
            ending = Ending(Kind.VALUE, payload=encode(None))
            self._journal.enqueue(self._retries.settled(handle, running, ending, []))
