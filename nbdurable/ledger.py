"""The order of outcomes: numbers, the decisions that they close, what is durable.

Invariant: every outcome takes its number under the journal's lock and this
ledger's, in one transaction with every decision that it closes, through all
enclosing combinators. A handle becomes durable, and wakes its waiters, only after
that transaction (CONTRACT section 4).
"""

from __future__ import annotations

import heapq
import threading
from typing import TYPE_CHECKING, Any

from . import output
from .codec import sign
from .combinators import Combinator, Select
from .handles import StepHandle
from .records import Checkpoint, Decision, Kind
from .step import arguments_text
from .store import checkpoint_message, decision_message, pack

if TYPE_CHECKING:
    from collections.abc import Callable

    from .entries import Settled
    from .handles import Handle
    from .news import News
    from .store import Batch, ReplayIndex, Store


class Ledger:
    """One execution's numbers."""

    def __init__(self, store: Store, index: ReplayIndex, execution: int, news: News) -> None:
        self.lock = threading.RLock()
        self.execution = execution
        self.store = store
        self.journal = store.journal
        self.news = news
        self._next_number = index.next_number
        self._codes = set(index.code_parts)
        self._decided: set[tuple[bytes, bytes]] = set()

    def take_number(self) -> int:
        """Give the next place in the commit order. The lock is held."""
        number = self._next_number
        self._next_number += 1
        return number

    def close_over(self, first: Handle[Any], batch: Batch) -> list[Handle[Any]]:
        """End every combinator that `first` completes, decisions into `batch`. The lock is held.

        Combinators are visited in the order in which they were made: one that
        contains another was made later, so when it looks, all below is settled.
        """
        resolved: list[Handle[Any]] = [first]
        if not first.observers:
            return resolved
        ready: list[tuple[int, Combinator[Any]]] = []
        queued: set[int] = set()

        def tell(handle: Handle[Any]) -> None:
            for observer in handle.observers or ():
                assert isinstance(observer, Combinator)
                if observer.number:
                    continue
                observer.notice(handle)
                if observer.place not in queued:
                    queued.add(observer.place)
                    heapq.heappush(ready, (observer.place, observer))

        tell(first)
        while ready:
            _, observer = heapq.heappop(ready)
            queued.discard(observer.place)
            if observer.number or not observer.evaluate():
                continue
            resolved.append(observer)
            if isinstance(observer, Select) and not observer.replayed:
                self.write_decision(observer, batch)
            tell(observer)
        return resolved

    def write_decision(self, select: Select[Any], batch: Batch) -> None:
        """Add a select's decision to the transaction. The lock is held."""
        if select.chosen is None:
            return  # all failed: nothing was chosen, and the errors' numbers tell as much
        decision = Decision(
            key=select.identity,
            branches=select.set_members(),
            winner=select.chosen.identity,
            number=select.number,
            execution=self.execution,
            losers=select.losers(),
            signature=b"",
        )
        branches = pack(decision.branches)
        if (decision.key, branches) in self._decided:
            return  # another select over this set: by the numbers it has the same winner
        self._decided.add((decision.key, branches))
        batch.add(
            "decision_log",
            (
                decision.key,
                branches,
                decision.winner,
                pack(decision.losers),
                decision.number,
                decision.execution,
                select.label,
                select.chosen.label,
                self.news.clock.time(),
                sign(self.store.key, decision_message(self.store.id, decision)),
            ),
        )

    def write_checkpoint(self, settled: Settled, batch: Batch) -> None:
        """Sign a checkpoint and add it to the transaction. The lock is held."""
        handle, running, ending = settled.handle, settled.running, settled.ending
        assert handle.version is not None
        assert ending.payload is not None
        unsigned = Checkpoint(
            call=handle.call.id,
            version=handle.version.id,
            code=handle.version.code,
            namespace=handle.call.namespace,
            number=handle.number,
            execution=self.execution,
            kind=ending.kind,
            name=handle.name,
            label=handle.label_text,
            arguments=arguments_text(handle.work),
            attempt=running.number,
            started=running.started,
            seconds=handle.seconds,
            payload=ending.payload.data,
            output=output.dumps(ending.messages),
            signature=b"",
        )
        signature = sign(self.store.key, checkpoint_message(self.store.id, unsigned))
        batch.add(
            "checkpoints",
            (
                unsigned.call,
                unsigned.version,
                unsigned.code,
                unsigned.namespace,
                unsigned.number,
                unsigned.execution,
                unsigned.kind.value,
                unsigned.name,
                unsigned.label,
                unsigned.arguments,
                handle.why,
                unsigned.attempt,
                unsigned.started,
                unsigned.seconds,
                unsigned.payload,
                unsigned.output,
                signature,
            ),
        )
        handle.checkpoint = unsigned
        self._write_code(handle, batch)
        if ending.kind is Kind.ERROR and settled.in_cell:
            handle.seen = True
            batch.add("seen_errors", (*handle.pair, self.execution))

    def _write_code(self, handle: StepHandle[Any], batch: Batch) -> None:
        """Save what a code digest is made of, once, so that `why` can name what changed."""
        code = handle.work.code if handle.work is not None else None
        if code is None or code.digest in self._codes:
            return
        self._codes.add(code.digest)
        for part, digest in code.parts:
            batch.add("codes", (code.digest, part, digest))

    def make_durable(self, resolved: list[Handle[Any]]) -> None:
        """Wake whoever waits for these, and show them."""
        wakes: list[Callable[[], object]] = []
        with self.lock:
            for handle in resolved:
                handle.durable = True
                if handle.waiters:
                    wakes += handle.take_waiters()
        if self.news.heard:
            for handle in resolved:
                self.news.ended(handle)
        first = resolved[0]
        if isinstance(first, StepHandle) and first.checkpoint is not None:
            first.let_go()
        for wake in wakes:
            wake()

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
                one.broken = error
                wakes += one.take_waiters()
                stack += [above for above in one.observers or () if isinstance(above, Combinator)]
        for wake in wakes:
            wake()
