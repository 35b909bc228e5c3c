"""Steps that were in flight when the kernel died: they run alone, and at last not again.

Invariant: a step is a suspect by what the store said when the execution began.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbdurable.executors.limits import SharedLock

if TYPE_CHECKING:
    from nbdurable.commit.state import State
    from nbdurable.executors.limits import Room
    from nbdurable.handles.handle import StepHandle
    from nbdurable.steps.attempts import Work
    from nbdurable.store import PastAttempts

MOST_DEATHS = 5
"""A step that was in flight at so many deaths of the kernel is not tried again by itself."""


class Suspects:
    """One execution's suspected steps."""

    def __init__(self, state: State) -> None:
        self._attempts = state.index.attempts
        self._observers = state.observers
        self._suspects = state.index.suspects()
        self._sharing = SharedLock()

    def room_of(self, handle: StepHandle[Any], work: Work) -> tuple[Room, ...]:
        """Return the lock for a step that is about to be claimed: suspects run alone.

        So nothing else can be what kills the kernel. What runs outside the kernel is not what
        kills it, and needs no lock.
        """
        if not self._suspects or work.pool is not None:
            return ()
        if handle.identity not in self._suspects:
            return (self._sharing.many,)
        deaths = self.deaths_of(handle)
        self._observers.say(
            f"{handle.label} was in flight at each of {deaths} deaths of the kernel: it runs alone "
            f"while nothing is timed"
        )
        return (self._sharing.alone,)

    def hold_nobody_back(self) -> None:
        """Let nothing run alone: a timer or a timeout counts, and would pass meanwhile."""
        if self._suspects:
            self._sharing.open()

    def deaths_of(self, handle: StepHandle[Any]) -> int:
        """Return at how many deaths of the kernel a suspect was in flight; of others, 0."""
        if not self._suspects or handle.identity not in self._suspects:
            return 0
        return self._attempts[handle.identity].deaths

    def condemned(self, handle: StepHandle[Any]) -> PastAttempts | None:
        """Return the attempts of a step that the kernel died of too often; None of any other."""
        past = self._attempts.get(handle.identity)
        work = handle.life.work
        outside = work is not None and work.pool is not None
        return None if past is None or past.deaths < MOST_DEATHS or outside else past
