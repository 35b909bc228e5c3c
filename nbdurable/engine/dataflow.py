"""Handles as arguments: a step starts when it has received what it waits for.

Invariant: a step's version holds the digests of the outcomes that it received, by
value, so an upstream that ran again with an equal value changes nothing. A failed
upstream passes its error and its number on, and the step has no attempt (CONTRACT
sections 2 and 3).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from nbdurable.commit.entries import Closed, take
from nbdurable.executors.threads import Threads
from nbdurable.handles.handle import with_values
from nbdurable.interrupts import uninterrupted
from nbdurable.records import Kind, Version, digest_of
from nbdurable.steps.draws import draw_again

if TYPE_CHECKING:
    from nbdurable.commit.acceptance import Acceptance
    from nbdurable.commit.ledger import Ledger
    from nbdurable.commit.state import State
    from nbdurable.fingerprint import Fingerprinter
    from nbdurable.handles.handle import Handle, StepHandle

    from .cancellation import Cancellation
    from .holding import Holding
    from .results import Results
    from .scheduler import Scheduler


class Dataflow:
    """One execution's steps that wait for others."""

    def __init__(
        self,
        state: State,
        ledger: Ledger,
        prints: Fingerprinter,
        scheduler: Scheduler,
        *,
        results: Results,
        cancellation: Cancellation,
        acceptance: Acceptance,
        holding: Holding,
    ) -> None:
        self._ledger = ledger
        self._index = state.index
        self._prints = prints
        self._scheduler = scheduler
        self._results = results
        self._cancellation = cancellation
        self._acceptance = acceptance
        self._holding = holding
        self._versions: dict[bytes, Version] = {}
        self._receiving = Threads(1, "nbdurable-receive")

    def close(self) -> None:
        """Receive nothing more."""
        self._receiving.close()

    def version(self, handle: StepHandle[Any], reads: str) -> Version | None:
        """Return a step's version, or None while an upstream outcome is not there or failed.

        `reads` is the step's option: what a file that has changed does.
        """
        version = self.plain_version(handle.code, handle.upstream)
        return None if version is None else self._holding.chosen(handle, version, reads)

    def plain_version(self, code: bytes, upstream: tuple[Handle[Any], ...]) -> Version | None:
        """Return the version of a code and what it receives, whatever evidence says."""
        if not upstream:
            version = self._versions.get(code)
            if version is None:
                version = self._versions[code] = Version(code, b"", digest_of(code, b""))
            return version
        for handle in upstream:
            if not handle.durable or handle.ended is not Kind.VALUE:
                return None
        received = digest_of(*[self._outcome_digest(handle) for handle in upstream])
        return Version(code, received, digest_of(code, received))

    def await_upstream(self, handle: StepHandle[Any]) -> None:
        """Let a step wait for its arguments, or take the failure that one of them has."""
        with uninterrupted(), self._ledger.lock:
            failed = [one for one in handle.upstream if one.number and one.ended is not Kind.VALUE]
            if failed:
                handle.take_failure(min(failed, key=lambda one: (one.number, one.place)))
                self._ledger.journal.enqueue(Closed(self._ledger, handle))
                return
            open_ends = [one for one in handle.upstream if not one.durable and one.broken is None]
            distinct = {upstream.place: upstream for upstream in open_ends}.values()
            handle.life.await_upstream(len(distinct) or 1)
            for upstream in distinct:
                upstream.wake(functools.partial(self._upstream_ended, handle))
                if not upstream.number:
                    upstream.observed_by(handle)  # the step takes its failure at once
        if not self._scheduler.is_stored_loser(handle):
            for upstream in distinct:
                upstream.demand(asked=True)
        if not distinct:
            self._upstream_ended(handle)  # no upstream is open: one was broken off

    def _outcome_digest(self, handle: Handle[Any]) -> bytes:
        """Return the digest of an outcome, by value and not by pickle: equal ones are equal."""
        if handle.digest is not None:
            return handle.digest
        return handle.keep_digest(self._prints.value(handle.fresh(), handle.name).digest)

    def _upstream_ended(self, handle: StepHandle[Any]) -> None:
        """One more upstream outcome is durable; with the last one the step can start."""
        with self._ledger.lock:
            if not handle.life.one_received():
                return
        if handle.number:
            return  # the step has taken an upstream's failure, or was cancelled
        for upstream in handle.upstream:
            if upstream.broken is not None and not upstream.durable:
                self._ledger.break_off(handle, upstream.broken)
                return
        # The calling thread may be the journal's, which must not decode and digest large values.
        self._receiving.submit(functools.partial(self._receive, handle))

    def _receive(self, handle: StepHandle[Any]) -> None:
        """Learn a step's version from what its upstream gave; find its outcome or start it."""
        work = handle.life.work
        assert work is not None
        try:
            handle.take_version(self.version(handle, work.reads))
            found = self._index.checkpoints.get(handle.identity)
            found = found or self._acceptance.of(handle, work.function, work.code_parts)
            if found is not None:
                self._index.verify(found)
                if found.cause:
                    self._cancellation.lost_before(handle, found)
                elif self._results.restorable(handle, found):
                    if (states := self._index.draws.get(handle.identity)) is not None:
                        draw_again(states, (work.inputs, work.code))
                    take(self._ledger, handle, found)
                    return
            work.take_values(*with_values(work.arguments, work.keywords))
        except Exception as error:  # noqa: BLE001 - raised where the step is waited for
            self._ledger.break_off(handle, error)
            return
        with self._ledger.lock:
            handle.life.all_received()
        self._scheduler.launch(handle)
