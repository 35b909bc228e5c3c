"""The life of one step: its options, its attempts, how an attempt ends.

Invariant: an attempt gives exactly one `Ending`, and only to whom it belongs at
that moment: one that was fenced (timed out, cancelled, let go) gives it to
nobody. What a body returned has been encoded and decoded once before it leaves
this module, so the first run hands out what replay will.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars  # noqa: TC003 - dataclass fields are read at run time
import functools
import inspect
import os
import threading
import traceback
import types
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import tenacity

from nbdurable.codec.failures import frames_of
from nbdurable.codec.outcomes import decode_error, settle_error, settle_value
from nbdurable.codec.shipping import Packed  # noqa: TC001 - dataclass fields are read at run time
from nbdurable.errors import (
    DurableError,
    EncodeError,
    InputMovedError,
    StepCancelledError,
    StepTimeoutError,
    StoreError,
    UsageError,
)
from nbdurable.evidence import (
    FileRules,
    Recorder,
    Seeing,
    code_parts,
    file_parts,
    may_name_file,
)
from nbdurable.executors.limits import Room  # noqa: TC001 - dataclass fields are read at run time
from nbdurable.executors.remote import Pool  # noqa: TC001 - likewise
from nbdurable.fingerprint import NOT_TEXTS, Print, files_in, texts_in
from nbdurable.fingerprint.places import Places
from nbdurable.interrupts import arrived, may_be_from_outside
from nbdurable.labels import names_secret, printable
from nbdurable.output.capture import Capture, Destination
from nbdurable.output.streams import Capturing
from nbdurable.records import Kind, Message, Part, Payload, Reads, RetryPolicy

from .draws import draws
from .hints import add_hint
from .movers import is_part_of, moved_before, moved_meanwhile, named
from .uses import Use  # noqa: TC001 - dataclass fields are read at run time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nbdurable.codec.values import Objects

    from .options import StepOptions
    from .uses import Moved

_PLACES = Places()
_SIGNS_OF_ANOTHER_LOOP = (
    "bound to a different event loop",  # asyncio's and anyio's locks, events, queues
    "attached to a different loop",  # a future or task that is awaited
    "belongs to a different loop",  # one that is waited for with others
    "Event loop is closed",  # a connection of a client whose loop has ended
)
"""What asyncio says, Python 3.11 to 3.13, of what was made on another loop."""


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
    use: Use | None = None
    bases: tuple[tuple[str, bytes], ...] = ()
    here: bool = False
    """Whether the body runs in the thread of the code that started it, which waits meanwhile."""
    rules: FileRules | None = None
    reads: str = ""
    seen: Recorder | None = None
    pool: Pool | None = None
    """Where the body runs, if that is outside this process."""
    packed: Packed | None = None

    def need_room(self, rooms: tuple[Room, ...]) -> None:
        """Start only where these have room, too."""
        self.limits += rooms

    def take_values(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Run with these arguments, in which no handle is left."""
        self.arguments, self.keywords = arguments, keywords

    def run_here(self) -> None:
        """Run in the thread of the code that started it."""
        self.here = True

    def pack(self, packed: Packed) -> None:
        """Keep what a worker is sent."""
        self.packed = packed

    def recorder(self) -> Recorder:
        """Return what takes the evidence of an attempt that is about to begin."""
        code = self.code.covered if self.code is not None else None
        recorder = self.seen = Recorder(quiet=self.reads == Reads.IGNORE, code=code)
        if not recorder.quiet and (names := self._names()):
            recorder.name(names)
        return recorder

    def _names(self) -> set[str]:
        """Return what may be names of files: in the arguments, and among the code's constants."""
        found: set[str] = set()
        for given in (*self.arguments, *self.keywords.values()):
            if type(given) not in NOT_TEXTS:
                for text in texts_in(given):
                    found.update(filter(may_name_file, (text, *files_in(text))))
        if self.code is not None and self.code.covered is not None:
            found |= self.code.covered.texts
        return found

    def code_parts(self) -> dict[str, bytes] | None:
        """Return what the code is made of, by name; None for a step with `version=`."""
        return parts_of(self.code, self.bases)

    def moved(self) -> Moved:
        """Return the inputs, by name, that are no longer what was digested at `go`."""
        found: Moved = ()
        if self.inputs is not None:
            found = self.inputs.moved()
        if self.code is not None:
            found += self.code.moved()
        return found


@dataclass(slots=True)
class Ending:
    """How an attempt ended.

    ``payload`` is None where nothing may be saved; ``unsaved`` then says why. ``raised`` is
    the error as the body raised it, where ``error`` is what its payload gives back.
    ``interrupt`` is an exception that is no outcome (an interrupt from outside, a
    StoreError): it is handed over and never saved.
    """

    kind: Kind
    value: Any = None
    error: BaseException | None = None
    raised: BaseException | None = None
    payload: Payload | None = None
    messages: tuple[Message, ...] = ()
    shown_at: Destination | None = None
    unshown: tuple[Message, ...] = ()
    unsaved: str = ""
    note: str = ""
    interrupt: bool = False
    final: bool = False
    draws: bytes = b""
    code_parts: tuple[Part, ...] = ()
    file_parts: tuple[Part, ...] = ()

    def let_go(self) -> None:
        """Forget the encoded outcome, which is in the checkpoint."""
        self.payload = None

    def drop_files(self, kind: str) -> None:
        """Forget what was seen of this kind."""
        self.file_parts = tuple(one for one in self.file_parts if one.kind != kind)

    def keep(self, capture: Capture) -> None:
        """Take what an attempt has written, and what of it was not shown live, and where."""
        self.messages = capture.finished()
        self.shown_at, self.unshown = capture.destination, capture.unsent

    def encode_again(self, noted: Ending) -> None:
        """Take the error and the payload of the same failure, with notes on its error."""
        self.error, self.payload = noted.error, noted.payload

    def take_evidence(self, *, codes: Iterable[Part] = (), files: Iterable[Part] = ()) -> None:
        """Hold only while these pieces of evidence do, too."""
        self.code_parts += tuple(codes)
        self.file_parts += tuple(files)


class Running:
    """One live attempt; whoever holds it decides who gets its ending.

    ``stop`` ends its body where that can be, once its ending is nobody's;
    ``stop_timer`` its timeout; ``body`` is where a thread's body stands. ``over`` is for
    good: an interrupted one is not over.
    """

    __slots__ = (
        "_lock", "_target", "body", "capture", "ending", "number", "over", "progress", "started",
        "stop", "stop_timer",
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
        self.progress: Any = None  # how far it said that it is, likewise
        self.stop: Callable[[], object] = _nothing
        self.stop_timer: Callable[[], object] = _nothing

    def stands_in(self, body: Any, stop: Callable[[], object]) -> None:
        """Take the scope of its body, and what ends that."""
        self.body, self.stop = body, stop

    def stopped_by(self, stop: Callable[[], object]) -> None:
        """Take what ends its body."""
        self.stop = stop

    def times_out_by(self, stop_timer: Callable[[], object]) -> None:
        """Take what stops the timer of its timeout."""
        self.stop_timer = stop_timer

    def finish(self) -> None:
        """Be over for good: a timer's time has come."""
        self.over = True

    def tell_progress(self, progress: Any) -> None:
        """Take how far it said that it is."""
        self.progress = progress

    def end(self, ending: Ending) -> None:
        """Pass the ending to the attempt's owner, or keep it for who adopts the attempt."""
        self.over = not ending.interrupt
        self.stop_timer()
        with self._lock:
            target, self._target = self._target, None
            if target is None:
                self.ending = ending
                return
        # The body's scope knows its attempt: without these it goes when nobody holds it.
        self.stop, self.body = _nothing, None
        target(ending)

    def fence(self) -> bool:
        """Take the attempt from its owner; False if it has ended already."""
        with self._lock:
            owned, self._target = self._target is not None, None
            return owned

    def adopt(self, target: Callable[[Ending], None]) -> None:
        """Take a fenced attempt over; if it has ended, `target` gets its ending at once."""
        with self._lock:
            if self.ending is None:
                self._target = target
                return
            ending = self.ending
        target(ending)


def parts_of(code: Print | None, bases: Iterable[tuple[str, bytes]]) -> dict[str, bytes] | None:
    """Return what a code is made of, by name, with the globals that it writes and reads."""
    if code is None:
        return None
    return dict(code.parts) | {f"{name} (written)": base for name, base in bases}


def _nothing() -> None:
    """Stop a body that can't be stopped."""


def attempt(work: Work, capture: Capture, context: contextvars.Context) -> Ending:
    """Run a sync body once, in this thread and `context`."""
    if work.use is None:
        moved = work.moved()
        return _refuse(work, moved) if moved else _attempt(work, capture, context)
    with using(work, work.use) as moved:
        return _refuse(work, moved) if moved else _attempt(work, capture, context)


def _attempt(work: Work, capture: Capture, context: contextvars.Context) -> Ending:
    process = os.getpid()
    recorder = work.recorder()
    try:
        value = context.run(_call, work, capture, recorder)
    except BaseException as error:  # noqa: BLE001 - whatever a body raises is its outcome
        if os.getpid() != process:
            _leave_fork(work, error)
        # In the main thread a person may have interrupted it without a signal, by a key.
        in_main = threading.current_thread() is threading.main_thread()
        interrupt = in_main and isinstance(error, KeyboardInterrupt)
        ending = _raised(work, error, interrupt=interrupt)
    else:
        if os.getpid() != process:
            _leave_fork(work, None)
        ending = _returned(work, value)
    return with_evidence(work, ending, recorder)


async def attempt_async(work: Work, capture: Capture) -> Ending:
    """Run an async body once, in this task; the task runs in `work`'s context."""
    with (
        contextlib.nullcontext(work.moved()) if work.use is None else using(work, work.use) as moved
    ):
        if moved:
            return _refuse(work, moved)
        recorder = work.recorder()
        with Capturing(capture), Seeing(recorder):
            ending = await _await(work)
    return with_evidence(work, ending, recorder)


def with_evidence(work: Work, ending: Ending, recorder: Recorder | None) -> Ending:
    """Return the ending with what its body was seen to do."""
    if work.rules is not None and recorder is not None:
        if recorder.files:
            ending.file_parts = tuple(file_parts(recorder, work.rules))
        if recorder.settings is not None:
            ending.file_parts += tuple(recorder.settings.parts())
        if recorder.codes and work.code is not None:
            ending.code_parts = code_parts([*recorder.codes.copy().values()], work.rules.places)
    return ending


async def _await(work: Work) -> Ending:
    timeout = asyncio.timeout(work.options.timeout)
    process, interrupts, task = os.getpid(), arrived(), asyncio.current_task()
    try:
        async with timeout:
            value = await work.function(*work.arguments, **work.keywords)
    except BaseException as error:  # noqa: BLE001 - whatever a body raises is its outcome
        if os.getpid() != process:
            _leave_fork(work, error)
        if isinstance(error, TimeoutError) and timeout.expired():
            return timed_out(work)
        if _is_of_another_loop(error):
            _note_loop(work, error)
        if isinstance(error, GeneratorExit):
            return _raised(work, error, interrupt=not _is_running(task))
        interrupt = isinstance(error, KeyboardInterrupt) and may_be_from_outside(interrupts)
        return _raised(work, error, interrupt=interrupt)
    if os.getpid() != process:
        _leave_fork(work, None)
    return _returned(work, value)


def _is_running(task: asyncio.Task[Any] | None) -> bool:
    """Tell whether a loop runs `task` now; else its coroutine is being closed from outside."""
    try:
        return asyncio.current_task() is task
    except RuntimeError:  # no loop runs in this thread
        return False


def _raised(work: Work, error: BaseException, *, interrupt: bool) -> Ending:
    """Return the ending of a body that raised: all are outcomes but interrupts from outside.

    The engine's own cancellation needs no mention: such an attempt has been fenced.
    """
    if interrupt or isinstance(error, StoreError):
        return Ending(Kind.ERROR, error=error, interrupt=True, unsaved="interrupted")
    if isinstance(error, asyncio.CancelledError):
        # As itself it would cancel the task of whoever asks for this outcome.
        cancelled = StepCancelledError(work.label, "its body was cancelled from inside")
        cancelled.__cause__ = error
        error = cancelled
    return _failed(work, error)


def _leave_fork(work: Work, error: BaseException | None) -> NoReturn:
    """End a forked child that came back from a body: what it has belongs to its parent."""
    how = "" if error is None else f" by {explain(error)}"
    line = (
        f"nbdurable: a forked child (pid {os.getpid()}) came back from the body of {work.label}"
        f"{how}: it ends here and nothing of it is saved; end it in the body, with os._exit()\n"
    )
    with contextlib.suppress(OSError):
        os.write(2, line.encode("utf-8", "replace"))
    code = error.code if isinstance(error, SystemExit) else error is not None
    os._exit(code if isinstance(code, int) else code is not None)


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
    """Return the ending of an attempt that took longer than the step's timeout."""
    ending = failure(StepTimeoutError(work.label, work.options.timeout or 0.0))
    return with_evidence(work, ending, work.seen)


def failure(error: BaseException, *, final: bool = False) -> Ending:
    """Return the ending for `error`, saved if it can be encoded; `final` forbids a retry.

    Its note, which names no step yet, says what of the error is not as it was.
    """
    ending = Ending(Kind.ERROR, error=error, raised=error, final=final)
    try:
        ending.payload, ending.error, as_text = settle_error(error)
    except EncodeError as reason:
        cure = "" if reason.cure else "; raise an error that holds only what pickles"
        ending.unsaved = str(reason)
        ending.note = f"not saved: {reason}{cure}"
    else:
        if as_text:
            names = ", ".join(f"`{name}`" for name in as_text)
            ending.note = f"of its error, {names} can't be pickled and came back as text"
    return ending


def unsaved_failure(error: BaseException, reason: str, *, final: bool = True) -> Ending:
    """Return the ending for an `error` that must not be saved and, if `final`, not be retried."""
    return Ending(Kind.ERROR, error=error, unsaved=reason, final=final)


def backoff(policy: RetryPolicy, failed: int) -> float:
    """Return the wait in seconds after the `failed`-th failure, with jitter."""
    state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
    state.attempt_number = failed
    wait = tenacity.wait_exponential(multiplier=policy.backoff, max=policy.max_backoff)
    jitter = tenacity.wait_random(0, policy.backoff / 4)
    return float(min(policy.max_backoff, wait(state) + jitter(state)))


def explain(error: BaseException) -> str:
    """Return an error in one line: its class and the first line of its message, without notes."""
    told = traceback.TracebackException(type(error), error, None)
    told.__notes__ = None
    lines = "".join(told.format_exception_only()).strip().splitlines()
    # Above a SyntaxError's message stand its file and its line.
    return printable(lines[-1 if isinstance(error, SyntaxError) else 0])


def place_of(error: BaseException) -> str:
    """Return the last of the user's own lines that an error came through; empty if there is none.

    A notebook's cell has no name that a person knows: its function and line are named.
    """
    for filename, line, function in reversed(frames_of(error)):
        if _PLACES.file(filename):
            code = f"{function}()" if function != "<module>" else "the cell"
            if filename.startswith("<") or "ipykernel_" in filename:
                return printable(f"{code}, line {line}")
            return printable(f"{code}, line {line} of {os.path.basename(filename)}")  # noqa: PTH119
    return ""


def told_error(payload: bytes) -> tuple[str, str]:
    """Return a saved error in one line, and its `place_of`; nothing of one that can't be read."""
    try:
        error = decode_error(payload)
    except DurableError:
        return "", ""
    return explain(error), place_of(error)


def arguments_text(work: Work | None) -> str:
    """Return ``parameter=digest;...`` of a step's inputs, by which `why` names what changed.

    Of what is masked there is no digest: a short secret could be guessed by it.
    """
    if work is None or work.inputs is None:
        return ""
    return printable(
        ";".join(
            [
                f"{name}={'masked' if names_secret(name) else digest.hex()}"
                for name, digest in work.inputs.parts
            ]
        )
    )


def is_async(function: Callable[..., Any]) -> bool:
    """Tell whether calling `function` gives a coroutine."""
    if type(function) is types.FunctionType and not vars(function):  # it bears no mark
        return bool(function.__code__.co_flags & inspect.CO_COROUTINE)
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an instance with an async __call__
    )


def _call(work: Work, capture: Capture, recorder: Recorder) -> Any:
    with Capturing(capture), Seeing(recorder):
        return work.function(*work.arguments, **work.keywords)


def refused_input(work: Work) -> Ending | None:
    """Return the ending of an attempt whose inputs have moved since `go`; None if none has."""
    with (
        contextlib.nullcontext(work.moved()) if work.use is None else using(work, work.use) as moved
    ):
        return _refuse(work, moved) if moved else None


@contextlib.contextmanager
def using(work: Work, use: Use) -> Iterator[Moved]:
    """Have a step's objects in use meanwhile; give the inputs that somebody else has moved."""
    try:
        yield use.begin(work.moved())
    finally:
        use.leave()


def _refuse(work: Work, moved: Moved) -> Ending:
    error = InputMovedError(work.label, *moved_before(work, moved))
    return unsaved_failure(error, "an input moved before the body ran")


def _failed(work: Work, error: BaseException) -> Ending:
    add_hint(error)
    moved = work.moved()
    if moved and work.use is not None:
        moved = work.use.not_explained(moved, error)
    ending = failure(error, final=bool(moved))
    notes = [ending.note] if ending.note else []
    if moved and work.options.policy.retries:
        notes.append(f"not retried, since its body had changed {named(moved)}")
    if notes:
        ending.note = f"{work.label}: {'; '.join(notes)}"
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
        cure = "" if error.cure else "; return something that pickles, or strip it first"
        note = f"{work.label}: not saved: {error}{cure}"
        return Ending(Kind.VALUE, value=value, unsaved=str(error), note=note)
    except StoreError as error:
        # No outcome: it was not the step that failed, and its value can't be made durable.
        return Ending(Kind.ERROR, error=error, interrupt=True, unsaved=str(error))
    ending = Ending(Kind.VALUE, value=decoded, payload=payload)
    moved = work.moved()
    if moved and (rest := _not_by_use(work, ending, value, moved)):
        _note_moved(work, ending, value, rest)
    elif told := work.code.shifted() if work.code is not None else ():
        names = ", ".join(f"`{name}`" for name in told)
        ending.note = (
            f"{work.label}: {names} changed while it waited or ran; its outcome is saved as that "
            f"of the value before: pass it as an argument to be sure of what is used"
        )
    return ending


def _not_by_use(work: Work, ending: Ending, value: Any, moved: Moved) -> Moved:
    """Return what its body changed otherwise than by using it; keep what it drew."""
    if work.use is None or is_part_of(work, value, moved):
        return moved
    rest = work.use.not_explained(moved, value)
    if not rest:
        ending.draws = draws((work.inputs, work.code))
    return rest


def _note_moved(work: Work, ending: Ending, value: Any, moved: Moved) -> None:
    """Save what moved its inputs only where the moved object is part of the result."""
    names = named(moved)
    if is_part_of(work, value, moved):
        ending.note = (
            f"{work.label} changed {names} in place: use what it returned, for on replay the "
            f"object outside keeps its old state"
        )
        return
    ending.payload = None
    ending.value = value
    ending.unsaved, cure = moved_meanwhile(work, value, moved)
    ending.note = f"{work.label}: not saved: {ending.unsaved}; {cure}"


def _refuse_value(work: Work, value: Any) -> UsageError | None:
    if isinstance(value, Coroutine):
        return UsageError(
            f"{work.label} returned a coroutine, which can't be saved: `await` it in the step"
        )
    if hasattr(type(value), "__nbdurable_identity__"):
        return UsageError(f"{work.label} returned a handle: return its .result() instead")
    return None
