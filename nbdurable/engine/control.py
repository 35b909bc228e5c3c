"""What a person at the screen can ask about one execution, and do to it.

Invariant: every answer comes at once, from any thread, during the run and after it:
nothing here waits for a step, calls what a user wrote, or decodes what was saved; and
nothing is done to an execution that has ended.
"""

from __future__ import annotations

import signal
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nbdurable.codec.failures import told
from nbdurable.errors import DurableError
from nbdurable.handles.handle import Handle, StepHandle
from nbdurable.labels import described, share
from nbdurable.output import warned
from nbdurable.output.capture import loads
from nbdurable.records import HandleKind, Kind
from nbdurable.steps.arguments import told_arguments

from .so_far import counts_of, events_so_far

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from nbdurable.commit.state import State
    from nbdurable.events import Event, Fact, RunStarted
    from nbdurable.records import Checkpoint, Message

    from .cancellation import Cancellation

LONGEST: Final = 20_000
"""So many characters of a traceback, and of an output's end, are told."""

_BRANCHES: Final = 12
_NO_STEP: Final = "there is no such step"
_GONE: Final = "its run has ended: %durable steps and %durable why tell of it"


@dataclass(eq=False)
class Execution:
    """What of one execution can be asked and steered; its run holds it."""

    state: State
    cancellation: Cancellation
    begun: RunStarted

    def handle(self, place: int) -> Handle[Any] | None:
        """Return a step by its place; None if there is none."""
        return self.state.handles[place] if 0 <= place < len(self.state.handles) else None

    def parents(self, handle: StepHandle[Any]) -> Iterator[Handle[Any]]:
        """Yield the steps that a step was started in, innermost first."""
        above = handle.parent
        while above is not None:
            parent = self.state.handles[above]
            yield parent
            above = parent.parent if isinstance(parent, StepHandle) else None

    def deaths(self, handle: StepHandle[Any]) -> int:
        """Return how many deaths of the kernel a step was in flight at."""
        past = self.state.index.attempts.get(handle.identity)
        return 0 if past is None else past.deaths


@dataclass(frozen=True)
class SoFar:
    """How far an execution is: steps by a view's word, events that tell it, lines that it said."""

    counts: dict[str, int]
    events: list[Event]
    notes: tuple[str, ...]


class Control:
    """One execution, as a person asks about it and steers it.

    A step is named by its ``place`` in `go` order, as in the events. The execution is
    held weakly: a view of a run that has ended keeps none of its values in memory.
    """

    def __init__(self, execution: Execution) -> None:
        self.stopped = False
        """Whether a person has stopped the execution from here."""
        self.redos: list[str] = []
        """Labels of the failed steps that a person wants to be tried again by the next pass."""
        self._execution = weakref.ref(execution)
        self._thread = threading.current_thread()

    def detail(self, place: int) -> dict[str, Any]:
        """Tell what is known of one step: ``label``, and ``facts`` to be shown in order.

        A value that was replayed and not asked for is not decoded for this.
        """
        execution = self._execution()
        if execution is None:
            return {"label": "", "facts": [("State", _GONE, False)]}
        handle = execution.handle(place)
        if handle is None:
            return {"label": "", "facts": [("State", _NO_STEP, False)]}
        facts = _facts(handle, execution)
        return {"label": handle.label, "facts": [fact for fact in facts if fact[1]]}

    def so_far(self, most: int) -> SoFar | None:
        """Return how far the execution is, with the rows of `most` handles; None if it ended."""
        execution = self._execution()
        if execution is None or execution.state.ended:
            return None
        handles = [*execution.state.handles]
        begun = execution.begun
        return SoFar(
            counts_of(handles),
            [begun, *events_so_far(handles, begun.at, most)],
            tuple(execution.state.observers.notes),
        )

    def cancel(self, place: int) -> str:
        """Cancel a step, durably, as `Handle.cancel` does; say what became of that."""
        execution = self._execution()
        if execution is None:
            return _GONE
        handle = execution.handle(place)
        if handle is None:
            return _NO_STEP
        if handle.durable:
            return f"{handle.label} has ended already: {handle.state}"
        if execution.state.ended:
            return f"the run has ended, and {handle.label} with it"
        try:
            execution.cancellation.cancel(handle)
        except DurableError as error:
            return f"{handle.label} was not cancelled: {error}"
        return f"{handle.label} is cancelled, for good"

    def retry_now(self, place: int) -> str:
        """Let a step's next attempt begin without the rest of its wait; say whether it does."""
        execution = self._execution()
        handle = None if execution is None else execution.handle(place)
        pause = handle.life.pause if isinstance(handle, StepHandle) else None
        if execution is None or handle is None or pause is None or execution.state.ended:
            return "this step does not wait for another attempt"
        pause.end()
        return f"{handle.label} is tried again now"

    def redo(self, place: int | None) -> str:
        """Note that a failed step, or each, is to be taken out at the end and tried again then."""
        execution = self._execution()
        if execution is None or execution.state.ended:
            return _GONE
        handles = execution.state.handles if place is None else [execution.handle(place)]
        failed = [
            handle.label
            for handle in [*handles]
            if isinstance(handle, StepHandle)
            and handle.kind is HandleKind.STEP
            and handle.life.checkpoint is not None
            and handle.life.checkpoint.kind is Kind.ERROR
        ]
        if not failed:
            return "no step has failed and was saved so" if place is None else "it has not failed"
        self.redos = list(dict.fromkeys([*self.redos, *failed]))
        which = failed[0] if len(failed) == 1 else f"{len(failed):,} failed steps"
        return f"{which}: taken out when this cell has ended; run it again then to try again"

    def suspend(self) -> str:
        """Interrupt the execution, as the stop button does; running the cell again resumes it."""
        execution = self._execution()
        if execution is None:
            return "the run has ended"
        mine = self._thread is threading.main_thread()
        # Without a handler of Python's the signal would end the process, or do nothing.
        if not mine or not callable(signal.getsignal(signal.SIGINT)):
            return (
                "this run is not the main thread's, or passes over interrupts: it can be stopped "
                "from its code only"
            )
        with execution.state.lock:
            # Under the lock: the end takes it before anything else can begin.
            if execution.state.ended:
                return "the run has ended"
            self.stopped = True
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return "stopped: run the cell again to resume"


def _facts(handle: Handle[Any], execution: Execution) -> Iterator[Fact]:
    return _step(handle, execution) if isinstance(handle, StepHandle) else _combinator(handle)


def _combinator(handle: Handle[Any]) -> Iterator[Fact]:
    yield "State", handle.state, False
    branches = getattr(handle, "branches", ())
    lines = [f"{branch.label}: {branch.state}" for branch in branches[:_BRANCHES]]
    if len(branches) > _BRANCHES:
        lines.append(f"... {len(branches) - _BRANCHES:,} more")
    yield "Branches", "\n".join(lines), True
    yield "Decided", f"number {handle.number} in the order of commits" * bool(handle.number), False


def _step(handle: StepHandle[Any], execution: Execution) -> Iterator[Fact]:
    work, running, ending = handle.life.work, handle.life.running, handle.life.ending
    yield "State", handle.state, False
    yield "Why", handle.life.why, False
    if deaths := execution.deaths(handle):
        yield "Deaths", f"in flight at {deaths} deaths of the kernel", False
    if work is not None:
        given = [described(value) for value in work.arguments]
        given += [f"{name}={described(value, name)}" for name, value in work.keywords.items()]
        yield "Arguments", "\n".join(given), True
    elif handle.kind is HandleKind.STEP:
        digests = "" if handle.life.checkpoint is None else handle.life.checkpoint.arguments
        yield "Arguments", told_arguments(handle.label, digests), True
    waits = [one.label for one in handle.upstream if not one.durable]
    yield "Waits for", ", ".join(waits), False
    if ending is not None and ending.error is None and handle.durable:
        yield "Result", described(ending.value), True
    yield "Saved", _saved(handle), False
    if ending is not None and ending.error is not None:
        yield "Error", _cut(_traceback(ending.error)), True
    yield "Attempts", "\n".join(handle.life.attempt_errors), True
    yield "Output", end_of(_messages(handle)), True
    if work is not None:
        notes = [
            str(note) for one in (work.code, work.inputs) if one is not None for note in one.notes
        ]
        yield "Inputs", "\n".join(notes), True
        hashing = sum(one.seconds for one in (work.code, work.inputs) if one is not None)
        yield "Hashing", f"{hashing:.3f} s" * (hashing >= 0.001), False  # noqa: PLR2004
    if running is not None and not handle.durable:
        yield "Attempt", f"{running.number}", False
        if (told := running.progress) is not None:
            yield "Progress", share(told.done, told.total), False
    yield "In", " > ".join(reversed([one.label for one in execution.parents(handle)])), False
    yield "Call", f"{handle.call_id.hex()} (occurrence {handle.occurrence})", False


def _saved(handle: StepHandle[Any]) -> str:
    """Say what of the outcome is in the store."""
    found, ending = handle.life.checkpoint, handle.life.ending
    if found is None:
        return f"not saved: {ending.unsaved}" if ending is not None and ending.unsaved else ""
    what = {Kind.VALUE: "value", Kind.ERROR: "error", Kind.CANCELLED: "cancellation"}[found.kind]
    beside = " and files beside the store" if found.pieces else ""
    return (
        f"{what}, number {found.number} in the order of commits, "
        f"{len(found.payload):,} bytes{beside}"
    )


def _messages(handle: StepHandle[Any]) -> Sequence[Message]:
    """Return what a step has written so far."""
    running, ending = handle.life.running, handle.life.ending
    if running is not None and not handle.durable:
        return running.capture.messages
    if ending is not None and ending.messages:
        return ending.messages
    found: Checkpoint | None = handle.life.checkpoint
    return loads(found.output) if found is not None else ()


def _text_of(message: Message) -> str:
    """Return a message as text."""
    if message.kind == "display":
        return "[a display]\n"
    return warned.text_of(message.data) if message.kind == "warning" else message.data


def end_of(messages: Sequence[Message]) -> str:
    """Return the end of an output as text."""
    text = "".join(map(_text_of, messages))
    return text if len(text) <= LONGEST else f"...{text[-LONGEST:]}"


def _traceback(error: BaseException) -> str:
    """Return an error with its traceback, in which only the user's lines and libraries' are.

    A message that can't be taken is left out.
    """
    try:
        return told(error)
    except Exception as failed:  # noqa: BLE001 - a user's __str__ may raise whatever it likes
        return f"{type(error).__name__}, whose message raised {type(failed).__name__}"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}\n..."
