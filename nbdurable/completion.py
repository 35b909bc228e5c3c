"""as_completed: handles in the order in which they end.

Invariant: the order is that of outcome numbers, so replay gives the same. An
outcome that was not saved has no number to come back with: its position is a
decision of its own. Who leaves early makes losers of the rest, and that is a
decision, too (CONTRACT sections 2 and 4).
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, Protocol

from .combinators import leaves_of
from .handles import Handle, StepHandle, digest_of
from .records import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from .scope import Scope
    from .store import Member


class CompletionOrder(Protocol):
    """What as_completed needs of its run."""

    def next_completed(self, completion: AsCompleted) -> Handle[Any]:
        """Block until the next one has ended, and give it."""

    async def next_completed_async(self, completion: AsCompleted) -> Handle[Any]:
        """Await that the next one has ended, and give it."""

    def leave(self, completion: AsCompleted) -> None:
        """Commit that nobody asks for the rest."""


class AsCompleted:
    """An iterator over handles, sync and async, in the order in which they end."""

    def __init__(
        self,
        order: CompletionOrder,
        branches: tuple[Handle[Any], ...],
        scope: Scope,
        late: list[StepHandle[Any]],
    ) -> None:
        self.branches = branches
        self.scope = scope
        self.late = late
        self.identity = digest_of(b"as_completed", *sorted(one.identity for one in branches))
        self.left = {branch.place: branch for branch in branches}
        self.position = 0
        self.last_number = 0
        self.over = False
        self.waker: Callable[[], object] | None = None
        self._order = order
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
        return self._order.next_completed(self)

    def __aiter__(self) -> AsCompleted:
        return self

    async def __anext__(self) -> Handle[Any]:
        """Await the next handle to end."""
        if self.over or not self.left:
            self.over = True
            raise StopAsyncIteration
        return await self._order.next_completed_async(self)

    def __del__(self) -> None:
        """Leave: a loop that is broken out of lets go of its iterator."""
        self._order.leave(self)

    # --- what the run asks; its lock is held --------------------------------------

    def came(self, branch: Handle[Any]) -> None:
        """`branch` is durable, or broken off."""
        heapq.heappush(self._ready, (branch.number, branch.place))
        if self.waker is not None:
            self.waker()
            self.waker = None

    def take(self, wanted: Handle[Any] | None) -> Handle[Any] | None:
        """Give the next one, `wanted` if a decision names it; None if it has not ended."""
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

    def position_key(self) -> bytes:
        """Give what the decision about this position is found under."""
        return digest_of(b"position", self.identity, b"%d" % self.position)

    def members(self) -> tuple[Member, ...]:
        """Give call, version and code of every step below, sorted."""
        found = leaves_of(self.branches)
        return tuple(sorted((*leaf.pair, leaf.code_digest) for leaf in found))

    def losing_leaves(self) -> list[StepHandle[Any]]:
        """Give every step and timer below what is left, and below nothing that was given."""
        given = leaves_of([one for one in self.branches if one.place not in self.left])
        kept = {leaf.place for leaf in given}
        rest = leaves_of(tuple(self.left.values()))
        return [leaf for leaf in rest if leaf.place not in kept]


def not_saved(handle: Handle[Any]) -> bool:
    """Tell whether `handle` ended with what the store does not hold."""
    return any(
        leaf.ended is not None and leaf.checkpoint is None and leaf.source is None
        for leaf in handle.leaves()
        if leaf.ended is not Kind.CANCELLED
    )
