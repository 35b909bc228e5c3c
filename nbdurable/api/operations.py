"""The functions over handles that a cell calls: select, race, gather, timers."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, cast, overload

from nbdurable.errors import UsageError
from nbdurable.executors.loops import running_loop
from nbdurable.handles.combinators import Race
from nbdurable.handles.scope import scope_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nbdurable.engine.completions import AsCompleted
    from nbdurable.handles.combinators import Gather, Select
    from nbdurable.handles.handle import Handle, StepHandle

    from .step import K, R


def select(*handles: Any, success: bool = False) -> Select[Any]:
    """Return a handle on the first of `handles` to finish; the choice is durable.

    The lowest outcome number wins, errors included; losers go on. `.winner` is
    the winning handle itself, `.index` its place, `.result()` its value.

    Args:
        handles: Handles, or one iterable of them.
        success: Take the first that is no error; an ExceptionGroup if there is none.

    Raises:
        NotInRunError: No run is active here.
        UsageError: No handle, something that is none, or the same one twice.
    """
    where = scope_of("select()")
    return where.run.combining.select(where, handles, success=success)


def race(*handles: Any, success: bool = False) -> Race[Any]:
    """Return a handle on the first of `handles` to finish, and cancel the others with the decision.

    As `select`, and in the same transaction every loser that has not ended ends as
    cancelled: its body is stopped (an async one) or let go, and records nothing more.

    Args:
        handles: Handles, or one iterable of them.
        success: Take the first that is no error; an ExceptionGroup if there is none.

    Raises:
        NotInRunError: No run is active here.
        UsageError: No handle, something that is none, or the same one twice.
    """
    where = scope_of("race()")
    return cast("Race[Any]", where.run.combining.select(where, handles, success=success, kind=Race))


@overload
def gather(
    handles: Mapping[K, Handle[R]], /, *, return_exceptions: bool = False
) -> Gather[dict[K, R]]: ...


@overload
def gather(*handles: Any, return_exceptions: bool = False) -> Gather[list[Any]]: ...


def gather(*handles: Any, return_exceptions: bool = False) -> Gather[Any]:
    """Return a handle on all results, in argument order; of a dict, a dict.

    It fails with its lowest-numbered failure at once; the others go on.

    Args:
        handles: Handles, one iterable of them, or one dict of them.
        return_exceptions: Give errors in the results' places instead of failing.

    Raises:
        NotInRunError: No run is active here.
        UsageError: Something that is no handle.
    """
    where = scope_of("gather()")
    return where.run.combining.gather(where, handles, return_exceptions=return_exceptions)


def after(seconds: float) -> StepHandle[None]:
    """Return a timer handle, done `seconds` after it was first made: a timeout branch for `select`.

    Raises:
        NotInRunError: No run is active here.
        UsageError: `seconds` is no number of 0 or more.
    """
    where = scope_of("after()")
    return where.run.timers.after(where, seconds)


def as_completed(*handles: Any) -> AsCompleted:
    """Return `handles` one after the other as they end: an iterator, sync and async.

    The order is durable. Leaving early (``break``) makes losers of the rest: they go
    on, and are not waited for.

    Args:
        handles: Handles, or one iterable of them.

    Raises:
        NotInRunError: No run is active here.
        UsageError: Something that is no handle, or the same one twice.
    """
    where = scope_of("as_completed()")
    return cast("AsCompleted", where.run.combining.as_completed(where, handles))


def sleep(seconds: float | None = None, *, until: datetime | float | None = None) -> Any:
    """Wait until `seconds` have passed since this was first reached; a resumed run waits the rest.

    In an async cell or step, ``await sleep(...)``.

    Args:
        seconds: How long.
        until: Instead: a moment, as a datetime (local time if it names no zone) or in
            seconds since the epoch.

    Raises:
        NotInRunError: No run is active here.
        UsageError: `seconds` is no number of 0 or more, or both or neither are given.
    """
    where = scope_of("sleep()")
    if (seconds is None) == (until is None):
        raise UsageError("sleep() takes a number of seconds, or until=: one of the two")
    if until is None:
        timer = where.run.timers.after(where, cast("float", seconds), "sleep")
    elif isinstance(until, datetime):
        timer = where.run.timers.at(where, until.timestamp(), f"{until:%Y-%m-%d %H:%M:%S%z}")
    elif isinstance(until, int | float) and not isinstance(until, bool):
        timer = where.run.timers.at(where, float(until), f"{until:g}")
    else:
        raise UsageError(f"sleep(until={until!r}): give a datetime, or seconds since the epoch")
    if where.asynchronous and running_loop() is not None:
        return timer
    return timer.result()
