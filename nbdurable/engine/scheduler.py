"""Which steps start, and when: at once, when they are asked for, or not in this run.

Invariant: a step is begun once, by whoever is first under the run's lock. A loser of a stored
decision starts only when it is asked for, and after the run's end nothing starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nbdurable.errors import EncodeError, NotInRunError, UsageError
from nbdurable.events import LetGo, StepDeferred, StepLetGo
from nbdurable.handles.handle import StepHandle
from nbdurable.interrupts import SuspendedError
from nbdurable.steps.attempts import is_async

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbdurable.commit.acceptance import Acceptance
    from nbdurable.commit.ledger import Ledger
    from nbdurable.commit.reasons import Reasons
    from nbdurable.commit.state import State
    from nbdurable.executors.limits import Room
    from nbdurable.executors.remote import Pool
    from nbdurable.steps.attempts import Running, Work
    from nbdurable.steps.options import RunSettings, StepOptions

    from .escaped import Escaped
    from .remote import Remote
    from .retries import Retries
    from .runner import Runner
    from .suspects import Suspects


class Scheduler:
    """One execution's admission of steps."""

    def __init__(
        self,
        state: State,
        ledger: Ledger,
        runner: Runner,
        *,
        settings: RunSettings,
        reasons: Reasons,
        retries: Retries,
        suspects: Suspects,
        escaped: Escaped,
        acceptance: Acceptance,
        remote: Remote,
    ) -> None:
        self._state = state
        self._ledger = ledger
        self._runner = runner
        self._observers = state.observers
        self._clock = state.observers.clock
        self._index = state.index
        self._leftovers = state.leftovers
        self._reasons = reasons
        self._retries = retries
        self._suspects = suspects
        self._escaped = escaped
        self._acceptance = acceptance
        self._remote = remote
        self._slots = settings.slots
        self._everywhere = settings.executor

    # --- before a step starts -------------------------------------------------------

    def pool_of(self, options: StepOptions, function: Callable[..., Any]) -> Pool | None:
        """Return where a step's body runs; None for the kernel's threads and loops.

        Raises:
            UsageError: There is no such place, or it can't do what the step asks for.
        """
        if options.executor is None and self._everywhere is None and options.memory is None:
            return None
        return self._remote.pool_of(options, is_async=is_async(function))

    def room_of(self, handle: StepHandle[Any], work: Work) -> tuple[Room, ...]:
        """Return what a step needs room in besides its limits: a worker, and to be alone."""
        room = work.pool.room(self._slots) if work.pool is not None else None
        workers: tuple[Room, ...] = () if room is None else (room,)
        return (*workers, *self._suspects.room_of(handle, work))

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

    def runs_here(self, handle: StepHandle[Any]) -> bool:
        """Tell whether a step that is called runs in the calling thread.

        It doesn't if it may have to be stopped, runs outside the kernel, or if an earlier
        execution's body of it still runs.
        """
        work = handle.life.work
        elsewhere = work is not None and (work.options.timeout is not None or work.pool is not None)
        return not elsewhere and handle.identity not in self._leftovers

    def is_stored_loser(self, handle: StepHandle[Any]) -> bool:
        """Tell whether a stored decision made this step a loser."""
        return self._index.lost(handle.identity, handle.code_digest)

    # --- starting -----------------------------------------------------------------

    def launch(self, handle: StepHandle[Any]) -> None:
        """Start, adopt or defer a step that has no checkpoint."""
        if not handle.life.startable or self._state.ended:
            return
        if self.is_stored_loser(handle) and not handle.asked:
            with self._state.lock:
                handle.life.defer()
            self._observers.emit(StepDeferred(handle.place, self._clock.time()))
            return
        self.start(handle)

    def start(self, handle: StepHandle[Any]) -> None:
        """Start a step's first attempt of this execution, or adopt one that still runs."""
        with self._state.lock:
            if self._state.ended or not handle.life.begin():
                return
            handle.stand_for_itself()
            leftover = _usable(self._leftovers.pop(handle.identity, None))
        try:
            self._recall(handle)
        except SuspendedError as error:
            self._ledger.break_off(handle, error)
            return
        if leftover is not None:
            self._runner.adopt(handle, leftover)
        elif not self._is_given_up(handle):
            self._runner.dispatch(handle)

    def perform_here(self, handle: StepHandle[Any], *, in_cell: bool) -> None:
        """Run a step in the calling thread until it has ended, and commit that."""
        try:
            work = handle.life.work
            assert work is not None
            work.run_here()
            with self._state.lock:
                handle.life.begin()
            handle.stand_for_itself()
            self._recall(handle)
            if not self._is_given_up(handle):
                self._runner.run_here(handle, work, in_cell=in_cell)
        except BaseException as error:
            # An interrupt can come at any line. A step without a number by now gets none here.
            if not handle.number:
                handle.life.interrupt()
                self._ledger.break_off(handle, error)
            raise

    def _recall(self, handle: StepHandle[Any]) -> None:
        """Take in what earlier executions did of a step that starts, and why it runs again.

        Raises:
            SuspendedError: More would run again than may without being confirmed.
        """
        self._escaped.take_out_lost(handle)
        past = self._index.attempts.get(handle.identity)
        if past is not None:
            handle.life.recall(past.last, past.failed)
        handle.life.runs_because(self._reasons.why(handle))
        self._acceptance.confirm(handle)

    def _is_given_up(self, handle: StepHandle[Any]) -> bool:
        """End a step that was in flight at too many deaths; False if it may be tried again."""
        past = self._suspects.condemned(handle)
        if past is not None:
            self._retries.give_up(handle, past)
        return past is not None

    # --- the end ------------------------------------------------------------------

    def stop(self, *, keep: bool) -> list[str]:
        """Start nothing more; stop async bodies, let threads go; return the labels of those kept.

        With `keep`, a thread's body that still runs may be adopted by a re-run in
        this process instead of being started again.
        """
        self._state.end()
        self._runner.stop_starting()
        handles = tuple(self._state.handles)
        parents = {handle.parent for handle in handles if isinstance(handle, StepHandle)}
        kept = []
        for handle in handles:
            if not isinstance(handle, StepHandle) or handle.number:
                continue
            what = self._stop(handle, keep=keep and handle.place not in parents)
            if what is LetGo.STILL_RUNNING:
                kept.append(handle.label)
            if what is not None:
                self._observers.emit(StepLetGo(handle.place, what.value, self._clock.time()))
        self._runner.close()
        return kept

    def _stop(self, handle: StepHandle[Any], *, keep: bool) -> LetGo | None:
        """Stop what runs of a step without an end; return what became of it, if it ran at all."""
        life, work = handle.life, handle.life.work
        counted = life.timer is not None and life.timer.stop()
        running = life.running
        # Fence before anything else: a pause may end at this moment, and begin a body.
        if running is None or work is None or not running.fence():
            return LetGo.LET_GO if counted or life.pause is not None else None
        running.stop_timer()
        if work.pool is not None:
            running.stop()  # work outside the kernel is ended, never left to itself
            return LetGo.CANCELLED
        if work.is_async:
            return LetGo.CANCELLED
        # A body that starts steps is not kept, because its waits for them are broken off.
        if keep:
            self._leftovers[handle.identity] = running
            return LetGo.STILL_RUNNING
        return LetGo.LET_GO


def _usable(leftover: Running | None) -> Running | None:
    """Return a body that still runs, or has ended; none that lacked a run meanwhile."""
    ended = leftover.ending if leftover is not None else None
    return None if ended is not None and isinstance(ended.error, NotInRunError) else leftover
