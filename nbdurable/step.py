"""The life of one step: its options, its attempts, how an attempt ends.

Invariant: an attempt gives exactly one `Ending`, and only to whom it belongs at
that moment: one that was fenced (timed out, cancelled, let go) gives it to
nobody. What a body returned has been encoded and decoded once before it leaves
this module, so the first run hands out what replay will.
"""

from __future__ import annotations

import asyncio
import contextvars  # noqa: TC003 - dataclass fields are read at run time
import functools
import inspect
import threading
import traceback
import types
from collections.abc import Callable  # noqa: TC003 - dataclass fields are read at run time
from dataclasses import dataclass, field
from typing import Any

import tenacity

from .codec import Objects, encode_error, settle_value
from .errors import EncodeError, InputMovedError, StepTimeoutError, StoreError, UsageError
from .executors import Room  # noqa: TC001 - dataclass fields are read at run time
from .fingerprint import Print, contains
from .label import printable
from .output import Capture, Destination
from .records import Kind, Message, Payload, RetryPolicy
from .streams import Capturing

_SIGNS_OF_ANOTHER_LOOP = (
    "bound to a different event loop",  # asyncio's and anyio's locks, events, queues
    "attached to a different loop",  # a future or task that is awaited
    "belongs to a different loop",  # one that is waited for with others
    "Event loop is closed",  # a connection of a client whose loop has ended
)
"""What asyncio says, Python 3.11 to 3.13, of what was made on another loop."""


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How a step is named, compared and run; see `nbdurable.step` for each."""

    name: str = ""
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: float | None = None
    limit: int | None = None
    key: Callable[..., object] | None = None
    ignore: frozenset[str] = frozenset()
    version: str | None = None
    named: bool = False  # whether `name` was given, and is not the function's


@dataclass(slots=True)
class Work:
    """What a step runs, and the inputs under whose identity it will be saved.

    ``called`` is the step's name in its call, qualified. ``loop`` is that of the code that
    started an async step, None where that code does not await: then it could not give its
    loop to the step while it waits for it.
    """

    label: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    options: StepOptions
    code: Print | None
    inputs: Print | None
    context: contextvars.Context
    is_async: bool
    called: str = ""
    objects: Objects | None = None
    loop: asyncio.AbstractEventLoop | None = None
    strict: bool = False
    limits: tuple[Room, ...] = ()

    def moved(self) -> tuple[tuple[str, object], ...]:
        """Give the inputs, by name, that are no longer what was digested at `go`."""
        found: tuple[tuple[str, object], ...] = ()
        if self.inputs is not None:
            found = self.inputs.moved()
        if self.code is not None:
            found += self.code.moved()
        return found


@dataclass(slots=True)
class Ending:
    """How an attempt ended.

    ``payload`` is None where nothing may be saved; ``unsaved`` then says why.
    ``interrupt`` is an exception that is no outcome (KeyboardInterrupt,
    SystemExit, CancelledError): it is handed over and never saved.
    """

    kind: Kind
    value: Any = None
    error: BaseException | None = None
    payload: Payload | None = None
    messages: tuple[Message, ...] = ()
    shown_at: Destination | None = None
    unshown: tuple[Message, ...] = ()
    unsaved: str = ""
    note: str = ""
    interrupt: bool = False
    final: bool = False

    def keep(self, capture: Capture) -> None:
        """Take what an attempt has written, and what of it was not shown live, and where."""
        self.messages = capture.finished()
        self.shown_at, self.unshown = capture.destination, capture.unsent


class Running:
    """One live attempt; whoever holds it decides who gets its ending.

    ``stop`` ends its body where that can be, once its ending is nobody's;
    ``stop_timer`` its timeout; ``body`` is where a thread's body stands. ``over`` is for
    good: an interrupted one is not over.
    """

    __slots__ = (
        "_lock", "_target", "body", "capture", "ending", "number", "over", "started", "stop",
        "stop_timer",
    )  # fmt: skip

    def __init__(self, number: int, started: float) -> None:
        self.capture = Capture()
        self._lock = threading.Lock()
        self._target: Callable[[Ending], None] | None = None
        self.ending: Ending | None = None
        self.over = False
        self.number = number
        self.started = started
        self.body: Any = None  # a scope, which is a floor above
        self.stop: Callable[[], object] = _nothing
        self.stop_timer: Callable[[], object] = _nothing

    def end(self, ending: Ending) -> None:
        """Give the ending to whom the attempt belongs, or keep it for who adopts it."""
        self.over = not ending.interrupt
        self.stop_timer()
        with self._lock:
            target, self._target = self._target, None
            if target is None:
                self.ending = ending
                return
        target(ending)

    def fence(self) -> bool:
        """Take the attempt from its owner; False if it has ended already."""
        with self._lock:
            owned, self._target = self._target is not None, None
            return owned

    def adopt(self, target: Callable[[Ending], None]) -> None:
        """Give a fenced attempt a new owner, at once if it has ended meanwhile."""
        with self._lock:
            if self.ending is None:
                self._target = target
                return
            ending = self.ending
        target(ending)


def _nothing() -> None:
    """Stop a body that can't be stopped."""


def attempt(work: Work, capture: Capture, context: contextvars.Context) -> Ending:
    """Run a sync body once, in this thread and `context`."""
    refused = _refuse_moved(work)
    if refused is not None:
        return refused
    try:
        value = context.run(_call, work, capture)
    except Exception as error:  # noqa: BLE001 - whatever a body raises is its outcome
        ending = _failed(work, error)
    except BaseException as error:  # noqa: BLE001 - no outcome; handed over as itself
        ending = Ending(Kind.ERROR, error=error, interrupt=True, unsaved="interrupted")
    else:
        ending = _returned(work, value)
    return ending


async def attempt_async(work: Work, capture: Capture) -> Ending:
    """Run an async body once, in this task; the task runs in `work`'s context."""
    refused = _refuse_moved(work)
    if refused is not None:
        return refused
    with Capturing(capture):
        return await _await(work)


async def _await(work: Work) -> Ending:
    timeout = asyncio.timeout(work.options.timeout)
    try:
        async with timeout:
            value = await work.function(*work.arguments, **work.keywords)
    except Exception as error:  # noqa: BLE001 - whatever a body raises is its outcome
        if isinstance(error, TimeoutError) and timeout.expired():
            return timed_out(work)
        if _is_of_another_loop(error):
            _note_loop(work, error)
        return _failed(work, error)
    except BaseException as error:  # noqa: BLE001 - no outcome; handed over as itself
        return Ending(Kind.ERROR, error=error, interrupt=True, unsaved="interrupted")
    return _returned(work, value)


def _is_of_another_loop(error: BaseException | None) -> bool:
    """Tell whether an error, its cause, or one of a group is asyncio's about a wrong loop."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_of_another_loop, error.exceptions))
    if isinstance(error, RuntimeError | ValueError) and any(
        sign in str(error) for sign in _SIGNS_OF_ANOTHER_LOOP
    ):
        return True
    return (
        error is not None and error.__cause__ is not error and _is_of_another_loop(error.__cause__)
    )


def _note_loop(work: Work, error: BaseException) -> None:
    """Say on which loop the body ran, and what to do."""
    if work.loop is None:
        where = "nbdurable's background event loop, since the code that started it does not await"
        cure = "in a cell that awaits, async steps run on the cell's own loop"
    else:
        where = "the event loop of the code that started it, since that awaits"
        cure = "make it in that code, while that loop runs"
    note = (
        f"{work.label} ran on {where}. What asyncio has bound to another loop (a lock, a queue, a "
        f"client's connection) can't be used there: make it inside the step; or {cure}."
    )
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)


def timed_out(work: Work) -> Ending:
    """Give the ending of an attempt that took longer than the step's timeout."""
    return failure(StepTimeoutError(work.label, work.options.timeout or 0.0))


def failure(error: BaseException, *, final: bool = False) -> Ending:
    """Give the ending for `error`, saved if it can be encoded; `final` forbids a retry."""
    try:
        return Ending(Kind.ERROR, error=error, payload=encode_error(error), final=final)
    except EncodeError as reason:
        return Ending(Kind.ERROR, error=error, unsaved=str(reason), final=final)


def unsaved_failure(error: BaseException, reason: str) -> Ending:
    """Give the ending for an `error` that must not be saved and not be retried."""
    return Ending(Kind.ERROR, error=error, unsaved=reason, final=True)


def backoff(policy: RetryPolicy, failed: int) -> float:
    """Give the wait in seconds after the `failed`-th failure, with jitter."""
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = failed
    wait = tenacity.wait_exponential(multiplier=policy.backoff, max=policy.max_backoff)
    jitter = tenacity.wait_random(0, policy.backoff / 4)
    return float(min(policy.max_backoff, wait(state) + jitter(state)))


def explain(error: BaseException) -> str:
    """Give an error in one line: its class and the first line of its message, without notes."""
    told = traceback.TracebackException(type(error), error, None)
    told.__notes__ = None
    lines = "".join(told.format_exception_only()).strip().splitlines()
    # Above a SyntaxError's message stand its file and its line.
    return printable(lines[-1 if isinstance(error, SyntaxError) else 0])


def arguments_text(work: Work | None) -> str:
    """Give ``parameter=digest;...`` of a step's inputs, by which `why` names what changed."""
    if work is None or work.inputs is None:
        return ""
    return printable(";".join([f"{name}={digest.hex()}" for name, digest in work.inputs.parts]))


def is_async(function: Callable[..., Any]) -> bool:
    """Tell whether calling `function` gives a coroutine."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an instance with an async __call__
    )


def _call(work: Work, capture: Capture) -> Any:
    with Capturing(capture):
        return work.function(*work.arguments, **work.keywords)


def _refuse_moved(work: Work) -> Ending | None:
    moved = work.moved()
    if not moved:
        return None
    error = InputMovedError(work.label, tuple(f"`{name}`" for name, _ in moved))
    return unsaved_failure(error, "an input moved before the body ran")


def _failed(work: Work, error: Exception) -> Ending:
    moved = work.moved()
    ending = failure(error, final=bool(moved))
    if moved and work.options.policy.retries:
        names = ", ".join(f"`{name}`" for name, _ in moved)
        ending.note = f"{work.label}: not retried, since its body had changed {names}"
    if ending.payload is None and work.strict:
        return failure(EncodeError(f"{work.label}: {ending.unsaved}"), final=True)
    return ending


def _returned(work: Work, value: Any) -> Ending:
    refused = _refuse_value(work, value)
    if refused is not None:
        return unsaved_failure(refused, "its result can't be an outcome")
    try:
        payload, decoded = settle_value(value, work.objects)
    except EncodeError as error:
        if work.strict:
            return unsaved_failure(EncodeError(f"{work.label}: {error}"), str(error))
        note = f"{work.label}: not saved: {error}; return something that pickles, or strip it first"
        return Ending(Kind.VALUE, value=value, unsaved=str(error), note=note)
    except StoreError as error:
        # No outcome: it was not the step that failed, and its value can't be made durable.
        return Ending(Kind.ERROR, error=error, interrupt=True, unsaved=str(error))
    ending = Ending(Kind.VALUE, value=decoded, payload=payload)
    moved = work.moved()
    if moved:
        _note_moved(work, ending, value, moved)
    elif told := work.code.shifted() if work.code is not None else ():
        names = ", ".join(f"`{name}`" for name in told)
        ending.note = (
            f"{work.label}: {names} changed while it waited or ran; its outcome is saved as that "
            f"of the value before: pass it as an argument to be sure of what is used"
        )
    return ending


def _note_moved(
    work: Work, ending: Ending, value: Any, moved: tuple[tuple[str, object], ...]
) -> None:
    """Save what moved its inputs only where the moved object is part of the result."""
    names = ", ".join(f"`{name}`" for name, _ in moved)
    if all(contains(value, thing) for _, thing in moved):
        ending.note = (
            f"{work.label} changed {names} in place: use what it returned, for on replay the "
            f"object outside keeps its old state"
        )
        return
    ending.payload = None
    ending.value = value
    ending.unsaved = f"its body changed {names}, which is no part of its result"
    ending.note = f"{work.label}: not saved: {ending.unsaved}; return what it changed"


def _refuse_value(work: Work, value: Any) -> UsageError | None:
    if isinstance(value, types.GeneratorType | types.AsyncGeneratorType | types.CoroutineType):
        kind = type(value).__name__
        return UsageError(
            f"{work.label} returned a {kind}, which can't be saved: return a list, or `await` in it"
        )
    if hasattr(type(value), "__nbdurable_identity__"):
        return UsageError(f"{work.label} returned a handle: return its .result() instead")
    return None
