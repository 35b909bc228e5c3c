"""Work that a run's code hands to other threads: steps called there belong to the run.

Invariant: order and scope are taken where the work is handed over (`submit`, `start`,
`apply_async`), in the thread that hands it over. The standard library's classes are patched
only while a run is active, and what code outside of a run hands over goes by untouched.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import importlib
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, cast

from nbdurable.handles import scope
from nbdurable.handles.scope import HandedOver
from nbdurable.records import digest_of

from .patching import Patches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from nbdurable.handles.handle import StepHandle
    from nbdurable.handles.scope import Scope

    from .patching import Point

_OURS = "nbdurable"
"""Begins the names of the engine's own threads."""
_WORKERS = {"concurrent.futures.thread", "multiprocessing.pool"}
"""The modules whose threads outlive the work that they are started for: each work is handed
over by itself."""
_PLAIN = (str, int, float, complex, bool, bytes, type(None))
_LONGEST = 200
_DEEPEST = 3


class Step(Protocol):
    """What a step does where it is handed over; `nbdurable.api.step.Step` is one."""

    def ahead(
        self, where: Scope, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> ClaimedCall | None:
        """Claim the call now; None for an async step, whose call gives a coroutine."""


class ClaimedCall:
    """A step's call whose place in program order is taken: performed where this is called."""

    def __init__(
        self, handle: StepHandle[Any], perform: Callable[[], Any], forgo: Callable[[], object]
    ) -> None:
        self.handle = handle
        self._perform = perform
        self._forgo = forgo

    def __call__(self) -> Any:
        """Perform the call, or replay it, and return its value."""
        return self._perform()

    def left_by(self, future: Future[Any]) -> None:
        """Make the call a loser: its work was cancelled before it began."""
        if future.cancelled():
            self._forgo()


def hand_over(
    where: Scope, function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> Entered:
    """Return what does the work of a call in another thread, as part of the scope `where`."""
    step, args, kwargs = _step_in(function, arguments, keywords)
    claimed = None if step is None else step.ahead(where, args, kwargs)
    path = _path_of(where, function, arguments)
    work = HandedOver(path, in_thread=True)
    where.works_so_far().handed.append(work)
    do = claimed or functools.partial(function, *arguments, **keywords)
    return Entered(where, do, work, claimed)


class Entered:
    """Work that stands in the scope that it was handed over from while it is done."""

    def __init__(
        self,
        where: Scope,
        do: Callable[[], Any],
        work: HandedOver,
        claimed: ClaimedCall | None,
    ) -> None:
        self.claimed = claimed
        self.lasts = False  # True for a thread that watches or serves others until the end
        self._where = where
        self._do = do
        self._work = work

    def __call__(self) -> Any:
        """Do the work."""
        with _standing_in(self._where, self._work, counted=not self.lasts):
            return self._do()

    def show_after(self, owner: Any, name: str) -> None:
        """Show the work's steps' output where the scope's own code asks a method of `owner`."""
        asked = getattr(owner, name)

        @functools.wraps(asked)
        def ask(*args: Any, **kwargs: Any) -> Any:
            try:
                return asked(*args, **kwargs)
            finally:
                if scope.current.get() is self._where and self._where.live:
                    show(self._work)

        setattr(owner, name, ask)


def show(work: HandedOver) -> None:
    """Show what the steps of a piece of work have written, where no thread does other work."""
    mine = scope.work.get()
    if mine is None or not mine.in_thread:
        for handle in work.take_unshown():
            handle.run_of().show(handle)


_at_work: Counter[int] = Counter()
_counting = threading.Lock()


def at_work(run: object) -> bool:
    """Tell whether another thread does work that a run's code has handed over."""
    return _at_work[id(run)] > 0


@contextlib.contextmanager
def _standing_in(where: Scope, work: HandedOver, *, counted: bool) -> Iterator[None]:
    run = id(where.run) if counted else 0
    standing, doing = scope.current.set(where), scope.work.set(work)
    with _counting:
        _at_work[run] += 1
    try:
        yield
    finally:
        with _counting:
            _at_work[run] -= 1
            if not _at_work[run]:
                del _at_work[run]
        scope.work.reset(doing)
        scope.current.reset(standing)


def _step_in(
    function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[Step | None, tuple[Any, ...], dict[str, Any]]:
    """Return the step that a callable is, below `partial` and `Context.run`, and what it gets."""
    while True:
        owner = getattr(function, "__self__", None)
        if isinstance(owner, contextvars.Context) and arguments:  # what `to_thread` hands over
            function, *rest = arguments
            arguments = tuple(rest)
        elif type(function) is functools.partial:
            keywords = {**function.keywords, **keywords}
            function, arguments = function.func, (*function.args, *arguments)
        else:
            is_step = getattr(type(function), "__nbdurable_step__", False)
            return cast("Step", function) if is_step else None, arguments, keywords


def _path_of(where: Scope, function: Any, arguments: tuple[Any, ...]) -> bytes:
    """Return what tells work apart by who hands it over, what it is, and its plain arguments."""
    outer, works = scope.work.get(), where.works_so_far()
    name = getattr(function, "__qualname__", type(function).__qualname__)
    shown = repr([*map(_shown, arguments)]).encode("utf-8", "surrogatepass")
    content = digest_of(outer.path if outer else b"", name.encode(), shown)
    count = works.counts.get(content, 0)
    works.counts[content] = count + 1
    path = digest_of(content, b"%d" % count)
    works.paths.add(path)
    return path


def _shown(argument: Any, depth: int = 0) -> str:
    """Return what tells an argument from others as far as that costs nothing."""
    kind = type(argument)
    if kind in _PLAIN:
        long = isinstance(argument, str | bytes) and len(argument) > _LONGEST
        return repr(argument[:_LONGEST]) + str(len(argument)) if long else repr(argument)
    if kind in {tuple, list, dict} and depth < _DEEPEST and len(argument) < _LONGEST:
        inside = [*argument, *argument.values()] if kind is dict else argument
        return f"{kind.__name__}{[_shown(one, depth + 1) for one in inside]}"
    return str(getattr(argument, "__qualname__", kind.__qualname__))


def _scope() -> Scope | None:
    """Return the scope whose code hands over; None where no run is concerned."""
    where = scope.current.get()
    return where if where is not None and where.live else None


# --- what is patched while a run is active ------------------------------------------


def _submit(
    before: Any, executor: ThreadPoolExecutor, function: Any, /, *args: Any, **kwargs: Any
) -> Future[Any]:
    where = _scope()
    ours = isinstance(function, Entered)  # of `run_in_executor`
    if where is None and not ours:
        return cast("Future[Any]", before(executor, function, *args, **kwargs))
    entered = function if ours else hand_over(cast("Scope", where), function, args, kwargs)
    future: Future[Any] = before(executor, entered)
    if not ours:
        entered.show_after(future, "result")
    claimed = entered.claimed
    if claimed is not None:
        # A pool cancels a future only if its work has not begun.
        future.add_done_callback(claimed.left_by)
    return future


def _start(before: Any, thread: threading.Thread) -> None:
    where = _scope()
    target: Any = getattr(thread, "_target", None)
    worker = getattr(target, "__module__", None) in _WORKERS
    if where is not None and not worker and not thread.name.startswith(_OURS):
        given: Any = thread
        plain = type(thread).run is threading.Thread.run and target is not None
        args, kwargs = (given._args, given._kwargs) if plain else ((), {})  # noqa: SLF001 - its own
        entered = hand_over(where, target if plain else thread.run, args, kwargs)
        if plain:
            given._target, given._args, given._kwargs = entered, (), {}  # noqa: SLF001 - likewise
        else:
            given.run = entered
            entered.lasts = thread.daemon  # such as the monitor of tqdm's bars
        entered.show_after(thread, "join")
    before(thread)


def _apply_async(
    before: Any,
    pool: Any,
    function: Any,
    args: Iterable[Any] = (),
    kwds: Any = None,
    *more: Any,
    **named: Any,
) -> Any:
    where = _scope()
    if where is None or not _has_threads(pool):
        return before(pool, function, args, kwds or {}, *more, **named)
    return before(pool, hand_over(where, function, tuple(args), kwds or {}), (), {}, *more, **named)


def _map_async(
    before: Any, pool: Any, function: Any, iterable: Iterable[Any], mapper: Any, *more: Any
) -> Any:
    where = _scope()
    if where is None or not _has_threads(pool):
        return before(pool, function, iterable, mapper, *more)
    pools = sys.modules[mapper.__module__]
    rows = iterable if mapper is pools.starmapstar else ((one,) for one in iterable)
    works = [hand_over(where, function, tuple(row), {}) for row in rows]
    return before(pool, _done, works, pools.mapstar, *more)


def _imap(before: Any, pool: Any, function: Any, iterable: Iterable[Any], *more: Any) -> Any:
    where = _scope()
    if where is None or not _has_threads(pool):
        return before(pool, function, iterable, *more)
    works = (hand_over(where, function, (one,), {}) for one in iterable)
    return before(pool, _done, works, *more)


def _has_threads(pool: Any) -> bool:
    return isinstance(pool, sys.modules["multiprocessing.pool"].ThreadPool)


def _done(work: Callable[[], Any]) -> Any:
    return work()


def _run_in_executor(before: Any, loop: Any, executor: Any, function: Any, *args: Any) -> Any:
    where = _scope()
    pooled = executor is None or isinstance(executor, ThreadPoolExecutor)
    if where is None or not pooled:
        return before(loop, executor, function, *args)
    entered = hand_over(where, function, args, {})
    future = before(loop, executor, entered)
    claimed = entered.claimed
    if claimed is None:
        return future
    return loop.create_task(_awaited(claimed, future))


async def _awaited(claimed: ClaimedCall, future: asyncio.Future[Any]) -> Any:
    """Await a step in an executor in its turn among what the run's tasks await."""
    mine = asyncio.current_task()

    def ended(work: asyncio.Future[Any]) -> None:
        if work.cancelled():
            if mine is not None:
                mine.cancel()
        else:
            work.exception()  # it is raised from the handle

    future.add_done_callback(ended)
    try:
        return await claimed.handle
    except asyncio.CancelledError:
        future.cancel()
        raise


def _create_task(before: Any, loop: Any, coroutine: Any, *args: Any, **named: Any) -> Any:
    where = _scope()
    if where is None or named.get("context") is not None:
        return before(loop, coroutine, *args, **named)  # the caller has chosen a context
    frame = getattr(coroutine, "cr_frame", None)
    given = tuple(frame.f_locals.values()) if frame is not None else ()
    context = contextvars.copy_context()
    work = HandedOver(_path_of(where, coroutine, given), in_thread=False)
    context.run(scope.work.set, work)
    return before(loop, coroutine, *args, **{**named, "context": context})


def _points() -> list[Point]:
    """Return what is patched: a class, the name of its method, and what is called instead."""
    points: list[Point] = [
        (ThreadPoolExecutor, "submit", _submit),
        (threading.Thread, "start", _start),
        (asyncio.BaseEventLoop, "run_in_executor", _run_in_executor),
        (asyncio.BaseEventLoop, "create_task", _create_task),
    ]
    with contextlib.suppress(ImportError):
        # Here, for its import takes 6 ms; some small platforms have none.
        pools = importlib.import_module("multiprocessing.pool").Pool
        points += [(pools, "apply_async", _apply_async), (pools, "_map_async", _map_async)]
        points += [(pools, "imap", _imap), (pools, "imap_unordered", _imap)]
    return points


patches = Patches(_points)
"""In place while runs are active."""
