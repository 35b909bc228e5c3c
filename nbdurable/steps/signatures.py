"""A call's arguments against what the function takes, before anything starts.

Invariant: a call that is refused here is one that Python itself refuses, in its own
words; whatever Python may accept is let through.
"""

from __future__ import annotations

import functools
import inspect
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def check_arguments(
    function: Callable[..., Any], arguments: tuple[Any, ...], keywords: Mapping[str, Any]
) -> None:
    """Refuse arguments that don't fit the function's parameters.

    Looked at is what is written in Python, and what `functools.partial` or a method
    binds of it: for anything else the signature is not known for certain.

    Raises:
        TypeError: What the plain call raises.
    """
    target: Any = function
    if type(target) is not types.FunctionType:
        target, arguments, keywords = _called(target, arguments, keywords)
    if target is None or _fits(target, len(arguments), keywords):
        return
    try:
        inspect.signature(target, follow_wrapped=False).bind(*arguments, **keywords)
    except TypeError as error:
        refused = error
    else:
        return
    target(*arguments, **keywords)  # raises before its body begins: in Python's words
    raise refused


def _fits(function: types.FunctionType, count: int, keywords: Mapping[str, Any]) -> bool:
    """Tell whether so many arguments, and these named ones, are what a function takes."""
    code = function.__code__
    takes = code.co_argcount
    if count > takes and not code.co_flags & inspect.CO_VARARGS:
        return False
    required = takes - len(function.__defaults__ or ())
    if not keywords and not code.co_kwonlyargcount:
        return count >= required
    names = code.co_varnames
    named = names[code.co_posonlyargcount : takes + code.co_kwonlyargcount]
    given = names[code.co_posonlyargcount : max(count, code.co_posonlyargcount)]
    if not code.co_flags & inspect.CO_VARKEYWORDS and any(key not in named for key in keywords):
        return False
    if any(name in keywords for name in given[: max(takes - code.co_posonlyargcount, 0)]):
        return False
    if count < required:
        if count < min(code.co_posonlyargcount, required):
            return False
        if any(name not in keywords for name in names[count:required]):
            return False
    defaults = function.__kwdefaults__ or {}
    only = names[takes : takes + code.co_kwonlyargcount]
    return all(name in keywords or name in defaults for name in only)


_PLACEHOLDER: Any = getattr(functools, "Placeholder", None)
"""Stands in a partial, from Python 3.14 on, for an argument that comes later."""


def _called(
    target: Any, arguments: tuple[Any, ...], keywords: Mapping[str, Any]
) -> tuple[types.FunctionType | None, tuple[Any, ...], Mapping[str, Any]]:
    """Return the function of Python's that a call calls, and with what; None if there is none."""
    while isinstance(target, functools.partial):
        if _PLACEHOLDER is not None and any(one is _PLACEHOLDER for one in target.args):
            return None, arguments, keywords
        arguments = (*target.args, *arguments)
        keywords = {**target.keywords, **keywords}
        target = target.func
    while type(target) is types.MethodType:
        arguments = (target.__self__, *arguments)
        target = target.__func__
    if type(target) is types.FunctionType:
        return target, arguments, keywords
    kind = type(target)
    if kind is type:
        plain = target.__new__ is object.__new__ and type(target.__init__) is types.FunctionType
        return (target.__init__ if plain else None), (None, *arguments), keywords
    called = getattr(kind, "__call__", None)  # noqa: B004 - what it is, not whether
    if type(called) is types.FunctionType:
        return called, (target, *arguments), keywords
    return None, arguments, keywords
