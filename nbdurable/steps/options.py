"""How a step is named, compared and run, checked where it is set.

Invariant: an option that can't have its value is refused at once.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from nbdurable.errors import UsageError
from nbdurable.labels import printable
from nbdurable.records import Reads, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


_GENERATOR_FLAGS = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


EXECUTORS = ("threads", "process", "dask")
"""Where bodies run, by a word; see `checked_executor` for what else can be given."""

_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]i?b|b)?", re.IGNORECASE)
_UNITS = {"b": 1} | {
    letter + end: base**power
    for power, letter in enumerate("kmgt", 1)
    for end, base in (("b", 1000), ("ib", 1024))
}

_OPTIONS = (
    "name", "retries", "backoff", "max_backoff", "retry_on", "timeout", "limit", "key", "ignore",
    "version", "reads", "executor", "memory",
)  # fmt: skip


def options_of(
    function: Callable[..., Any], base: StepOptions, given: Mapping[str, Any]
) -> StepOptions:
    """Return `base` with the options that are given, each checked.

    Raises:
        UsageError: An option is unknown, or can't have this value.
    """
    unknown = [name for name in given if name not in _OPTIONS]
    if unknown:
        raise UsageError(
            f"step {name_of(function)}: unknown option {unknown[0]!r}; there are "
            f"{', '.join(_OPTIONS)}"
        )
    policy = base.policy
    changes = {
        name: checked_option(name, given[name])
        for name in ("retries", "backoff", "max_backoff")
        if name in given
    }
    if "retry_on" in given:
        changes["retry_on"] = _retry_on(given["retry_on"])
    options = replace(base, policy=replace(policy, **changes))
    if given.get("name") is not None:
        options = replace(options, name=_checked_name(given["name"]), named=True)
    if given.get("timeout") is not None:
        options = replace(options, timeout=float(checked_option("timeout", given["timeout"])))
    if given.get("limit") is not None:
        options = replace(options, limit=checked_option("limit", given["limit"]))
    if given.get("key") is not None:
        options = replace(options, key=_checked_key(given["key"]))
    if given.get("version") is not None:
        options = replace(options, version=repr(given["version"]))
    if given.get("executor") is not None:
        choice = checked_executor("step option", given["executor"])
        options = replace(options, executor=refuse_async(function, choice))
    if given.get("memory") is not None:
        options = replace(options, memory=checked_memory(given["memory"]))
    if given.get("reads") is not None:
        options = replace(options, reads=checked_reads("step option", given["reads"]))
    if "ignore" in given:
        names = given["ignore"]
        options = replace(options, ignore=frozenset([names] if isinstance(names, str) else names))
    return options


def checked_option(option: str, value: Any) -> Any:
    """Return a number of an option, or raise UsageError if it can't be one."""
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


def checked_reads(what: str, value: Any) -> str:
    """Return what a file that has changed does, or raise UsageError if it can't be that."""
    if value not in {Reads.RERUN, Reads.TELL, Reads.IGNORE}:
        raise UsageError(
            f'{what} reads={value!r}: give "rerun" (a file that was read and has changed makes the '
            f'step run again), "tell" (it is told) or "ignore"'
        )
    return str(value)


def checked_executor(what: str, value: Any) -> Any:
    """Return where bodies run, or raise UsageError if it can't be that.

    That is "threads", "process", "dask", any `concurrent.futures.Executor`, or a client of Dask.
    """
    if isinstance(value, str) and value in EXECUTORS:
        return value
    if isinstance(value, Executor) or _is_dask(value):
        return value
    raise UsageError(
        f'{what} executor={shown(value)}: give "threads", "process", "dask", a '
        f"concurrent.futures.Executor, or a Client of Dask"
    )


def _is_dask(value: object) -> bool:
    """Tell whether a value is a client of Dask, which need not be installed."""
    return any(
        base.__module__.partition(".")[0] == "distributed" and base.__name__ == "Client"
        for base in type(value).__mro__
    )


def refuse_async(function: Callable[..., Any], choice: Any) -> Any:
    """Return the choice for a function, or raise UsageError for an async one.

    An async step runs on an event loop of the kernel.
    """
    if choice != "threads" and inspect.iscoroutinefunction(function):
        raise UsageError(
            f"step {name_of(function)}: an async step runs on the kernel's event loop, so it takes "
            f"no executor=: make it a plain function (which may call asyncio.run)"
        )
    return choice


def checked_memory(value: Any) -> int:
    """Return a number of bytes, given as such or as in "2 GiB"; UsageError if it is none."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    found = _MEMORY.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or not float(found[1]):
        raise UsageError(
            f'step option memory={shown(value)}: give a size as in "2 GiB", "500 MB", or a number '
            f"of bytes"
        )
    return int(float(found[1]) * _UNITS[(found[2] or "b").lower()])


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


def refuse_generator(function: Callable[..., Any]) -> None:
    """Raise UsageError for a generator function: its body would run after its step."""
    code = getattr(function, "__code__", None)
    if code is not None and code.co_flags & _GENERATOR_FLAGS:
        raise UsageError(
            f"{name_of(function)} is a generator function, whose result can't be saved: return a "
            f"list instead of yielding"
        )


@functools.lru_cache(maxsize=1024)
def plain_options(name: str) -> StepOptions:
    """Return the options of a step that nobody has decorated."""
    return StepOptions(name=name)


def name_of(function: Callable[..., Any]) -> str:
    """Return what a step of this function is called, unless it is given a name."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return printable(str(name).rsplit("<locals>.", 1)[-1])


def shown(value: object) -> str:
    """Return how a message shows what was given for an option."""
    return repr(value) if isinstance(value, int | float | str | None) else type(value).__name__


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a workflow was asked for that its run needs."""

    name: str
    strict: bool = False
    limit: int = 6
    asynchronous: bool = False
    tee: bool = False
    verify: bool = False
    keep: bool = False
    confirm: int | None = None
    pin_packages: bool = False
    reads: str = ""
    executor: Any = None
    slots: int = 1
    """How many worker processes at once."""
    dask: Any = None
    """What Dask's own settings are, by name."""


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How a step is named, compared and run; see `nbdurable.api.step.step` for each."""

    name: str = ""
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: float | None = None
    limit: int | None = None
    key: Callable[..., object] | None = None
    ignore: frozenset[str] = frozenset()
    version: str | None = None
    reads: str = ""  # as in `Reads`
    executor: Any = None  # as `checked_executor` says; None: the run's
    memory: int | None = None  # bytes
    named: bool = False  # whether `name` was given, and is not the function's


def fields_of(options: StepOptions) -> dict[str, Any]:
    """Return what options hold, as plain data, for a pickle."""
    policy = options.policy
    if not isinstance(options.executor, str):
        options = replace(options, executor=None)  # it is of this process
    held: tuple[Any, ...] = (policy, options)
    return {
        one.name: getattr(whole, one.name)
        for whole in held
        for one in fields(whole)
        if one.name != "policy"
    }


def options_from(held: Mapping[str, Any]) -> StepOptions:
    """Return the options that `fields_of` took apart, without what is no option any more."""

    def given(kind: type[Any]) -> dict[str, Any]:
        return {one.name: held[one.name] for one in fields(kind) if one.name in held}

    return StepOptions(policy=RetryPolicy(**given(RetryPolicy)), **given(StepOptions))
