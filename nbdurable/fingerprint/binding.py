"""Arguments to parameters: the same call gives the same names, however it was written.

Invariant: never raises; a call that doesn't fit its function is the body's own error.
"""

from __future__ import annotations

import functools
import inspect
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_P = inspect.Parameter
_MISSING: Any = object()


class Binder:
    """Parameters of one function."""

    __slots__ = ("count", "defaults", "names", "rest", "signed")

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.names: tuple[str, ...] = ()  # filled by position
        self.defaults: dict[str, object] = {}
        self.rest: str | None = None
        self.signed = True
        try:
            parameters = inspect.signature(fn).parameters.values()
        except (ValueError, TypeError):
            self.signed = False
            parameters = {}.values()
        self.names = tuple(
            p.name for p in parameters if p.kind in {_P.POSITIONAL_ONLY, _P.POSITIONAL_OR_KEYWORD}
        )
        self.rest = next((p.name for p in parameters if p.kind is _P.VAR_POSITIONAL), None)
        self.defaults = {p.name: p.default for p in parameters if p.default is not _P.empty}
        self.count = len(self.names)

    def bind(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> list[tuple[str, Any]]:
        """Pair parameter names with values, defaults included, sorted by name."""
        given: dict[str, Any] = dict(zip(self.names, args, strict=False))
        extra = args[self.count :]
        if extra and self.rest is not None:
            given["*" + self.rest] = extra
        elif extra:
            given |= {f"argument {self.count + n + 1}": v for n, v in enumerate(extra)}
        for name, value in kwargs.items():
            given["**" + name if name in given else name] = value
        for name, value in self.defaults.items():
            given.setdefault(name, value)
        return sorted(given.items(), key=_first)


def _first(pair: tuple[str, Any]) -> str:
    return pair[0]


def target_of(fn: Any) -> tuple[Any, tuple[Any, ...]]:
    """Give the plain function behind a callable, and what it already holds as arguments."""
    if isinstance(fn, types.MethodType):
        return fn.__func__, (fn.__self__,)
    if isinstance(fn, (types.FunctionType, type, types.BuiltinFunctionType, functools.partial)):
        return fn, ()
    call = getattr(type(fn), "__call__", None)  # noqa: B004
    if isinstance(call, types.FunctionType):
        return call, (fn,)
    return fn, ()
