"""Steps whose outcome is in the store: verified, and given back without running anything.

Invariant: nothing of an outcome is used before its signature holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbdurable.records import Kind

if TYPE_CHECKING:
    from nbdurable.commit.ledger import Ledger
    from nbdurable.commit.state import State
    from nbdurable.handles.handle import StepHandle
    from nbdurable.records import Checkpoint

    from .cancellation import Cancellation
    from .delivery import Delivery
    from .results import Results


class Replays:
    """One execution's replayed steps and timers."""

    def __init__(
        self,
        state: State,
        ledger: Ledger,
        results: Results,
        cancellation: Cancellation,
        delivery: Delivery,
    ) -> None:
        self._state = state
        self._ledger = ledger
        self._results = results
        self._cancellation = cancellation
        self._delivery = delivery

    def replay(self, handle: StepHandle[Any], found: Checkpoint) -> bool:
        """Replay a checkpoint; False if that is not what the step has ended with any more."""
        if found.kind is Kind.CANCELLED:
            if found.code != handle.code_digest:
                return False  # it was cancelled before its version was known; the code changed
            if found.cause:
                self._state.index.verify(found)
                self._cancellation.lost_before(handle, found)
                return False
        return self._replay(handle, found)

    def _replay(self, handle: StepHandle[Any], found: Checkpoint) -> bool:
        handle.show_as(found.label)
        try:
            self._state.index.verify(found)
            restorable = self._results.restorable(handle, found)
        except BaseException as error:
            self._state.observers.created(handle)
            self._ledger.break_off(handle, error)
            raise
        if not restorable:
            return False
        self._state.observers.created(handle)
        with self._state.lock:
            handle.take_checkpoint(found)
            handle.become_durable()
        self._state.observers.replayed(handle)
        self._delivery.replayed(handle)
        return True
