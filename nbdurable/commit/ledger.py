"""The order of outcomes: numbers, the decisions that they close, what is durable.

Invariant: every outcome takes its number under the journal's lock and this
ledger's, in one transaction with every decision that it closes, through all
enclosing combinators. A handle becomes durable, and wakes its waiters, only after
that transaction (CONTRACT section 4).
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nbdurable.codec.outcomes import encode_error
from nbdurable.codec.signing import sign
from nbdurable.codec.versions import as_text, packages_of
from nbdurable.errors import StepCancelledError
from nbdurable.handles.call_identity import BODY_PART, NAME_MARK, body_of
from nbdurable.handles.combinators import Combinator, Select
from nbdurable.handles.handle import StepHandle
from nbdurable.output import capture as output
from nbdurable.records import NOBODY, Checkpoint, Decision, Kind
from nbdurable.steps.attempts import Ending, Running, arguments_text
from nbdurable.store import (
    amendment_message,
    checkpoint_message,
    conclude,
    decision_message,
    pack,
    record_packages,
    remember,
)
from nbdurable.store.rows import CodeRow, DrawRow, checkpoint_row, decision_row

from .kept_evidence import KeptEvidence

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from nbdurable.handles.handle import Handle
    from nbdurable.records import Save
    from nbdurable.store import Batch, Identity

    from .state import State


class Ledger:
    """One execution's numbers."""

    def __init__(self, state: State) -> None:
        index = state.index
        self.lock = state.lock
        self.execution = state.execution
        self.store = state.store
        self.journal = state.store.journal
        self.observers = state.observers
        self.closed = False
        self.kept = KeptEvidence(index.evidence)
        self._state = state
        self._next_number = index.next_number
        self._codes = set(index.code_parts)
        self._called = {
            (code, part.removeprefix(NAME_MARK))
            for code, parts in index.code_parts.items()
            for part in parts
            if part.startswith(NAME_MARK)
        }
        self._decided: dict[tuple[bytes, bytes], tuple[int, bytes]] = {}
        self._superseded: dict[Identity, Checkpoint] = {}
        self._modules: set[str] = set()
        self._packages: dict[str, str] = {}

    def signed(self, save: Save) -> Save:
        """Return what a step has saved, as the store has it."""
        message = amendment_message(self.store.id, save)
        return replace(save, signature=sign(self.store.key, message))

    @property
    def last_number(self) -> int:
        """The number that was given last, in this execution or an earlier one."""
        return self._next_number - 1

    def close(self) -> None:
        """Assign no more numbers: the next execution may use them."""
        with self.lock:
            self.closed = True

    def end(self, handle: StepHandle[Any], ending: Ending, seconds: float) -> None:
        """End `handle` with the next number in the commit order. The lock is held."""
        handle.take_ending(self._next_number, ending, seconds)
        self._next_number += 1

    def cancel(self, handle: StepHandle[Any], batch: Batch, *, cause: int) -> bool:
        """End `handle` as cancelled; False if it has ended. The lock is held."""
        if handle.number:
            return False
        now = self.observers.clock.time()
        reason = "it lost a race" if cause else "it was cancelled"
        error = StepCancelledError(handle.label, reason)
        running = handle.life.running or Running(handle.life.last_attempt, now)
        ending = Ending(Kind.CANCELLED, error=error, payload=encode_error(error))
        ending.keep(running.capture)
        self.end(handle, ending, now - running.started)
        self.write_checkpoint(handle, ending, running, batch, cause=cause)
        return True

    def close_over(self, ended: Iterable[Handle[Any]], batch: Batch) -> list[Handle[Any]]:
        """End all that `ended` complete, decisions into `batch`. The lock is held.

        Combinators are visited in the order in which they were made: one that
        contains another was made later, so when it looks, all below is settled.
        """
        resolved: list[Handle[Any]] = []
        ready: list[tuple[int, Combinator[Any]]] = []
        queued: set[int] = set()
        untold = deque(ended)
        while untold or ready:
            if untold:
                handle = untold.popleft()
                resolved.append(handle)
                for observer in handle.observers or ():
                    if observer.number:
                        continue
                    if isinstance(observer, StepHandle):
                        if handle.ended is not Kind.VALUE:
                            observer.take_failure(handle)
                            untold.append(observer)
                        continue
                    assert isinstance(observer, Combinator)
                    observer.notice(handle)
                    if observer.place not in queued:
                        queued.add(observer.place)
                        heapq.heappush(ready, (observer.place, observer))
                continue
            _, combinator = heapq.heappop(ready)
            queued.discard(combinator.place)
            if combinator.number or not combinator.evaluate():
                continue
            untold.append(combinator)
            if not combinator.replayed:
                untold += self.decide(combinator, batch)
        return resolved

    def decide(self, combinator: Combinator[Any], batch: Batch) -> list[StepHandle[Any]]:
        """Save a combinator's decision; give what a race cancels with it. The lock is held."""
        if combinator.chosen is None:
            return []  # all have values, or all failed: the branches' numbers tell that
        self.write_decision(combinator, batch)
        if not combinator.cancels:
            return []
        losing = combinator.losing_leaves()
        return [one for one in losing if self.cancel(one, batch, cause=combinator.number)]

    def write_decision(self, combinator: Combinator[Any], batch: Batch) -> None:
        """Add which branch a combinator ended with to the transaction. The lock is held."""
        assert combinator.chosen is not None
        decision = Decision(
            key=combinator.call_id,
            branches=combinator.set_members(),
            winner=combinator.chosen.call_id,
            number=combinator.number,
            execution=self.execution,
            losers=combinator.losers(),
            signature=b"",
        )
        if not self.first_decision(decision):
            return  # another combinator over this set decided first, for the same branch
        self.add_decision(batch, decision, combinator.label, combinator.chosen.label)

    def first_decision(self, decision: Decision) -> bool:
        """Tell, once, that this execution has not decided over this set."""
        with self.lock:
            chosen = (decision.key, pack(decision.branches))
            if chosen in self._decided:
                return False
            self._decided[chosen] = decision.number, decision.winner
            return True

    def undecide(self, numbers: set[int], within: Collection[bytes]) -> None:
        """Forget what this execution decided by outcomes that are taken out. The lock is held.

        Of what as_completed left, which has no winner: what was left of calls in `within`.
        """
        lowest = min(numbers)
        for chosen, (number, winner) in tuple(self._decided.items()):
            left = winner == NOBODY and number >= lowest and chosen[1][:16] in within
            if left or number in numbers:
                del self._decided[chosen]

    def add_decision(self, batch: Batch, decision: Decision, label: str, winner: str) -> None:
        """Sign a decision and add it to the transaction."""
        now = self.observers.clock.time()
        decision = replace(decision, label=label, winner_label=winner, decided=now)
        signature = sign(self.store.key, decision_message(self.store.id, decision))
        branches, losers = pack(decision.branches), pack(decision.losers)
        batch.add(decision_row(decision, branches, losers, signature))

    def write_checkpoint(
        self,
        handle: StepHandle[Any],
        ending: Ending,
        running: Running,
        batch: Batch,
        *,
        cause: int = 0,
    ) -> None:
        """Sign a checkpoint and add it to the transaction. The lock is held."""
        assert ending.payload is not None
        call, version = handle.identity
        files, when = ending.file_parts, (running.started, handle.life.seconds)
        unsigned = Checkpoint(
            call=call,
            version=version,
            code=handle.code_digest,
            namespace=handle.namespace,
            number=handle.number,
            cause=cause,
            execution=self.execution,
            kind=ending.kind,
            name=handle.name,
            label=handle.label_text,
            arguments=arguments_text(handle.life.work),
            attempt=running.number,
            started=running.started,
            seconds=handle.life.seconds,
            payload=ending.payload.data,
            pieces=ending.payload.pieces,
            output=output.dumps(ending.messages),
            base=handle.version.base if handle.version is not None else b"",
            code_evidence=(ending.code_parts and self.kept.save(ending.code_parts, batch)) or b"",
            file_evidence=(files and self.kept.save_files(files, batch, *when)) or b"",
            signature=b"",
        )
        signature = sign(self.store.key, checkpoint_message(self.store.id, unsigned))
        batch.add(checkpoint_row(unsigned, handle.life.why, signature))
        handle.life.save(unsigned)
        if (old := self._superseded.pop(handle.identity, None)) is not None:
            conclude(batch, [old])
        if ending.draws:
            remember(batch, self.store, DrawRow(call, version, self.execution, ending.draws))
        self._write_code(handle, batch)
        self._write_packages(ending.payload.modules, batch)

    def _write_code(self, handle: StepHandle[Any], batch: Batch) -> None:
        """Save what a code digest is made of, once, so that `why` can name what changed."""
        work = handle.life.work
        code = work.code if work is not None else None
        if work is None or code is None:
            return
        saved_as = handle.code_digest
        if saved_as not in self._codes:
            self._codes.add(saved_as)
            for part, digest in (work.code_parts() or {}).items():
                batch.add(CodeRow(saved_as, part, digest))
            batch.add(CodeRow(saved_as, BODY_PART, body_of(work.function)))
        if work.called and (saved_as, work.called) not in self._called:
            self._called.add((saved_as, work.called))
            batch.add(CodeRow(saved_as, NAME_MARK + work.called, b""))

    def supersede(self, checkpoint: Checkpoint) -> None:
        """Let a saved outcome stay until its step has another."""
        with self.lock:
            self._superseded[checkpoint.call, checkpoint.version] = checkpoint

    def _write_packages(self, modules: frozenset[str], batch: Batch) -> None:
        """Save which packages outcomes need, so that `why` can name one that changed."""
        new = modules - self._modules
        if not new:
            return
        self._modules |= new
        found = packages_of(new)
        if found:
            self._packages |= found
            record_packages(batch, self.execution, as_text(self._packages))

    def make_durable(self, resolved: list[Handle[Any]]) -> None:
        """Wake whoever waits for these, and show them."""
        wakes: list[Callable[[], object]] = []
        # Wake in the order of numbers, because as_completed yields first what wakes it first.
        resolved.sort(key=lambda one: (one.number, one.place))
        with self.lock:
            for handle in resolved:
                if woken := handle.become_durable():
                    wakes += woken
        if self.observers.heard:
            for handle in resolved:
                self.observers.ended(handle)
        for handle in resolved:
            if isinstance(handle, StepHandle) and handle.life.checkpoint is not None:
                if handle.ended is Kind.CANCELLED and not handle.life.replayed:
                    self._halt(handle)
                handle.let_go()
        for wake in wakes:
            wake()
        if any(isinstance(handle, Select) for handle in resolved):
            self._state.losers.tell()

    def _halt(self, handle: StepHandle[Any]) -> None:
        """Stop a cancelled step's body, and what its body has started."""
        handle.life.halt()
        for child in self._state.children.get(handle.place, ()):
            if not child.number:
                with self.lock:
                    child.life.begin()
                self._halt(child)
                stopped = StepCancelledError(child.label, "the step that started it was cancelled")
                self.break_off(child, stopped)

    def break_off(self, handle: Handle[Any], error: BaseException) -> None:
        """Raise `error` wherever `handle`, or a combinator above it, is waited for."""
        wakes: list[Callable[[], object]] = []
        with self.lock:
            stack: list[Handle[Any]] = [handle]
            while stack:
                one = stack.pop()
                if one.durable or one.broken is not None:
                    continue
                if isinstance(one, Combinator) and one is not handle and not one.breaks(error):
                    continue
                wakes += one.break_off(error) or ()
                stack += one.observers or ()
        for wake in wakes:
            wake()
