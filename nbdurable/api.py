"""The public functions that a cell calls: `step`, `go`, `select`, `gather`, `after`, `sleep`.

Invariant: nothing is decided here. Each function finds out where it stands,
refuses what can't mean anything, and hands over to the run.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from . import scope
from .combinators import Race
from .errors import NotInRunError, UsageError
from .executors import running_loop
from .label import printable
from .step import StepOptions, is_async

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .combinators import Gather, Select
    from .completion import AsCompleted
    from .handles import Handle, StepHandle
    from .scope import Scope

_GENERATOR_FLAGS = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR

P = ParamSpec("P")
R = TypeVar("R")
K = TypeVar("K")

_OPTIONS = (
    "name", "retries", "backoff", "max_backoff", "retry_on", "timeout", "limit", "key", "ignore",
    "version",
)  # fmt: skip


class Step(Generic[P, R]):
    """A function whose calls inside a run are checkpointed; `step` makes one.

    Calling it inside a run runs it, or replays it, and returns its value; an
    async step is awaited. Outside a run it is a plain call of the function.
    """

    __nbdurable_step__ = True
    __wrapped__: Callable[P, R]

    def __init__(self, function: Callable[P, R], options: StepOptions) -> None:
        functools.update_wrapper(self, function)
        self._options = options

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the step, or replay it; outside a run, call the function."""
        function = self.__wrapped__
        where = scope.current.get()
        if where is None:
            return function(*args, **kwargs)
        result: R
        if is_async(function):
            result = where.run.call_async(where, function, args, kwargs, self._options)
        else:
            result = where.run.call(where, function, args, kwargs, self._options)
        return result

    def go(self, *args: P.args, **kwargs: P.kwargs) -> StepHandle[R]:
        """Start the step beside whatever else runs, and give a handle at once.

        Handles among the arguments, alone or inside lists, tuples and dicts, are
        waited for first and replaced by their values.

        Raises:
            NotInRunError: No run is active here.
            UsageError: The same call came from another task or thread already.
        """
        where = _where(f"{self._options.name}.go()")
        return where.run.go(where, self.__wrapped__, args, kwargs, self._options)

    def map(
        self,
        items: Iterable[Any],
        *,
        limit: int | None = None,
        return_exceptions: bool = False,
        **same_for_all: Any,
    ) -> Gather[list[R]]:
        """Start the step for each of `items`, and give a handle on all results, in their order.

        Args:
            items: What each call gets as its first argument.
            limit: How many are under way at once, those included that wait for steps of
                their own; the run's and the step's own limit count besides.
            return_exceptions: Give errors in the results' places instead of failing.
            same_for_all: Named arguments that all calls have in common; digested once.

        Raises:
            NotInRunError: No run is active here.
            UsageError: `limit` is no whole number of 1 or more.
        """
        where = _where(f"{self._options.name}.map()")
        if limit is not None:
            _checked("limit", limit)
        return where.run.map(
            where,
            self.__wrapped__,
            items,
            same_for_all,
            self._options,
            limit=limit,
            return_exceptions=return_exceptions,
        )

    def with_options(self, **options: Any) -> Step[P, R]:
        """Give the same step with other options (those of `step`).

        Raises:
            UsageError: An option is unknown or can't have this value.
        """
        return Step(self.__wrapped__, _options(self.__wrapped__, self._options, options))

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Bind a step that is a method; its instance is compared as the argument `self`."""
        if instance is None:
            return self
        bound = self.__wrapped__.__get__(instance, owner)
        return Step(bound, self._options)

    def __repr__(self) -> str:
        return f"<step {self._options.name}>"


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    function: Callable[P, R],
    /,
    *,
    name: str | None = None,
    retries: int = 0,
    backoff: float = 0.1,
    max_backoff: float = 5.0,
    retry_on: type[BaseException]
    | tuple[type[BaseException], ...]
    | Callable[[BaseException], bool] = Exception,
    timeout: float | None = None,
    limit: int | None = None,
    key: Callable[..., object] | None = None,
    ignore: Iterable[str] = (),
    version: str | int | None = None,
) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retries: int = 0,
    backoff: float = 0.1,
    max_backoff: float = 5.0,
    retry_on: type[BaseException]
    | tuple[type[BaseException], ...]
    | Callable[[BaseException], bool] = Exception,
    timeout: float | None = None,
    limit: int | None = None,
    key: Callable[..., object] | None = None,
    ignore: Iterable[str] = (),
    version: str | int | None = None,
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a step: ``@step``, ``@step(retries=3)``, or ``step(function, name="api1")``.

    Args:
        function: What to run; sync functions run on threads, async ones on a loop.
        options: ``name`` (the function's, unless given); ``retries`` after the first
            attempt, 0 by default, each after ``backoff`` seconds (0.1), doubling up
            to ``max_backoff`` (5); ``retry_on``, exception types or a predicate;
            ``timeout`` of each attempt in seconds; ``limit``, how many of this step run
            at once; ``key``, a function of the
            arguments whose result is compared in their place; ``ignore``, names of
            arguments and globals that are not compared; ``version``, compared in
            place of the code.

    Raises:
        UsageError: `function` can't be called, or an option is unknown or can't
            have this value.
    """
    if function is None:
        return functools.partial(_make_step, options)
    return _make_step(options, function)


def go(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> StepHandle[R]:
    """Start any callable, sync or async, as a concurrent step; give a handle at once.

    Raises:
        NotInRunError: No run is active here.
        UsageError: `function` can't be called.
    """
    if isinstance(function, Step):
        return function.go(*args, **kwargs)
    where = _where("go()")
    if not callable(function):
        raise UsageError(
            f"go({_shown(function)}): a {type(function).__name__} can't be called; give the "
            f"function and its arguments apart, as in go(function, 1, 2)"
        )
    _refuse_generator(function)
    return where.run.go(where, function, args, kwargs, _plain_options(_name_of(function)))


def select(*handles: Any, success: bool = False) -> Select[Any]:
    """Give a handle on the first of `handles` to finish; the choice is durable.

    The lowest outcome number wins, errors included; losers go on. `.winner` is
    the winning handle itself, `.index` its place, `.result()` its value.

    Args:
        handles: Handles, or one iterable of them.
        success: Take the first that is no error; an ExceptionGroup if there is none.

    Raises:
        NotInRunError: No run is active here.
        UsageError: No handle, something that is none, or the same one twice.
    """
    where = _where("select()")
    return where.run.select(where, handles, success=success)


def race(*handles: Any, success: bool = False) -> Race[Any]:
    """Give a handle on the first of `handles` to finish, and cancel the others with the decision.

    As `select`, and in the same transaction every loser that has not ended ends as
    cancelled: its body is stopped (an async one) or let go, and records nothing more.

    Args:
        handles: Handles, or one iterable of them.
        success: Take the first that is no error; an ExceptionGroup if there is none.

    Raises:
        NotInRunError: No run is active here.
        UsageError: No handle, something that is none, or the same one twice.
    """
    where = _where("race()")
    return cast("Race[Any]", where.run.select(where, handles, success=success, kind=Race))


@overload
def gather(
    handles: Mapping[K, Handle[R]], /, *, return_exceptions: bool = False
) -> Gather[dict[K, R]]: ...
@overload
def gather(*handles: Any, return_exceptions: bool = False) -> Gather[list[Any]]: ...
def gather(*handles: Any, return_exceptions: bool = False) -> Gather[Any]:
    """Give a handle on all results, in argument order; of a dict, a dict.

    It fails with its lowest-numbered failure at once; the others go on.

    Args:
        handles: Handles, one iterable of them, or one dict of them.
        return_exceptions: Give errors in the results' places instead of failing.

    Raises:
        NotInRunError: No run is active here.
        UsageError: Something that is no handle.
    """
    where = _where("gather()")
    return where.run.gather(where, handles, return_exceptions=return_exceptions)


def after(seconds: float) -> StepHandle[None]:
    """Give a timer handle, done `seconds` after it was first made: a timeout branch for `select`.

    Raises:
        NotInRunError: No run is active here.
        UsageError: `seconds` is no number of 0 or more.
    """
    where = _where("after()")
    return where.run.after(where, seconds)


def as_completed(*handles: Any) -> AsCompleted:
    """Give `handles` one after the other as they end: an iterator, sync and async.

    The order is durable. Leaving early (``break``) makes losers of the rest: they go
    on, and are not waited for.

    Args:
        handles: Handles, or one iterable of them.

    Raises:
        NotInRunError: No run is active here.
        UsageError: Something that is no handle, or the same one twice.
    """
    where = _where("as_completed()")
    return where.run.as_completed(where, handles)


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
    where = _where("sleep()")
    if (seconds is None) == (until is None):
        raise UsageError("sleep() takes a number of seconds, or until=: one of the two")
    if until is None:
        timer = where.run.after(where, cast("float", seconds), "sleep")
    elif isinstance(until, datetime):
        timer = where.run.at(where, until.timestamp(), f"{until:%Y-%m-%d %H:%M:%S%z}")
    elif isinstance(until, int | float) and not isinstance(until, bool):
        timer = where.run.at(where, float(until), f"{until:g}")
    else:
        raise UsageError(f"sleep(until={until!r}): give a datetime, or seconds since the epoch")
    if where.asynchronous and running_loop() is not None:
        return timer
    return timer.result()


def _where(operation: str) -> Scope:
    where = scope.current.get()
    if where is None:
        raise NotInRunError(operation)
    return where


def _make_step(options: Mapping[str, Any], function: Callable[..., Any]) -> Step[..., Any]:
    if isinstance(function, Step):
        return function.with_options(**options)
    if not callable(function):
        raise UsageError(
            f"step({_shown(function)}): a {type(function).__name__} can't be called; options are "
            f"named, as in @step(retries=3)"
        )
    _refuse_generator(function)
    return Step(function, _options(function, StepOptions(name=_name_of(function)), options))


def _options(
    function: Callable[..., Any], base: StepOptions, given: Mapping[str, Any]
) -> StepOptions:
    unknown = [name for name in given if name not in _OPTIONS]
    if unknown:
        raise UsageError(
            f"step {_name_of(function)}: unknown option {unknown[0]!r}; there are "
            f"{', '.join(_OPTIONS)}"
        )
    policy = base.policy
    changes = {
        name: _checked(name, given[name])
        for name in ("retries", "backoff", "max_backoff")
        if name in given
    }
    if "retry_on" in given:
        changes["retry_on"] = _retry_on(given["retry_on"])
    options = replace(base, policy=replace(policy, **changes))
    if given.get("name") is not None:
        options = replace(options, name=_checked_name(given["name"]), named=True)
    if given.get("timeout") is not None:
        options = replace(options, timeout=float(_checked("timeout", given["timeout"])))
    if given.get("limit") is not None:
        options = replace(options, limit=_checked("limit", given["limit"]))
    if given.get("key") is not None:
        options = replace(options, key=_checked_key(given["key"]))
    if given.get("version") is not None:
        options = replace(options, version=repr(given["version"]))
    if "ignore" in given:
        names = given["ignore"]
        options = replace(options, ignore=frozenset([names] if isinstance(names, str) else names))
    return options


def _checked(option: str, value: Any) -> Any:
    whole = option in {"retries", "limit"}
    least = 1 if option == "limit" else 0
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not value >= least:
        what = "a whole number" if whole else "a number of seconds"
        raise UsageError(f"step option {option}={value!r}: give {what}, {least} or more")
    if option == "timeout" and not value:
        raise UsageError("step option timeout=0: give a number of seconds above 0, or None")
    return value


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise UsageError(f"step option name={name!r}: give a printable text that is not empty")
    return name


def _checked_key(key: Any) -> Callable[..., object]:
    if not callable(key):
        raise UsageError(f"step option key={key!r}: give a function of the step's arguments")
    function: Callable[..., object] = key
    return function


def _retry_on(given: Any) -> tuple[type[BaseException], ...] | Callable[[BaseException], bool]:
    if isinstance(given, type) and issubclass(given, BaseException):
        return (given,)
    if isinstance(given, tuple | list) and all(
        isinstance(one, type) and issubclass(one, BaseException) for one in given
    ):
        return tuple(given)
    if callable(given) and not isinstance(given, type):
        predicate: Callable[[BaseException], bool] = given
        return predicate
    raise UsageError(
        f"step option retry_on={given!r}: give exception types, or a function of the exception"
    )


def _refuse_generator(function: Callable[..., Any]) -> None:
    code = getattr(function, "__code__", None)
    if code is not None and code.co_flags & _GENERATOR_FLAGS:
        raise UsageError(
            f"{_name_of(function)} is a generator function, whose result can't be saved: return a "
            f"list instead of yielding"
        )


@functools.lru_cache(maxsize=1024)
def _plain_options(name: str) -> StepOptions:
    return StepOptions(name=name)


def _name_of(function: Callable[..., Any]) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return printable(str(name).rsplit("<locals>.", 1)[-1])


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, int | float | str | None) else type(value).__name__
