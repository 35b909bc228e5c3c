"""Readers of files that are native code, called by the user's own: no audit event tells of them.

`starts` has the calls in code that may call one of them looked at. Python tells of a call
what is called and its first argument; a method's first is its object. Then what the caller's
variables hold counts as given, and the text that the call's source puts together of them.

Invariant: nothing of the user's runs here, and nothing is raised.
"""

from __future__ import annotations

import ast
import linecache
import sys
from itertools import islice
from pathlib import PurePath
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from .readers import meet_given
from .recorder import READ, claimants

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

_READERS: Final[dict[str | None, frozenset[str]]] = {
    "pyarrow._csv": frozenset({"read_csv", "open_csv"}),
    "pyarrow._json": frozenset({"read_json", "open_json"}),
    "_duckdb": frozenset({"execute", "executemany"}),
    "duckdb": frozenset({"execute", "executemany"}),
}
"""By their module, which functions and methods read."""

_KINDS: Final = frozenset(
    {"cython_function_or_method", "nb_func", "nb_method", "nb_bound_method"}
    | {"builtin_function_or_method", "method_descriptor"}
)
_NAMES: Final = frozenset().union(*_READERS.values())
_LOOK_UP: Final = frozenset(
    {"getattr", "attrgetter", "methodcaller", "import_module", "__import__", "vars", "__dict__"}
)
_LIBRARIES: Final = ("pyarrow.csv", "pyarrow.json")


def may_read(code: CodeType, frame: Any) -> bool:
    """Tell whether code names a reader, or may look one up by a name that it makes."""
    names = code.co_names
    if not _NAMES.isdisjoint(names):
        return True
    if _LOOK_UP.isdisjoint(names):
        return False
    if any(name in sys.modules for name in _LIBRARIES):
        return True
    duckdb = sys.modules.get("duckdb")
    return duckdb is not None and any(one is duckdb for one in [*frame.f_globals.values()])


def called(code: CodeType, offset: int, function: Any, first: Any) -> None:
    """Take note of the files that a reader is given, which is about to be called."""
    if type(function).__name__ not in _KINDS:
        return
    readers = _READERS.get(getattr(function, "__module__", None))
    if readers is None or function.__name__ not in readers or not (found := claimants()):
        return
    if type(first) is str or issubclass(type(first), PurePath):
        meet_given(found, [first], READ)
        return
    frame = sys._getframe(1)  # noqa: SLF001 - there is no public word for it
    variables = {**frame.f_globals, **frame.f_locals}
    texts = [_text(node, variables) for node in _arguments(code, offset)]
    meet_given(found, [*frame.f_locals.values(), *texts], READ)


_calls: dict[tuple[int, int], tuple[CodeType, list[ast.expr]]] = {}
"""The arguments of calls, by the identity of their code, which is held, and their place in it."""


def _arguments(code: CodeType, offset: int) -> list[ast.expr]:
    """Return the arguments of a call as its source has them; none where there is no source."""
    known = _calls.get((id(code), offset))
    if known is None:
        known = _calls[id(code), offset] = code, list(_read(code, offset))
    return known[1]


def _read(code: CodeType, offset: int) -> Iterator[ast.expr]:
    first, last, start, end = next(islice(code.co_positions(), offset // 2, None))
    if first is None or last is None or start is None or end is None:
        return
    lines = [line.encode() for line in linecache.getlines(code.co_filename)[first - 1 : last]]
    if not lines:
        return
    lines[-1] = lines[-1][:end]
    try:
        call = ast.parse(b"".join(lines)[start:], mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return  # the file has been edited since
    if isinstance(call, ast.Call):
        yield from call.args
        yield from (keyword.value for keyword in call.keywords)


def _text(node: ast.expr, variables: dict[str, Any]) -> str:
    """Return the text that an expression puts together of constants and variables."""
    match node:
        case ast.JoinedStr():
            return "".join(_text(part, variables) for part in node.values)
        case ast.FormattedValue():
            return _text(node.value, variables)
        case ast.BinOp(op=ast.Add()):
            return _text(node.left, variables) + _text(node.right, variables)
    value = _value(node, variables)
    plain = type(value) in {str, int} or issubclass(type(value), PurePath)
    return str(value) if plain else ""


def _value(node: ast.expr, variables: dict[str, Any]) -> Any:
    """Return what an expression stands for, of which nothing is run; None for any other."""
    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return variables.get(node.id)
        case ast.Attribute():
            return _attributes(_value(node.value, variables)).get(node.attr)
        case ast.Subscript():
            owner, key = _value(node.value, variables), _value(node.slice, variables)
            if type(owner) is dict and type(key) in {str, int}:
                return owner.get(key)
            if type(owner) in {list, tuple} and type(key) is int:
                return owner[key] if -len(owner) <= key < len(owner) else None
    return None


def _attributes(owner: object) -> dict[str, Any]:
    """Return an object's own attributes, where looking at them runs nothing of its class."""
    if type(owner).__getattribute__ not in {object.__getattribute__, ModuleType.__getattribute__}:
        return {}
    try:
        found = object.__getattribute__(owner, "__dict__")
    except AttributeError:
        return {}
    return found if type(found) is dict else {}
