"""as_completed: handles in the order in which they end.

Invariant: the order is that of outcome numbers, so replay gives the same. Where
numbers alone would not tell it again, a position is a decision of its own: an
outcome that was not saved has no number to come back with, and a step that waits
for its upstream may find one that is lower than what has been given. Who leaves
early makes losers of the rest, and that is a decision, too (CONTRACT sections 2
and 4).
"""

from __future__ import annotations

import functools
import heapq
import weakref
from typing import TYPE_CHECKING, Any

from nbdurable.commit.entries import LeftEarly
from nbdurable.errors import NotInRunError, UsageError
from nbdurable.executors.gates import Gate, LoopGate
from nbdurable.executors.loops import running_loop
from nbdurable.handles import scope
from nbdurable.handles.combinators import leaves_of
from nbdurable.interrupts import uninterrupted
from nbdurable.records import NOBODY, Decision, HandleKind, Kind, digest_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbdurable.commit.ledger import Ledger
    from nbdurable.commit.state import State
    from nbdurable.handles.handle import Handle, StepHandle
    from nbdurable.handles.scope import Scope
    from nbdurable.store import Batch, Identity, Member

    from .waiting import Waiting


class AsCompleted:
    """An iterator over handles, sync and async, in the order in which they end."""

    def __init__(
        self,
        completions: Completions,
        branches: tuple[Handle[Any], ...],
        where: Scope,
        late: list[StepHandle[Any]],
    ) -> None:
        self.branches = branches
        self.scope = where
        self.late = late
        self.key = digest_of(b"as_completed", *sorted(one.call_id for one in branches))
        self.left = {branch.place: branch for branch in branches}
        self.position = 0
        self.last_number = 0
        self.over = False
        self.waker: Callable[[], object] | None = None
        self._completions = completions
        self._ready: list[tuple[int, int]] = []

    def __iter__(self) -> AsCompleted:
        return self

    def __next__(self) -> Handle[Any]:
        """Wait for the next handle to end.

        Raises:
            UsageError: It would block the loop of an async cell: use ``async for``.
        """
        if self.over or not self.left:
            self.over = True
            raise StopIteration
        return self._completions.next(self)

    def __aiter__(self) -> AsCompleted:
        return self

    async def __anext__(self) -> Handle[Any]:
        """Await the next handle to end."""
        if self.over or not self.left:
            self.over = True
            raise StopAsyncIteration
        return await self._completions.next_async(self)

    def __del__(self) -> None:
        """Leave: a loop that is broken out of lets go of its iterator."""
        self._completions.leave(self)

    # --- what the run asks; its lock is held --------------------------------------

    def came(self, branch: Handle[Any]) -> None:
        """`branch` is durable, or broken off."""
        heapq.heappush(self._ready, (branch.number, branch.place))
        if self.waker is not None:
            self.waker()
            self.waker = None

    def take(self, wanted: Handle[Any] | None) -> Handle[Any] | None:
        """Return the next one, `wanted` if a decision names it; None if it has not ended."""
        if wanted is not None:
            if not wanted.durable and wanted.broken is None:
                return None
            taken = wanted
        else:
            while self._ready and self._ready[0][1] not in self.left:
                heapq.heappop(self._ready)
            if not self._ready:
                return None
            taken = self.left[heapq.heappop(self._ready)[1]]
        del self.left[taken.place]
        self.position += 1
        self.last_number = max(self.last_number, taken.number)
        return taken

    def position_key(self, position: int) -> bytes:
        """Return what the decision about a position is found under."""
        return digest_of(b"position", self.key, b"%d" % position)

    def members(self) -> tuple[Member, ...]:
        """Return call, version and code of every step below, sorted."""
        found = leaves_of(self.branches)
        return tuple(sorted((*leaf.identity, leaf.code_digest) for leaf in found))

    def losing_leaves(self) -> list[StepHandle[Any]]:
        """Return every step and timer below what is left, and below nothing that was given."""
        given = leaves_of([one for one in self.branches if one.place not in self.left])
        kept = {leaf.place for leaf in given}
        rest = leaves_of(tuple(self.left.values()))
        return [leaf for leaf in rest if leaf.place not in kept]


class Completions:
    """One execution's iterators."""

    def __init__(
        self,
        state: State,
        ledger: Ledger,
        waiting: Waiting,
    ) -> None:
        self._state = state
        self._ledger = ledger
        self._index = state.index
        self._waiting = waiting
        self._handles = state.handles
        self._made: weakref.WeakSet[AsCompleted] = weakref.WeakSet()

    def make(self, where: Scope, branches: tuple[Handle[Any], ...]) -> AsCompleted:
        """Make an iterator over `branches` in the order in which they end."""
        if any(branch.number and not branch.durable for branch in branches):
            self._ledger.journal.flush()
        late = [leaf for leaf in leaves_of(branches) if self._first_stored(leaf)]
        completion = AsCompleted(self, branches, where, late)
        with uninterrupted(), self._ledger.lock:
            for branch in branches:
                if branch.durable or branch.broken is not None:
                    completion.came(branch)
                else:
                    branch.wake(functools.partial(self._came, weakref.ref(completion), branch))
            self._made.add(completion)
        return completion

    def next(self, completion: AsCompleted) -> Handle[Any]:
        """Block until the next one has ended, and give it.

        Raises:
            UsageError: It would block the loop of an async cell.
        """
        where = scope.current.get()
        if where is not None and where.asynchronous and running_loop():
            raise UsageError(
                "as_completed: a `for` loop would block the cell's own event loop: write "
                "`async for handle in as_completed(...)`"
            )
        wanted = self._wanted(completion)
        while True:
            gate = Gate()
            taken = self._take_next(completion, wanted, gate.open)
            if taken is not None:
                return self._given(completion, taken)
            self._demand_left(completion)
            with self._waiting.slots_given():
                gate.wait()

    async def next_async(self, completion: AsCompleted) -> Handle[Any]:
        """Await that the next one has ended, and give it."""
        wanted = self._wanted(completion)
        while True:
            gate = LoopGate()
            taken = self._take_next(completion, wanted, gate.open)
            if taken is not None:
                return self._given(completion, taken)
            self._demand_left(completion)
            with self._waiting.async_slots_given():
                await gate.wait()

    def leave(self, completion: AsCompleted) -> None:
        """Make losers of what was not asked for; that is committed before anything later.

        Not for a body that has ended meanwhile: by an error, a timeout or a cancellation.
        """
        where = completion.scope
        if completion.over or self._state.ended or not where.live:
            return
        if where.parent is not None and self._handles[where.parent].number:
            return
        completion.over = True
        if not completion.left:
            return
        losing = completion.losing_leaves()
        with self._ledger.lock:
            for leaf in losing:
                leaf.life.lose()
        losers = tuple(sorted(leaf.identity for leaf in losing))
        write = self._decision(completion, completion.key, NOBODY, losers)
        if write is not None:
            self._ledger.journal.enqueue(LeftEarly(write), kick=False)
        self._state.losers.tell()

    def leave_all(self, where: Scope) -> None:
        """Leave the iterators that the code of this scope has made."""
        for completion in tuple(self._made):
            if completion.scope is where:
                self.leave(completion)

    def _came(self, completion: weakref.ref[AsCompleted], branch: Handle[Any]) -> None:
        with self._ledger.lock:
            if (found := completion()) is not None:
                found.came(branch)

    def _first_stored(self, leaf: StepHandle[Any]) -> int:
        """Return the lowest number that a step without one may still find for itself, or 0."""
        if leaf.number or leaf.kind is not HandleKind.STEP:
            return 0
        found = self._index.checkpoints.versions(leaf.call_id)
        numbers = [one.number for one in found if one.code == leaf.code_digest]
        return min(numbers, default=0)

    def _demand_left(self, completion: AsCompleted) -> None:
        """Start what is not started, but what an earlier pass left only if nothing else is left."""
        stored = None
        if completion.key in self._index.decisions:
            stored = self._index.decision_for(completion.key, completion.members())
        lost = {call for call, _ in stored.losers} if stored is not None else set()
        left = tuple(completion.left.values())
        others = [one for one in left if not all(leaf.call_id in lost for leaf in one.leaves())]
        with uninterrupted():
            for branch in others or left:
                branch.demand(asked=False, rearm=True)
        self._ledger.journal.kick()

    def _wanted(self, completion: AsCompleted) -> Handle[Any] | None:
        """Return the handle that a decision puts at this position, where there is one."""
        key = completion.position_key(completion.position)
        if key not in self._index.decisions:
            return None
        stored = self._index.decision_for(key, completion.members())
        if stored is None:
            return None
        left = completion.left.values()
        return next((one for one in left if one.call_id == stored.winner), None)

    def _take_next(
        self, completion: AsCompleted, wanted: Handle[Any] | None, waker: Callable[[], object]
    ) -> Handle[Any] | None:
        with self._ledger.lock:
            taken = completion.take(wanted)
            if taken is None:
                if self._state.ended:
                    raise NotInRunError("as_completed", "the run it belongs to has ended")
                completion.waker = waker
            return taken

    def _given(self, completion: AsCompleted, taken: Handle[Any]) -> Handle[Any]:
        """Commit the position where numbers alone will not tell it again, and give `taken`."""
        if taken.broken is not None and not taken.durable:
            raise taken.broken
        earlier = any(0 < self._first_stored(leaf) < taken.number for leaf in completion.late)
        if earlier or _not_saved(taken):
            key = completion.position_key(completion.position - 1)
            write = self._decision(completion, key, taken.call_id, ())
            if write is not None:
                self._ledger.store.commit(write)
        taken.mark_known()
        return taken

    def _decision(
        self, completion: AsCompleted, key: bytes, winner: bytes, losers: tuple[Identity, ...]
    ) -> Callable[[Batch], None] | None:
        """Return what writes a decision; None where it is there, or on its way."""
        number = completion.last_number
        members = completion.members()
        if self._index.decision_for(key, members) is not None:
            return None
        decision = Decision(key, members, winner, number, self._ledger.execution, losers, b"")
        if not self._ledger.first_decision(decision):
            return None

        def write(batch: Batch) -> None:
            self._ledger.add_decision(batch, decision, "as_completed", "")

        return write


def _not_saved(handle: Handle[Any]) -> bool:
    """Tell whether `handle` ended with what the store does not hold."""
    return any(
        leaf.ended is not None and leaf.life.checkpoint is None and leaf.source is None
        for leaf in handle.leaves()
        if leaf.ended is not Kind.CANCELLED
    )
