"""The decorator `step`, and `go`: what makes calls of functions durable.

Invariant: nothing is decided here. Each function finds out where it stands,
refuses what can't mean anything, and hands over to the run.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Generic, Literal, Never, ParamSpec, TypeVar, overload

from nbdurable.codec.pruned import prune
from nbdurable.engine.outside import told_outside
from nbdurable.errors import UsageError
from nbdurable.handles import scope
from nbdurable.handles.scope import scope_of
from nbdurable.pickled import frozen
from nbdurable.steps.attempts import is_async
from nbdurable.steps.options import (
    StepOptions,
    checked_option,
    fields_of,
    name_of,
    options_from,
    options_of,
    plain_options,
    refuse_generator,
    shown,
)
from nbdurable.steps.signatures import check_arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from concurrent.futures import Executor

    from distributed import Client

    from nbdurable.engine.handed_over import ClaimedCall
    from nbdurable.handles.combinators import Gather
    from nbdurable.handles.handle import StepHandle
    from nbdurable.handles.scope import Scope


P = ParamSpec("P")
R = TypeVar("R")
K = TypeVar("K")


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
            told_outside(self._options.name)
            return function(*args, **kwargs)
        check_arguments(function, args, kwargs)
        result: R
        try:
            if is_async(function):
                result = where.run.calls.call_async(where, function, args, kwargs, self._options)
            else:
                result = where.run.calls.call(where, function, args, kwargs, self._options)
        except BaseException as error:
            prune(error)
            raise
        return result

    def ahead(
        self, where: Scope, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> ClaimedCall | None:
        """Claim a call that is handed to another thread; None for an async step.

        Raises:
            TypeError: The arguments don't fit the function, as in a plain call.
        """
        function = self.__wrapped__
        if is_async(function):
            return None
        check_arguments(function, arguments, keywords)
        claimed: ClaimedCall = where.run.calls.call_ahead(
            where, function, arguments, keywords, self._options
        )
        return claimed

    def go(self, *args: P.args, **kwargs: P.kwargs) -> StepHandle[R]:
        """Start the step beside whatever else runs, and give a handle at once.

        Handles among the arguments, alone or inside lists, tuples and dicts, are
        waited for first and replaced by their values.

        Raises:
            NotInRunError: No run is active here.
            TypeError: The arguments don't fit the function, as in a plain call.
            UsageError: The same call came from another task or thread already.
        """
        where = scope_of(f"{self._options.name}.go()")
        check_arguments(self.__wrapped__, args, kwargs)
        return where.run.calls.go(where, self.__wrapped__, args, kwargs, self._options)

    def map(
        self,
        items: Iterable[Any],
        *more: Never,
        limit: int | None = None,
        return_exceptions: bool = False,
        **same_for_all: Any,
    ) -> Gather[list[R]]:
        """Start the step for each of `items`, and give a handle on all results, in their order.

        Args:
            items: What each call gets as its first argument.
            more: Nothing: several iterables are rows of arguments, for `starmap`.
            limit: How many are under way at once, those included that wait for steps of
                their own; the run's and the step's own limit count besides.
            return_exceptions: Give errors in the results' places instead of failing.
            same_for_all: Named arguments that all calls have in common; digested once.

        Raises:
            NotInRunError: No run is active here.
            TypeError: The arguments don't fit the function.
            UsageError: `limit` is no whole number of 1 or more, or there is more than one
                iterable.
        """
        name = self._options.name
        where = scope_of(f"{name}.map()")
        if more:
            raise UsageError(
                f"{name}.map() takes one iterable and got {1 + len(more)}: to give each call an "
                f"item of each, write {name}.starmap(zip(...))"
            )
        rows = self._checked_rows(((item,) for item in items), same_for_all)
        return self._map(where, rows, limit, return_exceptions, same_for_all)

    def starmap(
        self,
        rows: Iterable[Iterable[Any]],
        *,
        limit: int | None = None,
        return_exceptions: bool = False,
        **same_for_all: Any,
    ) -> Gather[list[R]]:
        """Start the step with each of `rows` as its arguments; a handle on all results, as `map`.

        All rows are read and looked at before the first step starts.

        Args:
            rows: The arguments of each call, as ``zip(xs, ys)`` gives them.
            limit: As for `map`.
            return_exceptions: As for `map`.
            same_for_all: As for `map`.

        Raises:
            NotInRunError: No run is active here.
            TypeError: A row is none, or doesn't fit the function.
            UsageError: `limit` is no whole number of 1 or more.
        """
        where = scope_of(f"{self._options.name}.starmap()")
        checked = [*self._checked_rows(map(tuple, rows), same_for_all)]
        return self._map(where, checked, limit, return_exceptions, same_for_all)

    def _checked_rows(
        self, rows: Iterable[tuple[Any, ...]], same: Mapping[str, Any]
    ) -> Iterator[tuple[Any, ...]]:
        for row in rows:
            check_arguments(self.__wrapped__, row, same)
            yield row

    def _map(
        self,
        where: Scope,
        rows: Iterable[tuple[Any, ...]],
        limit: int | None,
        return_exceptions: bool,  # noqa: FBT001 - both maps name it
        same_for_all: dict[str, Any],
    ) -> Gather[list[R]]:
        if limit is not None:
            checked_option("limit", limit)
        return where.run.calls.map(
            where,
            self.__wrapped__,
            rows,
            same_for_all,
            self._options,
            limit=limit,
            return_exceptions=return_exceptions,
        )

    def with_options(self, **options: Any) -> Step[P, R]:
        """Return the same step with other options (those of `step`).

        Raises:
            UsageError: An option is unknown or can't have this value.
        """
        return Step(self.__wrapped__, options_of(self.__wrapped__, self._options, options))

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Bind a step that is a method; its instance is compared as the argument `self`."""
        if instance is None:
            return self
        bound = self.__wrapped__.__get__(instance, owner)
        return Step(bound, self._options)

    def __repr__(self) -> str:
        return f"<step {self._options.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how a step is pickled: as its function and what it was given."""
        return restored_step, (self.__wrapped__, fields_of(self._options))


@frozen("step")
def restored_step(function: Callable[..., Any], fields: dict[str, Any]) -> Step[..., Any]:
    """Make a step that was pickled again."""
    return Step(function, options_from(fields))


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
    reads: Literal["rerun", "tell", "ignore"] | None = None,
    executor: Literal["threads", "process", "dask"] | Executor | Client | None = None,
    memory: str | int | None = None,
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
    reads: Literal["rerun", "tell", "ignore"] | None = None,
    executor: Literal["threads", "process", "dask"] | Executor | Client | None = None,
    memory: str | int | None = None,
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
            place of the code; ``reads``, what a file that a body read and that has
            changed since does: "rerun" makes the step of a finished run run again,
            "tell" is told, "ignore" is nothing (by default a file that was named does
            the first, one that was only seen the second); ``executor``, where the body
            of a sync step runs: "threads" of the kernel, a "process", "dask", any
            `concurrent.futures.Executor`, or a Client of Dask; ``memory``, how much a
            body in a process may use, as in "2 GiB".

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
        TypeError: The arguments don't fit `function`, as in a plain call.
        UsageError: `function` can't be called.
    """
    if isinstance(function, Step):
        return function.go(*args, **kwargs)
    where = scope_of("go()")
    if not callable(function):
        raise UsageError(
            f"go({shown(function)}): a {type(function).__name__} can't be called; give the "
            f"function and its arguments apart, as in go(function, 1, 2)"
        )
    refuse_generator(function)
    check_arguments(function, args, kwargs)
    return where.run.calls.go(where, function, args, kwargs, plain_options(name_of(function)))


def _make_step(options: Mapping[str, Any], function: Callable[..., Any]) -> Step[..., Any]:
    if isinstance(function, Step):
        return function.with_options(**options)
    if not callable(function):
        raise UsageError(
            f"step({shown(function)}): a {type(function).__name__} can't be called; options are "
            f"named, as in @step(retries=3)"
        )
    refuse_generator(function)
    return Step(function, options_of(function, StepOptions(name=name_of(function)), options))
