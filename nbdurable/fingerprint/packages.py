"""Which installed packages a step's code uses, for a version of them that shall count.

Invariant: nothing is imported or executed; what a name stands for is looked up where the
code would find it. A package that only data reaches (an argument's class) is none of the
code's.
"""

from __future__ import annotations

import dis
import functools
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .places import Places


def packages_used(function: Any, places: Places) -> frozenset[str]:
    """Return the first names of the modules that a function uses, and what it calls of ours."""
    found: set[str] = set()
    seen: set[int] = set()
    stack: list[Any] = [function]
    while stack:
        one = stack.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, types.ModuleType):
            foreign = not places.module(one)
            module = one.__name__
        elif isinstance(one, types.FunctionType):
            foreign, module = not places.function(one), str(one.__module__)
        elif isinstance(one, type):
            foreign, module = not places.klass(one), one.__module__
        else:
            stack.append(_beneath(one))
            continue
        if foreign:
            found.add(module.partition(".")[0])
        elif isinstance(one, types.FunctionType):
            found.update(_imported(one.__code__))
            stack += _reached(one)
        elif isinstance(one, type):
            stack += [*vars(one).values(), *one.__mro__[1:]]
    return frozenset(found - {"builtins", "nbdurable", "__main__"})


def _beneath(one: Any) -> Any:
    """Return what a wrapper of a function calls; of anything else its type."""
    if isinstance(one, functools.partial):
        return one.func
    if isinstance(one, types.MethodType | staticmethod | classmethod):
        return one.__func__
    if isinstance(one, property):
        return one.fget
    if hasattr(type(one), "__nbdurable_step__"):
        return one.__wrapped__
    return type(one)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for one in code.co_consts:
        if isinstance(one, types.CodeType):
            yield from _codes(one)


def _imported(code: types.CodeType) -> Iterator[str]:
    """Yield the first names of what is imported inside a function."""
    for one in _codes(code):
        for instruction in dis.get_instructions(one):
            if instruction.opname == "IMPORT_NAME" and isinstance(instruction.argval, str):
                yield instruction.argval.partition(".")[0]


def _reached(function: types.FunctionType) -> Iterator[Any]:
    """Yield what a function wraps, and what its names, closure and defaults stand for."""
    if (wrapped := vars(function).get("__wrapped__")) is not None:
        yield wrapped
    for code in _codes(function.__code__):
        for name in code.co_names:
            if name in function.__globals__:
                yield function.__globals__[name]
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            continue  # it is not bound yet
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
