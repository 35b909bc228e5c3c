"""Errors that code has been given, and what becomes of them when they escape from it.

Invariant: a body that lets the error of a step of its own escape has not seen it. In the
transaction that says how the attempt ended the error counts as unseen again, and before
another attempt of that body all errors below it that nobody has seen are taken out, with
what they decided (CONTRACT section 5).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from nbdurable.handles.combinators import Combinator
from nbdurable.handles.handle import StepHandle
from nbdurable.interrupts import SuspendedError, uninterrupted
from nbdurable.records import Kind, RunStatus
from nbdurable.store import conclude, undo, unsee

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nbdurable.commit.ledger import Ledger
    from nbdurable.commit.reasons import Reasons
    from nbdurable.commit.state import State
    from nbdurable.errors import DurableError
    from nbdurable.handles.handle import Handle
    from nbdurable.records import Checkpoint
    from nbdurable.store import Batch, Identity


class Escaped:
    """One execution's errors, by whom they were given to."""

    def __init__(self, state: State, ledger: Ledger, reasons: Reasons) -> None:
        self.lock = state.lock
        self._children = state.children
        self._ledger = ledger
        self._index = state.index
        self._reasons = reasons
        self._run = state.run
        self._given: dict[int, tuple[BaseException, list[StepHandle[Any]]]] = {}

    def given(self, error: BaseException, handle: StepHandle[Any]) -> None:
        """Take note that code is about to be given the error of `handle`."""
        # A parent can end with the same error object as its child: then the error is of both.
        _, ended_with_it = self._given.setdefault(id(error), (error, []))
        ended_with_it.append(handle)

    def listed(self, error: BaseException | None) -> list[Identity]:
        """Return the cell's steps whose errors are in an exception's causes, contexts, groups.

        What these have passed on is tried again with them.
        """
        return list(dict.fromkeys(one.identity for one in self._in(error) if one.parent is None))

    def passed_on(
        self, parent: StepHandle[Any], error: BaseException | None
    ) -> list[StepHandle[Any]]:
        """Return the steps that a body has started whose errors it let escape with `error`."""
        if error is None or parent.place not in self._children:
            return []
        found = dict.fromkeys(self._in(error))
        return [handle for handle in found if handle.parent == parent.place]

    def unsee(self, batch: Batch, handles: Iterable[StepHandle[Any]]) -> None:
        """Add to a transaction that these errors have not been seen. The run's lock is held."""
        saved = []
        for handle in handles:
            handle.life.unsee()
            if handle.life.checkpoint is not None:
                saved.append(handle.identity)
        if saved:
            unsee(batch, saved)

    def take_out_below(self, parent: StepHandle[Any]) -> None:
        """Take out what nobody has seen below a step that is about to be attempted again."""
        if parent.place not in self._children:
            return
        with uninterrupted():
            # Flush first: in a transaction statements come before rows, and the statements of
            # this entry have to find the rows that were enqueued before it.
            self._ledger.journal.flush()
            self._ledger.journal.enqueue(_TakenOut(self, parent), kick=False)
            self._ledger.journal.flush()

    def take_out_lost(self, handle: StepHandle[Any]) -> None:
        """Take out the error that a loser has had, now that it is asked for and starts."""
        if handle.identity not in self._index.unseen:
            return
        found = self._index.checkpoints.get(handle.identity)
        if found is None:
            return
        with uninterrupted():
            self._ledger.journal.enqueue(_Begun(found), kick=False)
            self._ledger.journal.flush()
        with self.lock:
            self._index.unseen.discard(handle.identity)
            self._index.forget([found], frozenset())

    def take_out(self, batch: Batch, parent: StepHandle[Any]) -> None:
        """Let go of the errors below a step that nobody has seen. The run's lock is held."""
        below = list(self._below(parent.place))
        taken = [one for one in below if _is_unseen(one)]
        if not taken:
            return
        numbers = {one.number for one in taken}
        # Steps come in the order of their numbers, because a cancellation can itself have won a
        # race, which then goes with it.
        for one in below:
            found = one.life.checkpoint
            if found is not None and found.cause in numbers:
                numbers.add(one.number)
                taken.append(one)
        gone = {one.place for one in taken}
        passing = [one for one in below if one.source is not None]
        taken += [one for one in passing if not gone.isdisjoint(_origins(one))]
        for one in taken:
            one.life.retract()
        for one in below:
            one.life.lose_no_more()
        self._write(
            batch, [found for one in taken if (found := one.life.checkpoint) is not None], below
        )

    def _write(
        self, batch: Batch, found: list[Checkpoint], below: Iterable[StepHandle[Any]]
    ) -> None:
        if not found:
            return
        checkpoints = self._index.with_consequences(found)
        within = frozenset(one.call_id for one in below)
        undo(batch, self._run, checkpoints, within)
        conclude(batch, checkpoints)
        self._ledger.undecide({one.number for one in checkpoints}, within)
        self._index.forget(checkpoints, within)
        self._reasons.retried((one.call, one.version) for one in checkpoints)

    def _in(self, error: BaseException | None) -> Iterator[StepHandle[Any]]:
        stack, visited = [error], set()
        while stack:
            one = stack.pop()
            if one is None or id(one) in visited:
                continue
            visited.add(id(one))
            if id(one) in self._given:
                yield from self._given[id(one)][1]
            stack += [one.__cause__, one.__context__]
            if isinstance(one, BaseExceptionGroup):
                stack += one.exceptions

    def _below(self, place: int) -> Iterator[StepHandle[Any]]:
        """Yield the steps that a body has started, and those below what nobody has seen."""
        stack = [place]
        while stack:
            for child in self._children.get(stack.pop(), ()):
                if not child.life.retracted:
                    yield child
                    if _is_unseen(child):
                        stack.append(child.place)


class _TakenOut:
    """What is tried again with the body that let it escape."""

    def __init__(self, escaped: Escaped, parent: StepHandle[Any]) -> None:
        self._escaped = escaped
        self._parent = parent

    def write(self, batch: Batch) -> None:
        """Take it out."""
        with self._escaped.lock:
            self._escaped.take_out(batch, self._parent)

    def committed(self) -> None:
        """Nobody waits: the attempt begins in the same thread."""

    def failed(self, error: DurableError) -> None:
        """Nobody waits: the attempt's outcome fails too."""


class _Begun:
    """A loser's error, which is tried again; it has decided nothing."""

    def __init__(self, found: Checkpoint) -> None:
        self._found = found

    def write(self, batch: Batch) -> None:
        """Take it out."""
        conclude(batch, [self._found])

    def committed(self) -> None:
        """Nobody waits: the attempt begins in the same thread."""

    def failed(self, error: DurableError) -> None:
        """Nobody waits: the attempt's outcome fails too."""


def _is_unseen(handle: StepHandle[Any]) -> bool:
    unseen = handle.ended is Kind.ERROR and not handle.life.seen and handle.source is None
    return unseen and handle.durable


def _origins(handle: StepHandle[Any]) -> Iterator[int]:
    """Yield the places of the steps whose failures a step has passed on."""
    stack: list[Handle[Any]] = [handle]
    while stack:
        one = stack.pop()
        if isinstance(one, StepHandle):
            if one.source is not None:
                stack.append(one.source)
            else:
                yield one.place
        elif isinstance(one, Combinator):
            stack += one.branches if one.chosen is None else (one.chosen,)


def status_of(error: BaseException | None) -> RunStatus:
    """Return how an execution ended by the error that escaped from it, None for none."""
    if error is None:
        return RunStatus.FINISHED
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError | SuspendedError):
        return RunStatus.INTERRUPTED
    return RunStatus.FAILED
