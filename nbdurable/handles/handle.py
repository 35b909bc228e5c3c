"""Handles: what a cell holds while a step, a timer or a combinator happens.

Invariant: a handle answers only what is durable. Asking is `result`, `outcome` or
`await`; looking (repr, completion) never waits and never starts anything. What the engine
knows of a step is in its `StepLife`, which only `lifecycle` changes.
"""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 - dataclass fields are read at run time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, assert_never

from nbdurable.codec.pruned import prune
from nbdurable.errors import UsageError
from nbdurable.records import HandleKind, Kind, Version
from nbdurable.steps.attempts import Ending

from .lifecycle import Phase, Resolvable, StepLife

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Iterable

    from nbdurable.records import Checkpoint
    from nbdurable.store import Identity

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T_co]):
    """What a handle ended with, as a value: nothing is raised."""

    kind: Kind
    value: T_co | None = None
    error: BaseException | None = None

    @property
    def ok(self) -> bool:
        """Whether it ended with a value."""
        return self.kind is Kind.VALUE


class Order(Protocol):
    """What handles need of their run."""

    strict: bool

    def wait(self, handle: Handle[Any], *, show: bool = True) -> None:
        """Block until `handle` is durable; with `show`, show live what it will deliver."""

    def wait_async(self, handle: Handle[Any]) -> Coroutine[Any, Any, None]:
        """Await until `handle` is durable."""

    def demand(self, handle: StepHandle[Any], *, rearm: bool) -> None:
        """Start a step or timer that has not been started."""

    def receive(self, handle: StepHandle[Any]) -> Any:
        """Deliver a durable step's output, and give its value or raise its error."""

    def fresh(self, handle: StepHandle[Any]) -> Any:
        """Decode a durable step's value, or error, anew."""

    def error_of(self, handle: StepHandle[Any]) -> BaseException | None:
        """Return the error that a numbered step ended with."""

    def show(self, handle: StepHandle[Any]) -> None:
        """Show a durable step's output, once."""

    def see(self, handle: StepHandle[Any]) -> None:
        """Make it durable that the cell has seen this error."""

    def cancel(self, handle: Handle[Any]) -> None:
        """Commit the cancellation of what has not ended at or below `handle`."""

    def show_before(self, gather: Any) -> None:
        """Show the output of the steps that a failed gather had received in its order."""

    def wait_limited(self, handle: Handle[Any], seconds: float) -> None:
        """Wait as a recorded select against a timer."""


Demand = tuple["Handle[Any]", bool, bool]
"""What is to be started, whether it was asked for, and whether a timer counts anew."""


class Handle(Resolvable, Generic[T_co]):
    """A step, timer or combinator under way.

    A handle is no value: truth, comparison with anything but a handle,
    arithmetic and indexing raise `UsageError`.
    """

    # Slots, not only for their size: several threads set attributes of one handle, and
    # CPython 3.11 can lose one that is set while another thread makes the instance's dict.
    __slots__ = (
        "__weakref__", "_order", "asked", "call_id", "digest", "known", "name", "observers",
        "place", "received_as",
    )  # fmt: skip

    kind: HandleKind

    def __init__(self, order: Order, place: int, name: str, call_id: bytes) -> None:
        super().__init__()
        self._order = order
        self.place = place
        self.name = name
        self.call_id = call_id
        # Stands for this handle in the digest of a step that takes it as an argument.
        self.received_as = call_id
        self.observers: list[Handle[Any]] | None = None
        self.asked = False
        self.known = False
        self.digest: bytes | None = None

    def observed_by(self, observer: Handle[Any]) -> None:
        """Tell `observer` when this has its number. The run's lock is held."""
        if self.observers is None:
            self.observers = []
        self.observers.append(observer)

    # --- what a cell asks -------------------------------------------------------

    def result(self, timeout: float | None = None) -> T_co:
        """Wait, then give the value or raise the error.

        Args:
            timeout: Seconds to wait at most. The wait is recorded: replay times
                out where the first run did.

        Raises:
            WaitTimeoutError: The timeout passed first; the step goes on.
            UsageError: The wait would block the loop of an async cell.
        """
        try:
            if timeout is not None:
                self._order.wait_limited(self, timeout)
            self._order.wait(self)
            return self.receive()
        except BaseException as error:
            prune(error)
            raise

    def outcome(self) -> Outcome[T_co]:
        """Wait, then give how it ended without raising its error."""
        self._order.wait(self)
        return self.received()

    def __await__(self) -> Generator[Any, None, T_co]:
        """Wait on the running loop, then give the value or raise the error."""
        try:
            yield from self._order.wait_async(self).__await__()
            return self.receive()
        except BaseException as error:
            prune(error)
            raise

    @property
    def label(self) -> str:
        """Name and short arguments."""
        return self.name

    def cancel(self) -> None:
        """Cancel it: what has not ended at or below it ends as cancelled, durably.

        Its body is stopped where that is possible (an async one), else let go: whatever
        it still does, it records nothing more. What has ended stays as it is.

        Raises:
            NotInRunError: Its run has ended.
        """
        self._order.cancel(self)

    def done(self) -> bool:
        """Tell whether it has ended: for people, not durable, refused in strict mode."""
        self._refuse_strict("done()")
        return self.durable

    @property
    def status(self) -> str:
        """A word for people, not durable, refused in strict mode."""
        self._refuse_strict("status")
        return self.state

    @property
    def state(self) -> str:
        """A word for how far it is."""
        if not self.durable:
            return "waiting"
        match self.ended:
            case Kind.VALUE:
                return "finished"
            case Kind.CANCELLED:
                return "cancelled"
            case Kind.ERROR | None:
                return "failed"
            case _:
                assert_never(self.ended)

    # --- what the run and the combinators ask -------------------------------------

    def receive(self) -> T_co:
        """Return the value or raise the error, once durable."""
        raise NotImplementedError

    def fresh(self) -> Any:
        """Return a value of its own, decoded anew, that nobody else holds; once durable."""
        raise NotImplementedError

    def received(self) -> Outcome[T_co]:
        """Return the outcome, once durable."""
        try:
            return Outcome(Kind.VALUE, value=self.receive())
        except BaseException as error:
            if error is not self.error():
                raise
            return Outcome(self.ended or Kind.ERROR, error=error)

    def error(self) -> BaseException | None:
        """Return the error it ended with, once numbered."""
        raise NotImplementedError

    def leaves(self) -> Iterable[StepHandle[Any]]:
        """Return the steps and timers at or below this handle."""
        raise NotImplementedError

    def demand(self, *, asked: bool, rearm: bool = False) -> None:
        """Start this handle and what it depends on; with `asked`, losers start, too."""
        stack: list[Demand] = [(self, asked, rearm)]
        while stack:
            handle, asked, rearm = stack.pop()
            stack += reversed(handle.demands(asked=asked, rearm=rearm))

    def demands(self, *, asked: bool, rearm: bool) -> list[Demand]:
        """Start this itself, and give what else is to be started for it."""
        raise NotImplementedError

    def see(self) -> None:
        """Make it durable that the cell knows how this ended, where that is an error."""
        raise NotImplementedError

    def mark_known(self) -> None:
        """Be what the program has waited for: asking again can't block."""
        self.known = True

    def mark_asked(self) -> None:
        """Be what the program has asked for."""
        self.asked = True

    def keep_digest(self, digest: bytes) -> bytes:
        """Keep the digest of the outcome, and return it."""
        self.digest = digest
        return digest

    def run_of(self) -> Order:
        """Return the run that this handle belongs to."""
        return self._order

    def __nbdurable_identity__(self) -> bytes:
        """Stand for this handle in fingerprints."""
        return self.received_as

    # --- a handle is no value -----------------------------------------------------

    def _refuse_strict(self, what: str) -> None:
        if self._order.strict:
            raise UsageError(
                f"`{what}` of {self.label} changes from run to run; strict mode refuses it: use "
                f"`select`, or `.result(timeout=...)`, whose answers are durable"
            )

    def __repr__(self) -> str:
        return f"<{self.kind} {self.label}: {self.state}>"

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """Return what a notebook shows of it: how far it is, and how to get its value."""
        if self.broken is not None:
            cure = "its run ended before it did; run that cell again"
        elif not self.durable:
            cure = "a handle, not yet a value: .result() waits for it, await in an async cell"
        elif self.ended is Kind.VALUE:
            cure = "a handle, not its value: .result() gives it"
        else:
            cure = "a handle: .outcome() tells how it ended, .result() raises its error"
        return {"text/plain": f"{self!r}\n{cure}"}

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Handle):
            return self is other
        raise self._misuse("compared")

    def __hash__(self) -> int:
        return id(self)

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise UsageError(f"{self.label} is a handle, which can't be saved: save its .result()")

    def _misuse(self, how: str) -> UsageError:
        return UsageError(
            f"{self.label} is a handle, not its value, and can't be {how}: ask for `.result()` "
            f"(or `await` it) first"
        )


def _refuse(how: str) -> Callable[..., Any]:
    def refused(self: Handle[Any], *_: object) -> Any:
        raise self._misuse(how)

    return refused


_BINARY = "add sub mul matmul truediv floordiv mod pow and or xor lshift rshift"
_MISUSES = {
    "used as a truth value": ("bool",),
    "compared": ("lt", "le", "gt", "ge"),
    "indexed": ("getitem", "setitem", "delitem", "contains"),
    "looped over": ("iter", "next", "len", "reversed"),
    "turned into a number": ("int", "float", "complex", "index", "round"),
    "called": ("call",),
    "calculated with": (
        *(prefix + name for name in _BINARY.split() for prefix in ("", "r", "i")),
        *("neg", "pos", "abs", "invert"),
    ),
}
for _how, _names in _MISUSES.items():
    for _name in _names:
        setattr(Handle, f"__{_name}__", _refuse(_how))


class StepHandle(Handle[T_co]):
    """A step's or a timer's handle: which call it stands for, and how that ended.

    ``namespace`` is the call id of the step whose body made the call, or the run's id as bytes;
    ``occurrence`` counts equal calls there (CONTRACT section 3).
    ``upstream`` are the handles among its arguments, ``source`` the one whose failure it
    passes on; ``life`` is the engine's record of it.
    """

    __slots__ = (
        "_own_version", "code", "kind", "label_text", "life", "namespace", "occurrence", "parent",
        "source", "upstream", "version",
    )  # fmt: skip

    def __init__(
        self,
        order: Order,
        place: int,
        name: str,
        call_id: bytes,
        *,
        namespace: bytes,
        occurrence: int,
        kind: HandleKind = HandleKind.STEP,
        parent: int | None,
        code: bytes = b"",
        received_as: bytes | None = None,
        upstream: tuple[Handle[Any], ...] = (),
    ) -> None:
        super().__init__(order, place, name, call_id)
        if received_as is not None:
            self.received_as = received_as
        self.kind = kind
        self.namespace = namespace
        self.occurrence = occurrence
        self.parent = parent
        self.code = code
        self.upstream = upstream
        self.version: Version | None = None
        self._own_version: Version | None = None
        self.label_text = ""
        self.source: Handle[Any] | None = None
        self.life = StepLife()

    @property
    def label(self) -> str:
        """Name and short arguments, secrets masked."""
        return self.label_text or self.name

    @property
    def state(self) -> str:
        """A word for how far it is."""
        if self.durable:
            return super().state
        if self.life.phase is Phase.DEFERRED:
            return "not started"
        return "running" if self.life.running is not None else "waiting"

    @property
    def is_claimed(self) -> bool:
        """Whether its call was claimed to the end: what an interrupt broke off is nobody's."""
        return self.life.work is not None or self.life.started

    @property
    def identity(self) -> Identity:
        """(call, version); a version not yet known is zeros."""
        return self.call_id, self.version.id if self.version else bytes(16)

    @property
    def code_digest(self) -> bytes:
        """The digest of its code, in 16 bytes; a timer's are zeros."""
        return (self.version.code if self.version else self.code) or bytes(16)

    def receive(self) -> T_co:
        """Return the value or raise the error, with the step's output before it."""
        value: T_co = self._order.receive(self)
        return value

    def fresh(self) -> Any:
        """Return the value decoded anew; of an error, the error."""
        return self._order.fresh(self)

    def error(self) -> BaseException | None:
        """Return the error it ended with."""
        return None if self.ended is Kind.VALUE else self._order.error_of(self)

    def leaves(self) -> Iterable[StepHandle[Any]]:
        """Return itself."""
        return (self,)

    def demands(self, *, asked: bool, rearm: bool) -> list[Demand]:
        """Start it if it is not started; what it waits for is asked for once."""
        self.asked = self.asked or asked
        if self.life.started or self.number:
            return []
        self._order.demand(self, rearm=rearm)
        if not self.life.demand_upstream():
            return []
        return [(upstream, True, False) for upstream in self.upstream]

    def show_as(self, label: str) -> None:
        """Be shown with this name and these short arguments, secrets masked."""
        self.label_text = label

    def take_version(self, version: Version | None) -> None:
        """Be of this version; None while outcomes that it takes as arguments are missing."""
        self.version = version

    def stand_for(self, version: Version) -> None:
        """Stand for the version that made an outcome which is accepted for this call."""
        self._own_version = self._own_version or self.version
        self.version, self.code = version, version.code

    def stand_for_itself(self) -> None:
        """Stand for its own version again: its body is about to run."""
        if self._own_version is not None:
            self.version, self.code = self._own_version, self._own_version.code
            self._own_version = None

    def take_checkpoint(self, found: Checkpoint) -> None:
        """End as a checkpoint says. The run's lock is held."""
        self.life.save(found)
        self.resolve(found.number, found.kind)
        self.life.replay()

    def take_ending(self, number: int, ending: Ending, seconds: float) -> None:
        """End as an attempt, or a cancellation, did. The run's lock is held."""
        self.resolve(number, ending.kind)
        self.life.end(ending, seconds)

    def take_failure(self, failed: Handle[Any]) -> None:
        """End with an upstream's error and number. The run's lock is held."""
        self.resolve(failed.number, failed.ended)
        self.life.fail_with(Ending(failed.ended or Kind.ERROR, error=failed.error()))
        self.source = failed

    def become_durable(self) -> list[Callable[[], object]] | None:
        """Be durable; return who is to be woken, once. The run's lock is held."""
        self.life.commit()
        return super().become_durable()

    def let_go(self) -> None:
        """Forget what only a body under way needs: a long notebook holds many handles."""
        self.life.let_go()
        self.observers = None
        self.upstream = ()

    def see(self) -> None:
        """Make it durable that its error, or the upstream's that it passes on, is seen."""
        source: Handle[Any] = self
        while isinstance(source, StepHandle) and source.source is not None:
            source = source.source
        if source is not self:
            source.see()
        elif self.ended is Kind.ERROR:
            self._order.see(self)


def handles_in(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Iterable[Handle[Any]]:
    """Return the handles among arguments, alone or inside lists, tuples and dicts, in order."""
    stack: list[Any] = [*reversed(keywords.values()), *reversed(arguments)]
    while stack:
        value = stack.pop()
        if isinstance(value, Handle):
            yield value
        elif type(value) is list or type(value) is tuple:
            stack.extend(reversed(value))
        elif type(value) is dict:
            stack.extend(reversed(value.values()))


def with_values(
    arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments in which each handle is replaced by its value, decoded anew."""

    def replaced(value: Any) -> Any:
        if isinstance(value, Handle):
            return value.fresh()
        if type(value) is list:
            return [replaced(one) for one in value]
        if type(value) is tuple:
            return tuple(replaced(one) for one in value)
        if type(value) is dict:
            return {key: replaced(one) for key, one in value.items()}
        return value

    return tuple(replaced(one) for one in arguments), {
        key: replaced(one) for key, one in keywords.items()
    }
