"""Handles on handles: select, race, gather and as_completed, made in program order.

Invariant: what a combinator is over belongs to this run. What lost a race in an earlier
execution is settled before anything goes by its number (CONTRACT section 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbdurable.commit.entries import Closed
from nbdurable.errors import UsageError
from nbdurable.handles.combinators import Gather, Select, flatten, refuse_twice
from nbdurable.interrupts import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from nbdurable.commit.ledger import Ledger
    from nbdurable.commit.state import State
    from nbdurable.handles.combinators import Combinator
    from nbdurable.handles.handle import Handle, Order
    from nbdurable.handles.scope import Scope

    from .cancellation import Cancellation
    from .completions import AsCompleted, Completions


class Combining:
    """One execution's combinators."""

    def __init__(
        self,
        state: State,
        ledger: Ledger,
        order: Order,
        *,
        refuse_ended: Callable[[Scope, str], None],
        cancellation: Cancellation,
        completions: Completions,
    ) -> None:
        self._state = state
        self._ledger = ledger
        self._order = order
        self._refuse_ended = refuse_ended
        self._cancellation = cancellation
        self._completions = completions

    def select(
        self,
        where: Scope,
        handles: Sequence[Any],
        *,
        success: bool = False,
        kind: type[Select[Any]] = Select,
    ) -> Select[Any]:
        """Make a select over `handles`; decided at once where the store or the numbers tell."""
        what = kind.kind.value
        self._refuse_ended(where, what)
        branches = flatten(handles, what)
        if not branches:
            raise UsageError(f"{what}() needs at least one handle: there is nothing to wait for")
        refuse_twice(branches, what)
        self._refuse_foreign(branches, what)

        def is_decided() -> bool:
            like = kind(self._order, len(self._state.handles), branches, success=success)
            return self._state.index.decision_for(like.call_id, like.set_members()) is not None

        self._cancellation.settle_below(branches, is_decided)
        with uninterrupted(), self._state.lock:
            select: Select[Any] = kind(
                self._order, len(self._state.handles), branches, success=success
            )
            self._state.handles.append(select)
            self._state.observers.combined(select, where.parent)
            stored = self._state.index.decision_for(select.call_id, select.set_members())
            if stored is not None:
                select.apply(stored)
                if select.number:
                    self._known_at_once(select)
                elif select.chosen is not None:
                    select.chosen.observed_by(select)
                return select
            select.observe()
            if select.evaluate():
                self._ledger.journal.enqueue(Closed(self._ledger, select))
        self._break_over(select)
        return select

    def gather(
        self, where: Scope, handles: Sequence[Any], *, return_exceptions: bool = False
    ) -> Gather[Any]:
        """Make a gather over `handles`, or over the values of one dict."""
        self._refuse_ended(where, "gather")
        keys = None
        if len(handles) == 1 and isinstance(handles[0], dict):
            keys, handles = tuple(handles[0]), (tuple(handles[0].values()),)
        branches = flatten(handles, "gather")
        self._refuse_foreign(branches, "gather")
        self._cancellation.settle_below(branches)
        with uninterrupted(), self._state.lock:
            gather: Gather[Any] = Gather(
                self._order,
                len(self._state.handles),
                branches,
                keys=keys,
                return_exceptions=return_exceptions,
            )
            self._state.handles.append(gather)
            self._state.observers.combined(gather, where.parent)
            if gather.call_id in self._state.index.decisions:
                stored = self._state.index.decision_for(gather.call_id, gather.set_members())
                if stored is not None:
                    gather.apply(stored)
            gather.observe()
            if gather.evaluate():
                told = gather.replayed or gather.chosen is None
                if told and all(branch.durable or not branch.number for branch in branches):
                    self._known_at_once(gather)
                else:
                    self._ledger.journal.enqueue(Closed(self._ledger, gather))
        self._break_over(gather)
        return gather

    def as_completed(self, where: Scope, handles: Sequence[Any]) -> AsCompleted:
        """Make an iterator over `handles` in the order in which they end."""
        self._refuse_ended(where, "as_completed")
        branches = flatten(handles, "as_completed")
        refuse_twice(branches, "as_completed")
        self._refuse_foreign(branches, "as_completed")
        self._cancellation.settle_below(branches)
        return self._completions.make(where, branches)

    def _break_over(self, combinator: Combinator[Any]) -> None:
        """Break a new combinator off if a branch that it needs was, before it was made."""
        for branch in combinator.branches:
            error = branch.broken
            if error is not None and not combinator.number and combinator.breaks(error):
                self._ledger.break_off(combinator, error)

    def _known_at_once(self, combinator: Combinator[Any]) -> None:
        combinator.become_durable()
        self._state.observers.ended(combinator, replayed=True)

    def _refuse_foreign(self, branches: Iterable[Handle[Any]], what: str) -> None:
        for branch in branches:
            if branch.run_of() is not self._order:
                raise UsageError(
                    f"{what}: {branch.label} belongs to another run or an earlier execution; start "
                    f"it in this one"
                )
