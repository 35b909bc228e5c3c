"""What a run tells people: events for views, lines for the person at the screen.

Invariant: an event is told after what it tells of is durable; a line is said once.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from nbdurable.events import (
    AttemptStarted,
    Decided,
    Noticed,
    StepCreated,
    StepFinished,
    StepReplayed,
)
from nbdurable.handles.combinators import Select
from nbdurable.handles.handle import Handle, StepHandle
from nbdurable.records import Kind
from nbdurable.steps.attempts import explain, is_async, place_of, told_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nbdurable.events import Event
    from nbdurable.executors.clock import Clock
    from nbdurable.fingerprint import Print
    from nbdurable.handles.combinators import Combinator
    from nbdurable.steps.attempts import Work
    from nbdurable.store import Identity


class Observers:
    """One run's observers and notes."""

    def __init__(
        self,
        observers: Sequence[Callable[[Event], None]],
        clock: Clock,
        spent: Mapping[Identity, float] | None = None,
    ) -> None:
        self.notes: list[str] = []
        self.clock = clock
        self._observers = list(observers)
        self._spent = spent or {}
        self._said: set[str] = set()
        self._prints: set[tuple[str, bytes, bytes]] = set()
        self._lock = threading.Lock()

    @property
    def heard(self) -> bool:
        """Whether anybody listens: where nobody does, no event need be made."""
        return bool(self._observers)

    def emit(self, event: Event) -> None:
        """Tell every observer, in this thread; one that fails is not told any more."""
        for observer in tuple(self._observers):
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001 - a broken view must not stop the run
                with contextlib.suppress(ValueError):
                    self._observers.remove(observer)
                self.say(f"an observer failed and is told nothing more: {explain(error)}")

    def say(self, line: str) -> None:
        """Keep a line for the end of the run, and show it now; the same line only once."""
        with self._lock:
            if line in self._said:
                return
            self._said.add(line)
            self.notes.append(line)
        self.emit(Noticed(line, self.clock.time()))

    def say_prints(self, name: str, *prints: Print | None) -> None:
        """Say what could not be compared, or is written, in the inputs of step `name`."""
        for one in prints:
            for note in one.notes if one is not None else ():
                self.say(f"{name}: {note}")

    def say_narrow(self, name: str, works: Sequence[Work], limit: int, threads: int) -> None:
        """Say that a map's limit is above that of its run, if the run's threads do its work."""
        if any(work.pool is None and not is_async(work.function) for work in works):
            self.say(
                f"{name}.map(limit={limit}): this run has threads for {threads} steps at once; "
                f"workflow(limit={limit}), `%%durable ... --limit {limit}` or "
                f"configure(limit={limit}) gives it more"
            )

    def created(self, handle: StepHandle[Any]) -> None:
        """A step or timer has its handle."""
        if self._observers:
            at = self.clock.time()
            self.emit(
                StepCreated(
                    handle.place,
                    handle.kind.value,
                    handle.name,
                    handle.label_text,
                    at,
                    handle.parent,
                    inputs=tuple([one.place for one in handle.upstream]) if handle.upstream else (),
                )
            )

    def combined(self, combinator: Combinator[Any], parent: int | None) -> None:
        """A combinator has its handle, made by the cell or in the body of step `parent`."""
        if self._observers:
            self.emit(
                StepCreated(
                    combinator.place,
                    combinator.kind.value,
                    combinator.name,
                    combinator.label,
                    self.clock.time(),
                    parent,
                    tuple(branch.place for branch in combinator.branches),
                )
            )

    def attempt_started(
        self, handle: StepHandle[Any], number: int, started: float, deaths: int = 0
    ) -> None:
        """A body is about to run, or a timer to count."""
        if self._observers:
            reason = handle.life.reason
            assert reason is not None
            self.emit(
                AttemptStarted(handle.place, number, reason.why, reason.detail, started, deaths)
            )

    def replayed(self, handle: StepHandle[Any]) -> None:
        """A step's outcome came from the store."""
        if self._observers:
            found = handle.life.checkpoint
            assert found is not None
            error, where = told_error(found.payload) if found.kind is Kind.ERROR else ("", "")
            self.emit(
                StepReplayed(
                    handle.place,
                    found.kind,
                    found.number,
                    found.seconds + self._spent.get((found.call, found.version), 0.0),
                    found.attempt,
                    self.clock.time(),
                    error,
                    where,
                )
            )

    def ended(self, handle: Handle[Any], *, replayed: bool = False) -> None:
        """A handle is durable."""
        if not self._observers:
            return
        if isinstance(handle, StepHandle):
            if handle.life.replayed:
                self.replayed(handle)
            else:
                self._finished(handle)
            return
        chosen = handle.chosen if isinstance(handle, Select) else None
        self.emit(
            Decided(
                handle.place,
                chosen.place if chosen is not None else None,
                handle.ended or Kind.VALUE,
                handle.number,
                replayed,
                self.clock.time(),
            )
        )

    def _finished(self, handle: StepHandle[Any]) -> None:
        error = handle.error()
        self.emit(
            StepFinished(
                handle.place,
                handle.ended or Kind.VALUE,
                handle.number,
                handle.life.seconds,
                handle.life.checkpoint is not None,
                "" if error is None else explain(error),
                self.clock.time(),
                "" if error is None else place_of(error),
            )
        )
