"""Steps cancelled by their handles or by a race, and cancellations that stand or do not.

Invariant: a cancellation that a race caused stands as long as that race does, which
is as long as none of its branches is claimed with another version. The race may
come later in program order than who asks, so its losers are settled when that
becomes of interest: when one is asked for, or a combinator goes by its number
(CONTRACT sections 4 and 5). A select that the store knows nothing of shows that the
program was edited: then a race stands only if all its branches were claimed again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbdurable.commit.entries import CancellationRevoked, Cancelled, take
from nbdurable.handles.combinators import leaves_of
from nbdurable.interrupts import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nbdurable.commit.ledger import Ledger
    from nbdurable.commit.state import State
    from nbdurable.handles.handle import Handle, StepHandle
    from nbdurable.records import Checkpoint


class Cancellation:
    """One execution's cancelled steps."""

    def __init__(self, state: State, ledger: Ledger) -> None:
        self._ledger = ledger
        self._index = state.index
        self._run = state.run
        self._live = state.live
        self._unsettled: dict[int, StepHandle[Any]] = {}

    def cancel(self, handle: Handle[Any]) -> None:
        """Commit the cancellation of what has not ended at or below `handle`."""
        leaves = []
        for leaf in handle.leaves():
            if (lost := leaf.life.cancelled_by_race) is not None:
                take(self._ledger, leaf, lost)
            elif not leaf.number:
                leaves.append(leaf)
        with uninterrupted():
            self._ledger.journal.enqueue(Cancelled(self._ledger, leaves), kick=False)
            self._ledger.journal.flush()

    def lost_before(self, handle: StepHandle[Any], found: Checkpoint) -> None:
        """Keep in mind that a race of an earlier execution cancelled this step."""
        with self._ledger.lock:
            handle.life.lose_race(found)
            self._unsettled[handle.place] = handle

    def settle_below(
        self,
        branches: Sequence[Handle[Any]],
        is_decided: Callable[[], bool] = lambda: True,
    ) -> None:
        """Settle what lost a race in an earlier execution: a combinator goes by numbers.

        ``is_decided`` tells whether the store holds a decision over these branches.
        """
        if not self._unsettled:
            return
        edited = not is_decided()
        with uninterrupted():
            for leaf in leaves_of(branches):
                if leaf.life.cancelled_by_race is not None:
                    self.settle(leaf, edited=edited)
            self._ledger.journal.flush()

    def settle(self, handle: StepHandle[Any], *, edited: bool = False) -> bool:
        """End a step that lost a race, if that race stands; else False: it is to run again.

        In an ``edited`` program a race doesn't stand while a branch of it is not claimed.
        """
        with self._ledger.lock:
            found = handle.life.take_lost_race()
            self._unsettled.pop(handle.place, None)
            if found is None:
                return handle.life.started
            if self._stands(found, edited=edited):
                take(self._ledger, handle, found)
                return True
        self._ledger.journal.enqueue(CancellationRevoked(self._run, found), kick=False)
        return False

    def _stands(self, cancellation: Checkpoint, *, edited: bool) -> bool:
        race = self._index.race_of(cancellation)
        for call, version, code in race.branches if race is not None else ():
            live = self._live.get(call)
            if live is None:
                if edited:
                    return False
                continue
            known = live.version is not None and any(version)
            if live.code_digest != code or (known and live.identity[1] != version):
                return False
        return race is not None
