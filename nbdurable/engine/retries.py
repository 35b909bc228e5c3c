"""What follows when an attempt has ended: another one, or the step's outcome.

Invariant: an attempt is concluded once. What it wrote, what it was seen to do, and which
errors of its own steps it let escape are part of what follows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nbdurable.commit.entries import AttemptEnded, Settled
from nbdurable.errors import RetriesExhaustedError
from nbdurable.events import AttemptFailed
from nbdurable.evidence import covered_parts
from nbdurable.records import Kind
from nbdurable.steps.attempts import Running, backoff, explain, failure

if TYPE_CHECKING:
    from nbdurable.commit.acceptance import Acceptance
    from nbdurable.commit.entries import Passed
    from nbdurable.commit.ledger import Ledger
    from nbdurable.commit.state import State
    from nbdurable.handles.handle import StepHandle
    from nbdurable.steps.attempts import Ending
    from nbdurable.store import PastAttempts

    from .current import Current
    from .escaped import Escaped


Again = Callable[["StepHandle[Any]", float], object]
"""Starts the next attempt of a step after a wait, in seconds."""


class Retries:
    """One execution's decisions about attempts that have ended."""

    def __init__(
        self,
        state: State,
        ledger: Ledger,
        *,
        escaped: Escaped,
        current: Current,
        acceptance: Acceptance,
    ) -> None:
        self._state = state
        self._ledger = ledger
        self._journal = ledger.journal
        self._observers = state.observers
        self._clock = state.observers.clock
        self._children = state.children
        self._escaped = escaped
        self._current = current
        self._acceptance = acceptance

    def conclude(
        self,
        handle: StepHandle[Any],
        running: Running,
        ending: Ending,
        again: Again,
    ) -> None:
        """Enqueue how an attempt has ended; `again` is called if another is to follow.

        Called once for each attempt, in whatever thread it ended.
        """
        try:
            if (error := self._stopped_by(handle, ending)) is not None:
                self._ledger.break_off(handle, error)
                return
            self._conclude(handle, running, ending, again)
        except BaseException as error:  # noqa: BLE001 - a defect, raised where the step is waited for
            self._ledger.break_off(handle, error)

    def conclude_here(
        self, handle: StepHandle[Any], running: Running, *, in_cell: bool
    ) -> float | None:
        """Enqueue how an attempt of the calling thread has ended, which commits it itself.

        Returns:
            The wait before the next attempt; None where there is none.

        Raises:
            BaseException: The interrupt that it ended with.
        """
        ending = running.ending
        assert ending is not None
        if (error := self._stopped_by(handle, ending)) is not None:
            raise error
        return self._conclude(handle, running, ending, _by_caller, kick=False, in_cell=in_cell)

    def _conclude(
        self,
        handle: StepHandle[Any],
        running: Running,
        ending: Ending,
        again: Again,
        *,
        kick: bool = True,
        in_cell: bool = False,
    ) -> float | None:
        passed = self._escaped.passed_on(handle, ending.raised or ending.error)
        wait = self._wait_before_next(handle, ending, passed)
        if wait is None:
            settled = self.settled(handle, running, ending, passed, in_cell=in_cell)
            self._journal.enqueue(settled, kick=kick)
        else:
            then = functools.partial(again, handle, wait)
            self._attempt_failed(handle, running, ending, wait, passed=passed, then=then)
        return wait

    def give_up(self, handle: StepHandle[Any], past: PastAttempts) -> None:
        """End a step that was in flight at too many deaths of the kernel."""
        error = RetriesExhaustedError(handle.label, past.deaths, "the kernel died during each")
        running = Running(past.last, self._clock.time())
        self._journal.enqueue(self.settled(handle, running, failure(error, final=True), []))

    def settled(
        self,
        handle: StepHandle[Any],
        running: Running,
        ending: Ending,
        passed: list[StepHandle[Any]],
        *,
        in_cell: bool = False,
    ) -> Settled:
        """Return the entry that ends a step as its last attempt did.

        Args:
            handle: The step.
            running: Its last attempt.
            ending: How that ended.
            passed: The steps of its own whose errors it let escape.
            in_cell: Whether the code of the cell is given the error, if it is one.
        """
        ending.keep(running.capture)
        if ending.note:
            self._observers.say(ending.note)
        failures = handle.life.attempt_errors
        if ending.raised is not None and failures and ending.payload is not None:
            for line in failures:
                ending.raised.add_note(line)
            ending.encode_again(failure(ending.raised))
        if handle.place in self._children:
            self._take_evidence_of_children(handle, ending)
        beside: Passed = functools.partial(self._escaped.unsee, handles=passed)
        if ending.kind is Kind.VALUE and ending.payload is not None:
            # A body that returned a value let no error escape, so there is nothing to unsee.
            beside = self._current.drops(handle) or beside
        now = self._clock.time()
        return Settled(
            self._ledger, handle, running, ending, ended=now, escaped=beside, in_cell=in_cell
        )

    def _stopped_by(self, handle: StepHandle[Any], ending: Ending) -> BaseException | None:
        """Return what keeps an ending from being an outcome; None if nothing does.

        That is an interrupt, or the suspension of the run, which a body may have caught that
        asked for steps of its own.
        """
        if ending.interrupt:
            return ending.error
        stopped = self._acceptance.stopped
        if handle.place in stopped or handle.place in self._children:
            return self._acceptance.suspended
        return None

    def _wait_before_next(
        self, handle: StepHandle[Any], ending: Ending, passed: list[StepHandle[Any]]
    ) -> float | None:
        """Return the wait before the next attempt, or None if there is none.

        A body that let escape what a step of its own failed with in an earlier execution is
        tried again with that step, at once: it is why it runs, and takes none of its retries.
        """
        if ending.error is None or ending.final or self._state.ended:
            return None
        life = handle.life
        if _is_of_before(passed):
            life.count_anew()
            return 0.0
        assert life.work is not None
        policy = life.work.options.policy
        if life.failed_attempts >= policy.retries:
            return None
        try:
            accepted = policy.accepts(ending.raised or ending.error)
        except Exception as error:  # noqa: BLE001 - the user's predicate raises what it likes
            self._observers.say(
                f"{handle.label}: not retried, for retry_on raised {explain(error)}"
            )
            return None
        return backoff(policy, life.count_failure()) if accepted else None

    def _attempt_failed(
        self,
        handle: StepHandle[Any],
        running: Running,
        ending: Ending,
        wait: float,
        *,
        passed: list[StepHandle[Any]],
        then: Callable[[], object],
    ) -> None:
        """Save that an attempt failed; when that is committed tell it, and call `then`."""
        assert ending.error is not None
        running.capture.finished()  # the output of a failed attempt is not shown
        now = self._clock.time()
        text = explain(ending.error)
        handle.life.keep_failure(f"attempt {running.number} failed: {text}")
        event = AttemptFailed(handle.place, running.number, text, wait, now)

        def committed() -> None:
            self._observers.emit(event)
            then()

        self._journal.enqueue(
            AttemptEnded(
                self._ledger,
                handle,
                running,
                ended=now,
                error=text,
                then=committed,
                escaped=functools.partial(self._escaped.unsee, handles=passed),
                concluded=_is_of_before(passed),
            )
        )

    def _take_evidence_of_children(self, handle: StepHandle[Any], ending: Ending) -> None:
        """Let what a body ended with hold only while the outcomes of its own steps do."""
        kept, work = self._ledger.kept, handle.life.work
        ended = [
            found
            for child in self._children[handle.place]
            if (found := child.life.checkpoint) is not None and not child.life.retracted
        ]
        files = [kept.parts(digest) for digest in {one.file_evidence for one in ended}]
        ending.take_evidence(files=(part for parts in files for part in parts))
        if work is None or work.code is None or work.rules is None:
            return
        codes = [kept.parts(digest) for digest in {one.code_evidence for one in ended}]
        covered = work.code.covered.ids if work.code.covered is not None else frozenset[int]()
        for code in {one.code for one in ended}:
            functions = kept.functions(code)
            codes.append(covered_parts(functions, covered, work.rules.places))
        ending.take_evidence(codes=(part for parts in codes for part in parts))


def _by_caller(handle: StepHandle[Any], seconds: float) -> None:
    """Do nothing: the calling thread waits, and starts the next attempt itself."""


def _is_of_before(passed: list[StepHandle[Any]]) -> bool:
    """Tell whether one of these errors is of an earlier execution."""
    return any(one.life.replayed for one in passed)
