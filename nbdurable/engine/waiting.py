"""Waiting for handles, from threads and on loops, so that nothing waits for itself.

Invariant: who waits counts in no limit meanwhile, and a wait that would block the
loop that it needs is refused (CONTRACT section 2).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from nbdurable.errors import NotInRunError, UsageError
from nbdurable.executors.gates import Gate, LoopGate
from nbdurable.executors.loops import running_loop
from nbdurable.handles import scope
from nbdurable.handles.combinators import Combinator
from nbdurable.handles.handle import StepHandle, handles_in
from nbdurable.interrupts import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nbdurable.commit.ledger import Ledger
    from nbdurable.commit.state import State
    from nbdurable.handles.handle import Handle

    from .delivery import Delivery, Watch
    from .runner import Runner
    from .turns import Turns


class Waiting:
    """One execution's waits."""

    def __init__(
        self,
        state: State,
        ledger: Ledger,
        runner: Runner,
        delivery: Delivery,
        turns: Turns,
    ) -> None:
        self._state = state
        self._turns = turns
        self._ledger = ledger
        self._runner = runner
        self._delivery = delivery

    def wait(self, handle: Handle[Any], rest: Watch | None = None, *, show: bool = True) -> None:
        """Block the calling thread until `handle` is durable; at the end with the `rest`.

        With `show`, what `handle` will deliver is shown live meanwhile.

        Raises:
            NotInRunError: The run ended without it.
        """
        gate = Gate()
        if self._has_to_wait(handle, gate.open, asked=rest is None):
            with self.slots_given():
                if show:
                    self._delivery.wait(handle, gate, rest)
                else:
                    gate.wait()
        _awoken(handle)

    async def wait_async(self, handle: Handle[Any], rest: Watch | None = None) -> None:
        """Wait on the running loop until `handle` is durable; at the end with the `rest`.

        Tasks that await handles go on one by one, in the order of outcome numbers.
        """
        if rest is not None or handle.known:
            await self._until_durable(handle, rest)
            return
        mine = self._turns.enter(handle)
        # This task is watched from here on, so that what other tasks receive while it waits is
        # shown after its own output, live and on replay.
        with self._delivery.watch(handle) as shown:
            try:
                await self._until_durable(handle, None, shown)
                await self._turns.turn(mine)
            except asyncio.CancelledError as error:
                self._turns.cancelled(mine, error)
                raise
            finally:
                self._turns.leave(mine)
            shown.show_ended()
        _awoken(handle)

    async def _until_durable(
        self, handle: Handle[Any], rest: Watch | None, shown: Watch | None = None
    ) -> None:
        gate = LoopGate()
        if self._has_to_wait(handle, gate.open, asked=rest is None):
            with self.async_slots_given():
                if self._turns.may_time_out():
                    # Show nothing live: on replay, where the timeout has passed, nothing
                    # would be shown at this place.
                    await gate.wait()
                else:
                    await self._delivery.wait_async(handle, gate, rest, shown)
        if rest is not None or handle.broken is not None:
            _awoken(handle)

    def refuse_blocking(self, handle: Handle[Any]) -> None:
        """Refuse to block the asking code's own loop, or one that `handle` still needs.

        Raises:
            UsageError: It would; says what to write.
        """
        where = scope.current.get()
        if where is not None and where.asynchronous and not handle.known and running_loop():
            raise _would_block(handle)
        self.refuse_needed(handle)

    def refuse_unknown(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Refuse a step in place, in an async cell, one of whose arguments was not awaited.

        Raises:
            UsageError: It would wait for that one, and so block its own loop.
        """
        where = scope.current.get()
        if where is not None and where.asynchronous and running_loop():
            for received in handles_in(arguments, keywords):
                if not received.known:
                    raise _would_block(received)

    def refuse_needed(self, handle: Handle[Any]) -> None:
        """Refuse to block the loop that `handle` still needs.

        Raises:
            UsageError: It would.
        """
        loop = running_loop()
        if loop is not None and not handle.known and _needs(handle, loop):
            raise _would_block(handle)

    @contextlib.contextmanager
    def slots_given(self) -> Iterator[None]:
        """Lend the limits' room while waiting: what is waited for may need it."""
        where = scope.current.get()
        limits = tuple(where.limits) if where is not None and where.live else ()
        for limit in limits:
            limit.lend()
        try:
            with self._runner.threads.blocked():
                yield
        finally:
            for limit in limits:
                limit.take_back()

    @contextlib.contextmanager
    def async_slots_given(self) -> Iterator[None]:
        """Lend the limits' room while a task waits, and its place among those on loops."""
        with self.slots_given(), self._runner.coroutines.blocked():
            yield

    def _has_to_wait(self, handle: Handle[Any], wake: Callable[[], object], *, asked: bool) -> bool:
        """Start what is waited for; False if it has ended, else `wake` is called when it does.

        At the end of a cell, which does not ask, also when steps have lost meanwhile.
        """
        if not asked:
            self._state.losers.listen(wake)
        with uninterrupted():
            handle.demand(asked=asked)
        with self._ledger.lock:
            if handle.durable or handle.broken is not None:
                return False
            if self._state.ended:
                raise NotInRunError(
                    handle.label, "it had not ended when its run did, so nothing will end it now"
                )
            handle.wake(wake)
        # Commit queued start records now, so that a step that kills the kernel immediately still
        # shows as in flight.
        self._ledger.journal.kick()
        return True


def _awoken(handle: Handle[Any]) -> None:
    if handle.broken is not None:
        raise handle.broken
    if handle.durable:
        handle.mark_known()


def _would_block(handle: Handle[Any]) -> UsageError:
    return UsageError(
        f"waiting for {handle.label} here would block the cell's own event loop: write "
        f"`await {handle.name or 'handle'}` (`await` the handle, then ask it)"
    )


def _needs(handle: Handle[Any], loop: asyncio.AbstractEventLoop) -> bool:
    """Tell whether something at, below or upstream of `handle` still has to run on `loop`."""
    stack, visited = [handle], set()
    while stack:
        one = stack.pop()
        if one.durable or one.place in visited:
            continue
        visited.add(one.place)
        if isinstance(one, Combinator):
            stack += one.branches
        elif isinstance(one, StepHandle):
            stack += one.upstream
            work = one.life.work
            if work is not None and work.is_async and work.loop is loop:
                return True
    return False
