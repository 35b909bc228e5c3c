"""asyncio's own timeouts in a run's code: that one has passed is an event of the run.

Invariant: patched only while a run is active; code outside of runs goes by untouched.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from typing import TYPE_CHECKING, Any

from nbdurable.errors import UsageError
from nbdurable.handles import scope
from nbdurable.handles.handle import Handle

from .patching import Patches

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .patching import Point
    from .turns import Timed

_timeouts: Any = asyncio.timeouts
_tasks: Any = asyncio.tasks
_DELAY = "_nbdurable_delay"
"""The attribute of a timeout that has its delay as the code gave it."""
_under_way: dict[int, Timed] = {}
_mine: contextvars.ContextVar[Timed | None] = contextvars.ContextVar(
    "nbdurable_timed", default=None
)
"""The timeout whose timer is being set: a timer keeps the context that it was set in."""


def _begin(name: str, seconds: float | None, *, exact: bool = True) -> Timed | None:
    """Return a timeout that begins in the code of a run; None in any other."""
    where = scope.current.get()
    if seconds is None or where is None or not where.live:
        return None
    timed: Timed = where.run.turns.begin_timed(where, name, seconds, exact=exact)
    return timed


# --- asyncio.timeout, and what is made of it -------------------------------------------


def _timeout(before: Any, delay: float | None) -> Any:
    block = before(delay)
    setattr(block, _DELAY, delay)
    return block


async def _enter_timeout(before: Any, block: Any) -> Any:
    entered = await before(block)
    when, delay = block.when(), getattr(block, _DELAY, None)
    if when is None:
        timed = None
    elif delay is not None:
        timed = _begin("timeout", delay)
    else:
        timed = _begin("timeout", when - asyncio.get_running_loop().time(), exact=False)
    if timed is not None:
        _under_way[id(block)] = timed
    return entered


async def _leave_timeout(before: Any, block: Any, *error: Any) -> Any:
    timed = _under_way.pop(id(block), None)
    try:
        return await before(block, *error)
    except TimeoutError as passed:
        if timed is not None:
            timed.mark(passed)
        raise
    finally:
        if timed is not None:
            timed.over(error[0])


def _timeout_passed(before: Any, block: Any) -> None:
    timed = _under_way.get(id(block))
    if timed is None:
        before(block)
    else:
        timed.fire(lambda: before(block))


# --- the timers of asyncio.wait, and before Python 3.12 of asyncio.wait_for -----------------


def _release_waiter(before: Any, waiter: Any, *ended: Any) -> None:
    timed = None if ended else _mine.get()  # what has ended is handed on by who waits for it
    if timed is None:
        before(waiter, *ended)
    else:
        timed.fire(lambda: before(waiter))


async def _wait_for(before: Any, future: Any, timeout: float | None) -> Any:  # noqa: ASYNC109 - its own
    timed = _begin("wait_for", timeout)
    if timed is None:
        return await before(future, timeout)
    mine = _mine.set(timed)
    try:
        return await before(future, timeout)
    except TimeoutError as passed:
        timed.mark(passed)
        raise
    finally:
        _mine.reset(mine)
        timed.over(sys.exc_info()[0])


# --- asyncio.TaskGroup, asyncio.wait -------------------------------------------------------


class _InOrder(set[Any]):
    """A set that is gone through in the order in which it was filled."""

    def __init__(self, members: Iterable[Any]) -> None:
        self._members = dict.fromkeys(members)
        super().__init__(self._members)

    def __iter__(self) -> Any:
        kept = [one for one in self._members if one in self]
        return iter([*kept, *(one for one in super().__iter__() if one not in self._members)])

    def add(self, member: Any) -> None:
        """Put one behind the others."""
        self._members[member] = None
        super().add(member)

    def discard(self, member: Any) -> None:
        """Take one out, if it is there."""
        self._members.pop(member, None)
        super().discard(member)

    def pop(self) -> Any:
        """Take the first out."""
        for one in self:
            self.discard(one)
            return one
        return super().pop()


async def _enter_group(before: Any, group: Any) -> Any:
    entered = await before(group)
    where = scope.current.get()
    if where is not None and where.live:
        group._tasks = _InOrder(group._tasks)  # noqa: SLF001 - when one fails, the others are cancelled by it
    return entered


async def _wait(before: Any, futures: Any, timeout: float | None, *more: Any) -> Any:  # noqa: ASYNC109 - its own
    where = scope.current.get()
    if where is None or not where.live:
        return await before(futures, timeout, *more)
    if handles := [one for one in futures if isinstance(one, Handle)]:
        raise UsageError(
            f"asyncio.wait: {handles[0].label} is a handle, and its order is not asyncio's: write "
            f"`select(...)` for the first, `gather(...)` for all, `as_completed(...)` for one "
            f"after the other, each with after(seconds) as a timeout"
        )
    ended: dict[Any, None] = {one: None for one in _as_made(futures) if one.done()}
    timed = _begin("wait", timeout)
    mine = _mine.set(timed)
    for one in futures:
        one.add_done_callback(ended.setdefault)
    try:
        done, pending = await before(futures, timeout, *more)
    finally:
        for one in futures:
            one.remove_done_callback(ended.setdefault)
        _mine.reset(mine)
        if timed is not None:
            timed.over(sys.exc_info()[0])
    return _InOrder(one for one in ended if one in done), _InOrder(_as_made(pending))


def _as_completed(before: Any, awaitables: Any, *, timeout: float | None = None) -> Any:
    where = scope.current.get()
    if timeout is not None and where is not None and where.live:
        raise UsageError(
            "asyncio.as_completed(timeout=...) in a durable cell would not time out at the same "
            "place on replay: write `async with asyncio.timeout(...)` around the loop, or "
            "nbdurable's as_completed"
        )
    return before(awaitables, timeout=timeout)


def _as_made(futures: Iterable[Any]) -> list[Any]:
    """Sort tasks by their number, where asyncio named them; a set has no order of its own."""

    def made(one: Any) -> tuple[int, str]:
        name = one.get_name() if isinstance(one, asyncio.Task) else ""
        number = name.rpartition("-")[2]
        return (int(number) if number.isdecimal() else 0, name)

    return sorted(futures, key=made)


def _points() -> list[Point]:
    points: list[Point] = [
        (_timeouts, "timeout", _timeout),
        (asyncio, "timeout", _timeout),
        (_timeouts.Timeout, "__aenter__", _enter_timeout),
        (_timeouts.Timeout, "__aexit__", _leave_timeout),
        (_timeouts.Timeout, "_on_timeout", _timeout_passed),
        (asyncio.TaskGroup, "__aenter__", _enter_group),
        (_tasks, "_wait", _wait),
        (_tasks, "_release_waiter", _release_waiter),
        (_tasks, "as_completed", _as_completed),
        (asyncio, "as_completed", _as_completed),
    ]
    if sys.version_info < (3, 12):
        points += [(_tasks, "wait_for", _wait_for), (asyncio, "wait_for", _wait_for)]
    return points


patches = Patches(_points)
"""In place while runs are active."""
