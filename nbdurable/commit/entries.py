"""What a run commits: outcomes, starts, failed attempts, decisions made late.

Invariant: each entry's `write` runs under the journal's lock and takes the run's
lock; what it makes durable is shown in `committed`, never before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from nbdurable.handles.combinators import Combinator
from nbdurable.labels import printable
from nbdurable.records import Kind
from nbdurable.steps.attempts import explain
from nbdurable.store import NOT_SAVED, replace_progress, replace_save, take_out
from nbdurable.store.rows import AttemptEndRow, FailureRow, ProgressRow, SeenErrorRow, StartRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nbdurable.errors import DurableError
    from nbdurable.handles.handle import Handle, StepHandle
    from nbdurable.handles.scope import Scope
    from nbdurable.records import Checkpoint, Save
    from nbdurable.steps.attempts import Ending, Running
    from nbdurable.store import Batch, ReplayIndex

    from .ledger import Ledger


Passed = Callable[["Batch"], None]
"""Adds to a transaction that a body has not seen the errors that it let escape."""


class Told(Protocol):
    """How far an attempt has said that it is."""

    done: float
    total: float


class _Outcomes:
    """What ends handles; ``_resolved`` are those that it ended."""

    def __init__(self, ledger: Ledger, *handles: Handle[Any]) -> None:
        self._ledger = ledger
        self._handles = handles
        self._resolved: list[Handle[Any]] = []

    def committed(self) -> None:
        """Show the outcomes."""
        self._ledger.make_durable(self._resolved)

    def failed(self, error: DurableError) -> None:
        """Raise the store's error where the outcomes are waited for."""
        for handle in (*self._handles, *self._resolved):
            self._ledger.break_off(handle, error)


class Settled(_Outcomes):
    """A step's or timer's outcome; nothing if it was cancelled, or its execution ended."""

    def __init__(
        self,
        ledger: Ledger,
        handle: StepHandle[Any],
        running: Running,
        ending: Ending,
        *,
        ended: float,
        escaped: Passed,
        in_cell: bool = False,
    ) -> None:
        super().__init__(ledger, handle)
        self._handle = handle
        self._running = running
        self._ending = ending
        self._seconds = ended - running.started
        self._escaped = escaped
        self._in_cell = in_cell
        # Told here: a message that a user's class makes is not waited for under the lock.
        self._told = explain(ending.error) if ending.error is not None else ""

    def write(self, batch: Batch) -> None:
        """Take the number, save the outcome, decide what it decides."""
        ledger, handle, ending = self._ledger, self._handle, self._ending
        with ledger.lock:
            if handle.number or ledger.closed:
                return
            ledger.end(handle, ending, self._seconds)
            self._escaped(batch)
            if ending.payload is not None:
                ledger.write_checkpoint(handle, ending, self._running, batch)
                if self._told:
                    attempt = self._running.number
                    batch.add(FailureRow(*handle.identity, attempt, ledger.execution, self._told))
                if ending.kind is Kind.ERROR and self._in_cell:
                    handle.life.see()
                    batch.add(SeenErrorRow(*handle.identity, ledger.execution))
            else:
                batch.add(self._not_saved())
            self._resolved = ledger.close_over([handle], batch)

    def _not_saved(self) -> AttemptEndRow:
        """Return the row by which the next execution knows why this step runs again."""
        return _attempt_end(
            self._handle,
            self._running,
            execution=self._ledger.execution,
            seconds=self._seconds,
            ending=NOT_SAVED,
            error=printable(self._ending.unsaved),
            concluded=False,
        )


class Cancelled(_Outcomes):
    """Steps and timers cancelled by their handles."""

    def __init__(self, ledger: Ledger, handles: Sequence[StepHandle[Any]]) -> None:
        super().__init__(ledger, *handles)
        self._cancelled = handles

    def write(self, batch: Batch) -> None:
        """Cancel those that have not ended."""
        with self._ledger.lock:
            ended = [one for one in self._cancelled if self._ledger.cancel(one, batch, cause=0)]
            self._resolved = self._ledger.close_over(ended, batch)


class Found(_Outcomes):
    """A step whose version became known late, and is in the store."""

    def __init__(self, ledger: Ledger, handle: StepHandle[Any], checkpoint: Checkpoint) -> None:
        super().__init__(ledger, handle)
        self._handle = handle
        self._checkpoint = checkpoint

    def write(self, batch: Batch) -> None:
        """Take the checkpoint's number; combinators may close with it."""
        with self._ledger.lock:
            if not self._handle.number:
                self._handle.take_checkpoint(self._checkpoint)
                self._resolved = self._ledger.close_over([self._handle], batch)


def take(ledger: Ledger, handle: StepHandle[Any], found: Checkpoint) -> None:
    """End a step with a checkpoint that is known late to be its own."""
    with ledger.lock:
        handle.life.begin()
        handle.life.all_received()
    ledger.journal.enqueue(Found(ledger, handle, found))


class Closed(_Outcomes):
    """A handle that had ended when it was made, by numbers that may not be durable yet."""

    def __init__(self, ledger: Ledger, handle: Handle[Any]) -> None:
        super().__init__(ledger, handle)
        self._handle = handle

    def write(self, batch: Batch) -> None:
        """Add the decision of a combinator, and what it cancels; the rest is told by numbers."""
        with self._ledger.lock:
            self._resolved = [self._handle]
            if isinstance(self._handle, Combinator) and not self._handle.replayed:
                cancelled = self._ledger.decide(self._handle, batch)
                self._resolved += self._ledger.close_over(cancelled, batch)


class CancellationRevoked:
    """A cancellation whose race has been opened again: its step runs after all."""

    def __init__(self, run: str, cancellation: Checkpoint) -> None:
        self._run = run
        self._cancellation = cancellation

    def write(self, batch: Batch) -> None:
        """Take the cancellation out."""
        take_out(batch, self._run, [self._cancellation])

    def committed(self) -> None:
        """Nobody waits for it."""

    def failed(self, error: DurableError) -> None:
        """Nobody waits for it: the step's own outcome fails too."""


class Started:
    """An attempt in flight; not written when it has ended before its turn comes."""

    def __init__(self, handle: StepHandle[Any], running: Running, execution: int) -> None:
        self._handle = handle
        self._running = running
        self._execution = execution

    def write(self, batch: Batch) -> None:
        """Add the start."""
        if not self._running.over and not self._handle.number:
            handle = self._handle
            batch.add(
                StartRow(
                    *handle.identity,
                    attempt=self._running.number,
                    execution=self._execution,
                    name=handle.name,
                    label=handle.label,
                    started=self._running.started,
                )
            )

    def committed(self) -> None:
        """Nobody waits for a start."""

    def failed(self, error: DurableError) -> None:
        """Nobody waits for a start."""


class AttemptEnded:
    """An attempt that failed; `then` tries again, once that it failed is durable.

    One that is `concluded` was an outcome, taken out at once: retries are counted anew.
    """

    def __init__(
        self,
        ledger: Ledger,
        handle: StepHandle[Any],
        running: Running,
        *,
        ended: float,
        error: str,
        then: Callable[[], object],
        escaped: Passed,
        concluded: bool,
    ) -> None:
        self._ledger = ledger
        self._escaped = escaped
        self._handle = handle
        self._then = then
        self._row = _attempt_end(
            handle,
            running,
            execution=ledger.execution,
            seconds=ended - running.started,
            ending=Kind.ERROR.value,
            error=error,
            concluded=concluded,
        )

    def write(self, batch: Batch) -> None:
        """Add the attempt."""
        batch.add(self._row)
        with self._ledger.lock:
            self._escaped(batch)

    def committed(self) -> None:
        """Go on, unless it was cancelled meanwhile."""
        if not self._handle.number:
            self._then()

    def failed(self, error: DurableError) -> None:
        """Raise the store's error where the step is waited for."""
        self._ledger.break_off(self._handle, error)


def _attempt_end(
    handle: StepHandle[Any],
    running: Running,
    *,
    execution: int,
    seconds: float,
    ending: str,
    error: str,
    concluded: bool,
) -> AttemptEndRow:
    return AttemptEndRow(
        *handle.identity,
        attempt=running.number,
        execution=execution,
        name=handle.name,
        label=handle.label,
        started=running.started,
        seconds=seconds,
        ending=ending,
        error=error,
        concluded=concluded,
    )


class WorkSaved:
    """What a body saves of its work, and with it how far it said that it is.

    ``refused`` once its attempt belongs to nobody any more; ``error`` where it could not be
    written.
    """

    def __init__(  # noqa: PLR0917 - what a save is made of
        self,
        ledger: Ledger,
        index: ReplayIndex,
        handle: StepHandle[Any],
        running: Running,
        save: Save,
        where: Scope,
        progress: tuple[float, float] | None,
    ) -> None:
        self.refused = False
        self.error: DurableError | None = None
        self._ledger = ledger
        self._index = index
        self._handle = handle
        self._running = running
        self._save = save
        self._where = where
        self._progress = progress

    def write(self, batch: Batch) -> None:
        """Put it in the place of the last one, unless the attempt has ended."""
        ledger, handle, index = self._ledger, self._handle, self._index
        with ledger.lock:
            if handle.number or ledger.closed or not self._where.live or self._running.over:
                self.refused = True
                return
            replace_save(batch, index, self._save, before=self._save.call in index.saves)
            if self._progress is not None:
                write_progress(ledger, index, handle, self._running, self._progress, batch)

    def committed(self) -> None:
        """Let the next `saved` find it; the files of the one before it can go."""
        if self.refused:
            return
        signed = self._ledger.signed(self._save)
        with self._ledger.lock:
            before = self._index.saves.get(self._save.call)
            self._index.saves[self._save.call] = signed
        if before is not None and before.pieces:
            self._ledger.store.objects.give_up(before.pieces)

    def failed(self, error: DurableError) -> None:
        """Keep the store's error for who saves."""
        self.error = error


class Progressed:
    """How far an attempt said that it is; not written when it has ended before its turn."""

    def __init__(  # noqa: PLR0917 - what progress is made of
        self,
        ledger: Ledger,
        index: ReplayIndex,
        handle: StepHandle[Any],
        running: Running,
        where: Scope,
        told: Told,
    ) -> None:
        self._ledger = ledger
        self._index = index
        self._handle = handle
        self._running = running
        self._where = where
        self._told = told

    def write(self, batch: Batch) -> None:
        """Add the latest, in the place of what was told before."""
        ledger, handle = self._ledger, self._handle
        with ledger.lock:
            if handle.number or ledger.closed or not self._where.live or self._running.over:
                return
            now = self._told.done, self._told.total
            write_progress(ledger, self._index, handle, self._running, now, batch)

    def committed(self) -> None:
        """Nobody waits for it."""

    def failed(self, error: DurableError) -> None:
        """Nobody waits for it: the step's own outcome fails too."""


def write_progress(  # noqa: PLR0917 - what progress is made of
    ledger: Ledger,
    index: ReplayIndex,
    handle: StepHandle[Any],
    running: Running,
    progress: tuple[float, float],
    batch: Batch,
) -> None:
    """Add how far an attempt is to a transaction. The run's lock is held."""
    done, total = progress
    row = ProgressRow(
        *handle.identity,
        execution=ledger.execution,
        attempt=running.number,
        label=handle.label,
        done=done,
        total=total,
        told=ledger.observers.clock.time(),
    )
    replace_progress(batch, row, before=handle.call_id in index.progressed)
    index.progressed.add(handle.call_id)


class LeftEarly:
    """What as_completed left: a decision that nobody waits for, but that all later ones follow.

    It is made where the iterator is let go of, which the garbage collector may do in any
    thread, even one that is writing a transaction: so it is not committed there.
    """

    def __init__(self, write: Callable[[Batch], None]) -> None:
        self.write = write

    def committed(self) -> None:
        """Nobody waits."""

    def failed(self, error: DurableError) -> None:
        """Nobody waits: the next outcome fails too."""


class Nothing:
    """An entry whose commit takes along what was enqueued before it."""

    def write(self, batch: Batch) -> None:
        """Add nothing."""

    def committed(self) -> None:
        """Nobody waits."""

    def failed(self, error: DurableError) -> None:
        """Nobody waits."""
