"""The only place where the parts are joined: runs are made of them, begun and ended.

This is also the plain-Python door: `workflow`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import sys
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from nbdurable import evidence
from nbdurable import store as stores
from nbdurable.codec.pruned import prune
from nbdurable.engine import handed_over, outside, timed
from nbdurable.engine.run import Run
from nbdurable.errors import UsageError
from nbdurable.fingerprint import Fingerprinter
from nbdurable.handles import scope
from nbdurable.interrupts import guarded, uninterrupted
from nbdurable.labels import label_of, printable
from nbdurable.output import capture as output
from nbdurable.output import streams
from nbdurable.steps.attempts import is_async
from nbdurable.steps.options import RunSettings, checked_executor

from .configuration import (
    check_limit,
    check_progress,
    check_store,
    clock,
    default_limit,
    default_progress,
    is_seconds,
    settings,
    slots,
    store_for,
)
from .open_stores import acquire, executed, executing, leftovers_of, release

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextvars import Token
    from pathlib import Path
    from types import TracebackType

    from nbdurable.engine.control import Control
    from nbdurable.events import Event
    from nbdurable.handles.scope import Scope

P = ParamSpec("P")
R = TypeVar("R")


def workflow(
    name: str,
    *,
    store: str | Path | None = None,
    id: object = None,  # noqa: A002 - the contract's name
    new: bool = False,
    max_age: float | None = None,
    strict: bool | None = None,
    limit: int | None = None,
    tee: bool = False,
    keep: bool = False,
    executor: Any = None,
    progress: bool | None = None,
    observers: Sequence[Callable[[Event], None]] = (),
) -> Workflow:
    """Return a durable run without a notebook: a context manager, and a decorator.

    Args:
        name: What the run is found by next time.
        store: The DuckDB file; see `configure`.
        id: Tells runs of one name apart.
        new: A finished run is not replayed: a new one begins; an unfinished one resumes.
        max_age: As `new`, when the last checkpoint is older than so many seconds.
        strict: Refuse what can't be compared or saved, instead of saying so.
        limit: How many sync steps run at once.
        tee: Show every step's output while it runs, in no order, instead of in program order.
        keep: Accept saved outcomes whose code changed, as they are; what is accepted is said.
        executor: Where the bodies of sync steps run, unless a step says; see `step`.
        progress: Show how the run stands, on stderr, wherever that goes; False, don't. By
            default a terminal shows it once the run lasts; see `configure`.
        observers: Called with each event, in any thread; must be quick and not raise.

    Raises:
        UsageError: The name is empty, or an option can't have this value.
    """
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise UsageError(f"workflow({name!r}): give a printable name, the same one every time")
    run_name = name if id is None else f"{name}[{id}]"
    if not run_name.isprintable():
        raise UsageError(f"workflow({name!r}, id={id!r}): give an id that prints in one line")
    check_store(store)
    check_progress(progress)
    if executor is not None:
        checked_executor(f"workflow({name!r})", executor)
    if limit is not None:
        check_limit(limit)
    if max_age is not None and not is_seconds(max_age):
        raise UsageError(f"workflow max_age={max_age!r}: give a number of seconds, 0 or more")
    return Workflow(
        run_name=run_name,
        written=name,
        by_arguments=id is None,
        store=None if store is None else stores.place_of(store),
        new=new,
        max_age=max_age,
        strict=strict,
        limit=limit,
        tee=tee,
        keep=keep,
        executor=executor,
        progress=progress,
        observers=tuple(observers),
    )


class Workflow:
    """One execution of a named run: ``with``, ``async with``, or a decorator.

    After the end `notes` holds lines for the person at the screen, and `steps` how
    many steps and timers the code asked for. `control` is there from the beginning of
    an execution on, and `fresh`, whether nothing had been saved of the run before;
    `resumes`, whether its last execution had not finished.
    """

    def __init__(
        self,
        *,
        run_name: str,
        written: str,
        by_arguments: bool,
        store: str | None,
        new: bool,
        max_age: float | None,
        strict: bool | None,
        limit: int | None,
        tee: bool,
        keep: bool,
        executor: Any,
        progress: bool | None,
        observers: tuple[Callable[[Event], None], ...],
    ) -> None:
        self.run_name = run_name
        self.notes: tuple[str, ...] = ()
        self.warnings: tuple[str, ...] = ()
        self.steps = 0
        self.control: Control | None = None
        self.fresh = False
        self._written = written
        self._by_arguments = by_arguments
        self._store = store
        self._new = new
        self._max_age = max_age
        self._strict = strict
        self._limit = limit
        self._tee = tee
        self._keep = keep
        self._executor = executor
        self._progress = progress
        self._observers = observers
        self._run: Run | None = None
        self._place = ""
        self._undo = contextlib.ExitStack()

    # --- with -----------------------------------------------------------------------

    def __enter__(self) -> Run:
        return self._begin(asynchronous=False)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        run = self._leave()
        try:
            run.closing.finish(error)
        except BaseException as late:
            prune(late)
            raise
        finally:
            self._finished(run)
            if error is not None:
                prune(error)

    async def __aenter__(self) -> Run:
        return self._begin(asynchronous=True)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        run = self._leave()
        try:
            await run.closing.finish_async(error)
        except BaseException as late:
            prune(late)
            raise
        finally:
            self._finished(run)
            if error is not None:
                prune(error)

    def _begin(self, *, asynchronous: bool) -> Run:
        outer = scope.current.get()
        if outer is not None and outer.live and not outer.run.is_of_parent():
            raise UsageError(
                f"{self.run_name} would begin inside {outer.run.settings.name}: a run can't "
                f"contain another; a step that starts steps is a sub-workflow"
            )
        if self._run is not None:
            raise UsageError(
                f"{self.run_name} is being executed by this very workflow(...) already; make a "
                f"second one with another name or id="
            )
        self._place = self._store or store_for(self._written)
        asked = default_progress() if self._progress is None else self._progress
        # An interrupt can come anywhere: what has been done by then is undone.
        with executing(self._place, self.run_name), contextlib.ExitStack() as undo:
            undo.enter_context(guarded())
            found = acquire(self._place)
            undo.callback(release, self._place, found)
            opened = stores.begin_execution(
                found.store, self.run_name, now=clock().time(), new=self._new, max_age=self._max_age
            )
            self.fresh = opened.previous is None
            streams.install()
            undo.callback(streams.remove)
            undo.callback(output.leave_screen, output.enter_screen())
            view = _view_of(self.run_name, asked=asked)
            observers = self._observers
            if view is not None:
                observers = (*observers, view)
                undo.callback(view.finish)
            strict = settings().strict if self._strict is None else self._strict
            run = Run(
                found.store,
                opened,
                RunSettings(
                    self.run_name,
                    strict,
                    self._limit or default_limit(),
                    asynchronous,
                    self._tee,
                    settings().verify,
                    self._keep,
                    settings().confirm,
                    settings().pin_packages,
                    settings().reads or "",
                    self._executor or settings().executor,
                    slots(self._limit),
                    settings().dask,
                ),
                clock=clock(),
                observers=observers,
                leftovers=leftovers_of(opened.run),
            )
            run.begin()
            for label in opened.undecided:
                run.say(
                    f"what {printable(label)} had decided is not signed by your key, so it was "
                    f"taken out: it is decided anew"
                )
            unseen = evidence.install()
            if unseen and opened.previous is None:
                run.closing.note_unseen(unseen)
            undo.callback(evidence.leave, evidence.begin_cell())
            undo.callback(_leave_scope, scope.current.set(run.scope))
            for patches in (handed_over.patches, timed.patches):
                patches.install()
                undo.callback(patches.remove)
            outside.enter(run, run.say)
            undo.callback(outside.leave, run)
            self.control = run.control
            found.status.begin(run.control)
            undo.callback(found.status.end, run.control)
            if view is not None:
                view.show()
            with uninterrupted():
                self._run, self._undo = run, undo.pop_all()
        return run

    def _leave(self) -> Run:
        assert self._run is not None
        return self._run

    def _finished(self, run: Run) -> None:
        self.steps = run.step_count()
        self.warnings = tuple(run.notes)
        self.notes = run.closing.said()
        self._run = None
        executed(self._place, self.run_name)
        self._undo.close()

    # --- decorator ------------------------------------------------------------------

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Make `function` durable: each set of arguments is a run of its own, or `id` names it.

        Raises:
            UsageError: `function` is a generator function, or can't be called.
            FingerprintError: In a call: an argument can't be compared with another
                process's.
        """
        if not callable(function):
            raise UsageError(
                f"workflow({self.run_name!r}) decorates a function; a {type(function).__name__} "
                f"can't be called"
            )
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise UsageError(
                f"workflow({self.run_name!r}): {function.__name__} is a generator function, whose "
                f"body would run after the run had ended: return a list instead of yielding"
            )
        if is_async(function):

            @functools.wraps(function)
            async def durable_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                async with self._for(function, args, kwargs):
                    return await function(*args, **kwargs)  # type: ignore[misc] # it is async

            return durable_async  # type: ignore[return-value] # R is its coroutine

        @functools.wraps(function)
        def durable(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._for(function, args, kwargs):
                return function(*args, **kwargs)

        return durable

    def _for(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Workflow:
        name = self.run_name
        signature = inspect.signature(function)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if self._by_arguments and (bound.args or bound.kwargs):
            digest = Fingerprinter(strict=True).arguments(function, args, kwargs).digest
            short = hashlib.blake2b(digest, digest_size=8).hexdigest()
            label = label_of(name, bound.args, bound.kwargs, tuple(signature.parameters))
            name = f"{label} {short}"
        return Workflow(
            run_name=name,
            written=self._written,
            by_arguments=False,
            store=self._store,
            new=self._new,
            max_age=self._max_age,
            strict=self._strict,
            limit=self._limit,
            tee=self._tee,
            keep=self._keep,
            executor=self._executor,
            progress=self._progress,
            observers=self._observers,
        )


def _view_of(name: str, *, asked: bool | None) -> View | None:
    """Return what shows a run outside notebooks; None where nobody looks."""
    if asked is False or not (asked or (sys.stderr is not None and sys.stderr.isatty())):
        return None
    from nbdurable.view.terminal.screen import view_for  # noqa: PLC0415 - who is not on a terminal doesn't pay for it

    return view_for(name, asked=asked, clock=clock().time)


class View(Protocol):
    """Shows one execution: an observer that is told when it begins and ends."""

    def __call__(self, event: Event) -> None:
        """Take an event."""

    def show(self) -> None:
        """The execution has begun."""

    def finish(self) -> None:
        """The execution has ended."""


def _leave_scope(token: Token[Scope | None]) -> None:
    with contextlib.suppress(ValueError):
        # An async generator's cleanup may run in another context; the scope is dead anyhow.
        scope.current.reset(token)
