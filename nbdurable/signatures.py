"""A call's arguments against what the function takes, before anything starts.

Invariant: a call that is refused here is one that Python itself refuses, with its own
words; whatever Python may accept is let through.
"""

from __future__ import annotations

import functools
import inspect
import types
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_SPREADING: Final = inspect.CO_VARARGS


def check_arguments(
    function: Callable[..., Any], arguments: tuple[Any, ...], keywords: Mapping[str, Any]
) -> None:
    """Refuse arguments that don't fit the function's parameters.

    Only what is written in Python is looked at, and what binds or wraps it as
    `functools.partial` and methods do: of others the signature is not known for certain.

    Raises:
        TypeError: What the plain call raises.
    """
    target, bound = function, len(arguments)
    if type(target) is types.MethodType:
        target, bound = target.__func__, bound + 1
    if type(target) is types.FunctionType and not keywords:
        code = target.__code__
        least = code.co_argcount - len(target.__defaults__ or ())
        spread = code.co_flags & _SPREADING
        if not code.co_kwonlyargcount and least <= bound and (spread or bound <= code.co_argcount):
            return
    _check_slowly(function, arguments, dict(keywords))


def _check_slowly(
    function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    target: Any = function
    while isinstance(target, functools.partial):
        if any(one is _placeholder for one in target.args):
            return
        arguments = (*target.args, *arguments)
        keywords = {**target.keywords, **keywords}
        target = target.func
    call, first = _in_python(target)
    if call is None or "__signature__" in vars(call):
        return
    arguments = (*first, *arguments)
    try:
        inspect.signature(call, follow_wrapped=False).bind(*arguments, **keywords)
    except TypeError:
        call(*arguments, **keywords)  # raises before its body begins: in Python's words
        raise


_placeholder = getattr(functools, "Placeholder", object())  # from Python 3.14 on


def _in_python(target: Any) -> tuple[types.FunctionType | None, tuple[Any, ...]]:
    """Return the function of Python's that a call of `target` calls, and what goes before."""
    if type(target) is types.FunctionType:
        return target, ()
    if type(target) is types.MethodType:
        function, first = _in_python(target.__func__)
        return function, (target.__self__, *first)
    kind = type(target)
    if kind is type:
        if target.__new__ is object.__new__ and type(target.__init__) is types.FunctionType:
            return target.__init__, (None,)
        return None, ()
    called = getattr(kind, "__call__", None)  # noqa: B004 - what it is, not whether
    return (called, (target,)) if type(called) is types.FunctionType else (None, ())
