"""What a run commits: outcomes, starts, failed attempts, decisions made late.

Invariant: each entry's `write` runs under the journal's lock and takes the run's
lock; what it makes durable is shown in `committed`, never before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .combinators import Combinator, Select

if TYPE_CHECKING:
    from collections.abc import Callable

    from .errors import DurableError
    from .handles import Handle, StepHandle
    from .ledger import Ledger
    from .records import Checkpoint
    from .step import Ending, Running
    from .store import Batch


class Settled:
    """A step's or timer's outcome."""

    def __init__(
        self,
        ledger: Ledger,
        handle: StepHandle[Any],
        running: Running,
        ending: Ending,
        ended: float,
        *,
        in_cell: bool = False,
    ) -> None:
        self.handle = handle
        self.running = running
        self.ending = ending
        self.ended = ended
        self.in_cell = in_cell
        self._ledger = ledger
        self._resolved: list[Handle[Any]] = []

    def write(self, batch: Batch) -> None:
        """Take the number, save the outcome, decide what it decides."""
        ledger, handle = self._ledger, self.handle
        with ledger.lock:
            handle.number = ledger.take_number()
            handle.ended = self.ending.kind
            handle.ending = self.ending
            handle.seconds = self.ended - self.running.started
            if self.ending.payload is not None:
                ledger.write_checkpoint(self, batch)
            self._resolved = ledger.close_over(handle, batch)

    def committed(self) -> None:
        """Show the outcome."""
        self._ledger.make_durable(self._resolved)

    def failed(self, error: DurableError) -> None:
        """Raise the store's error where the outcome is waited for."""
        for handle in self._resolved or [self.handle]:
            self._ledger.break_off(handle, error)


class Passed:
    """A step that has no attempt because an upstream failed: it ends with that error."""

    def __init__(self, ledger: Ledger, handle: StepHandle[Any], failed: Handle[Any]) -> None:
        self._ledger = ledger
        self._handle = handle
        self._failed = failed
        self._resolved: list[Handle[Any]] = []

    def write(self, batch: Batch) -> None:
        """Take the upstream's number and error."""
        with self._ledger.lock:
            self._handle.take_from(self._failed)
            self._resolved = self._ledger.close_over(self._handle, batch)

    def committed(self) -> None:
        """Show the outcome."""
        self._ledger.make_durable(self._resolved)

    def failed(self, error: DurableError) -> None:
        """Raise the store's error where the outcome is waited for."""
        for handle in self._resolved or [self._handle]:
            self._ledger.break_off(handle, error)


class Found:
    """A step whose version became known late, and is in the store."""

    def __init__(self, ledger: Ledger, handle: StepHandle[Any], checkpoint: Checkpoint) -> None:
        self._ledger = ledger
        self._handle = handle
        self._checkpoint = checkpoint
        self._resolved: list[Handle[Any]] = []

    def write(self, batch: Batch) -> None:
        """Take the checkpoint's number; combinators may close with it."""
        with self._ledger.lock:
            self._handle.take_checkpoint(self._checkpoint)
            self._resolved = self._ledger.close_over(self._handle, batch)

    def committed(self) -> None:
        """Show the outcome."""
        self._ledger.make_durable(self._resolved)

    def failed(self, error: DurableError) -> None:
        """Raise the store's error where the outcome is waited for."""
        for handle in self._resolved or [self._handle]:
            self._ledger.break_off(handle, error)


class Closed:
    """A combinator that was complete when it was made, by numbers that may not be durable yet."""

    def __init__(self, ledger: Ledger, combinator: Combinator[Any]) -> None:
        self._ledger = ledger
        self._combinator = combinator

    def write(self, batch: Batch) -> None:
        """Add the decision of a select; a gather is told by its branches."""
        if isinstance(self._combinator, Select):
            with self._ledger.lock:
                self._ledger.write_decision(self._combinator, batch)

    def committed(self) -> None:
        """Show it."""
        self._ledger.make_durable([self._combinator])

    def failed(self, error: DurableError) -> None:
        """Raise the store's error where it is waited for."""
        self._ledger.break_off(self._combinator, error)


class Started:
    """An attempt in flight; not written when it has ended before its turn comes."""

    def __init__(self, handle: StepHandle[Any], running: Running, execution: int) -> None:
        self._handle = handle
        self._running = running
        self._execution = execution

    def write(self, batch: Batch) -> None:
        """Add the start."""
        if not self._running.over:
            handle = self._handle
            batch.add(
                "starts",
                (
                    *handle.pair,
                    self._running.number,
                    self._execution,
                    handle.name,
                    handle.label,
                    self._running.started,
                ),
            )

    def committed(self) -> None:
        """Nobody waits for a start."""

    def failed(self, error: DurableError) -> None:
        """Nobody waits for a start."""


class AttemptEnded:
    """An attempt that failed; `then` tries again, once that it failed is durable."""

    def __init__(
        self,
        ledger: Ledger,
        handle: StepHandle[Any],
        running: Running,
        *,
        ended: float,
        error: str,
        then: Callable[[], object],
    ) -> None:
        self._ledger = ledger
        self._handle = handle
        self._then = then
        self._row = (
            *handle.pair,
            running.number,
            ledger.execution,
            handle.name,
            handle.label,
            running.started,
            ended - running.started,
            "error",
            error,
            False,
        )

    def write(self, batch: Batch) -> None:
        """Add the attempt."""
        batch.add("attempt_ends", self._row)

    def committed(self) -> None:
        """Go on."""
        self._then()

    def failed(self, error: DurableError) -> None:
        """Raise the store's error where the step is waited for."""
        self._ledger.break_off(self._handle, error)


class Nothing:
    """An entry whose commit takes along what was enqueued before it."""

    def write(self, batch: Batch) -> None:
        """Add nothing."""

    def committed(self) -> None:
        """Nobody waits."""

    def failed(self, error: DurableError) -> None:
        """Nobody waits."""
