"""Bodies under way: started, retried, timed out, adopted, stopped.

Invariant: an attempt is concluded once, by whoever takes it from its `Running`;
after the run's end nothing starts, and nothing that still runs records anything.
"""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

from nbdurable.codec.values import encode
from nbdurable.commit.entries import AttemptEnded, Nothing, Settled, Started
from nbdurable.errors import (
    EncodeError,
    NotInRunError,
    RetriesExhaustedError,
    StepCancelledError,
    UsageError,
)
from nbdurable.events import AttemptFailed, StepDeferred, StepLetGo
from nbdurable.evidence import covered_parts
from nbdurable.executors.clock import Pause
from nbdurable.executors.gates import Gate
from nbdurable.executors.limits import SharedLock
from nbdurable.executors.loops import Coroutines, LoopThread, call_in
from nbdurable.executors.threads import Threads
from nbdurable.handles import scope
from nbdurable.handles.handle import StepHandle
from nbdurable.interrupts import SuspendedError, uninterrupted
from nbdurable.records import Kind, RunStatus, Why
from nbdurable.steps.attempts import (
    Ending,
    Running,
    attempt,
    attempt_async,
    backoff,
    explain,
    failure,
    is_async,
    timed_out,
)

from .remote import Remote, Sent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nbdurable.commit.acceptance import Acceptance
    from nbdurable.commit.entries import Passed
    from nbdurable.commit.ledger import Ledger
    from nbdurable.commit.reasons import Reasons
    from nbdurable.commit.state import State
    from nbdurable.executors.limits import Room
    from nbdurable.executors.remote import Pool
    from nbdurable.handles.handle import Handle
    from nbdurable.handles.scope import Scope
    from nbdurable.steps.attempts import Work
    from nbdurable.steps.options import RunSettings, StepOptions

    from .current import Current
    from .delivery import Delivery
    from .escaped import Escaped

ASYNC_LIMIT = 100
"""How many async steps of a run are under way at once."""

MOST_DEATHS = 5
"""A step that was in flight at so many deaths of the kernel is not tried again by itself."""

STARTS_SECONDS = 0.25
"""A body that takes longer has its start committed, so that a death shows what was in flight.

After a death every start is committed before its body runs: then the step that was in
flight at the next one is known.
"""

_SENDERS = 2
"""How many threads hand bodies to workers: one more than it takes, for large arguments."""

_background = LoopThread("nbdurable-loop")


class Scheduler:
    """One execution's attempts."""

    def __init__(
        self,
        state: State,
        ledger: Ledger,
        reasons: Reasons,
        *,
        settings: RunSettings,
        scope_of: Callable[[StepHandle[Any], bool], Scope],
        delivery: Delivery,
        escaped: Escaped,
        current: Current,
        acceptance: Acceptance,
    ) -> None:
        self.threads = Threads(settings.limit)
        self.coroutines = Coroutines(ASYNC_LIMIT)
        self.ended = False
        self._ledger = ledger
        self._journal = ledger.journal
        self._observers = state.observers
        self._clock = state.observers.clock
        self._index = state.index
        self._children = state.children
        self._reasons = reasons
        self._leftovers = state.leftovers
        self._scope_of = scope_of
        self._delivery = delivery
        self._escaped = escaped
        self._current = current
        self._acceptance = acceptance
        self._remote = Remote(ledger, current, settings)
        self._senders = Threads(_SENDERS, "nbdurable-send")
        self._slots = settings.slots
        self._everywhere = settings.executor
        self._starts_due = False
        self._careful = state.opened.previous is RunStatus.DIED
        self._sharing = SharedLock()
        self._suspects = state.index.suspects()

    # --- starting -----------------------------------------------------------------

    def launch(self, handle: StepHandle[Any]) -> None:
        """Start, adopt or defer a step that has no checkpoint."""
        if not handle.life.startable or self.ended:
            return
        if self.is_stored_loser(handle) and not handle.asked:
            with self._ledger.lock:
                handle.life.defer()
            self._observers.emit(StepDeferred(handle.place, self._clock.time()))
            return
        self.start(handle)

    def is_stored_loser(self, handle: StepHandle[Any]) -> bool:
        """Tell whether a stored decision made this step a loser."""
        return self._index.lost(handle.pair, handle.code_digest)

    def room_of(self, handle: StepHandle[Any]) -> tuple[Room, ...]:
        """Return what a step needs room in besides its limits: a worker, and to be alone.

        A step that was in flight when kernels died runs alone, so that nothing else can be
        what kills the kernel.
        """
        work = handle.life.work
        pool = work.pool if work is not None else None
        room = pool.room(self._slots) if pool is not None else None
        workers: tuple[Room, ...] = () if room is None else (room,)
        if not self._suspects or pool is not None:
            return workers  # what runs outside the kernel is not what kills it
        if handle.pair not in self._suspects:
            return (self._sharing.many,)
        deaths = self._index.attempts[handle.pair].deaths
        self._observers.say(
            f"{handle.label} was in flight at each of {deaths} deaths of the kernel: it runs alone "
            f"while nothing is timed"
        )
        return (self._sharing.alone,)

    def hold_nobody_back(self) -> None:
        """Let nothing run alone: a timer or a timeout counts, and would pass meanwhile."""
        if self._suspects:
            self._sharing.open()

    def given_up(self, handle: StepHandle[Any]) -> bool:
        """End a step that was in flight at too many deaths; False if it may be tried again."""
        past = self._index.attempts.get(handle.pair)
        work = handle.life.work
        outside = work is not None and work.pool is not None
        if past is None or past.deaths < MOST_DEATHS or outside:
            return False
        error = RetriesExhaustedError(handle.label, past.deaths, "the kernel died during each")
        running = Running(past.last, self._clock.time())
        self._journal.enqueue(self._settled(handle, running, failure(error, final=True), []))
        return True

    def start(self, handle: StepHandle[Any]) -> None:
        """Start a step's first attempt of this execution, or adopt one that still runs."""
        with self._ledger.lock:
            if self.ended or not handle.life.begin():
                return
            handle.stand_for_itself()
            leftover = self._usable(self._leftovers.pop(handle.pair, None))
        try:
            self._recall(handle)
        except SuspendedError as error:
            self._ledger.break_off(handle, error)
            return
        if leftover is None:
            if not self.given_up(handle):
                self._dispatch(handle)
            return
        handle.life.run(leftover)
        self._delivery.begun(handle, leftover)
        self._observers.say(
            f"{handle.label}: still ran from before; it was adopted, not started again"
        )
        if leftover.body is not None:
            # What it starts from now on belongs to this execution.
            mine = self._scope_of(handle, False)
            leftover.body.run, leftover.body.parent = mine.run, mine.parent
        leftover.adopt(functools.partial(self._conclude, handle, leftover))
        work = handle.life.work
        if leftover.ending is None and work is not None:
            self._time(handle, work, leftover)

    @staticmethod
    def _usable(leftover: Running | None) -> Running | None:
        """Return a body that still runs, or has ended; none that lacked a run meanwhile."""
        ended = leftover.ending if leftover is not None else None
        return None if ended is not None and isinstance(ended.error, NotInRunError) else leftover

    def runs_here(self, handle: StepHandle[Any]) -> bool:
        """Tell whether a step that is called runs in the calling thread.

        It doesn't if it may have to be stopped, runs outside the kernel, or if an earlier
        execution's body of it still runs.
        """
        work = handle.life.work
        elsewhere = work is not None and (work.options.timeout is not None or work.pool is not None)
        return not elsewhere and handle.pair not in self._leftovers

    # --- outside the kernel -------------------------------------------------------------

    def pool_of(self, options: StepOptions, function: Callable[..., Any]) -> Pool | None:
        """Return where a step's body runs; None for the kernel's threads and loops.

        Raises:
            UsageError: There is no such place, or it can't do what the step asks for.
        """
        if options.executor is None and self._everywhere is None and options.memory is None:
            return None
        return self._remote.pool_of(options, is_async=is_async(function))

    def pack(self, handle: StepHandle[Any]) -> None:
        """Pickle what a body outside the kernel needs, if all of it is known.

        Raises:
            EncodeError: It can't be; the step ends with that.
            UsageError: Its workers would run other code.
        """
        work = handle.life.work
        if work is None or work.pool is None or not handle.life.startable:
            return
        try:
            self._remote.pack(handle)
        except (EncodeError, UsageError) as error:
            self._ledger.break_off(handle, error)
            raise

    def _perform_remote(self, handle: StepHandle[Any], work: Work, pool: Pool) -> None:
        """Send one attempt to a worker."""
        body = self._scope_of(handle, False)
        body.limits += work.limits
        if self.ended or handle.number:
            body.give_limits()
            return
        try:
            running = self._open(handle)
            running.body, body.attempt = body, running
            sent = Sent(running, body, pool, functools.partial(self._time, handle, work, running))
            running.stop = sent.stop
            self._remote.attempt(handle, work, sent)
        except BaseException as error:  # noqa: BLE001 - a defect, or a store that can't be written
            if handle.life.running is not None:
                handle.life.running.fence()
            self._ledger.break_off(handle, error)
            body.end()

    # --- in this thread -----------------------------------------------------------------

    def perform_here(self, handle: StepHandle[Any], *, in_cell: bool) -> None:
        """Run attempts in the calling thread until one ends the step, and commit that."""
        try:
            self._attempt_here(handle, in_cell=in_cell)
        except BaseException as error:
            # Wherever an interrupt came: without an end by now, it will not get one here.
            if not handle.number:
                handle.life.interrupt()
                self._ledger.break_off(handle, error)
            raise

    def _attempt_here(self, handle: StepHandle[Any], *, in_cell: bool) -> None:
        work = handle.life.work
        assert work is not None
        work.here = True
        with self._ledger.lock:
            handle.life.begin()
        handle.stand_for_itself()
        self._recall(handle)
        if self.given_up(handle):
            return
        while True:
            with uninterrupted():
                running = self._open(handle)
                running.fence()  # nobody but this thread wants its ending
            body = self._scope_of(handle, False)
            body.attempt = running
            body.limits += self._room_for(work)
            context = work.context.copy()
            context.run(scope.stand_in, body)
            try:
                with self._delivery.here(handle, running):
                    running.end(attempt(work, running.capture, context))
                body.live = False
                wait = self._conclude_here(handle, running, in_cell=in_cell)
            finally:
                body.end()
            self._journal.flush()
            if wait is None:
                break
            if handle.broken is not None:
                raise handle.broken
            self._pause(handle, wait)
            if handle.number:  # it was cancelled meanwhile
                break
        if not handle.number and handle.broken is None:
            raise NotInRunError(handle.label, "the run it belongs to ended while its body ran")

    def _conclude_here(
        self, handle: StepHandle[Any], running: Running, *, in_cell: bool
    ) -> float | None:
        """Enqueue how the attempt has ended; give the wait before the next, if there is one.

        Raises:
            BaseException: The interrupt that it ended with.
        """
        ending = running.ending
        assert ending is not None
        if (error := self._stopped_by(handle, ending)) is not None:
            raise error
        passed = self._escaped.passed_on(handle, ending.raised or ending.error)
        wait = self._retry_wait(handle, ending, passed)
        if wait is None:
            settled = self._settled(handle, running, ending, passed, in_cell=in_cell)
            self._journal.enqueue(settled, kick=False)
        else:
            self._attempt_failed(handle, running, ending, wait, passed=passed, then=lambda: None)
        return wait

    def _dispatch(self, handle: StepHandle[Any]) -> None:
        """Run an attempt, once each of the step's limits has room for it."""
        work = handle.life.work
        if work is not None:  # it may have been cancelled between two attempts
            self._pass_limits(handle, work, 0)

    def _pass_limits(self, handle: StepHandle[Any], work: Work, passed: int) -> None:
        if passed < len(work.limits):
            on = functools.partial(self._pass_limits, handle, work, passed + 1)
            work.limits[passed].take(on)
        elif work.is_async:
            perform = functools.partial(self._perform_async, handle, work)
            loop = work.loop or _background.loop
            self.coroutines.submit(perform, work.context.copy(), loop, work.label)
        elif work.pool is not None:
            self._senders.submit(functools.partial(self._perform_remote, handle, work, work.pool))
        else:
            self.threads.submit(functools.partial(self._perform, handle, work))

    def _recall(self, handle: StepHandle[Any]) -> None:
        self._escaped.take_out_lost(handle)
        past = self._index.attempts.get(handle.pair)
        if past is not None:
            handle.life.recall(past.last, past.failed)
        handle.life.runs_because(self._reasons.why(handle))
        self._acceptance.confirm(handle)

    def _open(self, handle: StepHandle[Any]) -> Running:
        self._escaped.take_out_below(handle)
        running = Running(handle.life.last_attempt + 1, self._clock.time())
        running.adopt(functools.partial(self._conclude, handle, running))
        handle.life.run(running)
        self._delivery.begun(handle, running)
        self._journal.enqueue(Started(handle, running, self._ledger.execution), kick=False)
        if self._careful:
            self._journal.flush()
        elif not self._starts_due:
            self._starts_due = True
            self._clock.call_later(STARTS_SECONDS, self._write_starts)
        deaths = 0
        if self._suspects and handle.pair in self._suspects:
            deaths = self._index.attempts[handle.pair].deaths
        self._observers.attempt_started(handle, running.number, running.started, deaths)
        return running

    def _write_starts(self) -> None:
        self._starts_due = False
        if not self.ended:
            self._journal.enqueue(Nothing())

    def _perform(self, handle: StepHandle[Any], work: Work) -> None:
        """Run one attempt on a thread of the run."""
        body = self._scope_of(handle, False)
        body.limits += work.limits
        if self.ended or handle.number:
            body.give_limits()
            return
        running = self._open(handle)
        running.body, body.attempt = body, running
        running.stop = functools.partial(self._let_go, body)
        # A context of its own: an attempt that timed out may still be in its.
        context = work.context.copy()
        context.run(scope.stand_in, body)
        self._time(handle, work, running)
        let_go = False
        try:
            ending = attempt(work, running.capture, context)
            let_go, body.live = not body.live, False
            running.end(ending)
        except BaseException as error:  # noqa: BLE001 - a defect, raised where the step is waited for
            running.fence()  # it has no ending: no re-run must wait for one
            self._ledger.break_off(handle, error)
        finally:
            # Not before its ending is enqueued: whoever gets its room comes after it.
            body.end()
            if let_go:
                self.threads.came_back()

    def _time(self, handle: StepHandle[Any], work: Work, running: Running) -> None:
        """Let an attempt run into its timeout: from its start, or, in a worker, from now."""
        if work.options.timeout is not None:
            since = running.started if work.pool is None else self._clock.time()
            left = since + work.options.timeout - self._clock.time()
            expire = functools.partial(self._expire, handle, running)
            running.stop_timer = self._clock.call_later(left, expire)

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
        body.live = False
        call_in(task.get_loop(), task.cancel)

    async def _perform_async(self, handle: StepHandle[Any], work: Work) -> None:
        body = self._scope_of(handle, True)
        body.limits += work.limits
        if self.ended or handle.number:
            body.give_limits()
            return
        running = body.attempt = self._open(handle)
        task = asyncio.current_task()
        assert task is not None
        running.stop = functools.partial(self._stop_task, body, task)
        token = scope.stand_in(body)
        try:
            try:
                ending = await attempt_async(work, running.capture)
            finally:
                body.live = False
                scope.current.reset(token)
            running.end(ending)
        except BaseException as error:  # noqa: BLE001 - a defect, raised where the step is waited for
            running.fence()
            self._ledger.break_off(handle, error)
        finally:
            body.end()

    def _pause(self, handle: StepHandle[Any], seconds: float) -> None:
        """Wait in the calling thread before the next attempt.

        Raises:
            StepCancelledError: The step that started this one was cancelled meanwhile.
        """
        gate = Gate()
        pause = Pause(self._clock, seconds, gate.open, dropped=gate.open)
        handle.life.pause_for(pause)
        if handle.number:
            pause.drop()  # it was cancelled before anybody could see that it waits
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
            self._dispatch(handle)

        pause = Pause(self._clock, seconds, again)
        handle.life.pause_for(pause)
        if handle.number:
            pause.drop()
        if pause.over and handle.life.pause is pause:
            handle.life.go_on()  # what follows may have been quicker than this line

    def _expire(self, handle: StepHandle[Any], running: Running) -> None:
        if running.fence():
            work = handle.life.work
            assert work is not None
            if running.body is not None:
                running.body.live = False  # it can start nothing from here on
            self._conclude(handle, running, timed_out(work))
            running.stop()

    # --- ending -------------------------------------------------------------------

    def _conclude(self, handle: StepHandle[Any], running: Running, ending: Ending) -> None:
        """Retry, or settle: called once for each attempt, in whatever thread it ended."""
        try:
            self._retry_or_settle(handle, running, ending)
        except BaseException as error:  # noqa: BLE001 - a defect, raised where the step is waited for
            self._ledger.break_off(handle, error)

    def _retry_or_settle(self, handle: StepHandle[Any], running: Running, ending: Ending) -> None:
        if (error := self._stopped_by(handle, ending)) is not None:
            self._ledger.break_off(handle, error)
            return
        passed = self._escaped.passed_on(handle, ending.raised or ending.error)
        wait = self._retry_wait(handle, ending, passed)
        if wait is None:
            self._journal.enqueue(self._settled(handle, running, ending, passed))
            return
        then = functools.partial(self._go_on_after, handle, wait)
        self._attempt_failed(handle, running, ending, wait, passed=passed, then=then)

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

    def _retry_wait(
        self, handle: StepHandle[Any], ending: Ending, passed: list[StepHandle[Any]]
    ) -> float | None:
        """Return the wait before the next attempt, or None if there is none.

        A body that let escape what a step of its own failed with in an earlier execution is
        tried again with that step, at once: it is why it runs, and takes none of its retries.
        """
        if ending.error is None or ending.final or self.ended:
            return None
        if _is_of_before(passed):
            handle.life.count_anew()
            return 0.0
        work = handle.life.work
        assert work is not None
        policy = work.options.policy
        if handle.life.failed_attempts >= policy.retries:
            return None
        try:
            accepted = policy.accepts(ending.raised or ending.error)
        except Exception as error:  # noqa: BLE001 - the user's predicate raises what it likes
            self._observers.say(
                f"{handle.label}: not retried, for retry_on raised {explain(error)}"
            )
            return None
        if not accepted:
            return None
        return backoff(policy, handle.life.count_failure())

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
        """Save that an attempt failed; after that tell it, and go on with `then`."""
        assert ending.error is not None
        running.capture.finished()  # the final attempt's output counts
        now = self._clock.time()
        text = explain(ending.error)
        handle.life.keep_failure(f"attempt {running.number} failed: {text}")
        event = AttemptFailed(handle.place, running.number, text, wait, now)

        def told() -> None:
            self._observers.emit(event)
            then()

        self._journal.enqueue(
            AttemptEnded(
                self._ledger,
                handle,
                running,
                ended=now,
                error=text,
                then=told,
                escaped=functools.partial(self._escaped.unsee, handles=passed),
                concluded=_is_of_before(passed),
            )
        )

    def _settled(
        self,
        handle: StepHandle[Any],
        running: Running,
        ending: Ending,
        passed: list[StepHandle[Any]],
        *,
        in_cell: bool = False,
    ) -> Settled:
        ending.keep(running.capture)
        if ending.note:
            self._observers.say(ending.note)
        failures = handle.life.attempt_errors
        if ending.raised is not None and failures and ending.payload is not None:
            for line in failures:
                ending.raised.add_note(line)
            noted = failure(ending.raised)
            ending.error, ending.payload = noted.error, noted.payload
        if handle.place in self._children:
            self._take_evidence_of_children(handle, ending)
        beside: Passed = functools.partial(self._escaped.unsee, handles=passed)
        if ending.kind is Kind.VALUE and ending.payload is not None:
            beside = self._current.drops(handle) or beside  # what has a value has passed on none
        now = self._clock.time()
        return Settled(
            self._ledger, handle, running, ending, ended=now, escaped=beside, in_cell=in_cell
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
        ending.file_parts += tuple(part for parts in files for part in parts)
        if work is None or work.code is None or work.rules is None:
            return
        codes = [kept.parts(digest) for digest in {one.code_evidence for one in ended}]
        covered = work.code.covered.ids if work.code.covered is not None else frozenset[int]()
        for code in {one.code for one in ended}:
            functions = kept.functions(code)
            codes.append(covered_parts(functions, covered, work.rules.places))
        ending.code_parts += tuple(part for parts in codes for part in parts)

    # --- timers -------------------------------------------------------------------

    def arm(self, handle: StepHandle[Any], *, rearm: bool) -> None:
        """Let a timer count: from now, or to the time that was recorded for it."""
        with self._ledger.lock:
            life, timer = handle.life, handle.life.timer
            if self.ended or timer is None or not life.begin():
                return
        self.hold_nobody_back()
        now = self._clock.time()
        started, anew = timer.arm(now, rearm=rearm)
        running = Running(life.last_attempt + anew, started)
        life.run(running)
        why = Why.NEW if running.number == 1 else Why.UNFINISHED
        life.runs_because((Why.REDO if self._index.is_redone(handle.pair) else why).value)
        self._journal.enqueue(Started(handle, running, self._ledger.execution))
        self._observers.attempt_started(handle, running.number, now)
        assert timer.wake_time is not None
        fire = functools.partial(self._fire, handle, running)
        timer.counts(self._clock.call_later(timer.wake_time - now, fire))

    def _fire(self, handle: StepHandle[Any], running: Running) -> None:
        if not self.ended and not handle.number:
            running.over = True
            ending = Ending(Kind.VALUE, payload=encode(None))
            self._journal.enqueue(self._settled(handle, running, ending, []))

    # --- the end ------------------------------------------------------------------

    def stop(self, handles: Iterable[Handle[Any]], *, keep: bool) -> list[str]:
        """Start nothing more; stop async bodies, let threads go; give the labels of those kept.

        With `keep`, a thread's body that still runs may be adopted by a re-run in
        this process instead of being started again.
        """
        with self._ledger.lock:
            self.ended = True
        self.threads.close()
        self._senders.close()
        handles = tuple(handles)
        parents = {handle.parent for handle in handles if isinstance(handle, StepHandle)}
        kept = []
        for handle in handles:
            if not isinstance(handle, StepHandle) or handle.number:
                continue
            life, work = handle.life, handle.life.work
            counted = life.timer is not None and life.timer.stop()
            running = life.running
            # First of all fenced: a wait that is over at this moment has a body running.
            if running is None or work is None or not running.fence():
                if counted or life.pause is not None:
                    self._observers.emit(StepLetGo(handle.place, "let go", self._clock.time()))
                continue
            running.stop_timer()
            reason = "cancelled" if work.is_async else "let go"
            if work.pool is not None:
                running.stop()  # what runs outside the kernel is ended, not left
                self._observers.emit(StepLetGo(handle.place, "cancelled", self._clock.time()))
                continue
            # The waits of a body that starts steps are broken off: it is no use any more.
            if keep and not work.is_async and handle.place not in parents:
                self._leftovers[handle.pair] = running
                kept.append(handle.label)
                reason = "still running"
            self._observers.emit(StepLetGo(handle.place, reason, self._clock.time()))
        self.coroutines.close()
        self._remote.close()
        return kept


def _is_of_before(passed: list[StepHandle[Any]]) -> bool:
    """Tell whether one of these errors is of an earlier execution."""
    return any(one.life.replayed for one in passed)
