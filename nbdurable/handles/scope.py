"""Where code stands: in which run, under which step, in which strand of its order.

Invariant: told by a ContextVar alone, so it follows a body into its thread, its
task and whatever copies their context, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import threading
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from nbdurable.errors import NotInRunError
from nbdurable.output.stage import Stage

from .combinators import Select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from nbdurable.executors.limits import Room
    from nbdurable.steps.options import RunSettings, StepOptions

    from .combinators import Gather
    from .handle import StepHandle


class Run(Protocol):
    """What code that stands in a run asks of it; `nbdurable.engine.run.Run` is one."""

    settings: RunSettings
    turns: Any

    @property
    def calls(self) -> Calls:
        """What starts steps."""

    @property
    def combining(self) -> Combining:
        """What makes handles on handles."""

    @property
    def timers(self) -> Timers:
        """What makes timers."""

    @property
    def current(self) -> Current:
        """What bodies ask about themselves."""

    def is_of_parent(self) -> bool:
        """Tell whether this is a forked child, and the run its parent's."""

    def time(self) -> float:
        """Return the clock's time, unrecorded, in seconds since the epoch."""


class Calls(Protocol):
    """What starts steps; `nbdurable.engine.calls.Calls` does."""

    def go(
        self,
        where: Scope,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: StepOptions,
    ) -> StepHandle[Any]:
        """Claim the next call of `function` and start it, unless it is replayed."""

    def call(
        self,
        where: Scope,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: StepOptions,
    ) -> Any:
        """Run a sync step in the calling thread and return its value."""

    def call_ahead(
        self,
        where: Scope,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: StepOptions,
    ) -> Any:
        """Claim the call now; return what performs it in the thread that it is handed to."""

    def call_async(
        self,
        where: Scope,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
        options: StepOptions,
    ) -> Any:
        """Claim the call now; return what starts it when it is awaited."""

    def map(
        self,
        where: Scope,
        function: Callable[..., Any],
        rows: Iterable[tuple[Any, ...]],
        same: dict[str, Any],
        options: StepOptions,
        *,
        limit: int | None,
        return_exceptions: bool,
    ) -> Gather[Any]:
        """Start `function` for each of `rows`, and gather."""


class Combining(Protocol):
    """What makes handles on handles; `nbdurable.engine.combining.Combining` does."""

    def select(
        self,
        where: Scope,
        handles: Sequence[Any],
        *,
        success: bool = False,
        kind: type[Select[Any]] = Select,
    ) -> Select[Any]:
        """Make a select over `handles`."""

    def gather(
        self, where: Scope, handles: Sequence[Any], *, return_exceptions: bool = False
    ) -> Gather[Any]:
        """Make a gather over `handles`, or over the values of one dict."""

    def as_completed(self, where: Scope, handles: Sequence[Any]) -> Any:
        """Make an iterator over `handles` in the order in which they end."""


class Timers(Protocol):
    """What makes timers; `nbdurable.engine.timers.Timers` does."""

    def after(self, where: Scope, seconds: float, name: str = "after") -> StepHandle[Any]:
        """Make a timer handle: done `seconds` after it was first made."""

    def at(self, where: Scope, until: float, shown: str) -> StepHandle[Any]:
        """Make a timer handle that is done at a time, in seconds since the epoch."""


class Current(Protocol):
    """What a body asks about itself; `nbdurable.engine.current.Current` is one."""

    def attempt(self, where: Scope) -> int:
        """Return which attempt of its call this is, from 1."""

    def idempotency_key(self, where: Scope) -> str:
        """Return what every attempt of the call has in common, until it is redone."""

    def progress(self, where: Scope, done: float, total: float | None) -> None:
        """Tell how far the attempt is."""

    def save(self, where: Scope, value: object) -> None:
        """Make `value` durable for the next attempt."""

    def saved(self, where: Scope, default: object) -> Any:
        """Return what an attempt of this call has saved last, or `default`."""


@dataclass(slots=True)
class Scope:
    """One namespace of calls: a run's cell, or one attempt of a step's body.

    ``occurrences`` counts identical calls in program order; each count keeps the
    strand (task, thread or handed-over work) that the first of them came from, for two
    strands have no order between them. ``attempt`` is a body's own. ``home`` is the
    strand of the scope's own code, ``works`` is what that handed to others.
    """

    run: Run
    namespace: bytes
    parent: int | None
    asynchronous: bool
    live: bool = True
    limits: list[Room] = field(default_factory=list)
    occurrences: dict[tuple[str, bytes], tuple[int, int]] = field(default_factory=dict)
    stage: Stage | None = None
    attempt: Any = None
    home: int | None = None
    works: Works | None = None

    def perform(self, attempt: Any) -> None:
        """Be where the body of this attempt stands."""
        self.attempt = attempt

    def belong_to(self, other: Scope) -> None:
        """Be a scope of another run from now on: its body was adopted."""
        self.run, self.parent = other.run, other.parent

    def count_in(self, rooms: Iterable[Room]) -> None:
        """Take part in limits that have room for this body."""
        self.limits += rooms

    def leave(self) -> None:
        """Let what is left of this code start and decide nothing more."""
        self.live = False

    def end(self) -> None:
        """Let what is left of this body start and decide nothing more, and hold up nobody."""
        self.live = False
        self.give_limits()

    def settle(self, strand: int) -> None:
        """Take the strand of the scope's own code."""
        self.home = strand

    def works_so_far(self) -> Works:
        """Return what its code has handed to others."""
        if self.works is None:
            self.works = Works()
        return self.works

    def own_stage(self) -> Stage:
        """Return where it shows what it writes and receives."""
        if self.stage is None:
            self.stage = Stage(self.strand())
        return self.stage

    def give_limits(self) -> None:
        """Make room for others of the limits that this body counts in, once."""
        while self.limits:
            self.limits.pop().give()

    def strand(self) -> int:
        """Return what tells apart the places that code in this scope can run at."""
        place: object = work.get() or threading.current_thread()
        if self.asynchronous:
            with contextlib.suppress(RuntimeError):
                place = asyncio.current_task() or place
        known = _strands.get(place)
        if known is None:
            known = _strands[place] = next(_numbers)
        return known


@dataclass(slots=True)
class Works:
    """The work that the code of one scope has handed to other threads and tasks.

    ``counts`` counts equal pieces, ``paths`` tells each apart, ``strands`` are the paths by
    strand, and ``handed`` are the pieces that went to threads, in order.
    """

    counts: dict[bytes, int] = field(default_factory=dict)
    handed: list[HandedOver] = field(default_factory=list)
    paths: set[bytes] = field(default_factory=set)
    strands: dict[int, bytes] = field(default_factory=dict)


class HandedOver:
    """One piece of work that was handed to another thread or task.

    ``path`` tells it apart: who handed it over, the function, its plain arguments, and how
    many equal ones came before it there. What a thread receives is ``unshown`` until the
    scope's own code asks for what the work gave, or ends: threads have no order to show it in.
    """

    __slots__ = ("__weakref__", "_strand", "in_thread", "path", "unshown")

    def __init__(self, path: bytes, *, in_thread: bool) -> None:
        self.path = path
        self.in_thread = in_thread
        self.unshown: list[StepHandle[Any]] = []
        self._strand: int | None = None

    def take_unshown(self) -> list[StepHandle[Any]]:
        """Return the steps whose output is to be shown, once."""
        unshown, self.unshown = self.unshown, []
        return unshown

    def is_of(self, strand: int) -> bool:
        """Tell whether a strand is the one that does this work: the first that asks is."""
        if self._strand is None:
            self._strand = strand
        return self._strand == strand


# Strands have numbers. Addresses would not do, because Python reuses that of a task that ended.
_strands: weakref.WeakKeyDictionary[object, int] = weakref.WeakKeyDictionary()
_numbers = itertools.count()

current: contextvars.ContextVar[Scope | None] = contextvars.ContextVar(
    "nbdurable_scope", default=None
)


work: contextvars.ContextVar[HandedOver | None] = contextvars.ContextVar(
    "nbdurable_work", default=None
)
"""The handed-over work that the calling code belongs to; none for what the scope runs itself."""


def stand_in(where: Scope) -> contextvars.Token[Scope | None]:
    """Let the calling context stand in a scope, as that scope's own code."""
    work.set(None)
    return current.set(where)


def scope_of(operation: str) -> Scope:
    """Return the scope that the calling code stands in.

    Raises:
        NotInRunError: It stands in none; names `operation`.
    """
    where = current.get()
    if where is None:
        raise NotInRunError(operation)
    return where
