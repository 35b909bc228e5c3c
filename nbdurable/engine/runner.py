"""Attempts under way: opened, run in a thread, on a loop or in a worker, timed out, left.

Invariant: an attempt is concluded once, by whoever takes it from its `Running`; after the
run's end nothing starts, and nothing that still runs records anything.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

from nbdurable.commit.entries import Nothing, Started
from nbdurable.errors import NotInRunError, StepCancelledError
from nbdurable.executors.clock import Pause
from nbdurable.executors.gates import Gate
from nbdurable.executors.loops import Coroutines, LoopThread, call_in
from nbdurable.executors.threads import Threads
from nbdurable.handles import scope
from nbdurable.interrupts import uninterrupted
from nbdurable.records import RunStatus
from nbdurable.steps.attempts import Running, attempt, attempt_async, timed_out

from .remote import Sent

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbdurable.commit.ledger import Ledger
    from nbdurable.commit.state import State
    from nbdurable.executors.limits import Room
    from nbdurable.executors.remote import Pool
    from nbdurable.handles.handle import StepHandle
    from nbdurable.handles.scope import Scope
    from nbdurable.steps.attempts import Ending, Work

    from .delivery import Delivery
    from .escaped import Escaped
    from .remote import Remote
    from .retries import Retries
    from .suspects import Suspects

ASYNC_LIMIT = 100
"""How many async steps of a run are under way at once."""

STARTS_SECONDS = 0.25
"""A body that takes longer has its start committed, so that a death shows what was in flight.

After a death every start is committed before its body runs: then the step that was in
flight at the next one is known.
"""

_SENDERS = 2
"""How many threads hand bodies to workers: one more than it takes, for large arguments."""

_background = LoopThread("nbdurable-loop")


class Runner:
    """One execution's bodies."""

    def __init__(
        self,
        state: State,
        ledger: Ledger,
        retries: Retries,
        *,
        limit: int,
        scope_of: Callable[[StepHandle[Any], bool], Scope],
        delivery: Delivery,
        escaped: Escaped,
        suspects: Suspects,
        remote: Remote,
    ) -> None:
        self.threads = Threads(limit)
        self.coroutines = Coroutines(ASYNC_LIMIT)
        self._senders = Threads(_SENDERS, "nbdurable-send")
        self._state = state
        self._ledger = ledger
        self._journal = ledger.journal
        self._observers = state.observers
        self._clock = state.observers.clock
        self._retries = retries
        self._scope_of = scope_of
        self._delivery = delivery
        self._escaped = escaped
        self._suspects = suspects
        self._remote = remote
        self._starts_due = False
        self._careful = state.opened.previous is RunStatus.DIED

    def dispatch(self, handle: StepHandle[Any]) -> None:
        """Run an attempt, once each of the step's limits has room for it."""
        work = handle.life.work
        if work is not None:  # else the step was cancelled between two attempts
            self._pass_limits(handle, work, 0)

    def adopt(self, handle: StepHandle[Any], leftover: Running) -> None:
        """Take over a body that an earlier execution began and that still runs, or has ended."""
        handle.life.run(leftover)
        self._delivery.begun(handle, leftover)
        self._observers.say(
            f"{handle.label}: still ran from before; it was adopted, not started again"
        )
        if leftover.body is not None:
            # The steps that this body starts from now on belong to this execution.
            leftover.body.belong_to(self._scope_of(handle, False))
        leftover.adopt(functools.partial(self._conclude, handle, leftover))
        work = handle.life.work
        if leftover.ending is None and work is not None:
            self._time(handle, work, leftover)

    def stop_starting(self) -> None:
        """Begin no body that waits for a thread."""
        self.threads.close()
        self._senders.close()

    def close(self) -> None:
        """Stop the bodies on loops, and let workers rest."""
        self.coroutines.close()
        self._remote.close()

    def _pass_limits(self, handle: StepHandle[Any], work: Work, passed: int) -> None:
        if passed < len(work.limits):
            on = functools.partial(self._pass_limits, handle, work, passed + 1)
            work.limits[passed].take(on)
        elif work.is_async:
            perform = functools.partial(self._run_async, handle, work)
            loop = work.loop or _background.loop
            self.coroutines.submit(perform, work.context.copy(), loop, work.label)
        elif work.pool is not None:
            self._senders.submit(functools.partial(self._run_outside, handle, work, work.pool))
        else:
            self.threads.submit(functools.partial(self._run_in_thread, handle, work))

    # --- an attempt ---------------------------------------------------------------

    def _open(self, handle: StepHandle[Any]) -> Running:
        self._escaped.take_out_below(handle)
        running = Running(handle.life.last_attempt + 1, self._clock.time())
        running.adopt(functools.partial(self._conclude, handle, running))
        handle.life.run(running)
        self._delivery.begun(handle, running)
        self._journal.enqueue(Started(handle, running, self._state.execution), kick=False)
        if self._careful:
            self._journal.flush()
        elif not self._starts_due:
            self._starts_due = True
            self._clock.call_later(STARTS_SECONDS, self._write_starts)
        deaths = self._suspects.deaths_of(handle)
        self._observers.attempt_started(handle, running.number, running.started, deaths)
        return running

    def _write_starts(self) -> None:
        self._starts_due = False
        if not self._state.ended:
            self._journal.enqueue(Nothing())

    def _enter(self, handle: StepHandle[Any], work: Work, *, asynchronous: bool) -> Scope | None:
        """Return where a body stands that has its room; None if it is not to run any more."""
        body = self._scope_of(handle, asynchronous)
        body.count_in(work.limits)
        if self._state.ended or handle.number:
            body.give_limits()
            return None
        return body

    def _fail(self, handle: StepHandle[Any], running: Running, error: BaseException) -> None:
        """Break a step off whose attempt failed by a defect: no re-run must wait for its ending."""
        running.fence()
        self._ledger.break_off(handle, error)

    def _run_in_thread(self, handle: StepHandle[Any], work: Work) -> None:
        """Run one attempt on a thread of the run."""
        body = self._enter(handle, work, asynchronous=False)
        if body is None:
            return
        running = self._open(handle)
        body.perform(running)
        running.stands_in(body, functools.partial(self._let_go, body))
        # Each attempt gets a copy of the context, because an attempt that timed out may still
        # run in its own.
        context = work.context.copy()
        context.run(scope.stand_in, body)
        self._time(handle, work, running)
        was_let_go = False
        try:
            ending = attempt(work, running.capture, context)
            was_let_go = not body.live
            body.leave()
            running.end(ending)
        except BaseException as error:  # noqa: BLE001 - a defect, raised where the step is waited for
            self._fail(handle, running, error)
        finally:
            # Make room only now that the ending is enqueued: the next body comes after it.
            body.end()
            if was_let_go:
                self.threads.came_back()

    async def _run_async(self, handle: StepHandle[Any], work: Work) -> None:
        """Run one attempt in this task."""
        body = self._enter(handle, work, asynchronous=True)
        if body is None:
            return
        running = self._open(handle)
        body.perform(running)
        task = asyncio.current_task()
        assert task is not None
        running.stopped_by(functools.partial(self._stop_task, body, task))
        token = scope.stand_in(body)
        try:
            try:
                ending = await attempt_async(work, running.capture)
            finally:
                body.leave()
                scope.current.reset(token)
            running.end(ending)
        except BaseException as error:  # noqa: BLE001 - a defect, raised where the step is waited for
            self._fail(handle, running, error)
        finally:
            body.end()

    def _run_outside(self, handle: StepHandle[Any], work: Work, pool: Pool) -> None:
        """Send one attempt to a worker."""
        body = self._enter(handle, work, asynchronous=False)
        if body is None:
            return
        try:
            running = self._open(handle)
            body.perform(running)
            sent = Sent(running, body, pool, functools.partial(self._time, handle, work, running))
            running.stands_in(body, sent.stop)
            self._remote.attempt(handle, work, sent)
        except BaseException as error:  # noqa: BLE001 - a defect, or a store that can't be written
            if handle.life.running is not None:
                handle.life.running.fence()
            self._ledger.break_off(handle, error)
            body.end()

    def run_here(self, handle: StepHandle[Any], work: Work, *, in_cell: bool) -> None:
        """Run attempts in the calling thread until one ends the step, and commit that."""
        while True:
            with uninterrupted():
                running = self._open(handle)
                running.fence()  # this thread takes the ending itself
            body = self._scope_of(handle, False)
            body.perform(running)
            body.count_in(self._room_for(work))
            context = work.context.copy()
            context.run(scope.stand_in, body)
            try:
                with self._delivery.here(handle, running):
                    running.end(attempt(work, running.capture, context))
                body.leave()
                wait = self._retries.conclude_here(handle, running, in_cell=in_cell)
            finally:
                body.end()
            self._journal.flush()
            if wait is None:
                break
            if handle.broken is not None:
                raise handle.broken
            self._pause(handle, wait)
            if handle.number:  # the step was cancelled during the wait
                break
        if not handle.number and handle.broken is None:
            raise NotInRunError(handle.label, "the run it belongs to ended while its body ran")

    # --- its time and its end -------------------------------------------------------

    def _time(self, handle: StepHandle[Any], work: Work, running: Running) -> None:
        """Let an attempt run into its timeout: from its start, or, in a worker, from now."""
        if work.options.timeout is not None:
            since = running.started if work.pool is None else self._clock.time()
            left = since + work.options.timeout - self._clock.time()
            expire = functools.partial(self._expire, handle, running)
            running.times_out_by(self._clock.call_later(left, expire))

    def _expire(self, handle: StepHandle[Any], running: Running) -> None:
        if running.fence():
            work = handle.life.work
            assert work is not None
            if running.body is not None:
                running.body.leave()  # the body can start nothing from here on
            self._conclude(handle, running, timed_out(work))
            running.stop()

    @staticmethod
    def _room_for(work: Work) -> tuple[Room, ...]:
        """Wait in the calling thread until each of the step's limits has room."""
        for limit in work.limits:
            gate = Gate()
            limit.take(gate.open)
            gate.wait()
        return work.limits

    def _let_go(self, body: Scope) -> None:
        """Leave a thread's body to itself: it can start nothing, and another gets its slot."""
        body.end()
        self.threads.let_go()

    @staticmethod
    def _stop_task(body: Scope, task: asyncio.Task[Any]) -> None:
        """Cancel an async body: while it ends it can start nothing."""
        body.leave()
        call_in(task.get_loop(), task.cancel)

    def _conclude(self, handle: StepHandle[Any], running: Running, ending: Ending) -> None:
        self._retries.conclude(handle, running, ending, self._go_on_after)

    # --- between two attempts -------------------------------------------------------

    def _pause(self, handle: StepHandle[Any], seconds: float) -> None:
        """Wait in the calling thread before the next attempt.

        Raises:
            StepCancelledError: The step that started this one was cancelled meanwhile.
        """
        gate = Gate()
        pause = Pause(self._clock, seconds, gate.open, dropped=gate.open)
        handle.life.pause_for(pause)
        if handle.number:
            pause.drop()  # the step was cancelled before others could see this pause
        try:
            gate.wait()
        except BaseException:  # an interrupt, too, ends the wait
            pause.drop()
            raise
        finally:
            handle.life.go_on()
        if pause.was_dropped and not handle.number:
            raise StepCancelledError(handle.label, "the step that started it was cancelled")

    def _go_on_after(self, handle: StepHandle[Any], seconds: float) -> None:
        """Start the next attempt on a thread, or on the loop, after a wait."""

        def again() -> None:
            handle.life.go_on()
            self.dispatch(handle)

        pause = Pause(self._clock, seconds, again)
        handle.life.pause_for(pause)
        if handle.number:
            pause.drop()
        if pause.over and handle.life.pause is pause:
            handle.life.go_on()  # the pause ended before it was kept: forget it now
