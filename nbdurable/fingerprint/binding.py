"""Arguments to parameters: the same call gives the same names, however it was written.

Invariant: never raises; a call that doesn't fit its function is the body's own error.
"""

from __future__ import annotations

import functools
import inspect
import types
import weakref
from typing import TYPE_CHECKING, Any

from nbdurable.fingerprint.builtin import is_step
from nbdurable.fingerprint.values import LEAVES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_P = inspect.Parameter


class Binder:
    """Parameters of one function. Keeps neither the function nor its defaults alive."""

    __slots__ = (
        "_collected", "_defaults", "_fixed", "_inner", "_known", "_places", "count", "names",
        "rest",
    )  # fmt: skip

    def __init__(
        self, fn: Callable[..., Any], inner: Any = None, written: frozenset[str] = frozenset()
    ) -> None:
        """Read the signature.

        Args:
            fn: what is called.
            inner: the function that ``fn`` wraps in the end, or itself.
            written: parameters whose objects are changed: their defaults are no input.
        """
        try:
            found = [*inspect.signature(fn).parameters.values()]
        except (ValueError, TypeError):
            found = []
        self.names = tuple(
            p.name for p in found if p.kind in {_P.POSITIONAL_ONLY, _P.POSITIONAL_OR_KEYWORD}
        )
        self.count = len(self.names)
        self.rest = next((p.name for p in found if p.kind is _P.VAR_POSITIONAL), None)
        self._known = frozenset(
            p.name for p in found if p.kind in {_P.POSITIONAL_OR_KEYWORD, _P.KEYWORD_ONLY}
        )
        self._collected = next((p.name for p in found if p.kind is _P.VAR_KEYWORD), "kwargs")
        defaults = {p.name: p.default for p in found if p.default is not _P.empty}
        for name in written:
            defaults.pop(name, None)
        plain = isinstance(inner, types.FunctionType)
        self._inner = weakref.ref(inner) if plain else None
        self._defaults: dict[str, Any] = {} if plain else defaults
        self._places = tuple(defaults) if plain else ()
        self._fixed: tuple[tuple[Any, ...] | None, dict[str, Any]] | None = None

    def _given_by_default(self) -> Mapping[str, Any]:
        if not self._places:
            return self._defaults
        fn = self._inner() if self._inner is not None else None
        if fn is None:
            return {}
        if self._fixed is not None and self._fixed[0] is fn.__defaults__:
            return self._fixed[1]
        held = fn.__defaults__ or ()
        code = fn.__code__
        names = code.co_varnames[code.co_argcount - len(held) : code.co_argcount]
        every = {**dict(zip(names, held, strict=True)), **(fn.__kwdefaults__ or {})}
        found = {name: every[name] for name in self._places if name in every}
        if not fn.__kwdefaults__ and all(type(value) in LEAVES for value in held):
            self._fixed = (fn.__defaults__, found)
        return found

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """Pair parameter names with values, defaults included."""
        if self.count == len(args) == 1 and not (kwargs or self._defaults or self._places):
            return [(self.names[0], args[0])]
        given: dict[str, Any] = dict(zip(self.names, args, strict=False))
        extra = args[self.count :]
        if extra and self.rest is not None:
            given["*" + self.rest] = extra
        elif extra:
            given |= {f"argument {self.count + n + 1}": v for n, v in enumerate(extra)}
        extra_names = [name for name in kwargs if name not in self._known] if kwargs else ()
        for name, value in kwargs.items():
            given["**" + name if name in given else name] = value
        if len(extra_names) > 1:
            given[f"order of **{self._collected}"] = tuple(extra_names)
        for name, value in self._given_by_default().items():
            given.setdefault(name, value)
        return [*given.items()]


def unbound(
    fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, tuple[Any, ...], Mapping[str, Any]]:
    """Return the plain function behind a callable, and all that it is called with in the end.

    What a partial, a method or a callable instance holds already belongs to the arguments.
    """
    while True:
        if is_step(fn):
            fn = fn.__wrapped__
        elif isinstance(fn, functools.partial):
            fn, args, kwargs = fn.func, (*fn.args, *args), {**fn.keywords, **kwargs}
        elif isinstance(fn, types.MethodType):
            return fn.__func__, (fn.__self__, *args), kwargs
        elif isinstance(fn, (types.FunctionType, type, types.BuiltinFunctionType)):
            return fn, args, kwargs
        else:
            call = getattr(type(fn), "__call__", None)  # noqa: B004
            return (
                (call, (fn, *args), kwargs)
                if isinstance(call, types.FunctionType)
                else (fn, args, kwargs)
            )
