"""Whether anything of a run can still go on by itself, on one event loop.

Invariant: only looks. What waits for anything but a handle, or for what asyncio's own
queues, locks and groups of tasks will give it, counts as able to go on.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbdurable.handles import scope
from nbdurable.handles.handle import StepHandle

from .handed_over import at_work

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from nbdurable.handles.handle import Handle
    from nbdurable.handles.scope import Scope

_ASYNCIO = str(Path(asyncio.__file__).parent)
_OURS = str(Path(__file__).parent.parent)


def nobody_can_go_on(
    loop: asyncio.AbstractEventLoop,
    where: Scope | None,
    handles: Sequence[Handle[Any]],
    turns: Collection[asyncio.Future[None]],
) -> bool:
    """Tell whether all of the run's tasks wait for `turns` that don't come, or for each other.

    Bodies under way, work in other threads and timers of the run's code can go on.
    """
    run = where.run if where is not None else None
    if run is None or at_work(run) or any(map(_is_under_way, handles)):
        return False
    if any(_is_timer_of(timer, run) for timer in getattr(loop, "_scheduled", ())):
        return False
    return not any(_can_go_on(task, run, turns) for task in asyncio.all_tasks(loop))


def _is_under_way(handle: Handle[Any]) -> bool:
    if not isinstance(handle, StepHandle) or handle.durable or handle.broken is not None:
        return False
    return handle.life.running is not None or handle.life.started


def _is_timer_of(timer: Any, run: object) -> bool:
    if timer.cancelled() or _is_ours(timer._callback):  # noqa: SLF001 - no public way to ask
        return False
    where = timer._context.get(scope.current)  # noqa: SLF001 - likewise
    return where is not None and where.run is run


def _is_ours(callback: Any) -> bool:
    code = getattr(getattr(callback, "__func__", callback), "__code__", None)
    return code is not None and code.co_filename.startswith(_OURS)


def _can_go_on(task: Any, run: object, turns: Collection[Any]) -> bool:
    """Tell whether a task is the run's and doesn't wait for handles or other tasks alone."""
    future = getattr(task, "_fut_waiter", None)
    if future is None:
        return task is not asyncio.current_task()
    contexts = [context for _, context in getattr(future, "_callbacks", None) or ()]
    places = [context.get(scope.current) for context in contexts if context is not None]
    if not any(where is not None and where.run is run for where in places):
        return False
    if future in turns or isinstance(future, asyncio.Task) or hasattr(future, "_children"):
        return False
    return not _waits_inside_asyncio(task.get_coro())


def _waits_inside_asyncio(coroutine: Any) -> bool:
    """Tell whether the innermost code that a task waits in is asyncio's own."""
    inner = coroutine
    while True:
        below = getattr(inner, "cr_await", None) or getattr(inner, "gi_yieldfrom", None)
        below = below or getattr(inner, "ag_await", None)
        if below is None or not any(hasattr(below, one) for one in ("cr_code", "gi_code")):
            break
        inner = below
    code = getattr(inner, "cr_code", None) or getattr(inner, "gi_code", None)
    return code is not None and code.co_filename.startswith(_ASYNCIO)
