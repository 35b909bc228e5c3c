"""The end of an execution: what is waited for, what is told, and the row that says how it ended.

Invariant: nothing starts after the end, and nothing gets a number. A failure of the store is
raised where the cell itself did not fail; the next execution treats one without an end as died.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from nbdurable.errors import NotInRunError, StoreError
from nbdurable.events import RunFinished
from nbdurable.handles.coroutines import never_awaited
from nbdurable.handles.handle import StepHandle
from nbdurable.labels import ago
from nbdurable.records import RunStatus
from nbdurable.steps.attempts import explain
from nbdurable.steps.hints import add_hint
from nbdurable.store import correct_whys, drop_decisions, pack, pack_used
from nbdurable.store.rows import ExecutionEndRow

from .among_handles import is_passed_over, reused_of, steps_to_wait_for
from .escaped import status_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nbdurable.commit.acceptance import Acceptance
    from nbdurable.commit.ledger import Ledger
    from nbdurable.commit.reasons import Reasons
    from nbdurable.commit.state import State
    from nbdurable.handles.scope import Scope
    from nbdurable.store import Batch, Identity

    from .completions import Completions
    from .contents import Contents
    from .dataflow import Dataflow
    from .delivery import Delivery, Watch
    from .escaped import Escaped
    from .holding import Holding
    from .scheduler import Scheduler
    from .turns import Turns
    from .waiting import Waiting


class Closing:
    """One execution's end."""

    def __init__(
        self,
        state: State,
        ledger: Ledger,
        home: Scope,
        *,
        scheduler: Scheduler,
        waiting: Waiting,
        delivery: Delivery,
        completions: Completions,
        dataflow: Dataflow,
        acceptance: Acceptance,
        reasons: Reasons,
        holding: Holding,
        escaped: Escaped,
        turns: Turns,
        contents: Contents,
    ) -> None:
        self._state = state
        self._ledger = ledger
        self._home = home
        self._scheduler = scheduler
        self._waiting = waiting
        self._delivery = delivery
        self._completions = completions
        self._dataflow = dataflow
        self._acceptance = acceptance
        self._reasons = reasons
        self._holding = holding
        self._escaped = escaped
        self._turns = turns
        self._contents = contents
        self._unseen = ""

    def note_unseen(self, why: str) -> None:
        """Say at the end, if a body ran, why the code that bodies run can't be seen here."""
        self._unseen = why

    def finish(self, error: BaseException | None) -> None:
        """End the execution from the thread of the cell: wait, or stop where `error` escapes."""
        with _End(self, error) as (handles, rest):
            for handle in handles:
                self._waiting.wait(handle, rest)

    async def finish_async(self, error: BaseException | None) -> None:
        """End the execution on the cell's loop, as `finish` does."""
        with _End(self, error) as (handles, rest):
            for handle in handles:
                await self._waiting.wait_async(handle, rest)

    def begin(self) -> tuple[Iterable[StepHandle[Any]], Watch]:
        """Return the steps that the end waits for, new ones included, and what shows them."""
        self._completions.leave_all(self._home)
        handles = self._state.handles
        passed_over = functools.partial(is_passed_over, handles)
        return steps_to_wait_for(handles), self._delivery.watch_rest(handles, passed_over)

    def refuse_suspended(self) -> None:
        """Raise the suspension of the execution, if there is one.

        Raises:
            SuspendedError: The execution is suspended.
        """
        self._acceptance.refuse_suspended(None)

    def said(self) -> tuple[str, ...]:
        """Return the notes; before them that all came from a finished run, and how old it is."""
        notes = self._state.observers.notes
        replayed = self._state.opened.previous is RunStatus.FINISHED and not self._ran()
        replayed = replayed and self._acceptance.suspended is None
        if not replayed or not self._state.index.last_saved:
            # This line is not among the notes, because it is no warning about this cell: a quiet
            # view does not show it.
            return (*notes, self._unseen) if self._unseen and self._ran() else tuple(notes)
        age = ago(self._state.observers.clock.time() - self._state.index.last_saved)
        return (f"replayed: saved {age}, --new to recompute", *notes)

    def end(self, error: BaseException | None) -> None:
        """End the execution now, as the error that escaped from it says."""
        add_hint(error)
        self._home.leave()
        self._dataflow.close()
        still_running = self._scheduler.stop(keep=error is not None)
        self._ledger.journal.flush()
        self._ledger.close()
        status = status_of(error)
        unasked: tuple[Identity, ...] = ()
        told = ""
        if error is None:
            self._delivery.deliver_rest(tuple(self._state.handles), self._home.works)
            unasked = self._reasons.unasked(self._home.namespace, self._state.handles)
            self._reasons.say_unseen(self._state.handles)
            told = self._holding.tell(self._state.handles, self._state.observers.say)
        elif still_running:
            self._state.observers.say(
                f"still running: {', '.join(still_running)}; a re-run adopts them"
            )
        if forgotten := never_awaited(self._state.handles):
            self._state.observers.say(forgotten)
        self._delivery.close()
        now = self._state.observers.clock.time()
        try:
            self._write_end(status, now, error, (unasked, told))
        except StoreError:
            # A store that broke in mid-run has been reported by what broke; the missing
            # end makes the next execution treat this one as died, which loses nothing.
            if error is None:
                raise
        finally:
            for handle in tuple(self._state.handles):
                if not handle.durable and handle.broken is None:
                    late = NotInRunError(handle.label, "it had not ended when its run did")
                    self._ledger.break_off(handle, late)
            self._state.observers.emit(RunFinished(status, now, self.said()))

    def _write_end(
        self,
        status: RunStatus,
        now: float,
        error: BaseException | None,
        told: tuple[tuple[Identity, ...], str],
    ) -> None:
        listed = pack(tuple(self._escaped.listed(error)))
        reused = pack_used(tuple(reused_of(self._state.handles, self._state.index)), told[0])
        corrected = self._reasons.corrected(self._state.handles)
        undone = self._turns.escaped(error)

        def write(batch: Batch) -> None:
            if corrected:
                correct_whys(batch, corrected)
            if undone:
                drop_decisions(batch, self._state.run, undone)
            self._contents.write(batch)
            text = "" if error is None else explain(error)
            self._acceptance.settle(batch)
            batch.add(
                ExecutionEndRow(
                    execution=self._state.execution,
                    status=status.value,
                    ended=now,
                    error=text,
                    listed=listed,
                    reused=reused,
                    told=told[1],
                )
            )

        self._state.store.commit(write)

    def _ran(self) -> bool:
        """Tell whether any body was started."""
        return any(isinstance(one, StepHandle) and one.life.ran for one in self._state.handles)


class _End:
    """Ends an execution after a block that waits for its steps, or that an error skips.

    No generator of contextlib, whose frames would stand in the user's tracebacks.
    """

    def __init__(self, closing: Closing, error: BaseException | None) -> None:
        self._closing = closing
        self._error = error

    def __enter__(self) -> tuple[Iterable[StepHandle[Any]], Watch | None]:
        if self._error is not None:
            return (), None
        try:
            return self._closing.begin()
        except BaseException as late:
            self._closing.end(late)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, late: BaseException | None, *_: object
    ) -> None:
        error = late if self._error is None else self._error
        if error is None:
            try:
                self._closing.refuse_suspended()
            except BaseException as suspended:
                self._closing.end(suspended)
                raise
        self._closing.end(error)
